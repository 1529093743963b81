"""Which pairs of ``run --against`` measure memory: the first two, and the others only where those leave a doubt.

A memory pass builds its case once more, in a process of its own. What PyTorch's allocator held at most was the same to
the byte in all processes of a case in the runs under ``reports/published`` that have several: where two a side, the
fewest that give an interval, say so again, further ones only take time. A resident set moves from process to process.

Where several cases take turns, whether they fit side by side is known from the memory pass, and every pair has one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..harness.errors import UsageError
from ..harness.memory import CudaMeter
from ..harness.records.run import Run
from ..reports.baseline import reduced
from .run import as_arguments
from .versions import Version

ENOUGH = 2
MEMORY = "plan.memory_processes"


def memory_is_known(
    versions: Sequence[tuple[Version, str]], parts: Mapping[str, Sequence[Run]], changes: Mapping[str, Any]
) -> bool:
    """Whether the pairs to come need no memory pass, of either side: times would differ by what one alone had done.

    Args:
        versions: each with its suite.
        parts: by side, the processes that were measured so far.
        changes: what else is changed of the suites.
    """
    if not settled(parts.values()):
        return False
    return all(can_leave_out(version, suite, changes) for version, suite in versions)


def settled(sides: Iterable[Sequence[Run]]) -> bool:
    """Whether each side's processes, as far as they were measured, have one case with one peak by the allocator."""
    return all(_agree(side) for side in sides)


def _agree(side: Sequence[Run]) -> bool:
    cases = [case for run in side for case in reduced(run).cases]
    found = {(case.name, *case.peak_bytes, *case.query_peak_bytes) for case in cases}
    return len(found) == 1 and all(case.instrument == CudaMeter.instrument for case in cases)


def can_leave_out(version: Version, suite: str, changes: Mapping[str, Any]) -> bool:
    """Whether a version runs without a memory pass, which older ones refuse.

    It is asked for one together with a number of processes that every version refuses, so that nothing is measured.
    """
    done = version.run("run", suite, *as_arguments({**changes, "plan.processes": 0, MEMORY: 0}))
    return done.returncode == UsageError.exit_code and "memory_processes" not in done.stderr
