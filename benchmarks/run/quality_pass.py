"""The quality pass: every query once for each case, in batches, without timing it.

A case has several processes side by side: one on each visible GPU, or two on a CPU. The batches are
cut by position and are the same for any number of processes, and each process takes the next one
when it is done. So the answers are the same, too; only the order of the lines may differ.

If a process is lost (it crashed, hung, or was killed), each query of its batch is evaluated again
alone, so that one bad query costs only itself. A process that is lost more than `MOST_LOST` times
is given up: what is left for it is recorded as failed for the same reason, since every hang costs a
whole time limit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait

from ...harness import nvml
from ...harness.environment import usable_cores, visible_gpus
from ...harness.records.query import QueryRecord
from ..resolved_suite import ResolvedSuite
from ..suite import AUTO
from .manifest import CaseNotes
from .run_context import MEMORY_SHARE, RunContext
from .worker import Gpu
from .worker_messages import Line
from .worker_pool import CaseProcess, DataProcess, WorkerLost

# Processes of a case on a CPU, side by side. A second thread made the tiny models 1.4 times as
# fast; a second process has a core to itself.
PROCESSES_ON_CPU = 2
MOST_LOST = 5


def evaluate_case(run: RunContext, data: DataProcess, case: str) -> None:
    """Evaluate the missing batches of a case. A case with random weights has no quality."""
    label = f"quality of {case}"
    missing = run.journal.missing_batches(case)
    missing_queries = sum(len(batch) for batch in missing)
    run.steps.skip(run.queries.scored - missing_queries, label)
    if not missing:
        return
    if not run.manifest.may_have_quality(case) or run.manifest.does_not_fit(case):
        run.steps.skip(missing_queries, label)
        return

    gpus = gpus_of_processes(run, case)[: len(missing)]
    threads = threads_of_process(run, case, len(gpus))
    with ExitStack() as stack:
        evaluators = []
        for gpu in gpus:
            start = partial(run.start_case, case, kept_masks=run.masks_of_quality, gpu=gpu)
            evaluator = Evaluator(start, data, run.manifest.notes(case), threads)
            evaluators.append(stack.enter_context(evaluator))
        # All of them at the same time: a large model takes minutes.
        for evaluator in evaluators:
            evaluator.begin_build()
        for evaluator in evaluators:
            evaluator.finish_build()
        # Only the build may have shown that the weights are random.
        if not run.manifest.may_have_quality(case):
            run.steps.skip(missing_queries, label)
            return
        for batch, lines in side_by_side(evaluators, missing):
            run.journal.add_quality(_records(run, case, batch, lines))
            run.steps.advance(len(batch), label)


def _records(
    run: RunContext, case: str, batch: Sequence[int], lines: Sequence[Line]
) -> list[QueryRecord]:
    # Whichever process it was: no two lines are of the same query.
    place = run.place(case, process=0)
    records = []
    for position, line in zip(batch, lines, strict=True):
        records.append(QueryRecord.from_json(place | {"position": position} | line))
    return records


def gpus_of_processes(run: RunContext, case: str) -> list[Gpu | None]:
    """Return the GPU of each process that evaluates a case.

    None is for a process that is left the GPUs of its session, and for one on a CPU.
    """
    asked = run.quality_processes or run.suite.plan.quality_processes
    environment = run.manifest.environment
    if _is_on_gpu(run, case):
        gpus = _usable_gpus(run)
        processes = len(gpus) if asked == AUTO else asked
        return [gpus[number % len(gpus)] for number in range(processes)]
    if asked != AUTO:
        return [None] * asked
    processes = min(PROCESSES_ON_CPU, len(usable_cores()))
    needed_bytes, _ = run.journal.memory_needed([case])
    memory_bytes = environment.get("memory_bytes")
    if memory_bytes is not None and processes * needed_bytes > MEMORY_SHARE * memory_bytes:
        processes = 1
    if needed_bytes == 0 and run.suite.case(case).role == "model":
        processes = 1  # no memory pass has measured whether two fit
    return [None] * processes


def _is_on_gpu(run: RunContext, case: str) -> bool:
    """Return whether a case is on a GPU: by its device, or by what the memory pass has found."""
    names_gpu = run.suite.case(case).device != "cpu"
    _, was_on_gpu = run.journal.memory_needed([case])
    return was_on_gpu or (names_gpu and run.manifest.environment.get("device") == "cuda")


def threads_of_process(run: RunContext, case: str, processes: int) -> int | None:
    """Return how many threads each process of a case may compute with; None: all.

    On a CPU the last bits of an answer depend on it, since sums are split between threads. So it
    does not depend on the number of processes there.
    """
    cores = len(usable_cores())
    if _is_on_gpu(run, case):
        return None if processes == 1 else max(1, cores // processes)
    asked = run.suite.plan.quality_threads
    return max(1, cores // PROCESSES_ON_CPU) if asked == AUTO else asked


def most_processes(suite: ResolvedSuite) -> int:
    """Return how many processes of a case the quality pass has side by side, at most."""
    asked = suite.plan.quality_processes
    return max(PROCESSES_ON_CPU, len(visible_gpus())) if asked == AUTO else asked


def _usable_gpus(run: RunContext) -> list[Gpu | None]:
    """Return the GPUs that processes are spread over; None alone where there is no choice.

    GPUs of several kinds are not mixed: the last bits of an answer depend on the kind.
    """
    gpus = visible_gpus()
    if run.pool.gpu is not None or len(gpus) < 2 or len(nvml.names()) > 1:
        return [None]
    return [(f"cuda:{number}", gpu) for number, gpu in enumerate(gpus)]


class Evaluator:
    """Evaluates batches of one case in one process, whatever happens to it.

    A context manager: leaving it ends the process.

    Args:
        start: starts a process of the case.
        data: the process without a model, which describes the queries that a lost process leaves.
        notes: takes what becomes known of the case when it is built.
        threads: how many the process may compute with; None leaves it as it is.
    """

    def __init__(
        self,
        start: Callable[[], CaseProcess],
        data: DataProcess,
        notes: CaseNotes,
        threads: int | None = None,
    ) -> None:
        self._start, self._data, self._notes, self._threads = start, data, notes, threads
        self._process: CaseProcess | None = None
        self._ending = ExitStack()  # ends the process
        self._has_begun = False
        self._lost_processes = 0
        self._given_up: WorkerLost | None = None

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exc: object) -> None:
        self._end_process()

    @property
    def working(self) -> CaseProcess | None:
        """The process that has begun a batch; None where `finish` need not wait for one."""
        return self._process if self._has_begun else None

    def build(self) -> None:
        """Start a process and build the case in it. A case that cannot be built is given up."""
        self.begin_build()
        self.finish_build()

    def begin_build(self) -> None:
        """Start a process and let it build the case, without waiting."""
        self._process = self._ending.enter_context(self._start())
        try:
            self._process.begin_untimed_build(self._threads)
        except WorkerLost as lost:
            self._give_up_build(lost)

    def finish_build(self) -> None:
        """Wait for the build that was begun."""
        if self._process is None:
            return
        try:
            self._notes.built(self._process.finish_build())
        except WorkerLost as lost:
            self._give_up_build(lost)

    def _give_up_build(self, lost: WorkerLost) -> None:
        self._end_process()
        self._given_up = lost
        # Not that it does not fit: other processes of the pass may have had the memory.
        self._notes.failed(f"build: {lost.reason}", out_of_memory=False)

    def begin(self, positions: Sequence[int]) -> None:
        """Hand a batch to the process without waiting: another process can work meanwhile."""
        if self._process is not None and self._given_up is None:
            try:
                self._process.begin_evaluation(positions)
                self._has_begun = True
            except WorkerLost as lost:
                self._lose_process(lost)

    def finish(self, positions: Sequence[int]) -> list[Line]:
        """Return a line for each query of the batch that was begun, in order."""
        if not self._has_begun or self._process is None:
            return self.evaluate(positions)
        self._has_begun = False
        try:
            return self._process.finish_evaluation()
        except WorkerLost as lost:
            self._lose_process(lost)
            return self._evaluate_alone(positions, lost)

    def evaluate(self, positions: Sequence[int]) -> list[Line]:
        """Evaluate some queries as one batch; return a line for each of them, in order."""
        if self._process is None and self._given_up is None:
            self.build()
        if self._given_up is not None:
            return self._data.unanswered_scored(positions, self._given_up)
        assert self._process is not None  # `build` has started one, or the case is given up
        try:
            return self._process.evaluate(positions)
        except WorkerLost as lost:
            self._lose_process(lost)
            return self._evaluate_alone(positions, lost)

    def _evaluate_alone(self, positions: Sequence[int], lost: WorkerLost) -> list[Line]:
        """Evaluate each query of a lost batch alone; one that was alone already has failed."""
        if len(positions) == 1 or self._given_up:
            return self._data.unanswered_scored(positions, lost)
        lines = []
        for position in positions:
            lines += self.evaluate([position])
        return lines

    def _lose_process(self, lost: WorkerLost) -> None:
        self._end_process()
        self._lost_processes += 1
        if self._lost_processes > MOST_LOST:
            self._given_up = lost

    def _end_process(self) -> None:
        self._ending.close()
        self._process, self._has_begun = None, False


def side_by_side(
    evaluators: Sequence[Evaluator], batches: Sequence[range]
) -> Iterator[tuple[range, list[Line]]]:
    """Evaluate batches in several processes; yield each with its lines, in the order they end.

    A process gets the next batch as soon as it is done with one, before its lines are yielded. So
    none waits for a slower one, or for the journal.
    """
    waiting = iter(batches)
    begun: dict[Evaluator, range] = {}
    for evaluator in evaluators:
        _begin_next(evaluator, waiting, begun)
    while begun:
        evaluator = _first_done(begun)
        batch = begun.pop(evaluator)
        lines = evaluator.finish(batch)
        _begin_next(evaluator, waiting, begun)
        yield batch, lines


def _begin_next(
    evaluator: Evaluator, waiting: Iterator[range], begun: dict[Evaluator, range]
) -> None:
    batch = next(waiting, None)
    if batch is not None:
        evaluator.begin(batch)
        begun[evaluator] = batch


def _first_done(begun: dict[Evaluator, range]) -> Evaluator:
    """Return an evaluator that is done with its batch, or the one that has had it longest.

    The latter is returned after the time limit of its process, which `finish` then ends.
    """
    evaluator_of = {}
    for evaluator in begun:
        process = evaluator.working
        if process is None:
            return evaluator
        evaluator_of[process.answers] = evaluator
    oldest = next(iter(begun))
    assert oldest.working is not None  # an evaluator without a process was returned above
    ready = wait(list(evaluator_of), oldest.working.time_limit_s)
    return evaluator_of[ready[0]] if ready else oldest
