"""The core that queries in turns are asked from.

Launching kernels is the work of one thread, and for seconds at a time the cores of one machine are unlike, by up to
half: something works on a core's other half, or the hypervisor gives part of it away. Two processes of one model on an
H200, query by query in turns, differed by 18 to 21 % from unlike cores (standard deviation of the log ratio of a
query), and by 7 to 10 % from one and the same. So all that take turns hold their asking threads to one core, and in
the next round to another.
"""

import os
import random

from ..harness import nvml
from ..harness.environment import usable_cores

LOOK_S = 0.3  # a kernel counts processor time in hundredths of a second
IDLE_PERCENT = 10.0


def chosen() -> int | None:
    """One of the cores that hardly work, at random, or the one that works least.

    Returns:
        Its number; None where there is no GPU to be asked, or where threads cannot be held.
    """
    import psutil

    if nvml.handle() is None or not hasattr(os, "sched_setaffinity"):
        return None
    busy_percent = dict(enumerate(psutil.cpu_percent(LOOK_S, percpu=True)))
    usable = [core for core in usable_cores() if core in busy_percent]
    idle = [core for core in usable if busy_percent[core] <= IDLE_PERCENT]
    return random.choice(idle) if idle else min(usable, key=busy_percent.__getitem__, default=None)


def hold(core: int | None, device: str) -> int | None:
    """Holds the calling thread to a core, if it asks a GPU; on a CPU it is one of many that compute.

    Threads that were begun before keep all cores.

    Returns:
        The core; None where the thread stays free.
    """
    if core is None or not device.startswith("cuda") or core not in usable_cores():
        return None
    os.sched_setaffinity(0, {core})
    return core
