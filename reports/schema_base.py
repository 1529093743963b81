"""The parts that summaries share: types of numbers, the numbers of a case, and effects.

`run.schema` says what holds for every field, and puts the parts of a run together.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..harness.errors import DataError, validation_problems
from ..harness.json_file import read_object
from ..harness.statistics.estimate import Estimate

DIFFER_BY = 0.10  # the share by which a stage's two times must differ for both to be shown
# How a table calls a metric, where that is not its name.
HEADINGS = {
    "precision_0.5": "P@0.5",
    "precision_0.6": "P@0.6",
    "precision_0.7": "P@0.7",
    "precision_0.8": "P@0.8",
    "precision_0.9": "P@0.9",
    "N_acc": "N-acc",
    "T_acc": "T-acc",
    "boundary_IoU": "boundary IoU",
}

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """The base of all parts: frozen; unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, populate_by_name=True, frozen=True
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what was written into a file, such as ``summary.json``.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        content = read_object(path)
        try:
            return cls.model_validate_json(json.dumps(content))
        except ValidationError as error:
            problems = validation_problems(error)
            raise DataError(f"{path}: {problems}; `lisabench report` writes it again") from None


class Slice(Strict):
    """Scores over the queries that carry one value of a tag."""

    n: Count = Field(description="Queries in the slice.")
    gIoU: Fraction | None = Field(
        description="As in `quality`, over the slice; null without quality."
    )
    cIoU: Fraction | None = Field(
        description="As in `quality`, over the slice; null without quality."
    )


class StatusCounts(Strict):
    """How the queries that `quality` is computed from ended."""

    ok: Count = Field(description="Answered with a mask.")
    no_seg: Count = Field(
        description="Answered without [SEG]: an empty mask, timed like any other."
    )
    oom: Count = Field(description="Out of memory: IoU 0, no time.")
    timeout: Count = Field(description="Took too long: IoU 0, no time.")
    nonfinite: Count = Field(
        default=0, description="The model's numbers were NaN or infinite: IoU 0, no time."
    )
    error: Count = Field(description="Raised an error: IoU 0, no time.")


class Quality(Strict):
    """Scores over one record a query.

    It is of the quality pass, or without one of the lowest process that has the query.

    All null where has_quality is not true.
    """

    n: Count = Field(description="Queries, failed ones included.")
    batch: Count | None = Field(
        default=None,
        description="Queries that were evaluated at once, at most: the last batch may be smaller, "
        "and one that fails is evaluated query by query. Null without queries.",
    )
    gIoU: Fraction | None = Field(
        description="Mean foreground IoU over all queries; 1 where both are empty."
    )
    cIoU: Fraction | None = Field(description="Sum of intersections over sum of unions.")
    mIoU: Fraction | None = Field(
        description="Mean foreground IoU over the queries whose target is not empty."
    )
    class_IoU: Fraction | None = Field(
        description="Mean of background's and foreground's accumulated IoU."
    )
    box_GIoU: float | None = Field(
        ge=-1, le=1, description="Mean generalised IoU of the masks' bounding boxes."
    )
    precision_05: Fraction | None = Field(
        alias="precision_0.5", description="Share of non-empty targets, IoU >= 0.5."
    )
    precision_06: Fraction | None = Field(
        default=None, alias="precision_0.6", description="Share of non-empty targets, IoU >= 0.6."
    )
    precision_07: Fraction | None = Field(
        alias="precision_0.7", description="Share of non-empty targets, IoU >= 0.7."
    )
    precision_08: Fraction | None = Field(
        default=None, alias="precision_0.8", description="Share of non-empty targets, IoU >= 0.8."
    )
    precision_09: Fraction | None = Field(
        alias="precision_0.9", description="Share of non-empty targets, IoU >= 0.9."
    )
    N_acc: Fraction | None = Field(
        description="Share of empty targets that are answered with an empty mask."
    )
    T_acc: Fraction | None = Field(
        description="Share of non-empty targets that are answered with a non-empty mask."
    )
    boundary_IoU: Fraction | None = Field(
        default=None,
        description="Mean IoU of the masks' boundaries over non-empty targets; null where they "
        "were not counted, as without a quality pass.",
    )
    no_seg_rate: Fraction | None = Field(description="Share of queries answered without [SEG].")
    intervals: dict[str, tuple[Fraction, Fraction]] = Field(
        default={},
        description="95 % intervals of gIoU, cIoU and mIoU; empty without quality, or with one "
        "image.",
    )
    status: StatusCounts = Field(
        description="Queries by how they ended; also known without quality."
    )
    slices: dict[str, dict[str, Slice]] = Field(
        description="By tag (such as family), then by its value."
    )


