"""The documented schema of a run's ``summary.json`` (``lisabench.summary/1``).

Every figure in it is derived from run.json and the journals beside it and can be made again. Null means unknown or
not applicable; NaN and infinities are refused. Times are milliseconds (``_ms``) or seconds (``_s``), memory is bytes,
shares and quality are fractions, ratios are candidate over reference.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..harness.verdicts import Verdict

SCHEMA = "lisabench.summary/1"
DIFFER_BY = 0.10  # the share by which a stage's two times must differ for both to be shown

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """What all parts share: unknown keys, NaN and infinities are errors; a summary is never changed once made."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True, frozen=True)


class Slice(Strict):
    """Scores over the queries that carry one value of a tag."""

    n: Count = Field(description="Queries in the slice.")
    gIoU: Fraction | None = Field(description="As in `quality`, over the slice; null without quality.")
    cIoU: Fraction | None = Field(description="As in `quality`, over the slice; null without quality.")


class StatusCounts(Strict):
    """How the queries that `quality` is computed from ended."""

    ok: Count = Field(description="Answered with a mask.")
    no_seg: Count = Field(description="Answered without [SEG]: an empty mask, timed like any other.")
    oom: Count = Field(description="Out of memory: IoU 0, no time.")
    timeout: Count = Field(description="Took too long: IoU 0, no time.")
    error: Count = Field(description="Raised an error: IoU 0, no time.")


class Quality(Strict):
    """Scores over one record a query (of the lowest process that has it). All null where has_quality is not true."""

    n: Count = Field(description="Queries, failed ones included.")
    gIoU: Fraction | None = Field(description="Mean foreground IoU over all queries; 1 where both are empty.")
    cIoU: Fraction | None = Field(description="Sum of intersections over sum of unions.")
    mIoU: Fraction | None = Field(description="Mean foreground IoU over the queries whose target is not empty.")
    class_IoU: Fraction | None = Field(description="Mean of background's and foreground's accumulated IoU.")
    box_GIoU: float | None = Field(ge=-1, le=1, description="Mean generalised IoU of the masks' bounding boxes.")
    precision_05: Fraction | None = Field(alias="precision_0.5", description="Share of non-empty targets, IoU >= 0.5.")
    precision_07: Fraction | None = Field(alias="precision_0.7", description="Share of non-empty targets, IoU >= 0.7.")
    precision_09: Fraction | None = Field(alias="precision_0.9", description="Share of non-empty targets, IoU >= 0.9.")
    N_acc: Fraction | None = Field(description="Share of empty targets that are answered with an empty mask.")
    T_acc: Fraction | None = Field(description="Share of non-empty targets that are answered with a non-empty mask.")
    no_seg_rate: Fraction | None = Field(description="Share of queries answered without [SEG].")
    intervals: dict[str, tuple[Fraction, Fraction]] = Field(
        default={}, description="95 % intervals of gIoU, cIoU and mIoU; empty without quality, or with one image."
    )
    status: StatusCounts = Field(description="Queries by how they ended; also known without quality.")
    slices: dict[str, dict[str, Slice]] = Field(description="By tag (such as family), then by its value.")


class RegionTime(Strict):
    """One named region of the ledger."""

    calls: Count = Field(description="Median number of times that a query enters the region.")
    median_ms: float = Field(description="Median over records of the region's exclusive time, in milliseconds.")


class StageTime(RegionTime):
    """One stage: the sum of the exclusive times of its regions. `calls` is of its region that is entered most."""

    share: float = Field(description="Median over records of the stage's share of the query's end-to-end time.")
    synchronised_ms: NotNegative | None = Field(
        default=None, description="Median of the pass that waits for the GPU at each stage's end; null on a CPU."
    )
    gpu_busy_ms: NotNegative | None = Field(
        default=None, description="How long the GPU was at work in the stage, by the profiler; null on a CPU."
    )
    floor_ms: NotNegative | None = Field(
        default=None,
        description="What the stage takes at the machine's ceilings: the larger of its operations over the matrix rate "
        "and its weights over the bandwidth. Null where the model does not say what it takes.",
    )

    @property
    def by_itself_ms(self) -> float:
        """Waited for, where the GPU runs behind the host."""
        return self.median_ms if self.synchronised_ms is None else self.synchronised_ms

    @property
    def runs_ahead(self) -> bool:
        """Whether waiting for the stage makes its time another."""
        waited = self.synchronised_ms
        return waited is not None and abs(waited - self.median_ms) > DIFFER_BY * max(self.median_ms, waited)


