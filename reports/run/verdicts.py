"""What a run says of its variants, in words first: the one place that all pages take it from.

The terminal, `report.md`, the page in HTML and the comment of a gate show the same words. A number
follows its word, then the interval, then what the data could have shown and how much more would
tell. Texts here are plain; whoever shows them escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...harness.statistics.verdicts import (
    MEMORY_THRESHOLD,
    QUALITY_THRESHOLD,
    TIME_THRESHOLD,
    images_to_show,
    images_to_tell,
    memory_word,
    pairs_to_show,
    quality_word,
    time_word,
)
from .. import formatting
from ..formatting import listed
from ..schema_base import Ratio
from .schema import Case, Comparison, Summary

Tone = Literal["good", "bad", "open", "same"]

CANNOT_TELL = "cannot tell"
NO_INTERVAL = "one pair of processes gives no interval"
SAME_SETTINGS = "two measurements of one model"
SAME_IN_A_CELL = "same settings"  # the same, in the place of a word
MOST_NAMES = 4  # of more cases, a sentence says how many they are
TONES: dict[str, Tone] = {
    "faster": "good",
    "smaller": "good",
    "better": "good",
    "as good": "good",
    "same": "same",
    "slower": "bad",
    "larger": "bad",
    "worse": "bad",
    CANNOT_TELL: "open",
}


@dataclass(frozen=True)
class Verdict:
    """What a comparison says about one quantity of a candidate, in words first.

    Attributes:
        quantity: ``time``, ``memory`` or ``masks``.
        word: such as ``faster``, ``smaller``, ``cannot tell``; empty where nothing was compared.
        amount: such as ``21 % less`` or ``-3.8 points gIoU``; empty where there is none.
        interval: such as ``0.79x, 0.75 to 0.84``; the ratio alone where it has no interval.
        note: what the data could have shown and how much more would tell, or why nothing was
            compared; empty beside every other word.
        tone: ``good``, ``bad``, ``open`` or ``same``: for colours.
    """

    quantity: Literal["time", "memory", "masks"]
    word: str
    amount: str
    interval: str
    note: str
    tone: Tone


def verdicts(comparison: Comparison, cases: Sequence[Case]) -> list[Verdict]:
    """Return what a comparison says about time, memory and masks, in this order.

    Args:
        comparison: of two cases.
        cases: the two, and maybe others.
    """
    return [_of_time(comparison), _of_memory(comparison), _of_masks(comparison, cases)]


def in_words(verdict: Verdict) -> str:
    """Return a verdict on one line: ``faster: 21 % less (0.79x, 0.75 to 0.84)``.

    Where nothing was compared, it is why.
    """
    if not verdict.word:
        return verdict.note
    text = f"{verdict.word}: {verdict.amount}"
    if verdict.interval:
        text += f" ({verdict.interval})"
    if verdict.note:
        text += f"; {verdict.note}"
    return text


def _of_time(comparison: Comparison) -> Verdict:
    ratio = comparison.end_to_end
    if ratio.ratio is None:
        return Verdict("time", "", "", "", "time was not measured on both sides", "same")
    return _of_cost("time", ratio, time_word(ratio), TIME_THRESHOLD, comparison.same_settings)


def _of_memory(comparison: Comparison) -> Verdict:
    ratio = comparison.peak_memory
    if ratio.ratio is None:
        return Verdict("memory", "", "", "", "memory was not measured alike on both sides", "same")
    counted = ratio
    if comparison.memory_definition == "peak" and ratio.low is None:
        # An allocator counts the bytes that it gave out, and gives out the same in every process.
        # A single count says what a sample of a time cannot say.
        counted = ratio.model_copy(update={"low": ratio.ratio, "high": ratio.ratio})
    word = memory_word(counted)
    return _of_cost("memory", ratio, word, MEMORY_THRESHOLD, comparison.same_settings)


def _of_cost(
    quantity: Literal["time", "memory"],
    ratio: Ratio,
    word: str,
    threshold: float,
    same_settings: bool,
) -> Verdict:
    """Return the verdict on a ratio that was measured.

    Args:
        quantity: what the ratio is of.
        ratio: of the candidate to the reference.
        word: the verdict in a word.
        threshold: the share by which the word was chosen.
        same_settings: whether these are two measurements of one model, which have no word.
    """
    amount, interval = change(ratio.ratio), _interval(ratio)
    if same_settings:
        return Verdict(quantity, "", amount, interval, SAME_SETTINGS, "same")
    note = _more_pairs(ratio, threshold) if word == CANNOT_TELL else ""
    return Verdict(quantity, word, amount, interval, note, TONES[word])


def _more_pairs(ratio: Ratio, threshold: float) -> str:
    """Return what so many pairs of processes could show, and how many would show the threshold."""
    estimate, factor = ratio.estimate, ratio.smallest_detectable
    if estimate is None or factor is None:
        return NO_INTERVAL
    limit = f"{100 * threshold:.0f} %"
    pairs = pairs_to_show(estimate, threshold)
    if pairs is None:
        return f"close to the limit of {limit}: only many more pairs of processes would tell"
    detectable = 100 * (factor - 1)
    shown = f"{detectable:.0f}" if detectable >= 9.95 else f"{detectable:.1f}"
    return (
        f"{ratio.processes} pairs of processes show only {shown} % or more; "
        f"{limit} takes about {pairs:,} pairs"
    )


def _of_masks(comparison: Comparison, cases: Sequence[Case]) -> Verdict:
    points = comparison.gIoU_points
    if points is None:
        return Verdict("masks", "", "", "", _why_no_masks(comparison, cases), "same")
    amount = f"{formatting.in_points(points.difference)} gIoU"
    interval = ""
    if points.low is not None and points.high is not None:
        interval = f"{points.low:+.1f} to {points.high:+.1f}"
    if comparison.same_settings:
        return Verdict("masks", "", amount, interval, SAME_SETTINGS, "same")
    word = quality_word(points)
    note = _more_images(comparison) if word == CANNOT_TELL else ""
    return Verdict("masks", word, amount, interval, note, TONES[word])


def _why_no_masks(comparison: Comparison, cases: Sequence[Case]) -> str:
    names = (comparison.reference, comparison.candidate)
    if any(case.has_quality is False for case in cases if case.name in names):
        return "random weights have no quality"
    return "masks were not evaluated on both sides"


def _more_images(comparison: Comparison) -> str:
    """Return what so many images could show, and how many would show the threshold."""
    points = comparison.gIoU_points
    if points is None or points.smallest_detectable is None:
        return "one image gives no interval"
    limit = f"{QUALITY_THRESHOLD:.0f} points"
    images = images_to_show(points.estimate)
    if images is not None:
        return (
            f"{points.clusters:,} images show only differences over "
            f"{points.smallest_detectable:.0f} points; {limit} take "
            f"{formatting.number_of_images(images)}"
        )
    images = images_to_tell(points.estimate)
    if images is None:
        return f"exactly at the limit of {limit}: no number of images would tell"
    return f"close to the limit of {limit}: {formatting.number_of_images(images)} would tell"


def change(ratio: float | None) -> str:
    """Return what a ratio is in per cent: ``21 % less``; from 2x on ``3.20 times as much``.

    It is of the ratio as it is shown, with two decimals, so that the two agree. Below 1 % it has a
    decimal of its own.
    """
    if ratio is None:
        return formatting.NOT_AVAILABLE
    if ratio >= 1.995:
        return f"{ratio:.2f} times as much"
    direction = "less" if ratio < 1 else "more"
    percent = 100 * abs(float(f"{ratio:.2f}") - 1)
    if percent >= 0.5:
        return f"{percent:.0f} % {direction}"
    percent = 100 * abs(ratio - 1)
    if percent < 0.05:
        return "no difference"
    return f"{percent:.1f} % {direction}"


def _interval(ratio: Ratio) -> str:
    """Return a ratio and its interval in words: ``0.79x, 0.75 to 0.84``."""
    if ratio.ratio is None:
        return ""
    text = formatting.ratio(ratio.ratio)
    if ratio.low is None or ratio.high is None or formatting.interval_is_point(ratio):
        return text
    return f"{text}, {ratio.low:.2f} to {ratio.high:.2f}"


# The headline


@dataclass(frozen=True)
class Predicate:
    """What a sentence says of the cases that share a word.

    Attributes:
        of_one, of_several: the verb and what follows it.
        to_reference: what leads to the name of the reference.
    """

    of_one: str
    of_several: str
    to_reference: str


# A cost that surely differs, where the interval reaches over the limit: its word is `cannot tell`.
LESS, MORE = "less", "more"


def _maybe_within(threshold: float, word: str) -> Predicate:
    """Return what is said of a cost that surely differs, but maybe by less than the limit."""
    words = f"may be less than {100 * threshold:.0f} % {word}"
    return Predicate(words, words, "than")


ON_TIME = {
    "faster": Predicate("is faster", "are faster", "than"),
    LESS: _maybe_within(TIME_THRESHOLD, "faster"),
    "same": Predicate("takes the same time", "take the same time", "as"),
    "slower": Predicate("is slower", "are slower", "than"),
    MORE: _maybe_within(TIME_THRESHOLD, "slower"),
    CANNOT_TELL: Predicate("cannot be told apart in time", "cannot be told apart in time", "from"),
}
ON_MEMORY = {
    "smaller": Predicate("takes less memory", "take less memory", "than"),
    LESS: _maybe_within(MEMORY_THRESHOLD, "smaller"),
    "same": Predicate("takes the same memory", "take the same memory", "as"),
    "larger": Predicate("takes more memory", "take more memory", "than"),
    MORE: _maybe_within(MEMORY_THRESHOLD, "larger"),
    CANNOT_TELL: Predicate(
        "cannot be told apart in memory", "cannot be told apart in memory", "from"
    ),
}
ON_MASKS = ("better", "as good", "worse", CANNOT_TELL)


def in_a_sentence(summary: Summary) -> str:
    """Return the headline: what a run says of time and of masks.

    Of memory it says something where one of these was not measured.

    Such as ``clip and sam are faster than dual. Whether their masks are as good, 16 images cannot
    tell.`` Before it comes what a reader must know first: checkpoints that are refused, whether
    the cases fit the card that they were capped to, whether the run was stopped, and how much of a
    suite about cards runs on each.
    """
    sentences = []
    for against in summary.against_trivial_baselines:
        if against.refused:
            sentences.append(
                f"The checkpoint of {against.case} is refused: it is no better than the trivial "
                f"baseline {against.baseline}."
            )
    sentences += [_on_card(summary), _out_of_memory(summary), _how_it_ended(summary)]
    sentences += _on_cards(summary)
    comparisons = [one for one in summary.comparisons if not one.same_settings]
    if not comparisons:
        if not summary.cards:
            sentences.append(_nothing_compared(summary))
        return " ".join(sentence for sentence in sentences if sentence)
    by_quantity = _by_word(comparisons, summary)
    reference = _reference(comparisons)
    on_time = _on_costs(by_quantity["time"], ON_TIME, len(comparisons), reference)
    no_time = "Time was not compared." if summary.measures_time else "No time was measured."
    sentences.append(on_time or no_time)
    masks = by_quantity["masks"]
    if not masks or not summary.measures_time:
        sentences.append(_on_costs(by_quantity["memory"], ON_MEMORY, len(comparisons), reference))
    if masks:
        images = max(one.gIoU_points.clusters for one in comparisons if one.gIoU_points)
        sentences.append(_on_masks(masks, len(comparisons), images))
    elif any(case.has_quality is False for case in summary.cases):
        sentences.append("Masks are not compared: the weights are random.")
    return " ".join(sentence for sentence in sentences if sentence)


def _on_card(summary: Summary) -> str:
    """Return which cases fit the card of a capped run, and by how much; empty without a card."""
    fitting, too_large, unknown = [], [], []
    spare_gib = []
    card = ""
    for fit in summary.card_fits:
        card = fit.card
        if fit.fits is None:
            unknown.append(fit.case)
        elif not fit.fits:
            too_large.append(fit.case)
        else:
            fitting.append(fit.case)
            spare_gib.append(formatting.gib_to_spare(fit.card_bytes, fit.taken_bytes))
    clauses = []
    cases = len(summary.card_fits)
    if fitting:
        subject, verb = _subject(fitting, cases, "cases"), "fits" if len(fitting) == 1 else "fit"
        least, most = min(spare_gib, key=float), max(spare_gib, key=float)
        spare = least if least == most else f"{least} to {most}"
        clauses.append(f"{subject} {verb} a card of {card} with {spare} GiB to spare")
    if too_large:
        subject, verb = _subject(too_large, cases, "cases"), "does" if len(too_large) == 1 else "do"
        clauses.append(f"{subject} {verb} not fit a card of {card}")
    if unknown:
        subject = _subject(unknown, cases, "cases")
        clauses.append(f"whether {subject} would fit a card of {card} is not known")
    return _sentence(clauses)


def _on_cards(summary: Summary) -> list[str]:
    """Return how many cases and trainings run on each card of the suite, a sentence for each kind.

    Such as ``Of 18 cases, 9 run on 8GB and 10 on 12GB.``
    """
    sentences = []
    for kind in ("case", "training"):
        rows = [row for row in summary.cards if row.kind == kind]
        if not rows:
            continue
        counts, unknown = [], 0
        for verdicts in zip(*(row.cards for row in rows), strict=True):
            words = [verdict.fits for verdict in verdicts]
            counts.append((words.count("yes"), verdicts[0].card))
            unknown += sum(word not in ("yes", "no") for word in words)
        if len(rows) == 1:
            cards = [card for count, card in counts if count]
            where = f"on {listed(cards)}" if cards else "on none of the cards"
            text = f"{rows[0].name} runs {where}"
        else:
            (first, card), *others = counts
            verb = "runs" if first == 1 else "run"
            parts = [f"{first} {verb} on {card}", *(f"{count} on {card}" for count, card in others)]
            text = f"Of {len(rows)} {kind}s, {listed(parts)}"
        if unknown:
            text += f"; on {unknown} more of these cards it is not known"
        sentences.append(f"{text}.")
    return sentences


def _out_of_memory(summary: Summary) -> str:
    """Return which cases do not fit this machine; empty where all do, and under a limit."""
    if summary.card_fits:  # said of the card that all were limited to
        return ""
    names = [case.name for case in summary.cases if case.out_of_memory]
    if not names:
        return ""
    subject, verb = _subject(names, len(summary.cases), "cases"), "do"
    if len(names) == 1:
        verb = "does"
    return _sentence([f"{subject} {verb} not fit the memory of this machine"])


def _how_it_ended(summary: Summary) -> str:
    """Return that a run was stopped, goes on or failed in part; empty where all was measured."""
    if summary.status == "complete":
        return ""
    if summary.status == "failed":
        return "Part of the run failed."
    if summary.stopped is None:
        return "The run goes on: this is what it has measured so far."
    how = {
        "time": "The run was stopped when its time was over,",
        "interrupt": "The run was interrupted",
        "unknown": "The run was stopped",
    }
    return f"{how[summary.stopped]} before all was measured."


def _nothing_compared(summary: Summary) -> str:
    if not summary.cases:
        return "No model has been measured."
    if len(summary.cases) == 1:
        return f"{summary.cases[0].name} was measured alone: there is nothing to compare it with."
    return "All cases have the same settings: there is nothing to compare."


def _by_word(
    comparisons: Sequence[Comparison], summary: Summary
) -> dict[str, dict[str, list[str]]]:
    """Return the candidates by quantity and then by word; what was not compared is left out."""
    by_quantity: dict[str, dict[str, list[str]]] = {"time": {}, "memory": {}, "masks": {}}
    for comparison in comparisons:
        costs = {"time": comparison.end_to_end, "memory": comparison.peak_memory}
        for verdict in verdicts(comparison, summary.cases):
            word = verdict.word
            ratio = costs.get(verdict.quantity)
            if word == CANNOT_TELL and ratio is not None and formatting.excludes_one(ratio):
                word = LESS if (ratio.ratio or 0) < 1 else MORE
            if word:
                candidates = by_quantity[verdict.quantity].setdefault(word, [])
                candidates.append(comparison.candidate)
    return by_quantity


def _reference(comparisons: Sequence[Comparison]) -> str:
    """Return the reference's name, or a word for the references of several groups."""
    references = {comparison.reference for comparison in comparisons}
    if len(references) == 1:
        return references.pop()
    return "the reference of the group"


