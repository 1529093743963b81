"""A resolved suite: what a suite file says, worked out once, as a value that is handed on.

A suite file leaves things open: a case takes its settings from ``defaults`` too, packaged weights
bring the settings that they were trained with, and the split may depend on the weights. `resolve`
works all of that out before anything starts. The session, the manifest, the factors and the claims
then read these values, and none of them builds a case or reads a file again.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..harness.records.manifest import Group
from ..models.lisa.weights_format import WeightsFolder
from .claim import Claim
from .suite import ADAPTER, AUTO, BATCH, Batch, Data, Plan, Suite

TRIED_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class ResolvedCase:
    """One case of a suite, or one of its trivial baselines.

    Attributes:
        name: of the case.
        role: ``model``, or ``control`` for a trivial baseline.
        adapter: name of its adapter.
        given: the settings as the suite gives them, the adapter's name included.
        config: a value of the adapter's settings dataclass, such as a `LisaConfig`.
        batch: how many of its queries are timed at once; ``auto``: the run chooses it.
        group: name of its group; None for a trivial baseline.
        reference: the case that it is compared with; None for a trivial baseline.
        adapter_sha256: of the file that the adapter is loaded from; None for a shipped adapter.
        load_error: why the adapter cannot be loaded. The config is then a `registry.NotLoaded`, and
            each process of the case fails.
    """

    name: str
    role: Literal["model", "control"]
    adapter: str
    given: Mapping[str, Any]
    config: Any
    batch: Batch = 1
    group: str | None = None
    reference: str | None = None
    adapter_sha256: str | None = None
    load_error: str | None = None

    @property
    def device(self) -> str:
        """The device that it names: ``auto``, ``cpu``, ``cuda``, or a GPU such as ``cuda:1``.

        An adapter without the setting uses the CPU.
        """
        return getattr(self.config, "device", "cpu")

    @property
    def settings(self) -> dict[str, Any]:
        """All of its settings, defaults, the adapter's name and the batch included."""
        return {ADAPTER: self.adapter, BATCH: self.batch, **asdict(self.config)}


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite whose cases are made, and whose names are all known.

    Attributes:
        definition: the suite as its file says it, with the changes of the command line.
        models: the cases that are compared, in the order of the file.
        baselines: the trivial baselines, which the file calls ``controls``.
        groups: cases that are measured in turn and compared with the first of them. All models are
            one group where the file names none.
        split: the split of the data that is evaluated.
        contaminations: warnings about cases whose weights were trained on that split of ReasonSeg.
        gpu: the GPU that a case or a training names, such as ``cuda:1``; then all that runs on a
            GPU runs on this one.
    """

    definition: Suite
    models: tuple[ResolvedCase, ...]
    baselines: tuple[ResolvedCase, ...]
    groups: tuple[Group, ...]
    split: str
    contaminations: tuple[str, ...] = ()
    gpu: str | None = None

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.definition.name

    @property
    def plan(self) -> Plan:
        """How the measurement is laid out."""
        return self.definition.plan

    @property
    def data(self) -> Data:
        """Which queries are evaluated."""
        return self.definition.data

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims that the run tests."""
        return self.definition.claims

    @property
    def trainings(self) -> Mapping[str, Mapping[str, Any]]:
        """Options of `lisabench train`, by the training's name."""
        return self.definition.trainings

    @property
    def cases(self) -> tuple[ResolvedCase, ...]:
        """The models, then the trivial baselines."""
        return (*self.models, *self.baselines)

    def case(self, name: str) -> ResolvedCase:
        """Return a model or trivial baseline by its name.

        Raises:
            KeyError: the suite has no case of that name.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)

    def batches_to_try(self, queries: int) -> tuple[int, ...]:
        """Return the batches from which ``auto`` chooses.

        A block is a whole number of each of them.

        Args:
            queries: how many are timed; no batch has more.
        """
        batches = []
        for batch in TRIED_BATCHES:
            if batch <= queries and self.plan.block % batch == 0:
                batches.append(batch)
        return tuple(batches)

    def common_batch(self, queries: int) -> int:
        """Return the fewest queries that fill whole batches of every model.

        Whatever is chosen for ``auto``, they do: so it is known before which queries are timed.

        Args:
            queries: how many are timed at most.
        """
        batches = []
        for case in self.models:
            if case.batch == AUTO:
                batches += self.batches_to_try(queries)
            else:
                batches.append(case.batch)
        return math.lcm(*batches)

    @property
    def devices(self) -> list[str]:
        """Every device that a case names, sorted."""
        return sorted({case.device for case in self.cases})

    @property
    def weights_folders(self) -> list[WeightsFolder]:
        """The folders of weights that cases read, each once; random weights have none."""
        folders: dict[Path, WeightsFolder] = {}
        for case in self.models:
            weights = getattr(case.config, "weights_folder", None)  # only `lisa` has it
            if isinstance(weights, WeightsFolder):
                folders[weights.folder] = weights
        return list(folders.values())

    @property
    def fits(self) -> list[tuple[str, str]]:
        """Each case with each card of the suite, and with a card that a claim says it fits.

        Each pair is listed once.
        """
        pairs = []
        for case in self.models:
            pairs += [(case.name, card) for card in self.definition.cards]
        pairs += [pair for pair in self._claimed_fits(of_trainings=False) if pair not in pairs]
        return pairs

    @property
    def training_fits(self) -> list[tuple[str, str]]:
        """The same of trainings. One that its own options limit to a card has that card alone."""
        pairs = []
        for name in self.trainings:
            pairs += [(name, card) for card in self.definition.cards]
        pairs += [pair for pair in self._claimed_fits(of_trainings=True) if pair not in pairs]
        return [pair for pair in pairs if not self.trainings[pair[0]].get("gpu_memory")]

    def _claimed_fits(self, of_trainings: bool) -> list[tuple[str, str]]:
        pairs: dict[tuple[str, str], None] = {}
        for claim in self.claims:
            if claim.candidate and claim.card and claim.of_trainings == of_trainings:
                pairs[claim.candidate, claim.card] = None
        return list(pairs)

    def evaluates_baselines_in_rounds(self, scored: int) -> bool:
        """Return whether trivial baselines are evaluated in timed rounds of their own.

        They are where no quality pass evaluates them, unless nothing is timed.

        Args:
            scored: how many queries the quality pass evaluates.
        """
        return scored == 0 and self.plan.processes > 0

    def references_for(self, claim: Claim) -> dict[str, str]:
        """Return what each case, or each training, that the claim can be about is compared with.

        A training is compared with the first training of the suite.
        """
        if claim.of_trainings:
            first = next(iter(self.trainings), "")
            return dict.fromkeys(self.trainings, first)
        return {case.name: case.reference or "" for case in self.models}
