"""A run against a baseline: what each figure of each case is held to, and what comes of it.

No process of one side has a partner on the other, so the interval of a ratio is Welch's, widened by what two sessions
differ by (`Thresholds.sessions`), since measuring the new side again cannot take that out. A figure holds where its
whole interval keeps the threshold, and has regressed where the whole of it lies beyond.

A second look asks whether the first was a fluke of its processes. What the sessions differ by is the same for both, and
was allowed for by the first: here the interval of the processes alone must lie beyond. To hold, it needs the whole one.

Where two versions took turns in one job, a process of the one next to a process of the other, a time's interval is that
of the pairs in both looks. Peaks do not drift, so pairs would only cost them degrees of freedom: theirs stays Welch's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from ...harness import masks
from ...harness.contract import STAGES
from ...harness.environment import different_machines
from ...harness.metrics import METRICS
from ...harness.statistics.ratios import Ratio, paired_ratio, unpaired_difference, unpaired_ratio
from ...harness.statistics.verdicts import Answer, loss_at_most, ratio_at_most
from ..energy import ENERGY
from ..peaks import RESIDENT_SET
from ..quality import points
from ..schema_base import AnswerSpread, Points, Strict
from .baseline import Baseline, BaselineCase
from .pairs import Pairs
from .thresholds import Gate, Thresholds

Verdict = Literal[
    "holds",
    "regression",
    "missing",
    "refused",
    "inconclusive",
    "unconfirmed",
    "not gated",
    "not checked",
    "n/a",
]
Unit = Literal["ns", "bytes", "mJ", "score", "IoU", "share", "case"]

FAILURES, MASKS = "failures", "masks"
DRIFTING = {"ns": "a time", "mJ": "an energy"}  # units whose figures differ from session to session
NO_PAIRS: Pairs = {}
BOTH_SIDES = 2  # the kept answers of either side may lie so far from others that it gives
OWN_SPREAD = "the limit allows for the spread among the baseline's own processes"
WHOLE_PROCESSES = "by the peak of the whole process: the baseline or the run lacks what stood there before the build"
VERDICTS: Mapping[Answer, Verdict] = {
    "holds": "holds",
    "fails": "regression",
    "inconclusive": "inconclusive",
}


class Check(Strict):
    """One figure of one case."""

    case: str = Field(description="Name of the case.")
    metric: str = Field(description="What is held to a threshold, such as time.end_to_end.")
    verdict: Verdict = Field(description="What comes of it.")
    unit: Unit = Field(
        description="Of before and after; a change of ns, bytes and mJ is a ratio, of a score points."
    )
    before: float | None = Field(default=None, description="In the baseline.")
    after: float | None = Field(default=None, description="In the run.")
    change: float | None = Field(default=None, description="A ratio, or a difference in points.")
    low: float | None = Field(default=None, description="Lower end of its 95 % interval.")
    high: float | None = Field(default=None, description="Upper end of its 95 % interval.")
    limit: float | None = Field(
        default=None, description="What the change is held to; null where it is not gated."
    )
    detectable: float | None = Field(
        default=None, description="The smallest change that could have been told from 0."
    )
    why: str | None = Field(default=None, description="Where the verdict needs a reason.")
    first: "Check | None" = Field(
        default=None, description="What was measured first, where it was measured again."
    )


@dataclass(frozen=True)
class _Ends:
    """The ends of an interval, as `harness.verdicts` takes them."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class _Pair:
    """A case on both sides, and what must not be compared of them."""

    before: BaselineCase
    after: BaselineCase
    allowed: Thresholds
    other_queries: str | None
    other_timed_queries: str | None
    other_machine: str | None
    second_look: bool
    pairs: Pairs

    @property
    def sides(self) -> tuple[BaselineCase, BaselineCase]:
        return self.before, self.after

    @property
    def no_cost(self) -> str | None:
        return self.other_timed_queries or self.other_machine

    def check(
        self, metric: str, verdict: Verdict, unit: Unit, **known: float | str | None
    ) -> Check:
        return Check.model_validate(
            {"case": self.before.name, "metric": metric, "verdict": verdict, "unit": unit} | known
        )


