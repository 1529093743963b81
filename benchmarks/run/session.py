"""A session: one suite, measured into one folder.

The order is: trainings, memory pass, fits, roofline, quality pass, profiles, timed rounds. The
trainings are first, since they take longest and fail most easily. The memory pass comes before what
runs cases side by side, which needs to know their sizes. Another session that runs at the same time
takes turns with it in all of that (see `lockstep`). Both do at the same time what the other cannot
disturb: building, and the memory pass on a GPU, where PyTorch's allocator counts for its process.

Everything is written down block by block. A session that was killed is resumed by measuring the
batches and rounds that are missing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...harness.environment import SAME_TO_RESUME
from ...harness.records.folder import before_writing, undone_if_refused
from ...harness.records.journal import create, holds_run, writing
from ...harness.records.manifest import SuiteTraining
from ...harness.records.run import GALLERY, MEMORY, SAMPLES, read_run
from ...models import registry
from ..progress import Progress
from ..queries import Queries
from ..resolved_suite import ResolvedSuite
from ..suite import AUTO
from ..training import in_suites
from . import batch_search, memory_pass, quality_pass, shards, timed_rounds
from .journal import Journal
from .lockstep import lockstep_of_environment
from .manifest import ManifestWriter
from .run_context import RunContext, Steps
from .schedule import Share
from .worker_pool import DataProcess, WorkerPool
from .workload import QUALITY_PASS, Workload, workload_of

Step = Callable[[], None]


@dataclass(frozen=True)
class StepAlone:
    """A step of a run outside of the timed rounds.

    Attributes:
        carry_out: carries out the step.
        in_turn: whether another session must wait meanwhile.
    """

    carry_out: Step
    in_turn: bool = True


def pool_of(suite: ResolvedSuite, gpu: str | None = None) -> WorkerPool:
    """Return a pool whose server begins at once to import what the suite's adapters need.

    Args:
        suite: what is measured.
        gpu: the one that processes are left; None: the one that the suite names, or all.

    Raises:
        UsageError: there is no such GPU.
    """
    modules: set[str] = set()
    for adapter in {case.adapter for case in suite.cases}:
        modules.update(registry.preload(adapter))
    side_by_side = max(len(group.cases) for group in suite.groups)
    side_by_side = max(side_by_side, quality_pass.most_processes(suite))
    return WorkerPool(sorted(modules), suite.plan.time_limit_s, side_by_side, gpu or suite.gpu)


class Session:
    """Measures a suite into a folder.

    Args:
        suite: what is measured.
        queries: what it is measured on.
        folder: of the run.
        progress: is called with steps done, steps in all, and what is being done.
        command: how a user would ask for the same run; the report repeats it.
        deadline_s: by the monotonic clock. From then on no pass or round is begun; `resume` goes
            on.
        pool: as `pool_of` makes it; None: it is made here.
    """

    def __init__(
        self,
        suite: ResolvedSuite,
        queries: Queries,
        folder: Path,
        progress: Progress,
        command: str = "",
        deadline_s: float | None = None,
        pool: WorkerPool | None = None,
    ) -> None:
        lockstep = lockstep_of_environment(suite)
        manifest = ManifestWriter(folder, suite, queries, command, in_lockstep=not lockstep.alone)
        self.workload = workload_of(suite, queries)
        steps = Steps(progress, self.workload)
        self.run = RunContext(
            suite=suite,
            queries=queries,
            folder=folder,
            pool=pool or pool_of(suite),
            journal=Journal(folder, suite, queries),
            manifest=manifest,
            steps=steps,
            lockstep=lockstep,
        )
        self._deadline_s = deadline_s
        self._progress = progress

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @property
    def manifest(self) -> ManifestWriter:
        """The manifest of the run."""
        return self.run.manifest

    def start(self) -> None:
        """Begin a new run. If it is refused, it leaves no folder.

        Raises:
            UsageError: the folder cannot be written to, or holds a run. That is tried before
                anything is loaded.
        """
        folder = self.run.folder
        before = before_writing(folder)
        create(folder, (SAMPLES, MEMORY))
        with writing(folder), undone_if_refused(folder, before):
            self.manifest.save()
            self._measure()

    def resume(self) -> None:
        """Go on with a run that was cut short: measure what is missing.

        Where no run was begun, begin one.

        Raises:
            UsageError: the folder's run is of another suite, or over other data.
            NothingToCompare: it was begun on another machine, or with other software.
        """
        if not holds_run(self.run.folder):
            self.start()
            return
        with writing(self.run.folder):
            read_run(self.run.folder)  # a damaged record is refused before anything is measured
            self.manifest.take_over()
            for name in self.run.journal.half_written():
                self.manifest.warn(
                    f"the last line of {name} was cut short, and dropped when the run went on"
                )
            do_not_fit = self.manifest.cases_that_do_not_fit
            again = self.run.journal.supersede_unfinished(do_not_fit)
            self.manifest.forget_errors(again)
            self._measure()

    def evaluate_share(self, share: Share, processes: int | None = None) -> bool:
        """Evaluate a share of the quality pass, and nothing else, into a folder of its own.

        Args:
            share: which part it is.
            processes: of a case side by side; None: as the plan says.

        Returns:
            Whether the whole share is evaluated; `shards.evaluate` says what it raises.
        """
        quality = [one for one in self.workload.passes if one.name == QUALITY_PASS]
        steps = Steps(self._progress, Workload(tuple(quality)))
        run = replace(self.run, steps=steps, quality_processes=processes)
        return shards.evaluate(run, share, self._is_late)

    def _measure(self) -> None:
        with self.run.pool.start_data(self.run.queries.reader) as data:
            try:
                self._prepare(data)
                is_whole = self._measure_alone(data) and self._measure_rounds(data)
            except KeyboardInterrupt:
                self.manifest.note_stop("interrupt")
                raise
            if is_whole:
                do_not_fit = self.manifest.cases_that_do_not_fit
                self.manifest.finish(self.run.journal.failed_queries(do_not_fit))
            else:
                self.manifest.note_stop("time")

    def _prepare(self, data: DataProcess) -> None:
        """Note what must be known before any case is built: machine, data and gallery."""
        run = self.run
        run.note_machine_and_check_data(data, SAME_TO_RESUME)
        shards.refuse_others(run)
        positions = run.queries.to_keep(run.suite.plan.gallery)
        self.manifest.note_gallery(data.save_gallery(positions, run.folder / GALLERY))

    def _measure_alone(self, data: DataProcess) -> bool:
        """Carry out what a case needs the machine to itself for; return whether all of it is done.

        Another session takes turns with this one, step by step.
        """
        with self.run.lockstep.round():
            for step in self._steps_alone(data):
                if self._is_late():
                    return False
                with self.run.lockstep.turn() if step.in_turn else nullcontext():
                    step.carry_out()
        return True

    def _measure_rounds(self, data: DataProcess) -> bool:
        """Carry out the timed rounds; return whether all of them are done."""
        for step in self._timed_rounds(data):
            if self._is_late():
                return False
            step()  # it takes turns with another session block by block
        return True

    def _is_late(self) -> bool:
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def _steps_alone(self, data: DataProcess) -> Iterator[StepAlone]:
        """Yield trainings, searches for batches, and all passes but the timed rounds.

        Each is done whole or, after a resume, anew, but for quality passes, which go on batch by
        batch.
        """
        run = self.run
        for training in self.manifest.trainings:
            yield StepAlone(partial(self._train, training))
        for model in run.suite.models:
            if model.batch == AUTO:
                yield StepAlone(partial(batch_search.choose_batch, run, model.name))
        yield from self._memory_pass()
        for case, card in run.suite.fits:
            yield StepAlone(partial(memory_pass.try_fit, run, case, card))
        if run.suite.plan.beside:
            yield StepAlone(partial(self._measure_roofline, data))
        if run.queries.scored:
            yield StepAlone(partial(shards.join, run))
            for case in run.suite.cases:
                yield StepAlone(partial(quality_pass.evaluate_case, run, data, case.name))
            yield StepAlone(partial(self._keep_what_differs_most, data))
        if run.suite.plan.profile:
            for model in run.suite.models:
                yield StepAlone(partial(memory_pass.profile_case, run, model.name))

    def _memory_pass(self) -> Iterator[StepAlone]:
        """Yield the first process of each case, and then the later ones of all cases together."""
        run = self.run
        in_turn = {
            model.name: memory_pass.needs_turn(run, model.name) for model in run.suite.models
        }
        for process in range(run.suite.plan.memory_processes):
            if process == 0:
                for case, needs_turn in in_turn.items():
                    measure = partial(memory_pass.measure_memory, run, process, case)
                    yield StepAlone(measure, needs_turn)
            else:
                measure = partial(memory_pass.measure_memory_again, run, process)
                yield StepAlone(measure, any(in_turn.values()))

    def _keep_what_differs_most(self, data: DataProcess) -> None:
        """Where a run has more images than are kept, keep those that models answer differently.

        Which these are is known after the quality pass. Until then, the first ones are kept.
        """
        run = self.run
        positions = run.queries.to_keep(run.suite.plan.gallery)
        if len(self.manifest.gallery) == len(positions):
            return
        disagreement = run.journal.disagreement([model.name for model in run.suite.models])
        positions.sort(key=lambda position: disagreement.get(position, 0.0), reverse=True)
        self.manifest.note_gallery(data.save_gallery(positions, run.folder / GALLERY))

    def _timed_rounds(self, data: DataProcess) -> Iterator[Step]:
        """Yield the rounds of each group, and of baselines if no quality pass has them."""
        run = self.run
        for process in range(run.suite.plan.processes):
            for group in run.suite.groups:
                yield partial(timed_rounds.measure_round, run, data, process, group.cases)
        if run.suite.evaluates_baselines_in_rounds(run.queries.scored):
            for baseline in run.suite.baselines:
                yield partial(timed_rounds.measure_round, run, data, 0, (baseline.name,))

    def _train(self, training: SuiteTraining) -> None:
        """Carry out one training with one seed. If it fails, the rest is measured all the same."""
        if training.status not in in_suites.DONE:
            on_card = f" on a card of {training.card}" if training.card else ""
            what = f"training {training.name} with seed {training.seed}{on_card}"
            self.run.steps.advance(0, what)
            options = self.run.suite.trainings[training.name]
            environment = self.manifest.environment
            ended = in_suites.carry_out(
                self.run.folder,
                training,
                options,
                has_gpu=environment.get("device") == "cuda",
                gpu=self.run.suite.gpu,
                gpu_bytes=environment.get("gpu_memory_bytes"),
                trainings=self.manifest.trainings,
            )
            self.manifest.note_training(ended)
        self.run.steps.advance(1, f"training {training.name}")

    def _measure_roofline(self, data: DataProcess) -> None:
        """Measure the peak rates of each device that a case with costs by arithmetic runs on.

        It is done in a process of its own without a model, which leaves the GPU's memory when it
        ends.
        """
        run = self.run
        named = {run.suite.case(name).device for name in self.manifest.cases_with_costs()}
        devices = set(data.resolve_devices(sorted(named)))
        for device in sorted(devices - self.manifest.devices_with_roofline):
            run.steps.advance(0, f"roofline of the {device}")
            with run.pool.start_data(run.queries.reader) as worker:
                rates = worker.measure_roofline(device)
            self.manifest.note_roofline(device, rates)
