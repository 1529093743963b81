"""The documented schema of a run's ``summary.json`` (``lisabench.summary/1``).

Every number in it is derived from run.json and the journals beside it and can be computed again.
Null means unknown or not applicable; NaN and infinities are refused. Times are milliseconds
(``_ms``) or seconds (``_s``), memory is bytes, shares and quality are fractions, ratios are
candidate over reference. The parts that a case and a comparison are made of are in `schema_base`.

Some keys of the file have older names than the code: ``teams`` are groups, ``ceilings`` is the
roofline, ``floor`` and ``control`` are trivial baselines, and ``paper`` is arithmetic.
"""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, JsonValue

from ...harness.protocols import ALL_QUERIES
from ...harness.statistics.estimate import Estimate
from ...harness.statistics.verdicts import Verdict
from ..cards import CardRow
from ..schema_base import (
    HEADINGS,
    NO_RATIO,
    AgainstTrivialBaseline,
    AnswerSpread,
    Bootstrap,
    Cold,
    Count,
    Fraction,
    Joules,
    Memory,
    Milliseconds,
    NotNegative,
    OverProcesses,
    Points,
    Positive,
    Quality,
    Ratio,
    Strict,
    Time,
    Twin,
)
from ..training.schema import ComparedTrainings, TrainingRun

SCHEMA = "lisabench.summary/1"


class BatchTrial(Strict):
    """One of the batches that were tried for a case, to choose its batch."""

    batch: Count = Field(description="Queries that were evaluated at once.")
    status: str = Field(description="ok, oom, timeout or error.")
    queries_per_second: NotNegative | None = Field(
        description="Without waits for images; null where it failed."
    )
    vision_ms: NotNegative | None = Field(description="Of the stage vision, for each query.")
    rest_ms: NotNegative | None = Field(description="Of everything else, for each query.")
    peak_bytes: Count | None = Field(description="Peak memory of the timed batches.")
    reason: str | None = Field(description="Why it failed.")


class Case(Strict):
    """One model, or one trivial baseline, as it was run."""

    name: str = Field(description="Name of the case in its suite.")
    adapter: str = Field(description="Name under which the adapter is registered.")
    role: Literal["model", "control"] = Field(
        description="A control is a trivial baseline of quality; its time is no result."
    )
    settings: dict[str, JsonValue] | None = Field(
        description="Resolved and flat; null until the case was built."
    )
    has_quality: bool | None = Field(
        description="False for random weights; null until the case was built."
    )
    parameters: dict[str, Count] | None = Field(description="Number of parameters by part.")
    error: str | None = Field(description="Why the case could not be run.")
    memory_error: str | None = Field(
        default=None, description="Why its memory could not be measured."
    )
    out_of_memory: bool = Field(
        default=False,
        description="It does not fit the memory of this machine's GPU, or of the machine.",
    )
    quality: Quality = Field(description="Scores, and how the queries ended.")
    time: Time = Field(description="Warm queries: medians, stages, regions.")
    memory: Memory = Field(description="Peaks.")
    energy_over_processes: OverProcesses | None = Field(
        default=None,
        description="Energy of a query in millijoules with an interval: the geometric mean over "
        "the processes of each one's mean; null without a counter.",
    )
    energy_mj: NotNegative | None = Field(
        default=None,
        description="Mean energy of a query by the GPU's counter, in millijoules; null without "
        "one.",
    )
    power_w: NotNegative | None = Field(
        default=None,
        description="Mean power of the GPU in the pass of energy, in watts; null without it.",
    )
    answer_spread: AnswerSpread | None = Field(
        default=None,
        description="By how much its processes answer differently; null with a single process.",
    )
    cold: Cold = Field(description="What happens once.")
    batch_trials: list[BatchTrial] = Field(
        default=[], description="The batches from which its own was chosen, where it was `auto`."
    )


class QualityPass(Strict):
    """How the quality pass was laid out: each case evaluates each query once, untimed."""

    queries: Count = Field(description="Queries that every case evaluates.")
    batch: Count = Field(description="Queries that are evaluated at once.")
    shards: Count = Field(default=0, description="Parts that were evaluated apart and joined.")