class AnswerSpread(Strict):
    """How answers of one case differ between its processes, over queries that several answered."""

    processes: Count = Field(description="Processes that answered.")
    queries: Count = Field(description="Queries that more than one process answered.")
    differing: Count = Field(description="How many of them were not answered alike by all.")
    pixels: Count = Field(
        description="In the query that differs most, the pixels in which two masks differ at "
        "least: the counts inside "
        "and outside of the target are compared."
    )
    iou: Fraction = Field(
        description="Largest difference of a query's IoU with its target between two processes."
    )
    mask_distance: Fraction = Field(
        description="Largest 1 - IoU of two processes' masks of one query: of the kept masks "
        "where both processes "
        "kept them, otherwise a lower bound from the counts."
    )
    points: dict[str, NotNegative] = Field(
        description="By score, gIoU and cIoU, its largest difference between two processes, in "
        "points; empty without "
        "quality."
    )


class RegionMedians(Strict):
    """One named region of a query, such as ``vision.clip``."""

    calls: Count = Field(description="Median number of times that a query enters the region.")
    median_ms: float = Field(
        description="Median over records of the region's exclusive time, in milliseconds."
    )


class StageTime(RegionMedians):
    """One stage: the exclusive times of its regions added up.

    `calls` is of its region that is entered most.
    """

    share: float = Field(
        description="Median over records of the stage's share of the query's end-to-end time."
    )
    synchronised_ms: NotNegative | None = Field(
        default=None,
        description="Median of the pass that waits for the GPU at each stage's end; null on a CPU.",
    )
    gpu_busy_ms: NotNegative | None = Field(
        default=None,
        description="How long the GPU was at work in the stage, by the profiler; null on a CPU.",
    )
    floor_ms: NotNegative | None = Field(
        default=None,
        description="What the stage takes at least, by the machine's roofline: the larger of its "
        "operations over the "
        "matrix rate and its weights over the bandwidth. Null where the model does not say what "
        "it takes.",
    )

    @property
    def by_itself_ms(self) -> float:
        """The stage's own time: of the synchronised pass, where the GPU runs behind the host."""
        return self.median_ms if self.synchronised_ms is None else self.synchronised_ms

    @property
    def runs_ahead(self) -> bool:
        """Whether the host runs ahead of the GPU, so that the two times differ by `DIFFER_BY`."""
        waited_ms = self.synchronised_ms
        if waited_ms is None:
            return False
        return abs(waited_ms - self.median_ms) > DIFFER_BY * max(self.median_ms, waited_ms)


