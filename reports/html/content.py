"""What stands on the page of a run, in the order in which it is read.

All texts are plain: the template escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...harness.contract import STAGES
from ...harness.text import one_line
from .. import formatting
from ..cards import HOW, card_table, remarks
from ..run import verdict_words
from ..run.protocol import protocol_in_a_sentence, protocol_table, published_note
from ..run.schema import Attribution, Case, Summary
from ..run.verdicts import Verdict, in_a_sentence, verdicts
from ..run.warnings import WARNINGS_IN_FULL

UNATTRIBUTED = "unattributed"
WHY_NO_QUALITY = "Random weights have no quality. Their time and memory are real."
BAR_WIDTH = 100.0  # of the longest bar, in the units of its drawing


@dataclass(frozen=True)
class Card:
    """What is said of one candidate.

    Attributes:
        number: of the case, by which it has its colour.
        name, reference: of the two cases.
        verdicts: on time, memory and masks.
    """

    number: int
    name: str
    reference: str
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Part:
    """A stage in a bar.

    Attributes:
        stage: its name.
        start, width: in the units of the bar.
        ms: its time.
    """

    stage: str
    start: float
    width: float
    ms: str


@dataclass(frozen=True)
class CaseRow:
    """A case in the table of times.

    Attributes:
        number, name: of the case.
        bar: its stages.
        ms, ratio, memory, gIoU: numbers with the intervals that they have.
        failed: why it has none; empty where it has.
    """

    number: int
    name: str
    bar: Sequence[Part]
    ms: str
    ratio: str
    memory: str
    gIoU: str
    failed: str


@dataclass(frozen=True)
class ClaimRow:
    """A claim with what came of it."""

    verdict: str
    claim: str
    regime: str
    measured: str
    bound: str
    published: str
    meaning: str
    note: str


@dataclass(frozen=True)
class CauseRow:
    """A change that is taken apart: the whole, and what each factor causes of it.

    Attributes:
        change: candidate and reference.
        whole: of the time or of the memory.
        parts: name and amount of each factor and of the interaction.
    """

    change: str
    whole: str
    parts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ProtocolTable:
    """The scores by the protocol of the data.

    Attributes:
        sentence: which protocol, split and batch, and in what the run departs from the protocol.
        headings: of the columns.
        rows: a row for each model, published ones last.
        note: what the published rows are; empty without any.
    """

    sentence: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


@dataclass(frozen=True)
class CardTable:
    """Which card runs what.

    Attributes:
        headings: of the columns.
        rows: a row for each case and training.
        note: how it was decided.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


@dataclass(frozen=True)
class Content:
    """Everything on the page but the chart and the queries.

    Attributes:
        title, headline: of the run.
        facts: about data, machine and date.
        cards: of the candidates.
        has_groups: whether not all cards have the same reference.
        silent: the quantities of which no card says anything, and why; all give one reason.
        warnings, more_warnings: the gravest and the others, one of each cause, as messages in
            which names of commands are in backticks.
        rows: of the cases.
        stages: the stages that any bar has.
        unit: of memory.
        memory: what is called so: the peak, or the growth on a CPU.
        kind_of_time: what a time is of.
        why_no_quality: empty where there is quality.
        protocol: scores by the protocol of the data; None where none is known.
        card_table: which card runs what; None where the suite names no cards.
        claims, causes_of_time, causes_of_memory, causes_of_energy: tables; empty where the suite
            has none.
    """

    title: str
    headline: str
    facts: Sequence[str]
    cards: Sequence[Card]
    has_groups: bool
    silent: Mapping[str, str]
    warnings: Sequence[str]
    more_warnings: Sequence[str]
    rows: Sequence[CaseRow]
    stages: Sequence[str]
    unit: str
    memory: Literal["peak", "growth"]
    kind_of_time: str
    why_no_quality: str
    protocol: ProtocolTable | None
    card_table: CardTable | None
    claims: Sequence[ClaimRow]
    causes_of_time: Sequence[CauseRow]
    causes_of_memory: Sequence[CauseRow]
    causes_of_energy: Sequence[CauseRow]


