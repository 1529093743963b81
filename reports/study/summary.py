"""The summary of a study, computed from its records."""

from collections.abc import Mapping, Sequence

from ...harness.records.journal import write_json
from ...harness.records.pixel_counts import CONTROLS, OWN
from ...harness.records.study import DUAL, StudyRecords, StudyTraining
from ...harness.statistics.verdicts import claim_verdict
from ..document import SUMMARY
from ..formatting import machine
from ..run.schema import Summary
from .budgets import budget, supersets
from .convergence import common_targets, convergence
from .costs import cost_of, measured_on, summary_of_costs
from .groups import (
    ABLATED,
    ABLATIONS,
    RecipeTrainings,
    differences,
    rivals_of,
    scores,
    trainings_by_recipe,
)
from .schema import Ablation, Level, Recipe, SeedPoints, StudySummary, StudyVerdict, Within
from .slices import ALL, controls, slices, trivial_baselines

WITHIN_POINTS = 2.0  # of mIoU: the claim is "within 2 points" of the dual
ESSENTIAL_POINTS = 1.0  # of mIoU: what leaving out an essential loss costs at least
# By how much gIoU the dual must exceed a model that lacks a part of its input. Otherwise the scenes
# can be solved without that part. The decoder of `llm-blind` still sees the right scene, hence
# less.
BLIND_GAP, LLM_BLIND_GAP = 0.3, 0.25
ONE_SEED = (
    "One seed was trained: every number is of one training a recipe, its interval is that of the "
    "images alone, and there is no verdict."
)
ONE_TRAINING = "of one training: nothing is known of other seeds"


