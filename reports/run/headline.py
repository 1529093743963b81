"""The headline of a report: what was compared, where, and what came of it, in one paragraph."""

from collections.abc import Iterator

from .. import formatting
from . import verdict_words
from .schema import Comparison, Summary
from .trivial_baselines import refused


def headline(summary: Summary) -> Iterator[str]:
    """What was compared, where, and what came of it, in one paragraph."""
    status = "" if summary.status == "complete" else f" **Status: {summary.status}.**"
    data = summary.data.get("description") or f"{summary.data.get('count', 'some')} queries"
    yield f"{_compared(summary)} in the suite `{summary.suite}`, on {data}; measured on {summary.machine}.{status}"
    several = len(summary.teams) > 1
    yield from (
        f"**{sentence[0].upper()}{sentence[1:]}.**" for sentence in refused(summary.against_floors)
    )
    lines = [*(_by_team(summary) if several else _by_candidate(summary)), *_random_weights(summary)]
    bullet = "- " if several or len(summary.comparisons) > 2 else ""
    yield from (
        ["\n" + bullet + lines[0], *(bullet + line for line in lines[1:])] if bullet else lines
    )


def _by_candidate(summary: Summary) -> Iterator[str]:
    for found in summary.comparisons:
        and_memory = (
            f"; its {verdict_words.memory_kind(found)} is {verdict_words.memory_ratios(found)}"
            if found.peak_memory.ratio is not None
            else ""
        )
        difference = found.gIoU_points
        and_quality = (
            f"; its gIoU differs by {formatting.points_with_verdict(difference)}"
            if difference
            else ""
        )
        bounds = f"; {verdict_words.joint_bounds(found)}" if _has_bounds(found) else ""
        yield f"{verdict_words.emphasised(verdict_words.time_clause(found), found)}{and_memory}{and_quality}{bounds}."


def _has_bounds(found: Comparison) -> bool:
    return found.joint is not None and not found.same_settings


def _by_team(summary: Summary) -> Iterator[str]:
    """A line a team: of each candidate the ratio of time, that of peak memory and the difference of gIoU."""
    for team in summary.teams:
        found = [found for found in summary.comparisons if found.candidate in team.cases]
        if found:
            candidates = "; ".join(_in_team(comparison) for comparison in found)
            yield f"**{team.name}**, against `{team.reference}`: {candidates}."
    if all(found.end_to_end.low is None for found in summary.comparisons):
        yield "No ratio of time has an interval: that takes two pairs of processes."


def _in_team(found: Comparison) -> str:
    if found.same_settings:
        return f"`{found.candidate}` has the same settings"
    gIoU = (
        f", gIoU {formatting.points_with_verdict(found.gIoU_points)}" if found.gIoU_points else ""
    )
    memory = (
        f", {verdict_words.memory_kind(found)} {verdict_words.memory_ratios(found)}"
        if found.peak_memory.ratio is not None
        else ""
    )
    bounds = f" ({verdict_words.joint_bounds(found)})" if _has_bounds(found) else ""
    time = verdict_words.emphasised(verdict_words.time_with_verdict(found), found)
    return f"`{found.candidate}` time {time}{memory}{gIoU}{bounds}"


def _compared(summary: Summary) -> str:
    names = [case.name for case in summary.cases]
    if not summary.comparisons:
        return _listed(names) or "No model"
    if len(summary.teams) > 1:
        return f"{len(names)} cases in {len(summary.teams)} teams, each case against its team's reference,"
    sides = {team.reference: [c.candidate for c in summary.comparisons if c.reference == team.reference]
             for team in summary.teams}  # fmt: skip
    return "; ".join(
        f"{_listed(others)} against the reference `{base}`"
        for base, others in sides.items()
        if others
    )


def _random_weights(summary: Summary) -> Iterator[str]:
    random = [case.name for case in summary.cases if case.has_quality is False]
    if random:
        whose = "all models" if len(random) == len(summary.cases) else _listed(random)
        yield f"**The weights of {whose} are random**: time and memory are real, quality is {formatting.NOT_AVAILABLE}."


def _listed(names: list[str]) -> str:
    return formatting.listed([f"`{name}`" for name in names])
