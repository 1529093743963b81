"""From the records of a study to its summary."""

from collections.abc import Iterator, Mapping

from ...harness.records.journal import write_json
from ...harness.records.pixel_counts import CONTROLS
from ...harness.records.study import StudyRecords
from ...harness.statistics.verdicts import claim_verdict, ends_of
from ..formatting import machine
from ..pages import SUMMARY
from .budgets import budget, supersets
from .convergence import common_targets, convergence
from .costs import Costs, costs_on
from .groups import ABLATED, ABLATIONS, DUAL, Trained, grouped, levels, points
from .schema import Ablation, Judgement, Level, Recipe, SeedPoints, StudySummary, Within
from .slices import ALL, controls, floors, slices

WITHIN_POINTS, ESSENTIAL_POINTS = 2.0, 1.0
BLIND_GAP, LLM_BLIND_GAP = 0.3, 0.25  # of gIoU, by which the dual must exceed what cannot look
ONE_SEED = (
    "One seed was trained: every figure is of one training a recipe, its interval is that of the images alone, "
    "and there is no verdict."
)
ONE_TRAINING = "of one training: nothing is known of other seeds"


def write_study_summary(study: StudyRecords) -> StudySummary:
    """Summarises a study and writes ``summary.json`` into its folder, whole or not at all."""
    summary = summarise_study(study)
    write_json(study.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def summarise_study(study: StudyRecords) -> StudySummary:
    """What the records say, as far as the study went."""
    groups = grouped(study)
    dual, judged = groups.get(DUAL), study.trainings[0].judged
    of_floors = {name: by[ALL] for name, by in floors(study.floors).items()} if study.floors else {}
    recipes = list(_recipes(study, groups, of_floors))
    return StudySummary(
        made=study.page,
        costs_on=costs_on(study),
        machines=list(
            dict.fromkeys(machine(each.page.get("passport") or {}) for each in study.trainings)
        ),
        seeds=list(dual.by_seed) if dual else [],
        queries=len(judged),
        images=len(set(judged.scene.tolist())),
        within_points=WITHIN_POINTS,
        recipes=recipes,
        ablations=[_ablation(name, groups) for name in ABLATIONS],
        supersets=supersets(groups),
        floors=floors(study.floors) if study.floors else {},
        warnings=list(_doubts(study, groups, recipes, of_floors)),
    )


def _recipes(
    study: StudyRecords, groups: Mapping[str, Trained], of_floors: Mapping[str, float]
) -> Iterator[Recipe]:
    costs, learned = (
        Costs(study),
        DUAL in groups and _learned(levels(groups[DUAL])["gIoU"], of_floors),
    )
    common = common_targets(
        [each for name, each in groups.items() if name != DUAL and name not in ABLATIONS]
    )
    for trained in groups.values():
        yield _recipe(trained, groups, costs, common, learned)


def _recipe(
    trained: Trained,
    groups: Mapping[str, Trained],
    costs: Costs,
    common: dict[int, float],
    learned: bool,
) -> Recipe:
    name, page, dual = trained.name, trained.one.page, groups.get(DUAL)
    variant, other = page["variant"], None if trained.name == DUAL else dual
    differences = points(other, trained) if other else {}
    return Recipe(
        name=name,
        role="dual" if name == DUAL else "ablation" if name in ABLATIONS else "recipe",
        axes=variant.get("axes") or {},
        trains=list(variant.get("trains") or []),
        # Records of every release name the trained parts, and no recipe. "described" among them is a name of losses:
        # BCE, Dice and IoU, as the document of the modified LISA has them. The parts are not the document's.
        losses=str(variant.get("losses")),
        distils=bool(variant.get("distils")),
        budget=budget(trained),
        seeds=list(trained.by_seed),
        trained_parameters=sum(page["trained_parameters"].values()),
        train_s=[each.page["seconds"] for each in trained.by_seed.values()],
        scores=levels(trained),
        differences=differences,
        within=_within(differences.get("mIoU"), learned) if other else None,
        convergence=convergence(trained, other, common) if other else None,
        cost=costs.of(name),
        slices=slices(trained, other),
        controls=controls(trained),
    )


def _within(difference: SeedPoints | None, learned: bool) -> Within:
    """Return whether a recipe came within `WITHIN_POINTS` of a dual; a dual that learned nothing decides nothing.

    "Not reached" and not "refuted": another budget or recipe may reach it.
    """
    if not learned:
        return Within(verdict="inconclusive", reason="the dual is no better than the floors")
    judgement = _bounded(difference, at_least=-WITHIN_POINTS)
    if judgement.verdict == "confirmed":
        return Within(verdict="reached", reason=None)
    if judgement.verdict == "refuted":
        return Within(verdict="not reached", reason=None)
    return Within(verdict=judgement.verdict, reason=judgement.reason)


def _learned(own: Level | None, of_floors: Mapping[str, float]) -> bool:
    return own is not None and own.score > max(of_floors.values(), default=0.0)


def _bounded(
    found: SeedPoints | None, at_least: float | None = None, at_most: float | None = None
) -> Judgement:
    """By the interval; a single training has none that knows of seeds, and decides nothing."""
    if found is None:
        return Judgement(verdict="not measured", reason="no seed has both trainings")
    if len(found.seeds) == 1:
        return Judgement(verdict="inconclusive", reason=ONE_TRAINING)
    verdict, reason = claim_verdict(ends_of(found), at_most, at_least)
    return Judgement(verdict=verdict, reason=reason)


def _ablation(name: str, groups: Mapping[str, Trained]) -> Ablation:
    reference, trained = groups.get(ABLATED), groups.get(name)
    found = points(reference, trained)["mIoU"] if reference and trained else None
    added = "added" in ABLATIONS[name]
    return Ablation(
        change=ABLATIONS[name],
        name=name,
        reference=ABLATED,
        points=found,
        essential=None if added else _bounded(found, at_most=-ESSENTIAL_POINTS),
    )


def _doubts(
    study: StudyRecords,
    groups: Mapping[str, Trained],
    recipes: list[Recipe],
    of_floors: Mapping[str, float],
) -> Iterator[str]:
    if study.unfinished:
        yield f"Not finished, and left out: {', '.join(study.unfinished)}."
    if DUAL not in groups:
        yield "No dual is finished, so that nothing is compared with it."
    elif len(groups[DUAL].by_seed) == 1:
        yield ONE_SEED
    if study.floors is None:
        yield "The floors were not counted."
    yield from (
        _no_better(each, of_floors)
        for each in recipes
        if not _learned(each.scores["gIoU"], of_floors)
    )
    for dual in (each for each in recipes if each.role == "dual"):
        yield from _given_away(dual, of_floors) if _learned(dual.scores["gIoU"], of_floors) else ()
        missing = [name for name in CONTROLS if name not in dual.controls]
        if missing:
            yield f"The dual was judged without its controls {', '.join(missing)}."


def _no_better(recipe: Recipe, of_floors: Mapping[str, float]) -> str:
    own, best = recipe.scores["gIoU"], max(of_floors.values(), default=0.0)
    score = f"gIoU {own.score:.3f}" if own else "no gIoU"
    return f"{recipe.name} ({score}) is no better than the best floor ({best:.3f}): it learned nothing."


def _given_away(dual: Recipe, of_floors: Mapping[str, float]) -> Iterator[str]:
    """Where what cannot look is too near to the dual, so that the scenes give the answer away."""
    own = dual.scores["gIoU"]
    found = ((name, dual.controls.get(name, {}).get(ALL)) for name in CONTROLS)
    blind = {name: level.score for name, level in found if level}
    for name, score in {**blind, **of_floors}.items() if own else ():
        needed = LLM_BLIND_GAP if name == "llm-blind" else BLIND_GAP
        if own and own.score - score < needed:
            gap = f"{name} is {own.score - score:.3f} gIoU below the dual, less than {needed}"
            yield f"{gap}: the scenes give answers away."