class OverProcesses(Strict):
    """A number with its interval over processes, for charts.

    It is exp(mean over processes of the logarithm of each process's number), with Student's t
    interval.
    """

    value: Positive = Field(description="In the unit of the quantity.")
    low: Positive | None = Field(
        description="Lower end of the 95 % interval; null with a single process."
    )
    high: Positive | None = Field(
        description="Upper end of the 95 % interval; null with a single process."
    )
    processes: Count = Field(description="Processes that it is of.")

    @classmethod
    def from_estimate(cls, estimate: Estimate) -> Self:
        """Return the number of an estimate whose units are processes."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, processes=estimate.n)

    @property
    def estimate(self) -> Estimate:
        """The number with its interval."""
        return Estimate(self.value, self.low, self.high, self.processes)


class Time(Strict):
    """Warm queries that ended ok or no_seg, of all processes. Null where nothing has been timed.

    Of queries that were evaluated in batches, each time is the share of one query.
    """

    clock: str | None = Field(
        description="Clock of every number here but host_ms: host, cuda events or virtual."
    )
    batch: Count = Field(
        default=1,
        description="Queries that were evaluated at once.",
    )
    n: Count = Field(description="Timed records: queries times processes.")
    queries: Count = Field(
        description="Distinct queries among them; what decides which percentiles are given."
    )
    processes: Count = Field(description="Processes among them.")
    end_to_end_ms: NotNegative | None = Field(
        description="Median time of a query, in milliseconds."
    )
    end_to_end_over_processes: OverProcesses | None = Field(
        default=None,
        description="That time in milliseconds with an interval, each process's number being "
        "exp(median over queries of ln(time)); null where nothing has been timed.",
    )
    queries_per_second: NotNegative | None = Field(
        default=None,
        description="Timed queries over the sum of their times and of the waits for their images; "
        "null where latency was measured.",
    )
    queries_per_second_over_processes: OverProcesses | None = Field(
        default=None,
        description="The same with an interval: the geometric mean over the processes.",
    )
    waiting_share: NotNegative | None = Field(
        default=None,
        description="Share of that sum in which the model waited for images.",
    )
    without_preprocess_ms: float | None = Field(
        default=None,
        description="Median of a query's time less its preprocessing; null where it has none.",
    )
    host_ms: NotNegative | None = Field(
        description="The same by the host's clock, in milliseconds."
    )
    percentiles_ms: dict[str, float] = Field(
        description="P90, P95, P99, each only if p ** queries <= 0.025; of batches their number "
        "counts."
    )
    unattributed_ms: float | None = Field(
        description="Median time outside all regions, in milliseconds."
    )
    unattributed_share: float | None = Field(
        description="Median of that time's share of the end-to-end time."
    )
    stages: dict[str, StageTime] = Field(description="By stage, in the order in which they run.")
    further_token_ms: NotNegative | None = Field(
        default=None,
        description="Median over records of the time of one token of a generated answer after "
        "the first: the stage llm without the prompt and the projection of [SEG], over the number "
        "of these tokens. Null where none was generated.",
    )
    further_token_over_processes: OverProcesses | None = Field(
        default=None,
        description="That time in milliseconds with an interval, as end_to_end_over_processes.",
    )
    regions: dict[str, RegionMedians] = Field(description="By region, such as vision.clip.")
    outliers: Count = Field(
        description="Records farther from the median than ten standard deviations, each 1.4826 "
        "times the median absolute deviation: flagged, never dropped."
    )

    @property
    def gpu_busy_ms(self) -> float | None:
        """For how long the GPU was at work in a query, by the profiler; None on a CPU."""
        busy_ms = [stage.gpu_busy_ms for stage in self.stages.values()]
        known_ms = [time_ms for time_ms in busy_ms if time_ms is not None]
        return sum(known_ms) if known_ms else None

    @property
    def gpu_busy_share(self) -> float | None:
        """The share of a query's time in which the GPU was at work; None where it is unknown."""
        if self.gpu_busy_ms is None or not self.end_to_end_ms:
            return None
        return self.gpu_busy_ms / self.end_to_end_ms


class StageMemory(Strict):
    """Memory of one stage, the largest of all processes; null where the platform cannot tell."""

    start_bytes: Count | None = Field(description="In use when the stage began.")
    peak_bytes: Count | None = Field(description="Largest over the queries of the memory pass.")
    peak_reserved_bytes: Count | None = Field(
        description="The same of what the allocator holds (CUDA)."
    )
    device_process_bytes: Count | None = Field(
        description="What the driver counts for the process (CUDA)."
    )


class MemorySplit(Strict):
    """What the peak of a query is made of; null where it is not known."""

    weights_bytes: Count | None = Field(
        description="What building asked the allocator for (CUDA), or the model's own tensors "
        "hold (CPU)."
    )
    paper_weights_bytes: Count | None = Field(description="The same by arithmetic.")
    kv_cache_bytes: Count | None = Field(
        description="Keys and values at the end of the longest query."
    )
    paper_kv_cache_bytes: Count | None = Field(description="The same by arithmetic.")
    activations_bytes: Count | None = Field(
        description="The rest of the allocator's peak in a query, with what CUDA graphs keep."
    )
    slack_bytes: Count | None = Field(
        description="What the allocator holds beyond what it has given out (CUDA)."
    )
    outside_bytes: Count | None = Field(
        description="What the driver counts beyond that: context, libraries (CUDA)."
    )


