"""What a case has fresh processes for: the memory pass, whether it fits a card, and its profile.

Peaks are measured apart from times, since reading a peak waits for the GPU. Each process is fresh:
what a process has allocated before would count for it. The first process of a case has the machine
to itself. On a GPU the later ones of all cases run at the same time if they fit: PyTorch's
allocator and the driver count each process by itself.

The profile, if it is asked for, is a trace of one warm query. Nothing is timed there, and the
records do not depend on it. So a profile that fails is a warning.
"""

from collections.abc import Sequence
from contextlib import ExitStack, suppress

from ...harness.errors import UsageError
from ...harness.memory import largest
from ...harness.records.run import FitRecord, MemoryRecord, PassRecord, profile_file
from ...reports.cards import Unlimited, fits_by_peak, why_not_imitated
from ...reports.peaks import BUILD, taken_by_case
from . import schedule
from .run_context import RunContext
from .timed_rounds import why_not_side_by_side
from .worker_messages import Line, MeasuredMemory
from .worker_pool import WorkerLost


def measure_memory(run: RunContext, process: int, case: str) -> None:
    """Measure the peak memory of a case in one fresh process; nothing if it is measured already."""
    what = f"memory of {case}, process {process + 1} of {run.suite.plan.memory_processes}"
    if run.journal.has_memory(process, case) or run.manifest.does_not_fit(case):
        run.steps.skip(1, what)
        return
    run.steps.advance(0, what)
    profiled = []
    with run.start_case(case, process) as worker:
        try:
            worker.begin_memory(_queries_of_a_process(run, case))
            memory = worker.finish_memory()
        except WorkerLost as lost:
            memory = _broken(lost)
        # The GPU's time at work is measured in the same process: the model is built already.
        if process == 0 and run.suite.plan.beside and memory.error is None:
            # If it fails, the memory is measured all the same; the report leaves the profile out.
            with suppress(WorkerLost):
                profiled = worker.profile()
    _record(run, process, case, memory, profiled)


def measure_memory_again(run: RunContext, process: int) -> None:
    """Measure the peak memory of all cases in a further fresh process each.

    They run at the same time where that changes none of the numbers.
    """
    missing = []
    for model in run.suite.models:
        is_there = run.journal.has_memory(process, model.name)
        if not is_there and not run.manifest.does_not_fit(model.name):
            missing.append(model.name)
    if not may_run_at_once(run, missing):
        for model in run.suite.models:
            measure_memory(run, process, model.name)
        return
    processes = f"process {process + 1} of {run.suite.plan.memory_processes}"
    run.steps.advance(0, f"memory of {len(missing)} cases at once, {processes}")
    measured = {}
    with ExitStack() as stack:
        workers = {}
        for case in missing:
            worker = stack.enter_context(run.start_case(case, process))
            try:
                worker.begin_memory(_queries_of_a_process(run, case))
                workers[case] = worker
            except WorkerLost as lost:
                measured[case] = _broken(lost)
        for case, worker in workers.items():
            try:
                measured[case] = worker.finish_memory()
            except WorkerLost as lost:
                measured[case] = _broken(lost)
    for case, memory in measured.items():
        _record(run, process, case, memory, profiled=[])
    already = len(run.suite.models) - len(missing)
    run.steps.skip(already, f"memory, {processes}")


def may_run_at_once(run: RunContext, cases: Sequence[str]) -> bool:
    """Return whether the memory of cases is the same if their processes run at the same time.

    The driver must tell the processes apart, which it does not in every container, and the GPU
    must hold them all. The first process of each case has shown both.
    """
    if len(cases) < 2 or why_not_side_by_side(run, cases) is not None:
        return False
    for case in cases:
        by_driver = [record.device_process_bytes for record in run.journal.memory_of(case)]
        if largest(by_driver) is None:
            return False
    return True


def _broken(lost: WorkerLost) -> MeasuredMemory:
    """Return the memory pass of a process that broke."""
    return MeasuredMemory(error=lost.reason, out_of_memory=lost.failure.status == "oom")


def _record(
    run: RunContext, process: int, case: str, memory: MeasuredMemory, profiled: Sequence[Line]
) -> None:
    """Record the memory pass of a process, and the profile that it made."""
    notes = run.manifest.notes(case, process)
    notes.measured_memory(memory)
    if memory.built is not None and run.suite.plan.processes == 0:
        notes.built(memory.built)  # no timed round will note how it was built
    place = run.place(case, process)
    # Before the memory lines, which make the pass complete; see `Journal.add_passes`.
    run.journal.add_passes([PassRecord.from_json(place | line) for line in profiled])
    run.journal.add_memory([MemoryRecord.from_json(place | line) for line in memory.lines])
    what = f"memory of {case}, process {process + 1} of {run.suite.plan.memory_processes}"
    run.steps.advance(1, what)


def needs_turn(run: RunContext, case: str) -> bool:
    """Return whether what another session does would disturb the memory pass of a case.

    PyTorch's allocator counts what its own process asks for, whatever others do. The resident set,
    on a CPU, has pages that the system may take away, and the GPU's time at work is shared.
    """
    device = run.suite.case(case).device
    if device == "auto":
        device = str(run.manifest.environment.get("device"))
    return not device.startswith("cuda") or run.suite.plan.beside


def try_fit(run: RunContext, case: str, card: str) -> None:
    """Try whether a case fits a card, unless the peak of its memory pass decides.

    That it does not fit is a result of the run, and no failure.
    """
    what = f"{case} on a card of {card}"
    process = _without_limit(run, case)
    if run.journal.has_fit(case, card) or fits_by_peak(process, card) is not None:
        run.steps.skip(1, what)
        return
    run.steps.advance(0, what)
    why_not = why_not_imitated(process.gpu_bytes, card)
    if why_not is None:
        fit = _try_in_a_process(run, case, card)
    else:
        fit = {"status": "skipped", "reason": why_not}
    place = {"case": case, "card": card, "attempt": run.manifest.attempt}
    run.journal.add_fit(FitRecord.from_json(place | fit))
    run.steps.advance(1, what)


def _without_limit(run: RunContext, case: str) -> Unlimited:
    """Return what the memory pass tells of a case, if its processes had no limit of memory."""
    memory = run.journal.memory_of(case)
    if run.suite.plan.gpu_memory:
        memory = []
    return Unlimited(
        taken_by_case(memory),
        run.manifest.does_not_fit(case) and not run.suite.plan.gpu_memory,
        run.manifest.environment.get("gpu_memory_bytes"),
    )


def _try_in_a_process(run: RunContext, case: str, card: str) -> Line:
    """Return what a fresh process of a case tells that is limited to a card."""
    # All that is outside of the allocator by the end counts. Most of it is there only then.
    built = [record for record in run.journal.memory_of(case) if record.stage == BUILD]
    outside_bytes = largest(record.outside_allocator_bytes for record in built) or 0
    with run.start_case(case, gpu_memory=card) as worker:
        try:
            return worker.try_fit(_queries_of_a_process(run, case), outside_bytes)
        except (WorkerLost, UsageError) as error:
            # The process broke, or this machine cannot imitate the card.
            return {"status": "error", "reason": str(error)}


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


def _queries_of_a_process(run: RunContext, case: str) -> int:
    """Return how many queries a process evaluates: those of the plan, in whole batches."""
    queries, batch = run.suite.plan.memory_queries, run.manifest.batch_of(case) or 1
    if queries == "all":
        queries = run.queries.count
    return schedule.in_whole_batches(queries, batch, run.queries.count)