def _on_costs(
    candidates: Mapping[str, Sequence[str]],
    predicates: Mapping[str, Predicate],
    variants: int,
    reference: str,
) -> str:
    """Return a sentence about a cost; empty where it was not compared.

    Such as ``clip is faster than dual; dual-nf4 and sam-nf4 are slower.``

    Args:
        candidates: by word.
        predicates: by word, in the order of the clauses.
        variants: how many there are.
        reference: what they are compared with.
    """
    clauses = []
    for word, predicate in predicates.items():
        names = candidates.get(word, [])
        if not names:
            continue
        verb = predicate.of_one if len(names) == 1 else predicate.of_several
        clause = f"{_subject(names, variants)} {verb}"
        if not clauses:
            clause += f" {predicate.to_reference} {reference}"
        clauses.append(clause)
    return _sentence(clauses)


def _on_masks(candidates: Mapping[str, Sequence[str]], variants: int, images: int) -> str:
    """Return a sentence about masks.

    Args:
        candidates: by word.
        variants: how many there are.
        images: how many images were evaluated.
    """
    unknown = f"{images:,} images cannot tell" if images > 1 else "one image cannot tell"
    if len(candidates) == 1 and sum(map(len, candidates.values())) == variants:
        word, owner = next(iter(candidates)), "its" if variants == 1 else "their"
        if word == CANNOT_TELL:
            return f"Whether {owner} masks are as good, {unknown}."
        return f"{owner.capitalize()} masks are {word}."
    clauses = []
    for word in ON_MASKS:
        names = candidates.get(word, [])
        if not names:
            continue
        masks = f"the masks of {_subject(names, variants)}"
        if word == CANNOT_TELL:
            clauses.append(f"whether {masks} are as good, {unknown}")
        else:
            clauses.append(f"{masks} are {word}")
    return _sentence(clauses)


def _sentence(clauses: Sequence[str]) -> str:
    """Return clauses as a sentence; empty without any. A name keeps its first letter as it is."""
    text = "; ".join(clauses)
    if text.startswith(("all ", "whether ", "the masks of ")):
        text = f"{text[0].upper()}{text[1:]}"
    return f"{text}." if text else ""


def _subject(names: Sequence[str], variants: int, kind: str = "variants") -> str:
    """Return the names, or of many how many they are."""
    if len(names) <= MOST_NAMES:
        return listed(names)
    if len(names) == variants:
        return f"all {variants} {kind}"
    return f"{len(names)} of {variants} {kind}"