class Memory(Strict):
    """Peaks of a pass of its own, apart from timing."""

    instrument: str | None = Field(
        description="'resident set' (whole process, CPU) or 'cuda allocator'."
    )
    peak_bytes: Count | None = Field(description="The largest of all stages, the build among them.")
    query_peak_bytes: Count | None = Field(
        default=None, description="The largest of the stages of a query."
    )
    growth_bytes: Count | None = Field(
        default=None,
        description="On a CPU, the largest growth of a process: its peak less what stood there "
        "before the build. "
        "Null on a GPU, and where that was not recorded.",
    )
    query_growth_bytes: Count | None = Field(
        default=None, description="Likewise, without the peak of the build."
    )
    peak_reserved_bytes: Count | None = Field(
        description="The largest of all stages, as reserved (CUDA)."
    )
    device_process_bytes: Count | None = Field(
        description="The largest of all stages, as the driver counts (CUDA)."
    )
    stages: dict[str, StageMemory] = Field(
        description="By stage; `build` is the loading of the model."
    )
    split: MemorySplit | None = Field(
        default=None, description="What the peak of a query is made of."
    )


class WarmUpTimes(Strict):
    """What the warm-up of some processes took: medians over them, null where it is not known."""

    processes: Count = Field(description="How many processes.")
    warmup_s: NotNegative | None = Field(description="Seconds of the whole warm-up.")
    graphs: NotNegative | None = Field(description="CUDA graphs that were captured.")
    capture_s: NotNegative | None = Field(
        description="Seconds of capturing them, with the calls before each, which compile layers."
    )
    compile_s: NotNegative | None = Field(description="Seconds of compiling layers.")


class Cold(Strict):
    """What happens once, and is in no other number."""

    build_s: NotNegative | None = Field(description="Seconds to build the adapter.")
    first_query_ms: NotNegative | None = Field(
        description="Milliseconds of the first process's very first query, or batch of queries."
    )
    first_warm_up: WarmUpTimes | None = Field(
        default=None,
        description="The first process, which may find nothing that is compiled already.",
    )
    later_warm_ups: WarmUpTimes | None = Field(
        default=None, description="The later processes, which find what the first has compiled."
    )


class Ratio(Strict):
    """exp(mean over process pairs of ln(candidate / reference)), with a t interval.

    Of a time, a pair's number is the median over its queries; of memory it is that of the two
    peaks.
    """

    ratio: Positive | None = Field(
        description="Candidate over reference: below 1 is cheaper. Null without a pair."
    )
    low: Positive | None = Field(
        description="Lower end of the 95 % interval; null with fewer than two pairs."
    )
    high: Positive | None = Field(
        description="Upper end of the 95 % interval; null with fewer than two pairs."
    )
    processes: Count = Field(
        description="Pairs of processes compared; unpaired, processes of the side with fewer."
    )
    smallest_detectable: Annotated[float, Field(ge=1)] | None = Field(
        description="Factor by which an estimate must differ from 1 for its interval to exclude 1."
    )

    @classmethod
    def from_estimate(cls, estimate: Estimate) -> Self:
        """Return the ratio of an estimate whose units are processes, or pairs of them."""
        return cls(
            ratio=estimate.value,
            low=estimate.low,
            high=estimate.high,
            processes=estimate.n,
            smallest_detectable=estimate.detectable_ratio,
        )

    @property
    def estimate(self) -> Estimate | None:
        """The ratio with its interval; None without a pair."""
        if self.ratio is None:
            return None
        return Estimate(self.ratio, self.low, self.high, self.processes)

    def inverted(self) -> Self:
        """Return the ratio of rates that belongs to a ratio of times: the ends change places."""
        if self.estimate is None:
            return self
        return self.from_estimate(self.estimate.inverted())


NO_RATIO = Ratio(ratio=None, low=None, high=None, processes=0, smallest_detectable=None)


class Joules(Strict):
    """Mean over the pairs of processes of candidate minus reference, with a t interval."""

    joules: float | None = Field(
        description="Candidate minus reference: below 0 is less energy. Null without a pair."
    )
    low: float | None = Field(
        description="Lower end of the 95 % interval; null with fewer than two pairs."
    )
    high: float | None = Field(
        description="Upper end of the 95 % interval; null with fewer than two pairs."
    )
    processes: Count = Field(description="Pairs of processes compared.")

    @classmethod
    def from_estimate(cls, estimate: Estimate | None) -> Self:
        """Return the difference of an estimate in joules, all null without one."""
        if estimate is None:
            return cls(joules=None, low=None, high=None, processes=0)
        return cls(
            joules=estimate.value, low=estimate.low, high=estimate.high, processes=estimate.n
        )

    @property
    def estimate(self) -> Estimate | None:
        """The difference with its interval; None without a pair."""
        if self.joules is None:
            return None
        return Estimate(self.joules, self.low, self.high, self.processes)


