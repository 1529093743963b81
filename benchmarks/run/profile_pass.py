"""The profile of each case, if it is asked for: a trace of one warm query, in a fresh process.

Nothing is timed there, and the records do not depend on it. So a profile that fails is a warning.
"""

from ...harness.records.run import profile_file
from .run_context import RunContext
from .worker_pool import WorkerLost


def profile_case(run: RunContext, case: str) -> None:
    """Write the trace of a case, and on a GPU a snapshot of its memory; nothing if it is there."""
    trace = profile_file(run.folder, case, "trace")
    snapshot = profile_file(run.folder, case, "memory snapshot")
    if not trace.exists():
        run.steps.advance(0, f"profile of {case}")
        trace.parent.mkdir(exist_ok=True)
        with run.start_case(case) as worker:
            try:
                worker.trace(run.suite.plan.warmup, trace, snapshot)
            except WorkerLost as lost:
                run.manifest.warn(f"{case}: there is no profile of it: {lost.reason}")
    run.steps.advance(1, f"profile of {case}")
