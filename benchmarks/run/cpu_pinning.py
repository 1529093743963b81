"""The core that a GPU is asked from.

Launching kernels is the work of one thread, and for seconds at a time the cores of one machine are unlike, by up to
half: something works on a core's other half, or the hypervisor gives part of it away. Two processes of one model on an
H200, query by query in turns, differed by 12 to 21 % where they were asked from two cores, whoever had chosen them
(standard deviation of the log ratio of a query), and by 7 to 11 % from one and the same. So all that take turns hold
their asking threads to one core, and in the next round to another.
"""

import os
import random

from ...harness import nvml
from ...harness.environment import online_cores, usable_cores

LOOK_S = 0.3  # a kernel counts processor time in hundredths of a second
IDLE_PERCENT = 10.0
FREE = "its thread could not be held to the core that the others of its round are asked from"


class Rota:
    """Whose turn it is among the cores of this machine."""

    def __init__(self) -> None:
        self._had: set[int] = set()

    def next_core(self) -> int | None:
        """One at random of those that hardly work just now, or else the one that works least; none twice before all.

        Returns:
            Its number; None where there is no GPU to be asked, or where threads cannot be held: anywhere but on Linux.
        """
        if nvml.handle() is None or not hasattr(os, "sched_setaffinity"):
            return None
        idle = _idle_cores()
        if not idle:
            return None
        if idle <= self._had:
            self._had.clear()
        core = random.choice(sorted(idle - self._had))
        self._had.add(core)
        return core


def hold(core: int | None, device: str) -> int | None:
    """Holds the calling thread to a core, if it asks a GPU; on a CPU it is one of many that compute.

    Threads that were begun before keep all cores; those that this one begins later are held with it. So first let the
    libraries begin theirs.

    Returns:
        The core; None where the thread stays free.
    """
    if core is None or not device.startswith("cuda"):
        return None
    try:
        usable_cores()  # all of them: they are counted once, and before a thread is held
        os.sched_setaffinity(0, {core})
    except OSError:  # it is not ours, or no longer
        return None
    return core


def _idle_cores() -> set[int]:
    import psutil

    percent = dict(zip(online_cores(), psutil.cpu_percent(LOOK_S, percpu=True), strict=False))
    ours = [core for core in usable_cores() if core in percent]
    least = min(ours, key=percent.__getitem__, default=None)
    return {core for core in ours if core == least or percent[core] <= IDLE_PERCENT}
