"""What this version of lisabench can do that an older one cannot.

Two versions of lisabench are measured together by the gate. It runs, for each, ``lisabench doctor
--json``, which prints this list, and uses only what both can do. The number after the slash changes
when versions with different numbers cannot work together.

A version that prints no list is from before there was one. It is taken to have none of these.
"""

from .run import lockstep

LOCKSTEP = lockstep.PROTOCOL
# Several pairs of runs in lockstep may build at the same time.
SHARED_MACHINE = lockstep.SHARED_MACHINE
# A run with `memory_processes: 0`. Older versions refuse that number.
RUN_WITHOUT_MEMORY_PASS = "run-without-memory-pass/1"


def capabilities() -> list[str]:
    """Return what this version can do."""
    able = [LOCKSTEP, RUN_WITHOUT_MEMORY_PASS]
    if lockstep.CAN_SHARE:
        able.append(SHARED_MACHINE)
    return able
