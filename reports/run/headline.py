"""The headline of a report: what was compared, on which data and machine, and the results."""

from collections.abc import Sequence

from ...harness.text import code, escape
from .. import formatting
from ..markdown import Markup, bold, bullet_list
from ..trivial_baselines import refused
from . import verdict_words
from .schema import Comparison, Summary

MOST_IN_A_PARAGRAPH = 2  # more comparisons are easier to read as a list
NO_INTERVAL = "No ratio of times has an interval: that needs two pairs of processes."


def headline(summary: Summary) -> str:
    """Return one paragraph, or with several groups or many variants a paragraph and a list."""
    paragraph = [_what_was_compared(summary)]
    for sentence in refused(summary.against_trivial_baselines):
        paragraph.append(bold(f"{sentence[0].upper()}{sentence[1:]}."))
    several_groups = len(summary.groups) > 1
    if several_groups:
        results = _results_by_group(summary)
    else:
        results = [_result(comparison) for comparison in summary.comparisons]
    random_weights = _random_weights(summary)
    if random_weights:
        results.append(random_weights)
    if several_groups or len(summary.comparisons) > MOST_IN_A_PARAGRAPH:
        return "\n".join(paragraph) + "\n\n" + bullet_list(results)
    return "\n".join(paragraph + results)


def _what_was_compared(summary: Summary) -> str:
    data = summary.data.get("description") or f"{summary.data.get('count', 'some')} queries"
    measured = "measured"
    if summary.measures_throughput:
        batches = verdict_words.in_batches(summary.batches) or "in batches of 1"
        measured = f"throughput was measured, {batches} queries,"
    sentence = (
        f"{_cases(summary)} in the suite {code(summary.suite)}, on {escape(data)}; "
        f"{measured} on {escape(summary.machine)}."
    )
    if summary.status != "complete":
        sentence += f" {bold(f'Status: {summary.status}.')}"
    return sentence


def _cases(summary: Summary) -> str:
    """Return which cases were compared with which reference."""
    names = [case.name for case in summary.cases]
    if not summary.comparisons:
        return _in_code(names) or "No model"
    if len(summary.groups) > 1:
        return (
            f"{len(names)} cases in {len(summary.groups)} groups, "
            "each case against the reference of its group,"
        )
    reference = summary.comparisons[0].reference
    candidates = [comparison.candidate for comparison in summary.comparisons]
    return f"{_in_code(candidates)} against the reference {code(reference)}"


def _result(comparison: Comparison) -> Markup:
    """Return a candidate's time, memory and quality, and the bounds that hold together."""
    time = verdict_words.emphasised(verdict_words.time_clause(comparison), comparison)
    clauses = [time]
    if comparison.throughput.ratio is not None:
        ratio = formatting.ratio_with_interval(comparison.throughput)
        clauses.append(f"it answers {ratio} as many queries per second")
    if comparison.peak_memory.ratio is not None:
        kind = verdict_words.memory_kind(comparison)
        clauses.append(f"its {kind} is {verdict_words.memory_ratios(comparison)}")
    if comparison.gIoU_points:
        difference = formatting.points_with_verdict(comparison.gIoU_points)
        clauses.append(f"its gIoU differs by {difference}")
    if comparison.joint and not comparison.same_settings:
        clauses.append(verdict_words.joint_bounds(comparison))
    return Markup(f"{'; '.join(clauses)}.")


def _results_by_group(summary: Summary) -> list[Markup]:
    """Return a line for each group: of each candidate the time, the memory and the quality."""
    lines = []
    for group in summary.groups:
        candidates = []
        for comparison in summary.comparisons:
            if comparison.candidate in group.cases:
                candidates.append(_result_in_group(comparison))
        if candidates:
            results = "; ".join(candidates)
            line = f"{bold(group.name)}, against {code(group.reference)}: {results}."
            lines.append(Markup(line))
    if all(comparison.end_to_end.low is None for comparison in summary.comparisons):
        lines.append(Markup(NO_INTERVAL))
    return lines


def _result_in_group(comparison: Comparison) -> str:
    if comparison.same_settings:
        return f"{code(comparison.candidate)} has the same settings"
    time = verdict_words.emphasised(verdict_words.time_with_verdict(comparison), comparison)
    parts = [f"{code(comparison.candidate)} time {time}"]
    if comparison.peak_memory.ratio is not None:
        kind = verdict_words.memory_kind(comparison)
        parts.append(f"{kind} {verdict_words.memory_ratios(comparison)}")
    if comparison.gIoU_points:
        parts.append(f"gIoU {formatting.points_with_verdict(comparison.gIoU_points)}")
    result = ", ".join(parts)
    if comparison.joint:
        result += f" ({verdict_words.joint_bounds(comparison)})"
    return result


def _random_weights(summary: Summary) -> Markup:
    """Return which models have random weights; empty if none."""
    random = [case.name for case in summary.cases if case.has_quality is False]
    if not random:
        return Markup()
    models = "all models" if len(random) == len(summary.cases) else _in_code(random)
    return Markup(
        f"**The weights of {models} are random**: time and memory are real, "
        f"quality is {formatting.NOT_AVAILABLE}."
    )


def _in_code(names: Sequence[str]) -> str:
    return formatting.listed([code(name) for name in names])
