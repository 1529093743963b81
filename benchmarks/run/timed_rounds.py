"""The timed rounds: every case has a fresh process, and the cases take turns block by block.

Whatever drifts on the machine then drifts for all of them. Only one process works at a time.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ...harness.records.query import QueryRecord
from ...harness.records.run import PassRecord
from . import schedule
from .manifest import CaseNotes
from .run_context import MEMORY_SHARE, RunContext
from .worker_messages import Line
from .worker_pool import CaseProcess, DataProcess, WorkerLost

# Of a process, or one batch. Both passes come before the timed queries.
SYNCHRONISED_QUERIES = 4
ENERGY_QUERIES = 12  # evaluated again and again


def measure_round(run: RunContext, data: DataProcess, process: int, cases: Sequence[str]) -> None:
    """Measure a round, one fresh process of each case; nothing if all of its lines are there.

    Cases that do not fit side by side are measured one after the other, each with all of its
    queries.
    """
    if run.journal.has_round(process, cases):
        run.steps.skip(run.queries.timed * len(cases), "already measured")
        return
    # Beside another session, that session's load would be found. It looks for itself between
    # rounds.
    if run.lockstep.alone:
        for warning in data.warn_of_other_load(run.suite.devices):
            run.manifest.warn(warning)
    core = run.lockstep.next_core()
    if run.lockstep.alone:  # the other session waits for each case that it measures itself
        cases = _record_those_that_do_not_fit(run, data, process, cases)
    if not cases:
        return
    obstacle = why_not_side_by_side(run, cases)
    if obstacle is None:
        _measure_in_turn(run, data, process, cases, core)
        return
    run.manifest.warn(
        f"{', '.join(cases)} {obstacle}: they alternate as fresh processes, not block by block, "
        "and their ratios are less sure"
    )
    for case in schedule.turns(cases, process, block=0):
        _measure_in_turn(run, data, process, (case,), core)


def _record_those_that_do_not_fit(
    run: RunContext, data: DataProcess, process: int, cases: Sequence[str]
) -> list[str]:
    """Record the queries of cases that ran out of memory in the memory pass; return the others.

    They are not built again: side by side with others they would take the memory of those.
    """
    others = []
    for case in cases:
        if not run.manifest.does_not_fit(case):
            others.append(case)
            continue
        positions = range(run.queries.timed)
        lost = WorkerLost("oom", run.manifest.why_it_failed(case))
        place = run.place(case, process) | {"block": 0}
        records = []
        for position, line in enumerate(data.unanswered_timed(positions, lost)):
            records.append(QueryRecord.from_json(place | {"position": position} | line))
        run.journal.add_queries(records)
        run.steps.skip(len(positions), f"{_round(run, process)}: {case} does not fit")
    return others


def why_not_side_by_side(run: RunContext, cases: Sequence[str]) -> str | None:
    """Return why cases cannot be side by side, as the end of a sentence; None if they can.

    It goes by what the memory pass has found. A machine whose size is unknown is taken to be
    large enough.
    """
    if len(cases) == 1:
        return None
    if run.suite.plan.gpu_memory:
        # What lies outside PyTorch's allocator is measured on the whole GPU: a second process would
        # be counted as part of the first.
        return f"have a card of {run.suite.plan.gpu_memory} each"
    needed_bytes, of_gpu = run.journal.memory_needed(cases)
    if not run.lockstep.alone:
        needed_bytes *= 2  # the cases of the other session are in memory too
    memory_bytes = run.manifest.environment.get("gpu_memory_bytes" if of_gpu else "memory_bytes")
    if memory_bytes is None or needed_bytes <= MEMORY_SHARE * memory_bytes:
        return None
    needed_gib, memory_gib = needed_bytes / 2**30, memory_bytes / 2**30
    return f"do not fit side by side ({needed_gib:.1f} of {memory_gib:.1f} GiB)"


def _measure_in_turn(
    run: RunContext, data: DataProcess, process: int, cases: Sequence[str], core: int | None
) -> None:
    """Build the cases at the same time, then measure them in turn."""
    with ExitStack() as stack:
        timed_cases = {}
        for case in cases:
            kept_masks = run.masks_of_round(process)
            worker = stack.enter_context(run.start_case(case, process, kept_masks=kept_masks))
            notes = run.manifest.notes(case, process)
            timed_cases[case] = TimedCase(worker, data, notes)
        for case, timed_case in timed_cases.items():
            run.steps.advance(0, f"{_round(run, process)}: building and warming up {case}")
            timed_case.await_build()
        with run.lockstep.round():
            _measure_turns(run, process, timed_cases, core)


def _measure_turns(
    run: RunContext, process: int, timed_cases: dict[str, "TimedCase"], core: int | None
) -> None:
    """Warm up the cases; then measure synchronised queries, energy and timed queries in turn."""
    for case, timed_case in timed_cases.items():
        with run.lockstep.turn():
            is_model = run.suite.case(case).role == "model"
            timed_case.warm_up(run.suite.plan.warmup if is_model else 0, core)

    names, block_size = list(timed_cases), run.suite.plan.block
    batch_of = {name: run.manifest.batch_of(name) or 1 for name in names}
    # Of every case the same queries, in whole batches. They come first, since the last timed query
    # of a round makes it complete; see `Journal.add_passes`.
    common_batch = math.lcm(*batch_of.values())
    queries = schedule.in_whole_batches(SYNCHRONISED_QUERIES, common_batch, run.queries.timed)
    for _, positions, case in schedule.blocks_in_turn(names, process, block_size, queries):
        with run.lockstep.turn():
            place = run.place(case, process)
            lines = timed_cases[case].measure_synchronised(positions)
            run.journal.add_passes([PassRecord.from_json(place | line) for line in lines])

    _measure_energy(run, process, timed_cases)
    for block, positions, case in schedule.blocks_in_turn(
        names, process, block_size, run.queries.timed
    ):
        with run.lockstep.turn():
            place = run.place(case, process) | {"block": block}
            if batch_of[case] > 1:
                place["batch"] = batch_of[case]
            measured = timed_cases[case].measure_block(positions)
            records = []
            for position, line in zip(positions, measured, strict=True):
                records.append(QueryRecord.from_json(place | {"position": position} | line))
            run.journal.add_queries(records)
            run.steps.advance(len(positions), f"{_round(run, process)}: {case}")


def _measure_energy(run: RunContext, process: int, timed_cases: dict[str, "TimedCase"]) -> None:
    """Measure the energy of a query of each case, one after the other."""
    # For throughput, a block is long enough for the counter, and its waits are part of it.
    if run.manifest.measures_throughput:
        return
    positions = range(min(ENERGY_QUERIES, run.queries.timed))
    for case in schedule.turns(list(timed_cases), process, block=0):
        with run.lockstep.turn():
            place = run.place(case, process)
            lines = timed_cases[case].measure_energy(positions)
            run.journal.add_passes([PassRecord.from_json(place | line) for line in lines])


def _round(run: RunContext, process: int) -> str:
    return f"round {process + 1} of {run.suite.plan.processes}"


class TimedCase:
    """A case in a timed round: built and warmed up once, then measured block by block.

    Returns a line for every query, also if the process is lost.

    The line then says why there is no answer.

    Args:
        process: of the case. It begins to build at once; other cases may build at the same time.
        data: the process without a model, which describes the queries that a lost process leaves.
        notes: takes what becomes known of the case.
    """

    def __init__(self, process: CaseProcess, data: DataProcess, notes: CaseNotes) -> None:
        self._process, self._data, self._notes = process, data, notes
        self._lost: WorkerLost | None = None
        try:
            process.begin_build()
        except WorkerLost as lost:
            self._fail_build(lost)

    def await_build(self) -> None:
        """Wait until the case is built."""
        if self._lost is None:
            try:
                self._notes.built(self._process.finish_build())
            except WorkerLost as lost:
                self._fail_build(lost)

    def warm_up(self, at_most: int, core: int | None) -> None:
        """Bring the case to speed, then pin its process to a core.

        No other process may work meanwhile.

        Args:
            at_most: how many batches to warm up with.
            core: the core to launch GPU kernels from; None: any.
        """
        if self._lost is None:
            try:
                self._notes.warmed_up(self._process.warm_up(at_most, core))
            except WorkerLost as lost:
                self._fail_build(lost)

    def measure_synchronised(self, positions: Sequence[int]) -> list[Line]:
        """Return lines of synchronised queries; none on a CPU, or if the process is lost."""
        return self._measure(self._process.measure_synchronised, positions)

    def measure_energy(self, positions: Sequence[int]) -> list[Line]:
        """Return a line of the energy of a query; none without a counter, or if it is lost."""
        return self._measure(self._process.measure_energy, positions)

    def measure_block(self, positions: Sequence[int]) -> list[Line]:
        """Return one line per position, in order."""
        lines = self._measure(self._process.measure_block, positions)
        if self._lost is None:
            return lines
        return self._data.unanswered_timed(positions, self._lost)

    def _measure(
        self, method: Callable[[Sequence[int]], list[Line]], positions: Sequence[int]
    ) -> list[Line]:
        if self._lost is None:
            try:
                return method(positions)
            except WorkerLost as lost:
                self._lost = lost
        return []

    def _fail_build(self, lost: WorkerLost) -> None:
        self._lost = lost
        self._notes.failed(f"build: {lost.reason}", lost.failure.status == "oom")