class Time(Strict):
    """Warm queries that ended ok or no_seg, of all processes. Null where nothing has been timed."""

    clock: str | None = Field(description="Clock of every figure here but host_ms: host, cuda events or virtual.")
    n: Count = Field(description="Timed records: queries times processes.")
    queries: Count = Field(description="Distinct queries among them; what decides which percentiles are given.")
    processes: Count = Field(description="Processes among them.")
    end_to_end_ms: NotNegative | None = Field(description="Median time of a query, in milliseconds.")
    host_ms: NotNegative | None = Field(description="The same by the host's clock, in milliseconds.")
    percentiles_ms: dict[str, float] = Field(description="P90, P95, P99, each only if p ** queries <= 0.025.")
    unattributed_ms: float | None = Field(description="Median time outside all regions, in milliseconds.")
    unattributed_share: float | None = Field(description="Median of that time's share of the end-to-end time.")
    stages: dict[str, StageTime] = Field(description="By stage, in the order in which they run.")
    regions: dict[str, RegionTime] = Field(description="By region, such as vision.clip.")
    outliers: Count = Field(description="Records farther than 14.826 MAD from the median: flagged, never dropped.")


class StageMemory(Strict):
    """Memory of one stage, the largest of all processes; null where the platform cannot tell."""

    start_bytes: Count | None = Field(description="In use when the stage began.")
    peak_bytes: Count | None = Field(description="Largest over the queries of the memory pass.")
    peak_reserved_bytes: Count | None = Field(description="The same of what the allocator holds (CUDA).")
    device_process_bytes: Count | None = Field(description="What the driver counts for the process (CUDA).")


class MemorySplit(Strict):
    """What the peak of a query is made of; null where it is not known."""

    weights_bytes: Count | None = Field(
        description="What building asked the allocator for (CUDA), or the model's own tensors hold (CPU)."
    )
    paper_weights_bytes: Count | None = Field(description="The same by arithmetic.")
    kv_cache_bytes: Count | None = Field(description="Keys and values at the end of the longest query.")
    paper_kv_cache_bytes: Count | None = Field(description="The same by arithmetic.")
    activations_bytes: Count | None = Field(description="The rest of the allocator's peak in a query (CUDA).")
    slack_bytes: Count | None = Field(description="What the allocator holds beyond what it has given out (CUDA).")
    outside_bytes: Count | None = Field(description="What the driver counts beyond that: context, libraries (CUDA).")


class Memory(Strict):
    """Peaks of a pass of its own, apart from timing."""

    instrument: str | None = Field(description="'resident set' (whole process, CPU) or 'cuda allocator'.")
    peak_bytes: Count | None = Field(description="The largest of all stages, the build among them.")
    query_peak_bytes: Count | None = Field(default=None, description="The largest of the stages of a query.")
    peak_reserved_bytes: Count | None = Field(description="The largest of all stages, as reserved (CUDA).")
    device_process_bytes: Count | None = Field(description="The largest of all stages, as the driver counts (CUDA).")
    stages: dict[str, StageMemory] = Field(description="By stage; `build` is the loading of the model.")
    split: MemorySplit | None = Field(default=None, description="What the peak of a query is made of.")


class Cold(Strict):
    """What happens once, and is in no other figure."""

    build_s: NotNegative | None = Field(description="Seconds to build the adapter.")
    first_query_ms: NotNegative | None = Field(description="Milliseconds of the first process's very first query.")


class Case(Strict):
    """One model, or one control, as it was run."""

    name: str = Field(description="Name of the case in its suite.")
    adapter: str = Field(description="Name under which the adapter is registered.")
    role: Literal["model", "control"] = Field(description="A control is a floor for quality; its time is no result.")
    settings: dict[str, JsonValue] | None = Field(description="Resolved and flat; null until the case was built.")
    has_quality: bool | None = Field(description="False for random weights; null until the case was built.")
    parameters: dict[str, Count] | None = Field(description="Number of parameters by part.")
    error: str | None = Field(description="Why the case could not be run.")
    memory_error: str | None = Field(default=None, description="Why its memory could not be measured.")
    quality: Quality = Field(description="Scores, and how the queries ended.")
    time: Time = Field(description="Warm queries: medians, stages, regions.")
    memory: Memory = Field(description="Peaks.")
    cold: Cold = Field(description="What happens once.")


class Ratio(Strict):
    """exp(mean over process pairs of ln(candidate / reference)), with a t interval.

    Of a time, a pair's figure is the median over its queries; of memory it is that of the two peaks.
    """

    ratio: Positive | None = Field(description="Candidate over reference: below 1 is cheaper. Null without a pair.")
    low: Positive | None = Field(description="Lower end of the 95 % interval; null with fewer than two pairs.")
    high: Positive | None = Field(description="Upper end of the 95 % interval; null with fewer than two pairs.")
    processes: Count = Field(description="Pairs of processes compared; unpaired, processes of the side with fewer.")
    smallest_detectable: Annotated[float, Field(ge=1)] | None = Field(
        description="Factor by which an estimate must differ from 1 for its interval to exclude 1."
    )


