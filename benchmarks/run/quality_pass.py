"""The quality pass: every query once for each case, in batches, without timing it."""

from contextlib import ExitStack
from functools import partial

from ...harness.environment import usable_cores
from ...harness.records.query import QueryRecord
from .evaluator import Evaluator
from .run_context import MEMORY_SHARE, RunContext
from .worker_pool import DataProcess

# Processes of a case on a CPU, side by side. A second thread made the tiny models 1.4 times as
# fast; a second process has a core to itself.
PROCESSES_ON_CPU = 2


def evaluate_case(run: RunContext, data: DataProcess, case: str) -> None:
    """Evaluate the missing batches of a case. A case with random weights has no quality."""
    label = f"quality of {case}"
    missing = run.journal.missing_batches(case)
    missing_queries = sum(len(batch) for batch in missing)
    run.steps.skip(run.queries.scored - missing_queries, label)
    if not missing:
        return
    if not run.manifest.may_have_quality(case):
        run.steps.skip(missing_queries, label)
        return

    processes = _processes(run, case) if len(missing) > 1 else 1
    threads = None if processes == 1 else max(1, len(usable_cores()) // processes)
    with ExitStack() as stack:
        evaluators = []
        for _ in range(processes):
            start = partial(run.start_case, case, kept_masks=run.masks_of_quality)
            evaluator = Evaluator(start, data, run.manifest.notes(case), threads)
            evaluators.append(stack.enter_context(evaluator))
            evaluator.build()
        for first in range(0, len(missing), processes):
            batches = missing[first : first + processes]
            # Only the build may have shown that the weights are random.
            if run.manifest.may_have_quality(case):
                _evaluate_side_by_side(run, case, evaluators, batches)
            run.steps.advance(sum(len(batch) for batch in batches), label)


def _evaluate_side_by_side(
    run: RunContext, case: str, evaluators: list[Evaluator], batches: list[range]
) -> None:
    """Evaluate batches at the same time, one in each process; write their lines in order."""
    pairs = list(zip(evaluators, batches, strict=False))  # the last batches may be fewer
    for evaluator, batch in pairs:
        evaluator.begin(batch)
    place = run.place(case, process=0)
    for evaluator, batch in pairs:
        records = []
        for position, line in zip(batch, evaluator.finish(batch), strict=True):
            records.append(QueryRecord.from_json(place | {"position": position} | line))
        run.journal.add_quality(records)


def _processes(run: RunContext, case: str) -> int:
    """Return how many processes evaluate a case: one on a GPU, several on a CPU if they fit."""
    environment = run.manifest.environment
    device = run.suite.case(case).device
    if device != "cpu" and environment.get("device") == "cuda":
        return 1
    needed_bytes, of_gpu = run.journal.memory_needed([case])
    if of_gpu:
        return 1
    processes = min(PROCESSES_ON_CPU, len(usable_cores()))
    memory_bytes = environment.get("memory_bytes")
    if memory_bytes is not None and processes * needed_bytes > MEMORY_SHARE * memory_bytes:
        return 1
    return processes
