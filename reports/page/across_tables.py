"""What ``lisabench compare`` says of cases, as sections for a terminal or for Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ...harness.contract import STAGES
from ...harness.statistics.bootstrap import SCORES
from .. import formatting
from ..document import Heading, Lines, Section, Table, markdown
from ..markdown import Row, cell
from ..peaks import GROWTH
from ..run import verdict_words
from ..run.across import Across, Compared
from ..run.schema import Case
from ..run.verdicts import in_words, verdicts

PAIRED = (
    "Paired: both took turns in one run. A ratio is the median over the queries within a pair of "
    "processes, then the mean over the pairs, with Student's 95 % interval. Pairs of processes: "
    "{processes}; queries: {queries}."
)
UNPAIRED = (
    "Not paired: {why}. A ratio is that of the processes' medians over the common queries, with "
    "Welch's 95 % interval. What changed on the machine between the two is in the ratio, but not "
    "in its interval. Common queries: {queries}."
)
NO_BRACKETS = "A ratio has no interval if it is of a single process, or the same in all processes."


def side_by_side(compared: Compared) -> str:
    """Return `sections_of_cases` in Markdown."""
    return markdown(sections_of_cases(compared))


def sections_of_cases(compared: Compared) -> list[Section]:
    """Return every comparison with its numbers, what differs besides them, and warnings.

    Warnings that all of several comparisons share stand once, at the end.
    """
    shared = _shared_warnings(compared.comparisons)
    sections: list[Section] = []
    for across in compared.comparisons:
        sections += _sections(across)
        sections.append(_warnings(text for text in across.warnings if text not in shared))
    if shared:
        sections += [Heading("Warnings about all comparisons"), _warnings(shared)]
    return sections


def _shared_warnings(comparisons: Sequence[Across]) -> list[str]:
    first, *others = comparisons
    if not others:
        return []
    return [text for text in first.warnings if all(text in across.warnings for across in others)]


def _warnings(texts: Iterable[str]) -> Lines:
    return Lines([f"warning: {text}" for text in texts])


def _sections(across: Across) -> Iterator[Section]:
    comparison = across.comparison
    reference, candidate = across.reference.name, across.candidate.name
    yield Heading(f"{candidate} against {reference}")
    yield Lines(_verdicts(across))
    yield _method(across)
    header = ["", reference, candidate, "ratio or difference [95 %]"]
    rows = [
        *_time_rows(across),
        *_energy_rows(across),
        *_memory_rows(across),
        *_quality_rows(across),
    ]
    yield Table(header, rows)
    if comparison.stages_synchronised:
        yield "Stages are of the pass that waits for the GPU at the end of each stage."
    meaning = verdict_words.meaning_of_words([comparison])
    if meaning:
        yield meaning
    if comparison.joint:
        yield f"Of {candidate}: {verdict_words.joint_bounds(comparison)}."
    if across.not_compared:
        yield Lines([f"n/a, {name}: {why}." for name, why in across.not_compared.items()])
    if comparison.memory_definition == "growth":
        yield f"Memory: the ratio is of {GROWTH}."
    yield _differences(across)


def _verdicts(across: Across) -> list[str]:
    """Return what the comparison says about time, memory and masks, in words first."""
    if across.comparison.same_settings:
        return []
    lines = []
    for verdict in verdicts(across.comparison, [across.reference, across.candidate]):
        if not verdict.word:
            lines.append(f"{verdict.quantity}: {verdict.note}")
            continue
        if not across.paired and verdict.quantity != "masks":
            # How many more would tell is known of pairs alone.
            verdict = replace(verdict, note="")
        lines.append(f"{verdict.quantity} {in_words(verdict)}")
    return lines


def _method(across: Across) -> str:
    """Return how the two were paired, on how many queries, and what a ratio is of."""
    if across.paired:
        processes = across.comparison.end_to_end.processes
        sentences = [PAIRED.format(processes=processes, queries=across.queries)]
    else:
        if across.reference_run == across.candidate_run:
            why = "the two are of different groups and did not take turns"
        else:
            why = "they are of different runs"
        sentences = [UNPAIRED.format(why=why, queries=across.queries)]
    if across.scored_queries:
        sentences.append(f"Quality is of {across.scored_queries} queries.")
    sentences.append(NO_BRACKETS)
    return " ".join(sentences)


def _time_rows(across: Across) -> Iterator[Row]:
    comparison = across.comparison
    times = across.reference.time, across.candidate.time
    sizes = [time.batch for time in times]
    label = "end to end (ms)"
    if verdict_words.in_batches(sizes):
        label = f"end to end, {verdict_words.kind_of_time(sizes)} (ms)"
    values = [formatting.milliseconds(time.end_to_end_ms) for time in times]
    yield [label, *values, verdict_words.time_with_verdict(comparison)]
    if any(time.queries_per_second is not None for time in times):
        values = [formatting.milliseconds(time.queries_per_second) for time in times]
        ratio = formatting.ratio_with_interval(comparison.throughput)
        yield ["queries per second", *values, ratio]
    for stage in STAGES:
        if stage in comparison.stages:
            row = [f"{stage} (ms)"]
            for case in (across.reference, across.candidate):
                row.append(_stage_time(case, stage, comparison.stages_synchronised))
            yield [*row, formatting.ratio_with_interval(comparison.stages[stage])]
    if any(time.further_token_ms is not None for time in times):
        values = [formatting.milliseconds(time.further_token_ms) for time in times]
        ratio = formatting.ratio_with_interval(comparison.further_token)
        yield [verdict_words.further_token(sizes), *values, ratio]


def _stage_time(case: Case, stage: str, synchronised: bool) -> str:
    """Return the median of a stage, from the pass that the ratio beside it is of."""
    time = case.time.stages.get(stage)
    if time is None:
        return formatting.NOT_AVAILABLE
    return formatting.milliseconds(time.synchronised_ms if synchronised else time.median_ms)


def _energy_rows(across: Across) -> Iterator[Row]:
    reference_mj, candidate_mj = across.reference.energy_mj, across.candidate.energy_mj
    if reference_mj is not None or candidate_mj is not None:
        ratio = formatting.ratio_with_interval(across.comparison.energy)
        values = [formatting.joules(reference_mj), formatting.joules(candidate_mj)]
        in_batches = across.reference.time.queries_per_second is not None
        label = "energy per query (J)" if in_batches else "energy of a query (J)"
        yield [label, *values, ratio]


def _memory_rows(across: Across) -> Iterator[Row]:
    """On a CPU, ratios are of the growth, and the peak of the whole process has none."""
    comparison = across.comparison
    whole = formatting.ratio_with_interval(comparison.peak_memory)
    query = formatting.ratio_with_interval(comparison.query_peak_memory)
    if comparison.memory_definition == "growth":
        rows = [
            ("growth of memory", "growth_bytes", whole),
            ("growth of memory, build left out", "query_growth_bytes", query),
            ("peak, whole process", "peak_bytes", ""),
        ]
    else:
        rows = [
            ("peak memory", "peak_bytes", whole),
            ("peak memory of a query", "query_peak_bytes", query),
        ]
    memories = (across.reference.memory, across.candidate.memory)
    unit = formatting.memory_unit(memory.peak_bytes for memory in memories)
    for label, field, ratio in rows:
        values = [formatting.memory(getattr(memory, field), unit) for memory in memories]
        yield [f"{label} ({unit.name})", *values, ratio]


def _quality_rows(across: Across) -> Iterator[Row]:
    for score in SCORES:
        row = [score]
        for case in (across.reference, across.candidate):
            value = getattr(case.quality, score)
            row.append(formatting.score(value, case.quality.intervals.get(score)))
        difference = getattr(across.comparison, f"{score}_points")
        if difference is None:
            row.append(formatting.NOT_AVAILABLE)
        else:
            row.append(formatting.points_with_verdict(difference))
        yield row


def _differences(across: Across) -> Section:
    """Return what is not the same: settings first, since the comparison is about them."""
    differences = {
        "setting": across.comparison.differences,
        "version": across.versions,
        "machine": across.machine,
        "plan": across.plan,
    }
    rows = []
    for kind, of_kind in differences.items():
        for name, (before, after) in of_kind.items():
            rows.append([f"{kind} {name}", cell(before), cell(after)])
    if not rows:
        return "No setting, version, fact of the machine or part of the plan differs."
    header = ["differs", across.reference.name, across.candidate.name]
    return Table(header, rows, numbers=False)