def judge(
    before: Baseline,
    after: Baseline,
    gate: Gate,
    second_look: bool = False,
    pairs: Pairs = NO_PAIRS,
) -> list[Check]:
    """Every case of the baseline, in its order.

    Args:
        before, after: the baseline, and the run reduced likewise.
        gate: what is accepted.
        second_look: the run measures again what has regressed in a first one.
        pairs: log ratios of times, where the processes of the two took turns.
    """
    other_data = _other_data(before, after)
    machines = next(iter(different_machines(before.passport, after.passport)), None)
    checks: list[Check] = []
    for case in before.cases:
        found = after.case(case.name)
        if found is None:
            gone = "the run has no such case"
            checks.append(
                Check(case=case.name, metric="case", verdict="missing", unit="case", why=gone)
            )
        else:
            other_queries = other_data or _other_queries(case, found)
            other_timed = other_data or _other_timed_queries(case, found)
            pair = _Pair(
                case,
                found,
                gate.of(case.name),
                other_queries,
                other_timed,
                machines,
                second_look,
                pairs,
            )
            checks += [
                _failures(pair),
                *_times(pair),
                *_energy(pair),
                *_peaks(pair),
                *_quality(pair),
                _masks(pair),
            ]
    return checks


def _other_data(before: Baseline, after: Baseline) -> str | None:
    prints = [side.data.get("fingerprint") for side in (before, after)]
    return (
        None
        if prints[0] == prints[1]
        else f"asked on different data (fingerprint {prints[0]} and {prints[1]})"
    )


def _other_queries(before: BaselineCase, after: BaselineCase) -> str | None:
    sides = (case.answers for case in (before, after))
    asked = [set(zip(side.sample_id, side.image_id, side.target_px, strict=True)) for side in sides]
    return None if asked[0] == asked[1] else "not the same queries, images and targets"


def _other_timed_queries(before: BaselineCase, after: BaselineCase) -> str | None:
    """Return why costs are not compared: they are of the timed rounds, and scores of the quality pass."""
    if before.timed is None and after.timed is None:
        return _other_queries(before, after)
    sides = (
        case.answers.sample_id if case.timed is None else case.timed for case in (before, after)
    )
    timed = [set(side) for side in sides]
    return None if timed[0] == timed[1] else "not the same queries were timed"


def _failures(pair: _Pair) -> Check:
    shares = [case.failed / case.records if case.records else 1.0 for case in pair.sides]
    verdict = "regression" if shares[1] > shares[0] else "holds"
    why = (
        f"{pair.after.failed} of {pair.after.records} queries failed"
        if verdict != "holds"
        else None
    )
    return pair.check(
        FAILURES, verdict, "share", before=shares[0], after=shares[1], limit=shares[0], why=why
    )


def _times(pair: _Pair) -> Iterator[Check]:
    refused = pair.no_cost or _other("clocks", pair.before.clock, pair.after.clock)
    sides, allowed = pair.sides, pair.allowed
    yield _ratio(
        pair,
        "time.end_to_end",
        "ns",
        [case.end_to_end_ns for case in sides],
        allowed.end_to_end,
        refused,
    )
    passes = ["the synchronised" if case.stages_synchronised else "the timing" for case in sides]
    refused = refused or _other("passes", *passes)
    for stage in (stage for stage in STAGES if any(stage in case.stages_ns for case in sides)):
        times = [case.stages_ns.get(stage, []) for case in sides]
        yield _ratio(pair, f"time.{stage}", "ns", times, allowed.of_stage(stage), refused)


def _energy(pair: _Pair) -> Iterator[Check]:
    """Nothing where neither side has read a counter; where one has not, there is nothing to compare, and no failure."""
    sides = [case.energy_mj for case in pair.sides]
    if all(sides):
        yield _ratio(pair, ENERGY, "mJ", sides, pair.allowed.energy, pair.no_cost)
    elif any(sides):
        lacking = "the run" if sides[0] else "the baseline"
        means = [sum(side) / len(side) if side else None for side in sides]
        why = f"{lacking} has no energy: it is older, or without a counter"
        yield pair.check(ENERGY, "not checked", "mJ", before=means[0], after=means[1], why=why)


def _peaks(pair: _Pair) -> Iterator[Check]:
    """By the growth where both sides have it, as on a CPU; otherwise by the peak."""
    sides = pair.sides
    instruments = [f"{case.instrument}, {case.peak_figure}" for case in sides]
    refused = pair.no_cost or (
        _other("instruments", *instruments) if pair.after.instrument else None
    )
    of_peaks = {"memory.peak": [case.peak_bytes for case in sides]}
    of_peaks |= {"memory.query_peak": [case.query_peak_bytes for case in sides]}
    of_growth = {"memory.peak": [case.growth_bytes for case in sides]}
    of_growth |= {"memory.query_peak": [case.query_growth_bytes for case in sides]}
    for metric, peaks in of_peaks.items():
        threshold = _peak_threshold(pair.allowed, peaks[0])
        if all(of_growth[metric]) and not refused:
            yield _growth(pair, metric, of_growth[metric], peaks[0], threshold)
            continue
        check = _ratio(pair, metric, "bytes", peaks, threshold, refused)
        compared_whole = check.change is not None and pair.after.instrument == RESIDENT_SET
        yield (
            check.model_copy(update={"why": check.why or WHOLE_PROCESSES})
            if compared_whole
            else check
        )


