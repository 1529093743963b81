"""The documented schema of a study's ``summary.json`` (``lisabench.study_summary/2``).

All is derived from the study's records, null is unknown, times are seconds (``_s``) or milliseconds
(``_ms``), memory is bytes, quality is fractions, and differences of it are points. Intervals are
those of `harness.statistics.over_seeds`: the seed is the unit above the image; with a single seed,
of the images alone.

Version 2 has budgets, supersets and the mIoU of slices. It has no ratios over `dual-small`: that
comparison does not test the claim "faster convergence". ``within`` is "reached" or "not reached",
because it holds for one budget only.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, JsonValue

from ...harness.statistics.over_seeds import SeedEstimate
from ..finding import Verdict
from ..schema_base import Count, Fraction, NotNegative, Ratio, Strict

SCHEMA = "lisabench.study_summary/2"


class Level(Strict):
    """A score of a recipe, mean over its seeds."""

    score: Fraction = Field(description="Mean over the seeds.")
    low: float | None = Field(description="Lower end of the 95 % interval; null with one image.")
    high: float | None = Field(description="Upper end, likewise.")
    by_seed: list[float] = Field(description="Score of each seed, in the order of `seeds`.")

    @classmethod
    def from_estimate(cls, score: SeedEstimate) -> Self:
        """Return the level of an estimated score."""
        return cls(score=score.value, low=score.low, high=score.high, by_seed=list(score.by_seed))


class SeedPoints(Strict):
    """A difference of a score in points: candidate minus reference, paired by seed and query."""

    difference: float = Field(description="Mean over the seeds: above 0 is better.")
    low: float | None = Field(description="Lower end of the 95 % interval; null with one image.")
    high: float | None = Field(description="Upper end, likewise.")
    by_seed: list[float] = Field(description="Difference of each seed, in the order of `seeds`.")
    seeds: list[int] = Field(description="Seeds that both sides have.")
    clusters: Count = Field(description="Images.")
    smallest_detectable: NotNegative | None = Field(
        description="Points by which an estimate must be away from 0 for its interval to exclude 0."
    )
    detectable_at_80: NotNegative | None = Field(
        description="True difference, in points, that 80 % of such studies would tell from 0."
    )

    @classmethod
    def from_estimate(cls, points: SeedEstimate, seeds: Sequence[int]) -> Self:
        """Return the points of an estimated difference.

        Args:
            points: candidate minus reference, in points; its units are images.
            seeds: those that both sides have, in the order of its `by_seed`.
        """
        return cls(
            difference=points.value,
            low=points.low,
            high=points.high,
            by_seed=list(points.by_seed),
            seeds=list(seeds),
            clusters=points.n,
            smallest_detectable=points.detectable_difference,
            detectable_at_80=points.detectable,
        )


class StudyVerdict(Strict):
    """A verdict, and the reason where it is inconclusive or not measured."""

    verdict: Verdict = Field(description="confirmed, refuted, inconclusive or not measured.")
    reason: str | None = Field(description="Why no more can be said.")


class Within(Strict):
    """Whether a recipe came close enough to the dual within its budget."""

    verdict: Literal["reached", "not reached", "inconclusive", "not measured"] = Field(
        description="reached, not reached, inconclusive or not measured, for this budget only."
    )
    reason: str | None = Field(description="Why no more can be said.")


class Budget(Strict):
    """What one training learns from; all seeds of a recipe have the same budget."""

    steps: Count = Field(description="Steps of the optimizer.")
    scenes: Count = Field(description="Scenes of one step.")
    queries_per_scene: Count = Field(description="Queries about each scene of a step.")
    masks_per_scene: Count = Field(description="Queries per scene whose mask is learned too.")
    steps_with_queries: Count = Field(
        description="Steps that read queries. In others encoders learn alone, or copy SAM."
    )
    queries: Count = Field(description="steps_with_queries x scenes x queries_per_scene.")


class StudySlice(Strict):
    """gIoU and mIoU over some of the queries."""

    n: Count = Field(description="Queries in the slice.")
    gIoU: Level | None = Field(description="gIoU of the recipe; null where it has no query.")
    difference: SeedPoints | None = Field(
        description="Difference of gIoU to the dual; null for the dual."
    )
    mIoU: Level | None = Field(description="mIoU of the recipe; null where no query has a target.")
    mIoU_difference: SeedPoints | None = Field(
        description="Difference of mIoU to the dual; null for the dual, and without a target."
    )


class Superset(Strict):
    """A recipe that trains all parts of another one, and more; settings and losses are the same."""

    name: str = Field(description="Name of the recipe that trains more.")
    subset: str = Field(description="Name of the recipe that trains less.")
    extra: list[str] = Field(description="Parts that only the first one trains.")
    points: SeedPoints | None = Field(
        description="mIoU, the first minus the second; null without a common seed."
    )
    better: bool | None = Field(
        description="Whether the whole interval is above 0; null with fewer than two seeds."
    )


class Convergence(Strict):
    """How soon a recipe's validation gIoU reached a target.

    Lists are by seed, null where it was not reached.
    """

    best: list[float | None] = Field(description="Highest validation gIoU of each training.")
    common_steps: list[Count | None] = Field(
        description="Steps to the gIoU that all recipes of the seed reach."
    )
    common_s: list[NotNegative | None] = Field(description="The same in seconds of training.")
    near_dual_steps: list[Count | None] = Field(
        description="Steps to 95 % of the highest gIoU of the seed's dual."
    )
    near_dual_s: list[NotNegative | None] = Field(description="The same in seconds of training.")


class StudyCost(Strict):
    """The cost of a query at inference, measured by the run of a suite."""

    case: str = Field(
        description="The run's case: the recipe's own, or one with the same settings."
    )
    end_to_end_ms: NotNegative | None = Field(description="Median time of a query.")
    time: Ratio | None = Field(
        description="Ratio of times over the dual's; null for the dual, or if not compared."
    )
    peak_bytes: Count | None = Field(description="Peak of a query; of the whole process on a CPU.")
    memory: Ratio | None = Field(description="Ratio of peaks over the dual's, likewise.")


class Recipe(Strict):
    """All results of one recipe, or of the dual."""

    name: str = Field(description="Name of the variant in the study.")
    role: Literal["dual", "recipe", "ablation"] = Field(
        description="An ablation leaves out or adds a loss."
    )
    axes: dict[str, JsonValue] = Field(
        description="Settings in which the model differs from the dual."
    )
    trains: list[str] = Field(description="Parts of the model that are trained.")
    losses: str = Field(description="Name of the losses.")
    distils: bool = Field(description="Whether its first steps copy SAM's features.")
    budget: Budget | None = Field(
        description="What one training learned from; null where the records do not have it."
    )
    seeds: list[int] = Field(description="Seeds of its finished trainings.")
    trained_parameters: Count = Field(description="Trained parameters of all parts.")
    train_s: list[NotNegative] = Field(description="Seconds of training, by seed.")
    scores: dict[str, Level | None] = Field(description="gIoU, cIoU and mIoU on the test.")
    differences: dict[str, SeedPoints | None] = Field(
        description="Differences to the dual of the same seed, by score; empty for the dual."
    )
    within: Within | None = Field(
        description="Whether mIoU came within `within_points` of the dual's."
    )
    convergence: Convergence | None = Field(
        description="Null for the dual, and without validation."
    )
    cost: StudyCost | None = Field(description="Cost of a query; null where it was not measured.")
    slices: dict[str, dict[str, StudySlice]] = Field(
        description="Scores by tag (family, size, shape), then by value."
    )
    controls: dict[str, dict[str, Level | None]] = Field(
        description="gIoU of its own answers and of each control, then by family or `all`."
    )


class Ablation(Strict):
    """A loss left out or added, against the same recipe with its own losses."""

    change: str = Field(description="Such as 'without BCE'.")
    name: str = Field(description="Name of the variant.")
    reference: str = Field(description="Name of the recipe that it is compared with.")
    points: SeedPoints | None = Field(
        description="mIoU, ablation minus reference; null where it was not trained."
    )
    essential: StudyVerdict | None = Field(
        description="Whether it costs a point of mIoU or more; null for an addition."
    )


class StudySummary(Strict):
    """A whole study."""

    schema_: Literal["lisabench.study_summary/2"] = Field(
        alias="schema", default=SCHEMA, description="Name and version of this schema."
    )
    made: Mapping[str, JsonValue] = Field(
        description="Settings of the study, as study.json has them."
    )
    machines: list[str] = Field(description="Machines on which it was trained.")
    seeds: list[int] = Field(description="Seeds of the dual's trainings.")
    queries: Count = Field(description="Queries of the test.")
    images: Count = Field(description="Scenes that these queries are about.")
    within_points: NotNegative = Field(description="Bound of the claim on mIoU, in points.")
    costs_on: str | None = Field(
        description="Machine and instruments of the cost of a query; null if not measured."
    )
    recipes: list[Recipe] = Field(description="Results by recipe: the dual first, ablations last.")
    ablations: list[Ablation] = Field(description="Losses left out or added.")
    supersets: list[Superset] = Field(
        description="Pairs of recipes of which one trains more parts."
    )
    floors: dict[str, dict[str, float]] = Field(
        description="gIoU of each trivial baseline, then by family or `all`."
    )
    warnings: list[str] = Field(description="What speaks against these results.")

    def recipe(self, name: str) -> Recipe | None:
        """Return the recipe of this name; None where there is none."""
        return next((recipe for recipe in self.recipes if recipe.name == name), None)

    @property
    def rivals(self) -> list[Recipe]:
        """The recipes that are compared with the dual: all but the dual and the ablations."""
        return [recipe for recipe in self.recipes if recipe.role == "recipe"]