class ProtocolRow(Strict):
    """The scores of one model by the protocol of the data."""

    name: str = Field(description="Of the case, or of the model in the published table.")
    batch: Count | None = Field(description="As in `quality`; null where it is not known.")
    answer: str | None = Field(
        default=None,
        description="The setting of that name: `forced`, as in the original's validation, or "
        "`generated`; null without it.",
    )
    scores: dict[str, dict[str, Fraction | None]] = Field(
        description="By group of queries, `overall` last, and by metric; a published row has what "
        "was published."
    )


@dataclass(frozen=True)
class ProtocolColumn:
    """A column of a table of scores by protocol: a metric of a group of queries."""

    group: str
    metric: str

    @property
    def heading(self) -> str:
        """Such as ``gIoU, short``; of all queries the metric alone."""
        metric = HEADINGS.get(self.metric, self.metric)
        return metric if self.group == ALL_QUERIES else f"{metric}, {self.group}"

    def score(self, row: ProtocolRow) -> float | None:
        """Return the score of a model; None where it is not known."""
        return row.scores.get(self.group, {}).get(self.metric)


class ProtocolScores(Strict):
    """The scores as papers report them of this data set."""

    name: str = Field(description="Of the protocol.")
    title: str = Field(description="Of the data set.")
    split: str = Field(description="Of the data set; a copy may call it otherwise.")
    metrics: list[str] = Field(description="What the protocol reports.")
    queries: dict[str, Count] = Field(description="Number of queries of each group.")
    departures: list[str] = Field(description="In what the run does not follow the protocol.")
    cases: list[ProtocolRow] = Field(description="The models of the run that have quality.")
    published: list[ProtocolRow] = Field(
        description="What the original's authors report of their own weights."
    )
    published_in: str | None = Field(description="Where; null without such rows.")
    nearest: dict[str, str] = Field(
        description="Of each case that is a released model, the published row nearest to it."
    )

    @property
    def columns(self) -> list[ProtocolColumn]:
        """The columns of its table: the metrics of each group, `overall` last."""
        columns = []
        for group in self.queries:
            columns += [ProtocolColumn(group, metric) for metric in self.metrics]
        return columns


class BothAnswered(Strict):
    """Quality over the queries that both cases answered: what failures cost is left out."""

    n: Count = Field(description="Queries that ended ok or no_seg in both.")
    gIoU_points: Points | None = Field(description="Of gIoU; null without quality.")
    cIoU_points: Points | None = Field(description="Of cIoU; null without quality.")
    mIoU_points: Points | None = Field(default=None, description="Of mIoU; null without quality.")


class Joint(Strict):
    """Two bounds that hold together, at 95 %: beyond each end of a 95 % interval lie 2.5 %."""

    time_saved_at_least: float = Field(
        description="Share of the reference's time; below 0, the candidate may take so much more."
    )
    gIoU_points_lost_at_most: float = Field(
        description="Below 0, the candidate is better by at least so much."
    )


class Comparison(Strict):
    """One candidate against the reference, paired by query."""

    reference: str = Field(description="Name of the case that is compared with.")
    candidate: str = Field(description="Name of the case that is compared.")
    end_to_end: Ratio = Field(description="Of the time of a query.")
    throughput: Ratio = Field(
        default=NO_RATIO,
        description="Of queries per second: above 1 is more. Null where latency was measured.",
    )
    time_verdict: Verdict = Field(
        default="inconclusive",
        description="What the interval of end_to_end says of a threshold of 5 %.",
    )
    without_preprocess: Ratio = Field(
        default=NO_RATIO,
        description="Of the time of a query less its preprocessing; null where there is none.",
    )
    stages: dict[str, Ratio] = Field(description="By stage that both cases have.")
    further_token: Ratio = Field(
        default=NO_RATIO,
        description="Of time.further_token_ms, always of the timed rounds; null where a side "
        "generated no such token.",
    )
    stages_synchronised: bool = Field(
        default=False,
        description="Whether `stages` is of the pass that waits for the GPU at each stage's end.",
    )
    memory_definition: Literal["peak", "growth"] = Field(
        default="peak",
        description="What the ratios of memory are of: the allocator's peak (GPU), or the growth "
        "of the resident set "
        "over what stood there before the model was built (CPU).",
    )
    peak_memory: Ratio = Field(
        description="Of memory.peak_bytes, on a CPU of memory.growth_bytes; null where the "
        "instruments differ."
    )
    query_peak_memory: Ratio = Field(
        default=NO_RATIO,
        description="Of memory.query_peak_bytes, on a CPU of memory.query_growth_bytes; null "
        "where the instruments "
        "differ.",
    )
    gIoU_points: Points | None = Field(description="Of gIoU; null without quality.")
    cIoU_points: Points | None = Field(description="Of cIoU; null without quality.")
    mIoU_points: Points | None = Field(default=None, description="Of mIoU; null without quality.")
    gIoU_verdict: Verdict | None = Field(
        default=None,
        description="What the interval of gIoU_points says of a threshold of 2 points; null "
        "without it.",
    )
    images_to_tell: Count | None = Field(
        default=None,
        description="Where gIoU_verdict is inconclusive: about how many images would settle it.",
    )
    joint: Joint | None = Field(
        default=None, description="Time and gIoU at once; null where either has no interval."
    )
    both_answered: BothAnswered = Field(
        description="The same, without the queries that either failed."
    )
    differences: dict[str, tuple[JsonValue, JsonValue]] = Field(
        description="Every setting that differs: [of the reference, of the candidate]. More than "
        "one is a confound, "
        "unless it follows from another."
    )
    energy: Ratio = Field(
        default=NO_RATIO,
        description="Of the mean energy of a query in each process; null without a counter.",
    )
    same_settings: bool = Field(
        default=False, description="No setting differs: there is nothing to compare."
    )