def _peak_threshold(allowed: Thresholds, peaks_bytes: Sequence[int]) -> float | None:
    """The share, or less where so many MiB are less."""
    if allowed.peak is None or not peaks_bytes:
        return allowed.peak
    return min(allowed.peak, allowed.peak_mib * 2**20 * len(peaks_bytes) / sum(peaks_bytes))


def _growth(
    pair: _Pair,
    metric: str,
    sides: Sequence[Sequence[int]],
    whole_bytes: Sequence[int],
    threshold: float | None,
) -> Check:
    """The growth of resident sets, held to a number of bytes: a share of the whole process's peak, or MiB.

    A resident set moves by some MiB from process to process, whatever the model. A small model's growth is of that
    size, so a share of the growth could not be told from noise, and the interval is of the difference in bytes. Change
    and limit are shown as ratios of the growth.
    """
    before, after = (sum(side) / len(side) for side in sides)
    difference, low, high = unpaired_difference(sides[0], sides[1])
    as_ratio = [None if end is None else 1 + end / before for end in (difference, low, high)]
    known = {
        "before": before,
        "after": after,
        "change": as_ratio[0],
        "low": as_ratio[1],
        "high": as_ratio[2],
    }
    if low is not None:
        known["detectable"] = (difference - low) / before
    if threshold is None:
        return pair.check(metric, "not gated", "bytes", **known)
    allowed_bytes = threshold * sum(whole_bytes) / len(whole_bytes)
    limit = 1 + allowed_bytes / before
    interval = _Ends(as_ratio[1], as_ratio[2])
    too_few = "one process" if low is None else None
    verdict, why = _with_reason(VERDICTS[ratio_at_most(interval, limit)], too_few)
    return pair.check(metric, verdict, "bytes", **known, limit=limit, why=why)


def _other(what: str, before: str | None, after: str | None) -> str | None:
    return None if before == after else f"measured by different {what} ({before} and {after})"


def _ratio(
    pair: _Pair,
    metric: str,
    unit: Unit,
    sides: Sequence[Sequence[float]],
    threshold: float | None,
    refused: str | None,
) -> Check:
    """A cost of each process on either side; sessions differ in time and energy, and not in memory."""
    logs = [[math.log(value) for value in side] for side in sides]
    before, after = (math.exp(sum(side) / len(side)) if side else None for side in logs)
    known = {
        "before": before,
        "after": after,
        "limit": None if threshold is None else 1 + threshold,
    }
    if not all(sides) or refused:
        verdict, why = _not_compared(sides, threshold is not None, refused)
        return pair.check(metric, verdict, unit, **known, why=why)
    taken_in_turn = pair.pairs.get((pair.before.name, metric))
    if taken_in_turn:
        found = paired_ratio(taken_in_turn)
    else:
        found = _interval(pair, logs, threshold, pair.allowed.sessions if unit in DRIFTING else 0.0)
    verdict, why = _of_ratio(found, threshold)
    if verdict != "not gated" and _other_queries_measured(pair, unit):
        verdict, why = (
            "inconclusive",
            f"not the same queries have {DRIFTING[unit]} in every process",
        )
    detectable = found.smallest_detectable and found.smallest_detectable - 1
    ends = {"change": found.ratio, "low": found.low, "high": found.high, "detectable": detectable}
    return pair.check(metric, verdict, unit, **known, **ends, why=why)


def _other_queries_measured(pair: _Pair, unit: Unit) -> bool:
    if unit == "ns":
        return pair.before.untimed != pair.after.untimed
    return unit == "mJ" and pair.before.without_energy != pair.after.without_energy


def _interval(
    pair: _Pair, logs: Sequence[Sequence[float]], threshold: float | None, between: float
) -> Ratio:
    of_processes = unpaired_ratio(logs[0], logs[1])
    if (
        pair.second_look
        and threshold is not None
        and ratio_at_most(of_processes, 1 + threshold) == "fails"
    ):
        return of_processes
    return unpaired_ratio(logs[0], logs[1], between=between)


def _not_compared(
    sides: Sequence[Sequence[float]], gated: bool, refused: str | None
) -> tuple[Verdict, str | None]:
    if not gated:
        return "not gated", refused
    if not sides[0]:
        return "n/a", "not in the baseline"
    return ("refused", refused) if refused else ("missing", "the run has not measured it")


def _of_ratio(found: Ratio, threshold: float | None) -> tuple[Verdict, str | None]:
    if threshold is None:
        return "not gated", None
    return _with_reason(
        VERDICTS[ratio_at_most(found, 1 + threshold)], "one process" if found.low is None else None
    )