def write_study_summary(study: StudyRecords) -> StudySummary:
    """Summarise a study and write ``summary.json`` into its folder, whole or not at all."""
    summary = summarise_study(study)
    write_json(study.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def summarise_study(study: StudyRecords) -> StudySummary:
    """Return the summary of a study, as far as it went."""
    trainings = trainings_by_recipe(study)
    baselines = trivial_baselines(study.trivial_baselines)
    costs = summary_of_costs(study)
    recipes = _recipes(trainings, _best_baseline(baselines), costs)
    counts = study.trainings[0].pixel_counts  # all trainings are evaluated on the same queries
    machines: dict[str, None] = {}  # as an ordered set
    for training in study.trainings:
        machines[machine(dict(training.manifest.environment))] = None
    return StudySummary(
        made=study.manifest.as_json(),
        costs_on=measured_on(costs),
        machines=list(machines),
        seeds=list(trainings[DUAL].by_seed) if DUAL in trainings else [],
        queries=len(counts),
        images=len(set(counts.scene.tolist())),
        within_points=WITHIN_POINTS,
        recipes=recipes,
        ablations=[_ablation(name, trainings) for name in ABLATIONS],
        supersets=supersets(trainings),
        floors=baselines,
        warnings=_warnings(study, recipes, baselines),
    )


def _best_baseline(baselines: Mapping[str, Mapping[str, float]]) -> float:
    """Return the gIoU of the best trivial baseline over all queries; 0 where none was counted."""
    return max((by_family[ALL] for by_family in baselines.values()), default=0.0)


def _recipes(
    trainings: Mapping[str, RecipeTrainings], best_baseline: float, costs: Summary | None
) -> list[Recipe]:
    dual = trainings.get(DUAL)
    dual_learned = dual is not None and _learned(scores(dual)["gIoU"], best_baseline)
    common = common_targets(rivals_of(trainings))
    recipes = []
    for trained in trainings.values():
        manifest = trained.manifest
        # The dual is compared with nothing, and without a finished dual no recipe is.
        to_dual, within, reached = {}, None, None
        reference = None if trained.name == DUAL else dual
        if reference is not None:
            to_dual = differences(reference, trained)
            within = _within(to_dual.get("mIoU"), dual_learned)
            reached = convergence(trained, reference, common)
        recipes.append(
            Recipe(
                name=trained.name,
                role=trained.role,
                axes=dict(manifest.variant.settings),
                trains=list(manifest.variant.trains),
                # Records of every release name the trained parts, and no recipe. "described" among
                # them is a name of losses: BCE, Dice and IoU, as the document of the modified LISA
                # has them. The parts are not the document's.
                losses=manifest.variant.losses,
                distils=manifest.variant.distils,
                budget=budget(trained),
                seeds=list(trained.by_seed),
                trained_parameters=sum(manifest.trained_parameters.values()),
                train_s=[training.manifest.seconds for training in trained.by_seed.values()],
                scores=scores(trained),
                differences=to_dual,
                within=within,
                convergence=reached,
                cost=cost_of(trained.name, trainings, costs),
                slices=slices(trained, reference),
                controls=controls(trained),
            )
        )
    return recipes


def _within(difference: SeedPoints | None, dual_learned: bool) -> Within:
    """Return whether a recipe came within `WITHIN_POINTS` of a dual.

    A dual that learned nothing decides nothing.
    "Not reached" and not "refuted": another budget or recipe may reach it.
    """
    if not dual_learned:
        return Within(
            verdict="inconclusive", reason="the dual is no better than the trivial baselines"
        )
    outcome = _verdict(difference, at_least=-WITHIN_POINTS)
    if outcome.verdict == "confirmed":
        return Within(verdict="reached", reason=None)
    if outcome.verdict == "refuted":
        return Within(verdict="not reached", reason=None)
    return Within(verdict=outcome.verdict, reason=outcome.reason)


def _learned(gIoU: Level | None, best_baseline: float) -> bool:
    """Return whether a recipe is better than every trivial baseline."""
    return gIoU is not None and gIoU.score > best_baseline


def _verdict(
    difference: SeedPoints | None, at_least: float | None = None, at_most: float | None = None
) -> StudyVerdict:
    """Return the verdict of an interval.

    That of a single training does not include seeds and decides nothing.
    """
    if difference is None:
        return StudyVerdict(verdict="not measured", reason="no seed has both trainings")
    if len(difference.seeds) == 1:
        return StudyVerdict(verdict="inconclusive", reason=ONE_TRAINING)
    verdict, reason = claim_verdict(difference, at_most, at_least)
    return StudyVerdict(verdict=verdict, reason=reason)


def _ablation(name: str, trainings: Mapping[str, RecipeTrainings]) -> Ablation:
    reference, trained = trainings.get(ABLATED), trainings.get(name)
    difference, essential = None, None
    if reference and trained:
        difference = differences(reference, trained)["mIoU"]
    # Only a loss that was left out can be shown to be essential.
    if "added" not in ABLATIONS[name]:
        essential = _verdict(difference, at_most=-ESSENTIAL_POINTS)
    return Ablation(
        change=ABLATIONS[name],
        name=name,
        reference=ABLATED,
        points=difference,
        essential=essential,
    )


def _warnings(
    study: StudyRecords, recipes: list[Recipe], baselines: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return what a reader should know before trusting the study."""
    warnings = []
    dual = next((recipe for recipe in recipes if recipe.role == "dual"), None)
    best_baseline = _best_baseline(baselines)
    if study.unfinished:
        warnings.append(f"Not finished, and left out: {', '.join(study.unfinished)}.")
    if dual is None:
        warnings.append("No dual is finished: no recipe is compared with one.")
    elif len(dual.seeds) == 1:
        warnings.append(ONE_SEED)
    warnings += _nonfinite_answers(study.trainings)
    if study.trivial_baselines is None:
        warnings.append("The trivial baselines were not counted.")
    for recipe in recipes:
        gIoU = recipe.scores["gIoU"]
        if not _learned(gIoU, best_baseline):
            score = f"gIoU {gIoU.score:.3f}" if gIoU else "no gIoU"
            warnings.append(
                f"{recipe.name} ({score}) is no better than the best trivial baseline "
                f"({best_baseline:.3f}): it learned nothing."
            )
    if dual is not None:
        if _learned(dual.scores["gIoU"], best_baseline):
            warnings += _answers_without_input(dual, baselines)
        missing = [name for name in CONTROLS if name not in dual.controls]
        if missing:
            warnings.append(f"The dual was evaluated without its controls {', '.join(missing)}.")
    return warnings


def _nonfinite_answers(trainings: Sequence[StudyTraining]) -> list[str]:
    """Return a warning for each training, or control of it, with answers that are not finite."""
    warnings = []
    for training in trainings:
        counts = training.pixel_counts
        for answer in counts.answers:
            failed = int(counts.failed(answer).sum())
            if failed:
                control = "" if answer == OWN else f", {answer}"
                warnings.append(
                    f"{training.name}-{training.seed}{control}: the logits of {failed} of "
                    f"{len(counts)} masks are NaN or infinite; these answers have IoU 0."
                )
    return warnings


def _answers_without_input(dual: Recipe, baselines: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a warning for each control or baseline that comes too near to the dual.

    It lacks a part of the input and still scores well: then the scenes can be solved without it.
    """
    own = dual.scores["gIoU"]
    if own is None:
        return []
    without_input = {}
    for name in CONTROLS:
        level = dual.controls.get(name, {}).get(ALL)
        if level:
            without_input[name] = level.score
    for name, by_family in baselines.items():
        without_input[name] = by_family[ALL]
    warnings = []
    for name, score in without_input.items():
        needed = LLM_BLIND_GAP if name == "llm-blind" else BLIND_GAP
        gap = own.score - score
        if gap < needed:
            warnings.append(
                f"{name} is {gap:.3f} gIoU below the dual, less than {needed}: "
                "the scenes can be solved without that input."
            )
    return warnings