class Difference(Strict):
    """Mean of candidate minus reference over the pairs of memory processes, with a t interval."""

    bytes: float | None = Field(
        description="Candidate minus reference, in bytes. Null without a pair."
    )
    low: float | None = Field(
        description="Lower end of the 95 % interval; null with fewer than two pairs."
    )
    high: float | None = Field(
        description="Upper end of the 95 % interval; null with fewer than two pairs."
    )
    processes: Count = Field(description="Pairs of processes compared.")
    share: float | None = Field(
        description="Of the whole change; null where that cannot be told from 0."
    )

    @classmethod
    def from_estimate(cls, estimate: Estimate | None, share: float | None) -> Self:
        """Return the difference of an estimate in bytes, all null without one."""
        if estimate is None:
            return cls(bytes=None, low=None, high=None, processes=0, share=None)
        return cls(
            bytes=estimate.value,
            low=estimate.low,
            high=estimate.high,
            processes=estimate.n,
            share=share,
        )

    @property
    def estimate(self) -> Estimate | None:
        """The difference with its interval, in bytes; None without a pair."""
        if self.bytes is None:
            return None
        return Estimate(self.bytes, self.low, self.high, self.processes)


class TimeChange(Strict):
    """A change of a time in milliseconds: the whole is the sum of all `own` and `interaction`.

    A fixed cost, such as the launch of a kernel, adds milliseconds: on the scale of ratios it would
    look like an interaction.
    """

    reference_ms: float | None = Field(description="Mean over processes of the reference's median.")
    whole: Milliseconds = Field(description="The candidate minus the reference.")
    own: dict[str, Milliseconds] = Field(
        description="By factor, of the case that differs in it alone."
    )
    interaction: Milliseconds = Field(
        description="What the sum of `own` leaves; 0 where the factors are independent."
    )


class TimeParts(Strict):
    """A change of the time of a query, as ratios and in milliseconds.

    Of the ratios, the whole is the product of all `own` and `interaction`.
    """

    whole: Ratio = Field(
        description="The candidate over the reference, over the queries that all cases answered."
    )
    own: dict[str, Ratio] = Field(description="By factor, of the case that differs in it alone.")
    interaction: Ratio = Field(
        description="What the product of `own` leaves; 1 where the factors are independent."
    )
    end_to_end_ms: TimeChange | None = Field(
        default=None, description="The same change in milliseconds."
    )
    stages_ms: dict[str, TimeChange] = Field(
        default={}, description="By stage that all cases have."
    )
    stages_synchronised: bool = Field(
        default=False,
        description="Whether `stages_ms` is of the pass that waits for the GPU at each stage's "
        "end.",
    )


class MemoryParts(Strict):
    """A change of the peak of a query, without the build.

    The whole is the sum of all `own` and `interaction`.
    """

    reference_bytes: float | None = Field(
        description="Mean over processes of the reference's peak."
    )
    whole: Difference = Field(description="The candidate minus the reference.")
    own: dict[str, Difference] = Field(
        description="By factor, of the case that differs in it alone."
    )
    interaction: Difference = Field(
        description="What the sum of `own` leaves; 0 where the factors are independent."
    )