class Milliseconds(Strict):
    """Mean over the pairs of processes of candidate minus reference, with a t interval.

    A pair's number is the difference of the two medians over the queries that both answered in it.
    """

    ms: float | None = Field(
        description="Candidate minus reference: below 0 is faster. Null without a pair."
    )
    low: float | None = Field(
        description="Lower end of the 95 % interval; null with fewer than two pairs."
    )
    high: float | None = Field(
        description="Upper end of the 95 % interval; null with fewer than two pairs."
    )
    processes: Count = Field(description="Pairs of processes compared.")

    @classmethod
    def from_estimate(cls, estimate: Estimate | None) -> Self:
        """Return the difference of an estimate in milliseconds, all null without one."""
        if estimate is None:
            return cls(ms=None, low=None, high=None, processes=0)
        return cls(ms=estimate.value, low=estimate.low, high=estimate.high, processes=estimate.n)

    @property
    def estimate(self) -> Estimate | None:
        """The difference with its interval; None without a pair."""
        if self.ms is None:
            return None
        return Estimate(self.ms, self.low, self.high, self.processes)


class Twin(Strict):
    """A case with the settings of its group's reference: the two differ by noise alone.

    No interval of a ratio of times in the group is narrower than `half_widths` says;
    `reports/twins.py` says why.
    """

    reference: str = Field(description="Name of the group's reference.")
    candidate: str = Field(description="Name of the case with the same settings.")
    half_widths: dict[str, NotNegative] = Field(
        description="By quantity, such as time.vision: the least half-width of an interval, in "
        "natural logarithms."
    )
    milliseconds: dict[str, Milliseconds] = Field(
        description="By quantity, by how much the two differ."
    )


class Points(Strict):
    """A difference of a score in points: candidate minus reference, over the queries of both.

    The interval is that of the bootstrap over images, both sides scored on the same draw: see
    `bootstrap`.
    """

    difference: float = Field(
        description="Candidate minus reference, times 100: above 0 is better."
    )
    low: float | None = Field(description="Lower end of the 95 % interval; null with one image.")
    high: float | None = Field(description="Upper end of the 95 % interval; null with one image.")
    clusters: Count = Field(description="Images.")
    smallest_detectable: NotNegative | None = Field(
        description="Points by which a difference must be away from 0 for its interval to exclude "
        "0."
    )

    @classmethod
    def from_estimate(cls, estimate: Estimate) -> Self:
        """Return the points of an estimate in points, whose units are images."""
        return cls(
            difference=estimate.value,
            low=estimate.low,
            high=estimate.high,
            clusters=estimate.n,
            smallest_detectable=estimate.detectable_difference,
        )

    @property
    def estimate(self) -> Estimate:
        """The difference with its interval, in points."""
        return Estimate(self.difference, self.low, self.high, self.clusters)


class AgainstTrivialBaseline(Strict):
    """A model's gIoU against the best trivial baseline's, over the queries that it answered."""

    case: str = Field(description="Name of the model.")
    baseline: str = Field(
        validation_alias="floor",
        serialization_alias="floor",
        description="Name of the best trivial baseline; whole-image and empty are computed where "
        "the run has not "
        "evaluated them.",
    )
    gIoU: Fraction = Field(description="Of the model.")
    baseline_gIoU: Fraction = Field(
        validation_alias="floor_gIoU",
        serialization_alias="floor_gIoU",
        description="Of the trivial baseline.",
    )
    gIoU_points: Points = Field(
        description="Of the model, the trivial baseline being the reference."
    )
    verdict: Literal["better", "doubtful", "not better"] = Field(
        description="Doubtful: above the trivial baseline, but the interval reaches down to it."
    )
    refused: bool = Field(
        description="A loaded checkpoint that is not better, about eight images at least."
    )


class Bootstrap(Strict):
    """How images are drawn for the intervals of quality."""

    resamples: Count = Field(description="Draws of as many images as there are, with replacement.")
    seed: int = Field(description="Of the draws.")
