"""The manifest of a run, ``run.json``.

It says what was to be measured, on which machine, and how far the run came.

Some keys of the file have older names than the code: ``teams`` are groups, ``passport`` is the
environment, ``ceilings`` is the roofline, ``in_turns`` says that two runs took turns in lockstep,
and ``paper`` is the cost by arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..contract import Paper
from .from_json import InnerFolder, NotNegative, NotNegativeFloat, from_json
from .machine import checked_environment, checked_rates

RunStatus = Literal["running", "complete", "failed"]
StopReason = Literal["time", "interrupt"]


@dataclass(frozen=True)
class Group:
    """Cases that took turns with each other and are compared with one of them."""

    name: str
    reference: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class WarmUpRecord:
    """How one process of a case came to speed. Never part of its numbers.

    Attributes:
        process: number of the process.
        first_query_ms: time of the first query ever, lazy initialisation included; None where it
            failed.
        warmup_queries: how many queries were evaluated until the median held still.
        warmup_stable: whether the median held still.
        warmup_lengths: how many queries were evaluated after that, one for each further prompt
            length.
        warmup_s: seconds of all of this, by the host's clock; None in older runs.
        graphs, capture_s, compile_s: what was captured and compiled in it, see
            `contract.Preparation`; None where the adapter does not say, and in older runs.
        core: the CPU core that the process was pinned to; None where it was not pinned.
    """

    process: NotNegative = 0
    first_query_ms: NotNegativeFloat | None = None
    warmup_queries: NotNegative | None = None
    warmup_stable: bool | None = None
    warmup_lengths: NotNegative | None = None
    warmup_s: NotNegativeFloat | None = None
    graphs: NotNegative | None = None
    capture_s: NotNegativeFloat | None = None
    compile_s: NotNegativeFloat | None = None
    core: NotNegative | None = None


@dataclass(frozen=True)
class BatchTrial:
    """One of the batches that were tried for a case, to choose its batch.

    Attributes:
        batch: how many queries were evaluated at once.
        status: ``ok``, ``oom`` (out of memory), ``timeout`` or ``error``.
        queries_per_second: without waits for images; None where it failed.
        vision_ms: time of the stage `vision` for each query; None where it failed.
        rest_ms: time of everything else for each query; None where it failed.
        peak_bytes: peak memory of the timed batches; None where it failed, or is not known.
        reason: why it failed.
    """

    batch: NotNegative
    status: str
    queries_per_second: NotNegativeFloat | None = None
    vision_ms: NotNegativeFloat | None = None
    rest_ms: NotNegativeFloat | None = None
    peak_bytes: NotNegative | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CaseEntry:
    """What the manifest says about one case.

    Attributes:
        name: of the case.
        adapter: name of its adapter.
        role: ``model``, or ``control`` for a trivial baseline.
        given: the settings that the suite gives.
        batch: how many of its queries are timed at once; 1 until it is chosen.
        batch_trials: the batches from which it was chosen; none where the suite gives it.
        settings: all settings as the adapter resolved them; None until it is built. Where a run
            measures throughput, `batch` is among them.
        has_quality: False for random weights; None until it is known.
        parameters: number of parameters of each part.
        weights_source: where the weights come from, as they say themselves, such as the id of a
            release; None where they say nothing, and in older runs.
        weight_bytes: bytes of the weights of each part in memory (``weights`` in the file).
        paper: what a query should cost by arithmetic.
        build_s: seconds that the build took in the memory pass.
        clock: the clock of its times: ``host``, ``cuda events`` or ``virtual``.
        error: why it could not be measured.
        memory_error: why its memory could not be measured.
        out_of_memory: whether it did not fit this machine's GPU, or its memory; that is a result,
            and no failure. None until that is known, and in older runs.
        adapter_sha256: of the file that its adapter was loaded from; None for a shipped adapter,
            and in older runs.
        warm_ups: how its processes came to speed, by process.
    """

    name: str
    adapter: str
    role: Literal["model", "control"]
    given: Mapping[str, Any] = field(default_factory=dict)
    batch: NotNegative = 1
    batch_trials: tuple[BatchTrial, ...] = ()
    settings: Mapping[str, Any] | None = None
    has_quality: bool | None = None
    parameters: Mapping[str, NotNegative] | None = None
    weights_source: str | None = None
    weight_bytes: Mapping[str, NotNegative] | None = None
    paper: Paper | None = None
    build_s: NotNegativeFloat | None = None
    clock: str | None = None
    error: str | None = None
    memory_error: str | None = None
    out_of_memory: bool | None = None
    adapter_sha256: str | None = None
    warm_ups: tuple[WarmUpRecord, ...] = ()

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "CaseEntry":
        """Return the entry of a case; older runs kept the warm-up of process 0 alone."""
        warm_ups = [from_json(WarmUpRecord, warm_up) for warm_up in entry.get("warmups") or ()]
        was_warmed_up = (
            entry.get("warmup_stable") is not None or entry.get("first_query_ms") is not None
        )
        if not warm_ups and was_warmed_up:
            warm_ups = [from_json(WarmUpRecord, entry, process=0)]
        warm_ups.sort(key=lambda warm_up: warm_up.process)
        paper = from_json(Paper, entry["paper"]) if entry.get("paper") else None
        batch_trials = [from_json(BatchTrial, trial) for trial in entry.get("batch_trials") or ()]
        return from_json(
            cls,
            entry,
            batch=entry.get("batch") or 1,
            batch_trials=tuple(batch_trials),
            warm_ups=tuple(warm_ups),
            paper=paper,
            weight_bytes=entry.get("weights"),
        )

    @property
    def is_model(self) -> bool:
        """Whether it is compared with others, rather than a trivial baseline."""
        return self.role == "model"

    @property
    def first_query_ms(self) -> float | None:
        """Time of the first query of process 0; None where there was none, or it failed."""
        for warm_up in self.warm_ups:
            if warm_up.process == 0:
                return warm_up.first_query_ms
        return None


@dataclass(frozen=True)
class StatedClaim:
    """A claim as the suite states it; `benchmarks.claim` says what each field means."""

    claim: str
    quantity: str | None = None
    reference: str | None = None
    candidate: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    card: str | None = None
    published: float | None = None
    source: str | None = None
    needs: str | None = None
    means: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteTraining:
    """One training of a suite, with one seed.

    Attributes:
        name: in the suite.
        seed: of the training.
        folder: of its records, in that of the run.
        status: how it ended; None until then.
        reason: why it is not complete.
        card: the size of the card that it was limited to by the suite's key `cards`; None for the
            training itself, and in older runs.
    """

    name: str
    seed: int
    folder: InnerFolder
    status: str | None = None
    reason: str | None = None
    card: str | None = None


@dataclass(frozen=True)
class JoinedShard:
    """A part of the quality pass that was evaluated apart, maybe on another machine.

    Attributes:
        number, of: which shard of how many it was.
        started, finished: ISO 8601 times; not finished where it was cut short.
        environment: facts about its machine.
        versions: of Python and of libraries there.
    """

    number: NotNegative
    of: NotNegative
    started: str
    finished: str | None = None
    environment: Mapping[str, Any] | None = None
    versions: Mapping[str, str | None] | None = None


@dataclass(frozen=True)
class RunPlan:
    """How the measurement was laid out; see `benchmarks.suite.Plan`.

    Older runs lack later fields; all of them timed single queries.
    """

    processes: NotNegative
    block: NotNegative
    warmup: NotNegative
    scenario: Literal["latency", "throughput"] = "latency"
    batch: NotNegative | Literal["auto"] = 1
    memory_processes: NotNegative = 1
    memory_queries: NotNegative | Literal["all"] = 4
    decode_workers: NotNegative | None = None
    timed_queries: NotNegative | None = None
    quality_queries: NotNegative | None = None
    quality_batch: NotNegative | None = None
    quality_processes: NotNegative | Literal["auto"] = "auto"
    quality_threads: NotNegative | Literal["auto"] = "auto"
    quality_reuse: bool = True
    beside: bool = True
    gallery: NotNegative | Literal["all", "none"] = 0
    training_seeds: NotNegative = 3
    gpu_memory: str | None = None
    save_masks: bool = False
    profile: bool = False
    time_limit_s: NotNegativeFloat = 600


@dataclass(frozen=True)
class QualityPlan:
    """The quality pass: each score is of so many queries, evaluated so many at a time."""

    queries: NotNegative
    batch: NotNegative


@dataclass(frozen=True)
class RunData:
    """The queries of a run.

    Attributes:
        split: name of the split.
        count: number of queries.
        fingerprint: digest of all images, queries and targets.
        description: where they come from.
        root: the data as the user named them; None for generated scenes.
        texts: ``first`` or ``all`` wordings of a query.
        limit: only the first so many queries; None for all.
        layout: the layout that the data were imported from, such as ``refcoco``; None for a folder
            of pairs, for generated scenes, and in older runs. The same holds for what follows.
        source: where the imported data come from.
        revision: of the source; None where it has none.
        licence: as the source states it; None where it states none.
        ignored: how the source stores pixels that no score counts.
        protocol: name of the protocol of the field that they are evaluated by, see `protocols`;
            None where none is known, and in older runs.
    """

    split: str
    count: NotNegative
    fingerprint: str
    description: str
    root: str | None = None
    texts: str = "first"
    limit: NotNegative | None = None
    layout: str | None = None
    source: str | None = None
    revision: str | None = None
    licence: str | None = None
    ignored: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The manifest of a run.

    Attributes:
        schema: name and version of the file format.
        suite, title: name and title of the suite.
        reference: the case that the others are compared with.
        groups: cases that took turns with each other.
        design: level of each factor, by case.
        metrics: quality columns of the report.
        claims: the claims of the suite.
        trainings: the trainings of the suite.
        cards: of which the report says what runs on them; none in older runs.
        status: ``running``, ``complete`` or ``failed``.
        stopped: why it ended before all was measured: its ``time`` was over, or an ``interrupt``
            came; None while it goes on, and where it was killed.
        started, finished: ISO 8601 times.
        attempts: how often the run was resumed.
        in_lockstep: whether it took turns with another version, block by block.
        data: the queries.
        plan: how the measurement was laid out.
        timed_queries: how many queries were to be timed in every process, whole batches of every
            case; None in older runs, which timed as many as the plan says.
        quality_pass: how the quality pass is laid out; None for runs without one.
        definition: the whole suite, as a mapping that `Suite` reads.
        cases: models and trivial baselines.
        environment: facts about the machine; None until they are known.
        versions: of Python and of libraries; None until they are known.
        roofline: peak rates of each device; see `machine.PeakRates`.
        gallery: ids of the queries whose images are kept.
        warnings: what speaks against the measurement.
        command: the command line.
        source: where the measured version of lisabench comes from, for a gate.
        shards: parts of the quality pass that were evaluated apart.
    """

    schema: str
    suite: str
    title: str
    status: RunStatus
    started: str
    data: RunData
    plan: RunPlan
    cases: tuple[CaseEntry, ...]
    timed_queries: NotNegative | None = None
    reference: str | None = None
    groups: tuple[Group, ...] = ()
    design: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    claims: tuple[StatedClaim, ...] = ()
    trainings: tuple[SuiteTraining, ...] = ()
    cards: tuple[str, ...] = ()
    stopped: StopReason | None = None
    finished: str | None = None
    attempts: NotNegative = 0
    in_lockstep: bool = False
    quality_pass: QualityPlan | None = None
    definition: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] | None = None
    versions: Mapping[str, str | None] | None = None
    roofline: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gallery: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    command: str | None = None
    source: Mapping[str, Any] | None = None
    shards: tuple[JoinedShard, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Manifest":
        """Return the manifest of a ``run.json`` of any version.

        Raises:
            DataError: a key that every run has is missing.
        """
        cases = tuple(CaseEntry.from_json(entry) for entry in content["cases"])
        quality_pass = content.get("quality_pass")
        facts = content.get("passport")
        ceilings = content.get("ceilings") or {}
        return from_json(
            cls,
            content,
            cases=cases,
            data=from_json(RunData, content["data"]),
            plan=from_json(RunPlan, content["plan"]),
            groups=_groups(content, cases),
            metrics=tuple(content.get("metrics") or ()),
            cards=tuple(content.get("cards") or ()),
            claims=tuple(from_json(StatedClaim, claim) for claim in content.get("claims") or ()),
            trainings=tuple(
                from_json(SuiteTraining, row) for row in content.get("trainings") or ()
            ),
            in_lockstep=bool(content.get("in_turns")),
            quality_pass=from_json(QualityPlan, quality_pass) if quality_pass else None,
            environment=None if facts is None else checked_environment(facts),
            roofline={device: checked_rates(rates) for device, rates in ceilings.items()},
            gallery=tuple(content.get("gallery") or ()),
            warnings=tuple(content.get("warnings") or ()),
            shards=tuple(from_json(JoinedShard, row) for row in content.get("shards") or ()),
        )

    def case(self, name: str) -> CaseEntry:
        """Return the entry of a case.

        Raises:
            KeyError: the run has no case of that name.
        """
        for entry in self.cases:
            if entry.name == name:
                return entry
        raise KeyError(name)

    @property
    def models(self) -> tuple[CaseEntry, ...]:
        """The cases without the trivial baselines."""
        return tuple(entry for entry in self.cases if entry.is_model)

    def group_with(self, names: set[str]) -> Group | None:
        """Return the group that all of these cases belong to.

        It is None where they took no turns with each other.
        """
        for group in self.groups:
            if names <= set(group.cases):
                return group
        return None


def _groups(content: Mapping[str, Any], cases: tuple[CaseEntry, ...]) -> tuple[Group, ...]:
    """Return the groups; in a run that was recorded without any, all models are one."""
    if content.get("teams"):
        groups = []
        for group in content["teams"]:
            groups.append(Group(group["name"], group["reference"], tuple(group["cases"])))
        return tuple(groups)
    models = tuple(entry.name for entry in cases if entry.is_model)
    return (Group("", content.get("reference") or "", models),)