class EnergyParts(Strict):
    """A change of the energy of a query: the whole is the sum of all `own` and `interaction`."""

    reference_j: float = Field(description="Mean over processes of the reference, in joules.")
    whole: Joules = Field(description="The candidate minus the reference.")
    own: dict[str, Joules] = Field(description="By factor, of the case that differs in it alone.")
    interaction: Joules = Field(description="What the sum of `own` leaves.")


class Attribution(Strict):
    """What each factor causes of the change of one case that differs from its reference in several.

    A factor's own effect is seen at the reference's levels of the others. With three factors or
    more the interaction holds those of two as well; the attributions with those two alone show
    them.
    """

    reference: str = Field(description="Name of the case that is compared with.")
    candidate: str = Field(description="Name of the case whose change is taken apart.")
    levels: dict[str, tuple[str, str]] = Field(
        description="By factor, [of the reference, of the candidate]."
    )
    cases: dict[str, str] = Field(
        description="By factor, the case that differs from the reference in it alone."
    )
    time: TimeParts = Field(description="Of the time of a query.")
    memory: MemoryParts = Field(
        description="Of the peak memory of a query; null where the instruments differ."
    )
    energy: EnergyParts | None = Field(
        default=None,
        description="Of the energy of a query; null where a case has none, or another counter.",
    )


class CaseGroup(Strict):
    """Cases that took turns and are compared with one of them."""

    name: str = Field(description="Empty where all cases are one group.")
    reference: str = Field(description="Name of the case that the others are compared with.")
    cases: list[str] = Field(description="Names, the reference among them.")


class Roofline(Strict):
    """Peak rates of a device, as measured."""

    matrix_flops_per_s: dict[str, Positive] = Field(
        description="Of square matrix products, by data type."
    )
    bandwidth_bytes_per_s: Positive = Field(description="Of a copy, bytes read and written.")


class ClaimResult(Strict):
    """One claim of the suite and what came of it.

    Numbers are in `unit`: candidate over reference, points, or bytes.
    """

    claim: str = Field(description="In words.")
    quantity: str | None = Field(
        description="Such as time.vision; null where this run cannot measure it."
    )
    unit: Literal["ratio", "points", "bytes"] | None = Field(
        description="Of every figure here; null without quantity."
    )
    reference: str | None = Field(
        description="Name of the case that is compared with; null where the claim is of one."
    )
    candidate: str | None = Field(description="Name of the case that the claim is about.")
    at_most: float | None = Field(description="The bound: the claim holds up to it.")
    at_least: float | None = Field(description="The bound: the claim holds from it on.")
    published: float | None = Field(description="What the claim's author measured.")
    source: str | None = Field(description="Who says so, and how the claim is read here.")
    measured: float | None = Field(
        description="The figure of this run; of fits the memory that was taken."
    )
    interval: tuple[float, float] | None = Field(
        description="95 % interval of it; null where the run gives none."
    )
    verdict: Literal["confirmed", "refuted", "inconclusive", "not measured"] = Field(
        description="By the side of the bound on which the whole interval lies; of fits, as "
        "`cards` says."
    )
    reason: str | None = Field(
        description="Why it is inconclusive or not measured; of fits, what came of it."
    )
    regime: str | None = Field(
        default=None,
        description="How the answers came about: teacher-forced, or generated, and how long at "
        "most; null where that makes no difference, or is not known.",
    )
    meaning: str | None = Field(
        default=None,
        description="What the verdict means for someone who chooses a model; null where the suite "
        "does not say.",
    )


class CardFit(Strict):
    """Whether a case fits the card that all processes of a run were capped to."""

    case: str = Field(description="Name of the case.")
    card: str = Field(description="The card, such as 8GB.")
    card_bytes: Count = Field(description="Its memory.")
    taken_bytes: Count = Field(
        description="The most that a process of the memory pass held, by the driver; without that "
        "what the allocator reserved. 0 where neither was measured."
    )
    fits: bool | None = Field(
        description="False where it ran out of memory; null where it was not measured, or where "
        "the driver counts more than the card has."
    )


