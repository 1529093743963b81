"""CPU pinning: the core that a GPU's kernels are launched from.

One thread launches the kernels, and for seconds at a time the cores of one machine differ in speed
by up to half: another program works on a core's other hyperthread, or the hypervisor gives part of
it away. Two processes of one model on an H200, measured query by query in turn, differed by 12 to
21 % where they launched from two cores, whoever had chosen them (standard deviation of the log
ratio of a query), and by 7 to 11 % from one and the same. So all cases of a round launch from one
core, and those of the next round from another.
"""

import os
import random

from ...harness import nvml
from ...harness.environment import online_cores, usable_cores

LOAD_INTERVAL_S = 0.3  # a kernel counts processor time in hundredths of a second
IDLE_PERCENT = 10.0
NOT_PINNED = "its process could not be pinned to the core that the others of its round launch from"


class CoreRotation:
    """Chooses a core for each round among those of this machine."""

    def __init__(self) -> None:
        self._used: set[int] = set()

    def next_core(self) -> int | None:
        """Return an idle core at random, or the least busy one.

        None comes twice before every idle one had its turn.

        Returns:
            Its number; None without a GPU, or where threads cannot be pinned: anywhere but on
            Linux.
        """
        if not nvml.count() or not hasattr(os, "sched_setaffinity"):
            return None
        idle = _idle_cores()
        if not idle:
            return None
        if idle <= self._used:
            self._used.clear()
        core = random.choice(sorted(idle - self._used))
        self._used.add(core)
        return core


def pin(core: int | None, device: str) -> int | None:
    """Pin the calling thread to a core if it launches kernels on a GPU.

    On a CPU nothing is pinned: many threads compute.

    Threads that were started before keep all cores; those that this one starts later are pinned
    with it. So the libraries must have started theirs before.

    Returns:
        The core; None where the thread is not pinned.
    """
    if core is None or not device.startswith("cuda"):
        return None
    try:
        usable_cores()  # it counts the cores once; after pinning it would count only this one
        os.sched_setaffinity(0, {core})
    except OSError:  # the process may not use the core, or no longer
        return None
    return core


def _idle_cores() -> set[int]:
    """Return the usable cores that are idle just now; if none is, the least busy one."""
    import psutil

    loads = psutil.cpu_percent(LOAD_INTERVAL_S, percpu=True)
    load_of = dict(zip(online_cores(), loads, strict=False))
    usable = [core for core in usable_cores() if core in load_of]
    if not usable:
        return set()
    least_busy = min(usable, key=load_of.__getitem__)
    idle = {core for core in usable if load_of[core] <= IDLE_PERCENT}
    return idle | {least_busy}