NO_RATIO = Ratio(ratio=None, low=None, high=None, processes=0, smallest_detectable=None)


class Points(Strict):
    """A difference of a score, in points: candidate minus reference, times 100, over the queries of both.

    The interval is that of the bootstrap over images, both sides scored on the same draw: see `bootstrap`.
    """

    difference: float = Field(description="Candidate minus reference, times 100: above 0 is better.")
    low: float | None = Field(description="Lower end of the 95 % interval; null with one image.")
    high: float | None = Field(description="Upper end of the 95 % interval; null with one image.")
    clusters: Count = Field(description="Images.")
    smallest_detectable: NotNegative | None = Field(
        description="Points by which a difference must be away from 0 for its interval to exclude 0."
    )


class Bootstrap(Strict):
    """How images are drawn for the intervals of quality."""

    resamples: Count = Field(description="Draws of as many images as there are, with replacement.")
    seed: int = Field(description="Of the draws.")


class BothAnswered(Strict):
    """Quality over the queries that both cases answered: what failures cost is left out."""

    n: Count = Field(description="Queries that ended ok or no_seg in both.")
    gIoU_points: Points | None = Field(description="Of gIoU; null without quality.")
    cIoU_points: Points | None = Field(description="Of cIoU; null without quality.")
    mIoU_points: Points | None = Field(default=None, description="Of mIoU; null without quality.")


class Joint(Strict):
    """Two bounds that hold together, at 95 %: each is an end of a 95 % interval, beyond which lie 2.5 %."""

    time_saved_at_least: float = Field(
        description="Share of the reference's time; below 0, the candidate may take so much more."
    )
    gIoU_points_lost_at_most: float = Field(description="Below 0, the candidate is better by at least so much.")


class Comparison(Strict):
    """One candidate against the reference, paired by query."""

    reference: str = Field(description="Name of the case that is compared with.")
    candidate: str = Field(description="Name of the case that is compared.")
    end_to_end: Ratio = Field(description="Of the time of a query.")
    time_verdict: Verdict = Field(
        default="inconclusive", description="What the interval of end_to_end says of a threshold of 5 %."
    )
    stages: dict[str, Ratio] = Field(description="By stage that both cases have.")
    stages_synchronised: bool = Field(
        default=False, description="Whether `stages` is of the pass that waits for the GPU at each stage's end."
    )
    peak_memory: Ratio = Field(description="Of memory.peak_bytes; null where the instruments differ.")
    query_peak_memory: Ratio = Field(
        default=NO_RATIO, description="Of memory.query_peak_bytes; null where the instruments differ."
    )
    gIoU_points: Points | None = Field(description="Of gIoU; null without quality.")
    cIoU_points: Points | None = Field(description="Of cIoU; null without quality.")
    mIoU_points: Points | None = Field(default=None, description="Of mIoU; null without quality.")
    joint: Joint | None = Field(default=None, description="Time and gIoU at once; null where either has no interval.")
    both_answered: BothAnswered = Field(description="The same, without the queries that either failed.")
    differences: dict[str, tuple[JsonValue, JsonValue]] = Field(
        description="Every setting that differs: [of the reference, of the candidate]. More than one is a confound, "
        "unless it follows from another."
    )
    same_settings: bool = Field(default=False, description="No setting differs: there is nothing to compare.")


class Difference(Strict):
    """Mean over the pairs of processes of the memory pass of candidate minus reference, with a t interval."""

    bytes: float | None = Field(description="Candidate minus reference, in bytes. Null without a pair.")
    low: float | None = Field(description="Lower end of the 95 % interval; null with fewer than two pairs.")
    high: float | None = Field(description="Upper end of the 95 % interval; null with fewer than two pairs.")
    processes: Count = Field(description="Pairs of processes compared.")
    share: float | None = Field(description="Of the whole change; null where that cannot be told from 0.")


class TimeParts(Strict):
    """A change of the time of a query: the whole is the product of all `own` and `interaction`."""

    whole: Ratio = Field(description="The candidate over the reference, over the queries that all cases answered.")
    own: dict[str, Ratio] = Field(description="By factor, of the case that differs in it alone.")
    interaction: Ratio = Field(description="What the product of `own` leaves; 1 where the factors are independent.")


class MemoryParts(Strict):
    """A change of the peak of a query, the build left out: the whole is the sum of all `own` and `interaction`."""

    reference_bytes: float | None = Field(description="Mean over processes of the reference's peak.")
    whole: Difference = Field(description="The candidate minus the reference.")
    own: dict[str, Difference] = Field(description="By factor, of the case that differs in it alone.")
    interaction: Difference = Field(description="What the sum of `own` leaves; 0 where the factors are independent.")