class Summary(Strict):
    """A whole run."""

    schema_: Literal["lisabench.summary/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version of this schema."
    )
    suite: str = Field(description="Name of the suite that was run.")
    title: str = Field(description="What the suite is about.")
    status: Literal["running", "complete", "failed"] = Field(
        description="How far the run has come."
    )
    stopped: Literal["time", "interrupt", "unknown"] | None = Field(
        default=None,
        description="Why the run ended before all was measured: its time was over, a user or a "
        "signal interrupted it, or it is not known, as where it was killed. Null where all was "
        "measured, and while the run goes on.",
    )
    started: str | None = Field(description="ISO 8601.")
    scenario: Literal["latency", "throughput"] = Field(
        default="latency", description="What the timed rounds measured."
    )
    measures_time: bool = Field(
        default=True, description="False where the plan has no processes for it."
    )
    machine: str = Field(description="The machine in one line.")
    data: dict[str, JsonValue] = Field(
        description="Root, split, count of queries and description of the data."
    )
    reference: str | None = Field(description="Name of the case that the others are compared with.")
    groups: list[CaseGroup] = Field(
        validation_alias="teams",
        serialization_alias="teams",
        description="Which cases took turns; all of them, unless the suite says otherwise.",
    )
    metrics: list[str] = Field(
        description="The metrics that the suite asks for; `quality` holds all of them."
    )
    cases: list[Case] = Field(description="The models that are compared, the reference first.")
    trivial_baselines: list[Case] = Field(
        validation_alias="controls",
        serialization_alias="controls",
        description="The trivial baselines, which the quality of `cases` is read against.",
    )
    against_trivial_baselines: list[AgainstTrivialBaseline] = Field(
        validation_alias="against_floors",
        serialization_alias="against_floors",
        default=[],
        description="Of each model that has quality: whether it is better than the best trivial "
        "baseline.",
    )
    comparisons: list[Comparison] = Field(
        description="Every other model against its group's reference."
    )
    twins: list[Twin] = Field(
        default=[], description="Cases that measure a reference a second time."
    )
    roofline: dict[str, Roofline] = Field(
        validation_alias="ceilings",
        serialization_alias="ceilings",
        default={},
        description="Peak rates of the machine, by device.",
    )
    attributions: list[Attribution] = Field(
        default=[],
        description="Changes that are taken apart into what each factor causes, most factors "
        "first.",
    )
    quality_pass: QualityPass | None = Field(
        default=None,
        description="How quality was evaluated; null where it is of the timed queries.",
    )
    protocol: ProtocolScores | None = Field(
        default=None,
        description="Scores by the protocol of the data set; null where none is known.",
    )
    bootstrap: Bootstrap | None = Field(
        default=None, description="How the intervals of quality were made."
    )
    claims: list[ClaimResult] = Field(
        default=[], description="What the suite claims, in its order."
    )
    trainings: list[TrainingRun] = Field(
        default=[], description="What came of the suite's trainings, in their order."
    )
    card_fits: list[CardFit] = Field(
        default=[],
        description="Of a run whose processes were capped to a card: whether each case fits it.",
    )
    cards: list[CardRow] = Field(
        default=[],
        description="Of a suite that names cards: whether each case and each training runs on each "
        "of them.",
    )
    training_comparisons: list[ComparedTrainings] = Field(
        default=[],
        description="The pairs of trainings that claims are about; without claims all against the "
        "first.",
    )
    warnings: list[str] = Field(description="Doubts about this run, each with what it is about.")

    @property
    def batches(self) -> list[int]:
        """How many queries each model evaluated at once in the timed rounds."""
        return [case.time.batch for case in self.cases]

    @property
    def measures_throughput(self) -> bool:
        """Whether throughput was measured, and not latency."""
        return self.scenario == "throughput"

    def in_group(self, group: CaseGroup) -> list[Case]:
        """Return the cases of a group, the reference first."""
        members = [case for case in self.cases if case.name in group.cases]
        return sorted(members, key=lambda case: case.name != group.reference)

    def is_reference(self, case: Case) -> bool:
        """Return whether others are compared with this case."""
        return any(case.name == group.reference for group in self.groups)

    def comparison(self, candidate: str) -> Comparison | None:
        """Return the comparison of this candidate with its reference; None where there is none."""
        for comparison in self.comparisons:
            if comparison.candidate == candidate:
                return comparison
        return None