def content(summary: Summary) -> Content:
    """Return the content of a run's page."""
    rows, cards = _rows(summary), _cards(summary)
    shown = {part.stage for row in rows for part in row.bar}
    warnings = [one_line(warning) for warning in summary.warnings]
    return Content(
        title=one_line(summary.title),
        headline=one_line(in_a_sentence(summary)),
        facts=_facts(summary),
        cards=cards,
        has_groups=len({comparison.reference for comparison in summary.comparisons}) > 1,
        silent=_silent(cards),
        warnings=warnings[:WARNINGS_IN_FULL],
        more_warnings=warnings[WARNINGS_IN_FULL:],
        rows=rows,
        stages=[stage for stage in (*STAGES, UNATTRIBUTED) if stage in shown],
        unit=verdict_words.memory_unit_of(summary).name,
        memory=verdict_words.memory_kind(summary),
        kind_of_time=verdict_words.kind_of_time(summary.batches),
        why_no_quality=_why_no_quality(summary),
        protocol=_protocol(summary),
        card_table=_card_table(summary),
        claims=_claims(summary),
        causes_of_time=[_cause_of_time(attribution) for attribution in summary.attributions],
        causes_of_memory=_causes_of_memory(summary),
        causes_of_energy=_causes_of_energy(summary),
    )


def _facts(summary: Summary) -> list[str]:
    data = summary.data.get("description") or f"{summary.data.get('count', 'some')} queries"
    facts = [one_line(data), one_line(summary.machine)]
    if summary.started:
        facts.append(one_line(summary.started)[:16].replace("T", " "))
    return facts


def _cards(summary: Summary) -> list[Card]:
    numbers = _numbers(summary)
    cards = []
    for comparison in summary.comparisons:
        card = Card(
            number=numbers[comparison.candidate],
            name=one_line(comparison.candidate),
            reference=one_line(comparison.reference),
            verdicts=verdicts(comparison, summary.cases),
        )
        cards.append(card)
    return cards


def _silent(cards: Sequence[Card]) -> dict[str, str]:
    """Return the quantities that no card has a verdict on, each with the reason.

    Where the reasons differ, each card says its own.
    """
    notes: dict[str, set[str]] = {}
    for card in cards:
        for verdict in card.verdicts:
            note = "" if verdict.word or verdict.amount else verdict.note or ""
            notes.setdefault(verdict.quantity, set()).add(note)
    silent = {}
    for quantity, reasons in notes.items():
        if len(reasons) == 1 and "" not in reasons:
            silent[quantity] = reasons.pop()
    return silent


def _numbers(summary: Summary) -> dict[str, int]:
    return {case.name: number for number, case in enumerate(summary.cases)}


def _why_no_quality(summary: Summary) -> str:
    if any(case.has_quality is False for case in summary.cases):
        return WHY_NO_QUALITY
    if not any(case.quality.n for case in summary.cases):
        return "No query was scored."
    return ""


def _protocol(summary: Summary) -> ProtocolTable | None:
    protocol = summary.protocol
    if protocol is None or not protocol.cases:
        return None
    headings, rows = protocol_table(summary, protocol)
    return ProtocolTable(
        sentence=one_line(protocol_in_a_sentence(summary)),
        headings=headings,
        rows=[[one_line(text) for text in row] for row in rows],
        note=one_line(published_note(protocol)),
    )


def _card_table(summary: Summary) -> CardTable | None:
    if not summary.cards:
        return None
    headings, rows = card_table(summary.cards)
    return CardTable(
        headings=[one_line(heading) for heading in headings],
        rows=[[one_line(text) for text in row] for row in rows],
        note=one_line(f"{HOW} {remarks(summary.cards)}".replace("`", "")),
    )


def _rows(summary: Summary) -> list[CaseRow]:
    longest_ms = max((_whole_ms(case) for case in summary.cases), default=0.0)
    unit = verdict_words.memory_unit_of(summary)
    rows = []
    for number, case in enumerate(summary.cases):
        comparison = summary.comparison(case.name)
        ratio = "reference" if summary.is_reference(case) else ""
        if comparison is not None:
            ratio = formatting.ratio_with_interval(comparison.end_to_end)
        row = CaseRow(
            number=number,
            name=one_line(case.name),
            bar=_bar(case, longest_ms),
            ms=formatting.milliseconds(case.time.end_to_end_ms),
            ratio=ratio,
            memory=formatting.memory(verdict_words.memory_bytes(summary, case), unit),
            gIoU=formatting.score(case.quality.gIoU),
            failed=_why_failed(case),
        )
        rows.append(row)
    return rows


