"""What ``lisabench compare`` prints: Markdown whose columns also line up in a terminal."""

from collections.abc import Callable, Iterator

from ...harness.contract import STAGES
from ...harness.environment import Sides
from ...harness.statistics.bootstrap import SCORES
from .. import formatting
from ..markdown import Row, aligned, escape, listed
from ..peaks import GROWTH
from ..schema_base import Points, Ratio
from . import verdict_words
from .across import Across, Compared
from .schema import Case

PAIRED = (
    "Paired: both took turns in one run. A ratio is the median over the queries within a pair of processes, then the "
    "mean over the pairs, with Student's 95 % interval. Pairs of processes: {processes}; queries: {queries}."
)
UNPAIRED = (
    "Not paired: {why}. A ratio is that of the processes' medians over the common queries, with Welch's 95 % interval; "
    "what drifted from one to the other is in the ratio and not in its interval. Common queries: {queries}."
)
NO_BRACKETS = "A ratio without an interval is of a single process, or came out alike in all."


def side_by_side(found: Compared) -> str:
    """Every comparison with its figures, what differs, and what to doubt."""
    return "\n\n".join(section for one in found.comparisons for section in _sections(one))


def _sections(found: Across) -> Iterator[str]:
    names = found.reference.name, found.candidate.name
    yield f"## {escape(names[1])} against {escape(names[0])}"
    scored = f" Quality is of {found.scored_queries} queries." if found.scored_queries else ""
    yield f"{_how(found)}{scored} {NO_BRACKETS}"
    yield aligned(["", *names, "ratio or difference [95 %]"], list(_rows(found)), figures=True)
    if found.comparison.stages_synchronised:
        yield "Stages are of the pass that waits for the GPU at the end of each stage."
    if words := verdict_words.what_words_mean([found.comparison]):
        yield words
    if found.comparison.joint:
        yield f"Of {names[1]}: {verdict_words.joint(found.comparison)}."
    yield from listed([f"n/a, {what}: {why}." for what, why in found.not_compared.items()])
    if found.comparison.memory_definition == "growth":
        yield f"Memory: the ratio is of {GROWTH}."
    yield from _differences(found)
    yield from listed([f"warning: {warning}" for warning in found.warnings])


def _how(found: Across) -> str:
    if found.paired:
        return PAIRED.format(processes=found.comparison.end_to_end.processes, queries=found.queries)
    one_run = found.reference_run == found.candidate_run
    why = (
        "the two are of different teams and did not take turns"
        if one_run
        else "they are of different runs"
    )
    return UNPAIRED.format(why=why, queries=found.queries)


def _rows(found: Across) -> Iterator[Row]:
    cases, compared = (found.reference, found.candidate), found.comparison
    yield ["end to end (ms)", *_each(cases, _end_to_end), verdict_words.judged_time(compared)]
    waited = compared.stages_synchronised
    for stage in (stage for stage in STAGES if stage in compared.stages):
        values = _each(cases, lambda case, stage=stage: _stage(case, stage, waited))
        yield [f"{stage} (ms)", *values, _ratio(compared.stages[stage])]
    if any(case.energy_mj is not None for case in cases):
        yield [
            "energy of a query (J)",
            *_each(cases, lambda case: formatting.joules(case.energy_mj)),
            _ratio(compared.energy),
        ]
    unit = formatting.memory_unit(case.memory.peak_bytes for case in cases)
    if compared.memory_definition == "growth":
        peaks = [
            ("growth of memory", "growth_bytes", compared.peak_memory),
            ("growth of memory, build left out", "query_growth_bytes", compared.query_peak_memory),
            ("largest, whole process", "peak_bytes", None),
        ]
    else:
        peaks = [
            ("peak memory", "peak_bytes", compared.peak_memory),
            ("peak memory of a query", "query_peak_bytes", compared.query_peak_memory),
        ]
    for label, name, ratio in peaks:
        values = _each(
            cases, lambda case, name=name: formatting.memory(getattr(case.memory, name), unit)
        )
        yield [f"{label} ({unit[0]})", *values, _ratio(ratio) if ratio else ""]
    for name in SCORES:
        yield [
            name,
            *_each(cases, lambda c, n=name: _score(c, n)),
            _points(getattr(compared, f"{name}_points")),
        ]


def _each(cases: tuple[Case, Case], value: Callable[[Case], str]) -> list[str]:
    return [value(case) for case in cases]


def _end_to_end(case: Case) -> str:
    return formatting.milliseconds(case.time.end_to_end_ms)


def _stage(case: Case, stage: str, waited: bool) -> str:
    time = case.time.stages.get(stage)
    if time is None:
        return formatting.NOT_AVAILABLE
    return formatting.milliseconds(time.synchronised_ms if waited else time.median_ms)


def _score(case: Case, name: str) -> str:
    return formatting.score(getattr(case.quality, name), case.quality.intervals.get(name))


def _ratio(found: Ratio) -> str:
    return formatting.ratio_with_interval(found)


def _points(found: Points | None) -> str:
    return formatting.judged_points(found) if found else formatting.NOT_AVAILABLE


def _differences(found: Across) -> Iterator[str]:
    """Settings first, since they are what a comparison is about; then whatever else is not the same."""
    groups = {
        "setting": found.comparison.differences,
        "version": found.versions,
        "machine": found.machine,
        "plan": found.plan,
    }
    rows = [
        [f"{kind} {name}", *_values(sides)]
        for kind, of_kind in groups.items()
        for name, sides in of_kind.items()
    ]
    if rows:
        yield aligned(["differs", found.reference.name, found.candidate.name], rows, figures=False)
    else:
        yield "No setting, version, fact of the machine or part of the plan differs."


def _values(sides: Sides) -> list[str]:
    return ["-" if value is None else str(value) for value in sides]
