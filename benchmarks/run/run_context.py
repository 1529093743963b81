"""What every pass of a run works with."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...harness.environment import SAME_VERSIONS, must_be_same
from ...harness.masks import ALL_MASKS, NO_MASK, KeptMasks
from ...models.checkpoints.weights_hash import HashedWeights
from ..progress import Progress
from ..queries import Queries
from ..resolved_suite import ResolvedSuite
from .journal import Journal
from .lockstep import Lockstep
from .manifest import ManifestWriter
from .worker import Gpu
from .worker_messages import Line, SentConfig, WorkerSettings
from .worker_pool import CaseProcess, DataProcess, WorkerPool
from .workload import Workload

MEMORY_SHARE = 0.95  # of a machine's memory that cases side by side may need


class Steps:
    """Counts what a run has done, and reports it.

    Args:
        progress: is called with steps done, steps in all, what is being done, and the share of the
            work that is left.
        workload: the passes of the run, in their order.
    """

    def __init__(self, progress: Progress, workload: Workload) -> None:
        self._progress, self._workload = progress, workload
        self._done = 0
        self._skipped_s = 0.0

    def advance(self, steps: int, what: str) -> None:
        """Count steps as done, and show what is being done."""
        self._done += steps
        # A resumed run has not spent the time of what was measured before.
        done_s = self._workload.seconds_until(self._done) - self._skipped_s
        all_s = self._workload.seconds - self._skipped_s
        left = 1 - done_s / all_s if all_s > 0 else 0.0
        self._progress(self._done, self._workload.steps, what, left)

    def skip(self, steps: int, what: str) -> None:
        """Count steps that were measured before, or that need not be measured."""
        before_s = self._workload.seconds_until(self._done)
        self._skipped_s += self._workload.seconds_until(self._done + steps) - before_s
        self.advance(steps, what)


@dataclass(frozen=True)
class RunContext:
    """What every pass of a run works with.

    Attributes:
        suite: what is measured.
        queries: what it is measured on.
        folder: of the run.
        pool: starts worker processes.
        journal: of the records.
        manifest: of the run.
        steps: reports progress.
        lockstep: with another session, where there is one.
        hashed_weights: the weights whose bytes were compared with their hash, for all processes.
        quality_processes: in place of the plan's; None: as the plan says.
    """

    suite: ResolvedSuite
    queries: Queries
    folder: Path
    pool: WorkerPool
    journal: Journal
    manifest: ManifestWriter
    steps: Steps
    lockstep: Lockstep
    hashed_weights: list[HashedWeights] = field(default_factory=list)
    quality_processes: int | None = None

    def note_machine_and_check_data(
        self, data: DataProcess, same: Sequence[str], positions: Sequence[int] | None = None
    ) -> None:
        """Note the machine, and check devices, data and weights before any case is built.

        Args:
            data: the process without a model.
            same: facts in which the machine must be the one that the run was begun on.
            positions: of the queries to check; None: all.

        Raises:
            UsageError: a device is not there.
            NothingToCompare: the run was begun on another machine, or with other software.
            DataError: an image, an annotation or weights are broken.
        """
        self.steps.advance(0, "reading the machine and the data")
        this_machine = data.describe_machine()
        first_machine = self.manifest.machine  # None unless the run is resumed
        if first_machine is not None:
            before, now = first_machine.environment, this_machine.environment
            must_be_same(self.folder, "machine", same, before, now)
            before, now = first_machine.versions, this_machine.versions
            must_be_same(self.folder, "software", SAME_VERSIONS, before, now)
        data.resolve_devices(self.suite.devices)  # raises where a device is not there
        data.check_data(positions)
        for weights in self.suite.weights_folders:
            self.hashed_weights.append(data.check_weights(weights))
        self.manifest.note_machine(this_machine)

    def start_case(
        self,
        case_name: str,
        process: int = 0,
        gpu_memory: str | None = None,
        kept_masks: KeptMasks = NO_MASK,
        gpu: Gpu | None = None,
    ) -> CaseProcess:
        """Start a process of a case.

        Args:
            case_name: of a model or a trivial baseline.
            process: number of the process, from 0.
            gpu_memory: size of the card that it is limited to; None: as the plan says.
            kept_masks: of which queries its lines keep the mask.
            gpu: the one that it is left; None: all that the session has.
        """
        case = self.suite.case(case_name)
        plan = self.suite.plan
        config = case.config
        encoder_batch = self.manifest.encoder_batch_of(case_name)
        if encoder_batch is not None:
            config = replace(config, encoder_batch=encoder_batch)
        if case.adapter_sha256 is not None and case.load_error is None:
            config = SentConfig(case.adapter, case.adapter_sha256, pickle.dumps(config))
        batch = self.manifest.batch_of(case_name)
        # While a batch is being chosen, images are decoded before they are needed.
        decode_workers = None if batch is None else self.manifest.decode_workers
        settings = WorkerSettings(
            adapter=case.adapter,
            config=config,
            data=self.queries.reader,
            process=process,
            kept_masks=kept_masks,
            gpu_memory=gpu_memory or plan.gpu_memory,
            timed=self.queries.timed,
            batch=batch or 1,
            block=plan.block,
            decode_workers=decode_workers,
            hashed_weights=tuple(self.hashed_weights),
            quality_reuse=plan.quality_reuse,
        )
        return self.pool.start_case(settings, gpu)

    @property
    def masks_of_quality(self) -> KeptMasks:
        """The masks that the quality pass keeps: the report shows them."""
        plan = self.suite.plan
        if plan.save_masks or plan.gallery == "all":
            return ALL_MASKS
        return KeptMasks(ids=frozenset(self.manifest.gallery))

    def masks_of_round(self, process: int) -> KeptMasks:
        """Return the masks that a timed round keeps.

        Those of the first process are shown of a case with random weights, which is in no quality
        pass.
        """
        if self.suite.plan.save_masks:
            return ALL_MASKS
        if process == 0:
            return KeptMasks(ids=frozenset(self.manifest.gallery))
        return NO_MASK

    def place(self, case: str, process: int) -> Line:
        """Return the fields of a line that say which measurement it belongs to."""
        return {"case": case, "process": process, "attempt": self.manifest.attempt}
