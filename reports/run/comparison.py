"""Candidates against the reference, paired by query within each pair of processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...harness.contract import STAGES
from ...harness.records.readings import (
    Record,
    answered,
    of_case,
)
from ...harness.records.run import Run
from ...harness.statistics.verdicts import (
    QUALITY_THRESHOLD,
    TIME_THRESHOLD,
    images_to_tell,
    quality_verdict,
    ratio_verdict,
)
from ..energy import QUANTITY as ENERGY
from ..energy import energy_ratio
from ..peaks import by_resident_set
from ..quality import in_both, no_points, points
from ..ratios import (
    END_TO_END,
    WITHOUT_PREPROCESS,
    TimeRatio,
    memory_ratio,
    no_ratio,
    of_stage,
    time_differences,
    time_ratio,
    time_ratios,
    were_synchronised,
)
from ..schema_base import NO_RATIO, Points, Ratio, Twin
from ..twins import NO_TWINS, no_narrower, twin_from
from .schema import BothAnswered, Case, Comparison, Joint, Team

Found = dict[str, Points | None]  # by score


@dataclass(frozen=True)
class Side:
    """A case with its lines of the journals; `scored` are those that its quality is computed from."""

    case: Case
    samples: list[Record]
    memory: list[Record]
    scored: list[Record]
    passes: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    """How the records of a reference and of a candidate become a ratio of times, one of peaks, and points."""

    time: TimeRatio
    memory: Callable[[list[Record], list[Record], bool], Ratio]
    energy: Callable[[list[Record], list[Record]], Ratio]
    quality: Callable[[list[Record], list[Record]], Found]


def compare(cases: Sequence[Case], team: Team, run: Run) -> list[Comparison]:
    """Every other case of a team against its reference; none where the reference is not among the cases."""
    base = next((case for case in cases if case.name == team.reference), None)
    if base is None:
        return []
    twins = twins_of(team, run)
    candidates = [case for case in cases if case.name in team.cases and case is not base]
    return [
        compare_sides(_side(base, run), _side(case, run), paired(base, case), twins)
        for case in candidates
    ]


def twins_of(team: Team, run: Run) -> list[Twin]:
    """Return the cases of a team that have the settings of its reference, with what they differ by from it."""
    entries = {entry["name"]: entry for entry in run.run["cases"] if entry["name"] in team.cases}
    base = entries.get(team.reference)
    twins = []
    for name, entry in entries.items():
        if base is not None and name != team.reference and _measures_again(base, entry):
            samples = [of_case(case, run.samples) for case in (team.reference, name)]
            passes = [of_case(case, run.passes) for case in (team.reference, name)]
            ratios = {**time_ratios(samples, passes), ENERGY: energy_ratio(*samples)}
            twins.append(twin_from(team.reference, name, ratios, time_differences(samples, passes)))
    return twins


def _measures_again(base: Record, entry: Record) -> bool:
    """Return whether a case of run.json has another's settings and clock; unknown settings are not the same."""
    settings = base.get("settings")
    return (
        bool(settings)
        and entry.get("settings") == settings
        and entry.get("clock") == base.get("clock")
    )


def _side(case: Case, run: Run) -> Side:
    samples, memory, passes = (
        of_case(case.name, lines) for lines in (run.samples, run.memory, run.passes)
    )
    return Side(case, samples, memory, run.scored(case.name), passes)


def paired(base: Case, case: Case) -> Way:
    """Process by process, as the two took turns; no time by different clocks, no quality of random weights."""
    same_clock = base.time.clock == case.time.clock
    quality = base.has_quality is True and case.has_quality is True
    return Way(
        time=time_ratio if same_clock else no_ratio,
        memory=memory_ratio,
        energy=energy_ratio,
        quality=points if quality else no_points,
    )


def compare_sides(base: Side, side: Side, way: Way, twins: Sequence[Twin] = NO_TWINS) -> Comparison:
    """One candidate against one reference.

    Args:
        base, side: the reference and the candidate.
        way: how their records become ratios.
        twins: of the team in which the two took turns: no interval of a ratio of times or of energy is narrower.
    """
    before, after = base.scored, side.scored
    found = way.quality(before, after)
    same_settings = bool(base.case.settings) and base.case.settings == side.case.settings

    passes = [base.passes, side.passes]
    times = time_ratios([base.samples, side.samples], passes, way.time)
    energy = way.energy(base.samples, side.samples)
    if not same_settings:  # a twin's own interval stays as it was measured
        times = {quantity: no_narrower(ratio, quantity, twins) for quantity, ratio in times.items()}
        energy = no_narrower(energy, ENERGY, twins)
    end_to_end = times[END_TO_END]
    stages = {stage: times[of_stage(stage)] for stage in STAGES if of_stage(stage) in times}
    return Comparison(
        reference=base.case.name,
        candidate=side.case.name,
        end_to_end=end_to_end,
        time_verdict=ratio_verdict(end_to_end, TIME_THRESHOLD),
        without_preprocess=times.get(WITHOUT_PREPROCESS, NO_RATIO),
        stages=stages,
        stages_synchronised=were_synchronised(passes),
        memory_definition="growth" if by_resident_set(base.memory) else "peak",
        peak_memory=way.memory(base.memory, side.memory, False),
        query_peak_memory=way.memory(base.memory, side.memory, True),
        energy=energy,
        **_named(found),
        **_judged(found["gIoU"]),
        joint=_joint(end_to_end, found["gIoU"]),
        both_answered=_both_answered(before, after, found, way),
        differences=_differences(base.case, side.case),
        same_settings=same_settings,
    )


def _judged(quality: Points | None) -> dict[str, Any]:
    """Return the verdict on a difference of gIoU, and how many images would give one."""
    if quality is None:
        return {"gIoU_verdict": None, "images_to_tell": None}
    verdict = quality_verdict(quality, QUALITY_THRESHOLD)
    images = images_to_tell(quality.difference, quality, quality.clusters)
    return {"gIoU_verdict": verdict, "images_to_tell": images}


def _joint(time: Ratio, quality: Points | None) -> Joint | None:
    if quality is None or quality.low is None or time.high is None:
        return None
    return Joint(time_saved_at_least=1 - time.high, gIoU_points_lost_at_most=-quality.low)


def _both_answered(
    before: list[Record], after: list[Record], whole: Found, way: Way
) -> BothAnswered:
    """Where nothing failed it is the same, and is not worked out twice."""
    common = in_both(before, after)[0]
    sides = in_both(answered(before), answered(after))
    found = whole if len(sides[0]) == len(common) else way.quality(*sides)
    return BothAnswered(n=len(sides[0]), **_named(found))


def _named(found: Found) -> dict[str, Any]:
    return {f"{name}_points": value for name, value in found.items()}


def _differences(base: Case, case: Case) -> dict[str, tuple]:
    """The settings that differ; one that a side does not have is null there."""
    before, after = base.settings or {}, case.settings or {}
    if not before or not after:
        return {}
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def teams_of(entry: dict[str, Any]) -> list[Team]:
    """Return the teams of a run's run.json; a run that was recorded without teams is one team."""
    return [Team(**team) for team in entry.get("teams") or [_everyone(entry)]]


def team_with(names: set[str], entry: dict[str, Any]) -> Team | None:
    """Return the team of a run's run.json that all of these cases belong to, or None where they took no turns."""
    for team in teams_of(entry):
        if names <= set(team.cases):
            return team
    return None


def _everyone(entry: dict[str, Any]) -> dict[str, Any]:
    models = [case["name"] for case in entry["cases"] if case["role"] == "model"]
    return {"name": "", "reference": entry.get("reference") or "", "cases": models}