def _why_failed(case: Case) -> str:
    if case.out_of_memory:
        return "it does not fit the memory of this machine"
    return one_line(case.error or "", longest=240)


def _stages_ms(case: Case) -> dict[str, float]:
    """Return what a bar is made of; the stages of their own pass where the GPU runs behind."""
    stages_ms = {}
    for stage, time in case.time.stages.items():
        stages_ms[stage] = time.by_itself_ms
    if stages_ms and case.time.unattributed_ms is not None and case.time.unattributed_ms > 0:
        stages_ms[UNATTRIBUTED] = case.time.unattributed_ms
    return stages_ms


def _whole_ms(case: Case) -> float:
    return sum(_stages_ms(case).values())


def _bar(case: Case, longest_ms: float) -> list[Part]:
    """Return the stages of a bar; the case that takes longest has the longest one."""
    parts = []
    start = 0.0
    for stage, time_ms in _stages_ms(case).items():
        width = BAR_WIDTH * time_ms / longest_ms
        ms = formatting.milliseconds(time_ms)
        parts.append(Part(stage, round(start, 3), round(width, 3), ms))
        start += width
    return parts


def _claims(summary: Summary) -> list[ClaimRow]:
    rows = []
    for claim in summary.claims:
        about = " against ".join(name for name in (claim.candidate, claim.reference) if name)
        notes = [f"{claim.quantity} of {about}" if claim.quantity else "", claim.source or ""]
        notes.append(claim.reason or "")
        row = ClaimRow(
            verdict=claim.verdict,
            claim=one_line(claim.claim),
            regime=claim.regime or "",
            measured=verdict_words.claim_measured(claim),
            bound=verdict_words.claim_bound(claim),
            published=verdict_words.claim_value(claim.published, claim.unit),
            meaning=one_line(claim.meaning or ""),
            note=one_line(". ".join(note for note in notes if note)),
        )
        rows.append(row)
    return rows


def _cause_of_time(attribution: Attribution) -> CauseRow:
    """Return the change of time in milliseconds, or as ratios where the records have no more."""
    change = attribution.time.end_to_end_ms
    if change is not None and change.whole.ms is not None:
        whole = formatting.milliseconds_change(change.whole)
        own = {name: formatting.milliseconds_change(part) for name, part in change.own.items()}
        interaction = formatting.milliseconds_change(change.interaction)
        return _cause(attribution, f"{whole} ms", own, interaction)
    time = attribution.time
    own = {name: formatting.ratio_with_interval(part) for name, part in time.own.items()}
    whole = formatting.ratio_with_interval(time.whole)
    interaction = formatting.ratio_with_interval(time.interaction)
    return _cause(attribution, whole, own, interaction)


def _causes_of_memory(summary: Summary) -> list[CauseRow]:
    unit = verdict_words.memory_unit_of(summary)
    rows = []
    for attribution in summary.attributions:
        memory = attribution.memory
        own = {}
        for name, part in memory.own.items():
            own[name] = verdict_words.memory_difference(part, unit)
        whole = f"{verdict_words.memory_difference(memory.whole, unit)} {unit.name}"
        interaction = verdict_words.memory_difference(memory.interaction, unit)
        rows.append(_cause(attribution, whole, own, interaction))
    return rows


def _causes_of_energy(summary: Summary) -> list[CauseRow]:
    rows = []
    for attribution in summary.attributions:
        energy = attribution.energy
        if energy is not None:
            own = {name: formatting.joules_change(part) for name, part in energy.own.items()}
            whole = f"{formatting.joules_change(energy.whole)} J"
            interaction = formatting.joules_change(energy.interaction)
            rows.append(_cause(attribution, whole, own, interaction))
    return rows


def _cause(attribution: Attribution, whole: str, own: dict[str, str], interaction: str) -> CauseRow:
    parts = []
    for factor, amount in own.items():
        _, level = attribution.levels[factor]
        parts.append((one_line(f"{factor}: {level}"), amount))
    parts.append(("interaction", interaction))
    change = one_line(f"{attribution.candidate} against {attribution.reference}")
    return CauseRow(change, whole, parts)