def _with_reason(verdict: Verdict, too_few: str | None) -> tuple[Verdict, str | None]:
    if verdict != "inconclusive":
        return verdict, None
    return (
        verdict,
        f"{too_few} gives no interval" if too_few else "its interval reaches over the limit",
    )


def _quality(pair: _Pair) -> Iterator[Check]:
    sides = [case.answers.scored() if case.has_quality is True else [] for case in pair.sides]
    counted = [[query.counts for query in side] for side in sides]
    found = points(*sides) if all(sides) and not pair.other_queries else {}
    for name, threshold in (("gIoU", pair.allowed.gIoU), ("cIoU", pair.allowed.cIoU)):
        spread = _spread(pair)
        own = spread.points.get(name, 0.0) if spread else 0.0
        allowed = None if threshold is None else threshold + BOTH_SIDES * own
        verdict, why = _of_points(pair, found.get(name), allowed)
        if own and allowed is not None:
            why = f"{why}; {OWN_SPREAD}" if why else OWN_SPREAD
        limit = None if allowed is None else -allowed
        before, after = (METRICS[name].compute(side) for side in counted)
        known = {"before": before, "after": after, "limit": limit}
        yield pair.check(
            f"quality.{name}", verdict, "score", **known, **_ends(found.get(name)), why=why
        )


def _ends(found: Points | None) -> dict[str, float | None]:
    if found is None:
        return {}
    return {
        "change": found.difference,
        "low": found.low,
        "high": found.high,
        "detectable": found.smallest_detectable,
    }


def _of_points(
    pair: _Pair, found: Points | None, threshold: float | None
) -> tuple[Verdict, str | None]:
    if threshold is None:
        return "not gated", pair.other_queries
    if pair.before.has_quality is not True:
        return "n/a", "random weights have no quality"
    if pair.other_queries:
        return "refused", pair.other_queries
    if pair.after.has_quality is not True:
        return "missing", "the run has no quality, and the baseline had"
    if found is None:
        return "n/a", "no query defines it"
    return _with_reason(
        VERDICTS[loss_at_most(found, threshold)], "one image" if found.low is None else None
    )


def _masks(pair: _Pair) -> Check:
    """The worst of the kept masks against its counterpart, also where weights are random: those give the same masks.

    The limit is lowered by twice the distance D that masks of one query have within the baseline. The distance
    1 - IoU obeys the triangle inequality: where some answer of the new side keeps the limit with some answer of the
    baseline, the two that were kept are at most D farther apart for either side. The new side is granted the
    baseline's D and not its own, or a change that makes answers random would excuse itself.

    Source: the Jaccard distance is a metric, Levandowsky and Winter 1971.
    """
    kept, limit = pair.before.masks, pair.allowed.mask_iou
    spread = _spread(pair)
    own = spread.mask_distance if spread else 0.0
    limit = None if limit is None else max(0.0, limit - BOTH_SIDES * own)
    if limit is None or not kept or pair.other_queries:
        verdict, why = _no_masks(limit, bool(kept), pair.other_queries)
        return pair.check(MASKS, verdict, "IoU", limit=limit, why=why)
    found = {name: _overlap(pair, name) for name in kept if name in pair.after.masks}
    beyond = sorted(
        (name for name, iou in found.items() if iou < limit), key=lambda name: found[name]
    )
    lost = len(kept) - len(found)
    if beyond:
        verdict, why = (
            "regression",
            f"{len(beyond)} of {len(found)} masks, worst of query {beyond[0]}",
        )
    else:
        verdict = "inconclusive" if lost else "holds"
        why = (
            f"{lost} of {len(kept)} masks have no counterpart; run with --save-masks"
            if lost
            else None
        )
    if own:
        why = f"{why}; {OWN_SPREAD}" if why else OWN_SPREAD
    worst = min(found.values(), default=None)
    return pair.check(MASKS, verdict, "IoU", after=worst, limit=limit, why=why)


def _spread(pair: _Pair) -> AnswerSpread | None:
    """By how much the baseline's own processes answer differently; None where all agree, or it does not say."""
    spread = pair.before.answer_spread
    return spread if spread and spread.differing else None


def _no_masks(
    limit: float | None, kept: bool, other_queries: str | None
) -> tuple[Verdict, str | None]:
    if limit is None:
        return "not gated", None
    return ("refused", other_queries) if kept else ("n/a", "the baseline keeps no masks")


def _overlap(pair: _Pair, name: str) -> float:
    before_HW, after_HW = (masks.unpack(case.masks[name].model_dump()) for case in pair.sides)
    return masks.overlap(before_HW, after_HW)