class Attribution(Strict):
    """What each factor causes of the change of one case that differs from its reference in several, and nothing else.

    A factor's own effect is seen at the reference's levels of the others. With three factors or more the interaction
    holds those of two as well; the attributions with those two alone show them.
    """

    reference: str = Field(description="Name of the case that is compared with.")
    candidate: str = Field(description="Name of the case whose change is taken apart.")
    levels: dict[str, tuple[str, str]] = Field(description="By factor, [of the reference, of the candidate].")
    cases: dict[str, str] = Field(description="By factor, the case that differs from the reference in it alone.")
    time: TimeParts = Field(description="Of the time of a query.")
    memory: MemoryParts = Field(description="Of the peak memory of a query; null where the instruments differ.")


class Team(Strict):
    """Cases that took turns and are compared with one of them."""

    name: str = Field(description="Empty where all cases are one team.")
    reference: str = Field(description="Name of the case that the others are compared with.")
    cases: list[str] = Field(description="Names, the reference among them.")


class Ceilings(Strict):
    """What a device can do at best, as measured."""

    matrix_flops_per_s: dict[str, Positive] = Field(description="Of square matrix products, by data type.")
    bandwidth_bytes_per_s: Positive = Field(description="Of a copy, bytes read and written.")


class ClaimResult(Strict):
    """One claim of the suite and what came of it. Figures are in `unit`: candidate over reference, points, or bytes."""

    claim: str = Field(description="In words.")
    quantity: str | None = Field(description="Such as time.vision; null where this run cannot measure it.")
    unit: Literal["ratio", "points", "bytes"] | None = Field(description="Of every figure here; null without quantity.")
    reference: str | None = Field(description="Name of the case that is compared with; null where the claim is of one.")
    candidate: str | None = Field(description="Name of the case that the claim is about.")
    at_most: float | None = Field(description="The bound: the claim holds up to it.")
    at_least: float | None = Field(description="The bound: the claim holds from it on.")
    published: float | None = Field(description="What the claim's author measured.")
    source: str | None = Field(description="Who says so, and how the claim is read here.")
    measured: float | None = Field(description="The figure of this run; of fits the memory that was taken.")
    interval: tuple[float, float] | None = Field(description="95 % interval of it; null where the run gives none.")
    verdict: Literal["confirmed", "refuted", "inconclusive", "not measured"] = Field(
        description="By the side of the bound on which the whole interval lies; of fits, by a capped process."
    )
    reason: str | None = Field(description="Why it is inconclusive or not measured; of fits, what came of it.")


class Summary(Strict):
    """A whole run."""

    schema_: Literal["lisabench.summary/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version of this schema."
    )
    suite: str = Field(description="Name of the suite that was run.")
    title: str = Field(description="What the suite is about.")
    status: Literal["running", "complete", "failed"] = Field(description="How far the run has come.")
    started: str | None = Field(description="ISO 8601.")
    machine: str = Field(description="The machine in one line.")
    data: dict[str, JsonValue] = Field(description="Root, split, count of queries and description of the data.")
    reference: str | None = Field(description="Name of the case that the others are compared with.")
    teams: list[Team] = Field(description="Which cases took turns; all of them, unless the suite says otherwise.")
    metrics: list[str] = Field(description="The metrics that the suite asks for; `quality` holds all of them.")
    cases: list[Case] = Field(description="The models that are compared, the reference first.")
    controls: list[Case] = Field(description="The floors, which the quality of `cases` is read against.")
    comparisons: list[Comparison] = Field(description="Every other model against its team's reference.")
    ceilings: dict[str, Ceilings] = Field(default={}, description="What the machine can do at best, by device.")
    attributions: list[Attribution] = Field(
        default=[], description="Changes that are taken apart into what each factor causes, most factors first."
    )
    bootstrap: Bootstrap | None = Field(default=None, description="How the intervals of quality were made.")
    claims: list[ClaimResult] = Field(default=[], description="What the suite claims, in its order.")
    warnings: list[str] = Field(description="Doubts about this run, each with what it is about.")

    def of_team(self, team: Team) -> list[Case]:
        """Its cases, the reference first."""
        members = [case for case in self.cases if case.name in team.cases]
        return sorted(members, key=lambda case: case.name != team.reference)

    def is_reference(self, case: Case) -> bool:
        """Whether others are compared with this case."""
        return any(case.name == team.reference for team in self.teams)

    def comparison(self, candidate: str) -> Comparison | None:
        """The comparison of this candidate with the reference, where there is one."""
        return next((found for found in self.comparisons if found.candidate == candidate), None)
