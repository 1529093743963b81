"""A run against a baseline: what each number of each case is held to, and what comes of it.

No process of one side has a partner on the other, so the interval of a ratio is Welch's, widened by
what two sessions differ by (`Thresholds.sessions`), since measuring the new side again cannot take
that out. A number holds where its whole interval keeps the threshold, and has regressed where the
whole of it lies beyond.

A re-measurement asks whether a regression was a fluke of its processes. What the sessions differ by
is the same for both measurements, and the first one has allowed for it: in the re-measurement the
interval of the processes alone must lie beyond. To hold, the whole interval must keep the
threshold.

Where two versions took turns in one job, a process of the one next to a process of the other, a
time's interval is that of the pairs in both measurements. Peaks do not drift, so pairs would only
cost them degrees of freedom: theirs stays Welch's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ...harness import masks
from ...harness.contract import STAGES
from ...harness.environment import different_machines
from ...harness.metrics import METRICS
from ...harness.statistics.estimate import Estimate
from ...harness.statistics.power import smallest_found
from ...harness.statistics.ratios import paired_ratio, unpaired_difference, unpaired_ratio
from ...harness.statistics.verdicts import (
    LimitVerdict,
    loss_at_most,
    pairs_to_show,
    ratio_at_most,
)
from ..energy import ENERGY
from ..peaks import RESIDENT_SET
from ..quality import ScoredQuery, points
from ..schema_base import AnswerSpread, Points, Strict
from ..throughput import THROUGHPUT
from ..times import END_TO_END, of_stage, other_batch_size, other_scenario
from .baseline import BLOCKS, PASS, Baseline, BaselineCase
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
Unit = Literal["ns", "1/s", "bytes", "mJ", "score", "IoU", "share", "case"]

FAILURES, MASKS = "failures", "masks"
PEAK, QUERY_PEAK, WEIGHTS = "memory.peak", "memory.query_peak", "memory.weights"
CASE = "case"  # the metric of a case that the run lacks
# What differs from session to session.
DRIFTING: Mapping[Unit, str] = {"ns": "a time", "1/s": "a time", "mJ": "an energy"}
NO_PAIRS: Pairs = {}
# The kept answers of either side may lie as far from its others as the spread within a side, so the
# limit of a score or a mask gives way by that spread twice.
BOTH_SIDES = 2
OWN_SPREAD = "the limit allows for the spread among the baseline's own processes"
WHOLE_PROCESSES = (
    "by the peak of the whole process: "
    "the baseline or the run lacks what stood there before the build"
)
VERDICTS: Mapping[LimitVerdict, Verdict] = {
    "holds": "holds",
    "fails": "regression",
    "inconclusive": "inconclusive",
}


class Check(Strict):
    """One number of one case against its threshold."""

    case: str = Field(description="Name of the case.")
    metric: str = Field(description="What is held to a threshold, such as time.end_to_end.")
    verdict: Verdict = Field(description="What comes of it.")
    unit: Unit = Field(
        description="Of before and after; a change of ns, 1/s, bytes and mJ is a ratio, of a score "
        "points."
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
    pairs_needed: int | None = Field(
        default=None,
        description="Of an inconclusive ratio of pairs of processes: about how many pairs make its "
        "interval as narrow as the limit is far from 1. An estimate.",
    )
    finds: float | None = Field(
        default=None,
        description="Of a gated ratio of pairs of processes: the smallest change, as a share, that "
        "four of five gates find whose pairs vary as these do; below 0 of queries per second. An "
        "estimate.",
    )
    first: "Check | None" = Field(
        default=None, description="What was measured first, where it was measured again."
    )


@dataclass(frozen=True)
class _CasePair:
    """A case in the baseline and in the run, and why some of it must not be compared.

    Attributes:
        before, after: the case in the baseline and in the run.
        allowed: the thresholds of the case.
        other_queries: why scores must not be compared; None where they may.
        other_timed_queries: why costs must not be compared, by their queries; None where they may.
        other_batch: why costs must not be compared, by the size of batches; None where they may.
        other_machine: why costs must not be compared, by the machine; None where they may.
        other_scenario: why times and energies must not be compared, by what the plans measure; None
            where they may.
        remeasured: the run measures a regression again.
        pairs: log ratios of pairs of processes, where the two sides took turns.
    """

    before: BaselineCase
    after: BaselineCase
    allowed: Thresholds
    other_queries: str | None
    other_timed_queries: str | None
    other_batch: str | None
    other_machine: str | None
    other_scenario: str | None
    remeasured: bool
    pairs: Pairs

    @property
    def no_cost(self) -> str | None:
        """Why costs must not be compared; None where they may."""
        return self.other_timed_queries or self.other_batch or self.other_machine

    @property
    def no_time(self) -> str | None:
        """Why times and energies must not be compared; None where they may."""
        return self.no_cost or self.other_scenario

    @property
    def own_spread(self) -> AnswerSpread | None:
        """How much the baseline's own processes differ; None if they agree, or it is unknown."""
        spread = self.before.answer_spread
        if spread is None or spread.differing == 0:
            return None
        return spread

    def check(
        self, metric: str, verdict: Verdict, unit: Unit, **numbers: float | str | None
    ) -> Check:
        """Return a check of this case."""
        fields = {"case": self.before.name, "metric": metric, "verdict": verdict, "unit": unit}
        return Check.model_validate(fields | numbers)


def gate_checks(
    before: Baseline,
    after: Baseline,
    gate: Gate,
    remeasured: bool = False,
    pairs: Pairs = NO_PAIRS,
) -> list[Check]:
    """Return the checks of every case of the baseline, in its order.

    Args:
        before, after: the baseline, and the run reduced in the same way.
        gate: what is accepted.
        remeasured: the run measures again what has regressed in a first one.
        pairs: log ratios of times, where the processes of the two took turns.
    """
    other_data = _other_data(before, after)
    other_machine = next(iter(different_machines(before.environment, after.environment)), None)
    checks: list[Check] = []
    for case in before.cases:
        case_after = after.case(case.name)
        if case_after is None:
            why = "the run has no such case"
            checks.append(
                Check(case=case.name, metric=CASE, verdict="missing", unit="case", why=why)
            )
            continue
        pair = _CasePair(
            before=case,
            after=case_after,
            allowed=gate.of(case.name),
            other_queries=other_data or _other_queries(case, case_after),
            other_timed_queries=other_data or _other_timed_queries(case, case_after),
            other_batch=other_batch_size(case.batch, case_after.batch),
            other_machine=other_machine,
            other_scenario=other_scenario(before.scenario, after.scenario),
            remeasured=remeasured,
            pairs=pairs,
        )
        checks.append(_failures(pair))
        checks += _times(pair)
        checks += _throughput(pair)
        checks += _energy(pair)
        checks += _peaks(pair)
        checks += _quality(pair)
        checks.append(_masks(pair))
    return checks


# Why two sides must not be compared


def _other_data(before: Baseline, after: Baseline) -> str | None:
    print_before, print_after = before.data.get("fingerprint"), after.data.get("fingerprint")
    if print_before == print_after:
        return None
    return f"evaluated on different data (fingerprint {print_before} and {print_after})"


def _other_queries(before: BaselineCase, after: BaselineCase) -> str | None:
    if _queries(before) == _queries(after):
        return None
    return "not the same queries, images and targets"


def _queries(case: BaselineCase) -> set[tuple[str, str, int]]:
    answers = case.answers
    return set(zip(answers.sample_id, answers.image_id, answers.target_px, strict=True))


def _other_timed_queries(before: BaselineCase, after: BaselineCase) -> str | None:
    """Return why costs are not compared: costs are of the timed rounds, not of the quality pass."""
    if before.timed is None and after.timed is None:
        return _other_queries(before, after)
    if _timed_queries(before) == _timed_queries(after):
        return None
    return "not the same queries were timed"


def _timed_queries(case: BaselineCase) -> set[str]:
    if case.timed is None:
        return set(case.answers.sample_id)
    return set(case.timed)


def _measured_differently(what: str, before: str | None, after: str | None) -> str | None:
    """Return why costs by different clocks, passes or instruments (`what`) are not compared."""
    if before == after:
        return None
    return f"measured by different {what} ({before} and {after})"


# Failures and costs


def _failures(pair: _CasePair) -> Check:
    """Return the check of the share of queries that failed: it must not grow."""
    before, after = _failed_share(pair.before), _failed_share(pair.after)
    verdict, why = "holds", None
    if after > before:
        verdict = "regression"
        why = f"{pair.after.failed} of {pair.after.records} queries failed"
    return pair.check(FAILURES, verdict, "share", before=before, after=after, limit=before, why=why)


def _failed_share(case: BaselineCase) -> float:
    """Return the share of failed queries; a case without any record counts as failed."""
    if case.records == 0:
        return 1.0
    return case.failed / case.records


def _times(pair: _CasePair) -> Iterator[Check]:
    before, after, allowed = pair.before, pair.after, pair.allowed
    refused = pair.no_time
    # A case that was never built has no clock: its times are missing.
    if not refused and after.clock:
        refused = _measured_differently("clocks", before.clock, after.clock)
    end_to_end = [before.end_to_end_ns, after.end_to_end_ns]
    yield _cost(pair, END_TO_END, "ns", end_to_end, allowed.end_to_end, refused)
    if not refused and after.stages_ns:
        passes = {True: "the synchronised", False: "the timing"}
        pass_before = passes[before.stages_synchronised]
        pass_after = passes[after.stages_synchronised]
        refused = _measured_differently("passes", pass_before, pass_after)
    for stage in STAGES:
        if stage in before.stages_ns or stage in after.stages_ns:
            times_ns = [before.stages_ns.get(stage, []), after.stages_ns.get(stage, [])]
            yield _cost(pair, of_stage(stage), "ns", times_ns, allowed.of_stage(stage), refused)


def _throughput(pair: _CasePair) -> Iterator[Check]:
    """Return the check of queries per second; none where both sides measured latency.

    It is the check of the seconds per query, the images' waits included, turned upside down: a
    share x fewer queries per second are 1 / (1 - x) times the seconds.
    """
    before, after = pair.before.seconds_per_query, pair.after.seconds_per_query
    if not before and not after:
        return
    fewer, more_seconds = pair.allowed.throughput, None
    if fewer is not None:
        more_seconds = 1 / (1 - fewer) - 1
    check = _cost(pair, THROUGHPUT, "1/s", [before, after], more_seconds, pair.no_time)
    inverted = {
        "before": _inverted(check.before),
        "after": _inverted(check.after),
        "change": _inverted(check.change),
        "low": _inverted(check.high),
        "high": _inverted(check.low),
        "limit": _inverted(check.limit),
        "finds": None if check.finds is None else 1 / (1 + check.finds) - 1,
    }
    yield check.model_copy(update=inverted)


def _inverted(number: float | None) -> float | None:
    return None if number is None else 1 / number


def _energy(pair: _CasePair) -> Iterator[Check]:
    """Return the check of the energy of a query.

    There is none where neither side has read a counter. Where one side has not, or where the two
    were read over different things, there is nothing to compare, and that is not a failure.
    """
    before, after = pair.before.energy_mj, pair.after.energy_mj
    if not before and not after:
        return
    why = None
    if not before or not after:
        lacking = "the run" if before else "the baseline"
        why = f"{lacking} has no energy: it is older, or without a counter"
    elif (pair.before.energy_by or BLOCKS) != (pair.after.energy_by or BLOCKS):
        older = "the baseline" if pair.after.energy_by == PASS else "the run"
        why = f"{older} has the energy of blocks, and the other that of a pass of its own"
    if why is None:
        yield _cost(pair, ENERGY, "mJ", [before, after], pair.allowed.energy, pair.no_time)
        return
    yield pair.check(ENERGY, "not checked", "mJ", before=_mean(before), after=_mean(after), why=why)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _peaks(pair: _CasePair) -> Iterator[Check]:
    """Return the checks of memory.

    They are by the growth where both sides have it, as on a CPU; otherwise by the peak.
    """
    before, after = pair.before, pair.after
    refused = pair.no_cost
    if not refused and after.instrument:
        refused = _measured_differently(
            "instruments",
            f"{before.instrument}, {before.peak_figure}",
            f"{after.instrument}, {after.peak_figure}",
        )
    peaks = {
        PEAK: [before.peak_bytes, after.peak_bytes],
        QUERY_PEAK: [before.query_peak_bytes, after.query_peak_bytes],
    }
    growths = {
        PEAK: [before.growth_bytes, after.growth_bytes],
        QUERY_PEAK: [before.query_growth_bytes, after.query_growth_bytes],
    }
    for metric, peaks_bytes in peaks.items():
        threshold = _peak_threshold(pair.allowed, peaks_bytes[0])
        if all(growths[metric]) and not refused:
            yield _growth(pair, metric, growths[metric], peaks_bytes[0], threshold)
            continue
        check = _cost(pair, metric, "bytes", peaks_bytes, threshold, refused)
        if check.change is not None and after.instrument == RESIDENT_SET:
            check = check.model_copy(update={"why": check.why or WHOLE_PROCESSES})
        yield check
    if before.weights_bytes and after.weights_bytes:
        # A part of the peak, shown beside it: what a change of the peak is made of.
        weights_bytes = [before.weights_bytes, after.weights_bytes]
        yield _cost(pair, WEIGHTS, "bytes", weights_bytes, None, refused)


def _peak_threshold(allowed: Thresholds, peaks_bytes: Sequence[int]) -> float | None:
    """Return the accepted share of more memory: `peak`, or `peak_mib` where that is less."""
    if allowed.peak is None or not peaks_bytes:
        return allowed.peak
    mean_bytes = sum(peaks_bytes) / len(peaks_bytes)
    return min(allowed.peak, allowed.peak_mib * 2**20 / mean_bytes)


def _growth(
    pair: _CasePair,
    metric: str,
    growths_bytes: Sequence[Sequence[int]],
    peaks_bytes: Sequence[int],
    threshold: float | None,
) -> Check:
    """Return the check of the growth of resident sets, held to a number of bytes.

    A resident set moves by some MiB from process to process, whatever the model. A small model's
    growth is of that size, so a share of the growth could not be told from noise. Therefore the
    limit is a share of the whole process's peak, and the interval is of the difference in bytes.
    Change and limit are shown as ratios of the growth.

    Args:
        pair: the case.
        metric: name of the check.
        growths_bytes: of each process of the baseline and of the run.
        peaks_bytes: of each whole process of the baseline.
        threshold: accepted share of the peak; None where it is not gated.
    """
    growths_before, growths_after = growths_bytes
    before = sum(growths_before) / len(growths_before)
    after = sum(growths_after) / len(growths_after)
    difference_bytes = unpaired_difference(growths_before, growths_after)
    ratio = difference_bytes.mapped(lambda change_bytes: 1 + change_bytes / before)
    numbers = {
        "before": before,
        "after": after,
        "change": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        # An arm of this interval is a share of the growth, which is how thresholds are given.
        "detectable": ratio.detectable_difference,
    }
    if threshold is None:
        return pair.check(metric, "not gated", "bytes", **numbers)
    allowed_bytes = threshold * sum(peaks_bytes) / len(peaks_bytes)
    limit = 1 + allowed_bytes / before
    too_few = "one process" if ratio.low is None else None
    verdict, why = _with_reason(VERDICTS[ratio_at_most(ratio, limit)], too_few)
    return pair.check(metric, verdict, "bytes", **numbers, limit=limit, why=why)


def _cost(
    pair: _CasePair,
    metric: str,
    unit: Unit,
    costs: Sequence[Sequence[float]],
    threshold: float | None,
    refused: str | None,
) -> Check:
    """Return the check of the ratio of a cost.

    Args:
        pair: the case.
        metric: name of the check.
        unit: of the costs.
        costs: of each process of the baseline and of the run.
        threshold: accepted share of more cost; None where it is not gated.
        refused: why it must not be compared; None where it may.
    """
    logs = [_logs(costs[0]), _logs(costs[1])]
    limit = None if threshold is None else 1 + threshold
    numbers = {
        "before": _geometric_mean(logs[0]),
        "after": _geometric_mean(logs[1]),
        "limit": limit,
    }
    if refused or not all(costs):
        verdict, why = _not_compared(costs, threshold is not None, refused)
        return pair.check(metric, verdict, unit, **numbers, why=why)

    ratio = _ratio(pair, metric, unit, logs, limit)
    if limit is None:
        verdict, why = "not gated", None
    elif _other_queries_measured(pair, unit):
        verdict = "inconclusive"
        why = f"not the same queries have {DRIFTING[unit]} in every process"
    else:
        too_few = "one process" if ratio.low is None else None
        verdict, why = _with_reason(VERDICTS[ratio_at_most(ratio, limit)], too_few)
    # The smallest ratio that differs from 1, as a share, which is how thresholds are given.
    detectable = None
    if ratio.detectable_ratio is not None:
        detectable = ratio.detectable_ratio - 1
    return pair.check(
        metric,
        verdict,
        unit,
        **numbers,
        change=ratio.value,
        low=ratio.low,
        high=ratio.high,
        detectable=detectable,
        why=why,
        pairs_needed=_pairs_needed(pair, metric, ratio, verdict, limit),
        finds=_found_by_such_pairs(pair, metric, limit),
    )


def _pairs_needed(
    pair: _CasePair, metric: str, ratio: Estimate, verdict: Verdict, limit: float | None
) -> int | None:
    """Return about how many pairs would decide an inconclusive ratio; None where none are known."""
    of_pairs = bool(pair.pairs.get((pair.before.name, metric)))
    if verdict != "inconclusive" or limit is None or not of_pairs:
        return None
    return pairs_to_show(ratio, limit - 1)


def _found_by_such_pairs(pair: _CasePair, metric: str, limit: float | None) -> float | None:
    """Return the smallest change that gates with such pairs find; None without two pairs."""
    log_ratios = pair.pairs.get((pair.before.name, metric), ())
    if limit is None or len(log_ratios) < 2:
        return None
    spread = float(np.std(log_ratios, ddof=1))
    return smallest_found(limit - 1, spread, len(log_ratios))


def _logs(costs: Sequence[float]) -> list[float]:
    return [math.log(cost) for cost in costs]


def _geometric_mean(logs: Sequence[float]) -> float | None:
    """Return the mean of costs that their ratio belongs to; None without any."""
    return math.exp(sum(logs) / len(logs)) if logs else None


def _other_queries_measured(pair: _CasePair, unit: Unit) -> bool:
    """Return whether medians or means of the two sides are over different queries."""
    if unit in ("ns", "1/s"):
        return pair.before.untimed != pair.after.untimed
    if unit == "mJ":
        return pair.before.without_energy != pair.after.without_energy
    return False


def _ratio(
    pair: _CasePair,
    metric: str,
    unit: Unit,
    logs: Sequence[Sequence[float]],
    limit: float | None,
) -> Estimate:
    """Return the ratio of a cost: of pairs of processes if there are any, else of two sessions.

    See the module's docstring for the interval of two sessions.

    Args:
        pair: the case.
        metric: name of the check.
        unit: of the cost. Time and energy differ from session to session; memory does not.
        logs: of the costs of each process of the baseline and of the run.
        limit: of the ratio; None where it is not gated.
    """
    log_ratios = pair.pairs.get((pair.before.name, metric))
    if log_ratios:
        return paired_ratio(log_ratios)
    of_processes = unpaired_ratio(logs[0], logs[1])
    if pair.remeasured and limit is not None and ratio_at_most(of_processes, limit) == "fails":
        return of_processes
    between = 0.0
    if unit in DRIFTING:
        between = pair.allowed.sessions
    return unpaired_ratio(logs[0], logs[1], between=between)


def _not_compared(
    costs: Sequence[Sequence[float]], is_gated: bool, refused: str | None
) -> tuple[Verdict, str | None]:
    """Return the verdict on a cost that is not compared, and the reason."""
    if not is_gated:
        return "not gated", refused
    if not costs[0]:
        return "n/a", "not in the baseline"
    if refused:
        return "refused", refused
    return "missing", "the run has not measured it"


def _with_reason(verdict: Verdict, too_few: str | None) -> tuple[Verdict, str | None]:
    """Return the verdict, and the reason of an inconclusive one.

    Args:
        verdict: of an interval.
        too_few: what there are too few of for an interval; None where there is one.
    """
    if verdict != "inconclusive":
        return verdict, None
    if too_few:
        return verdict, f"{too_few} gives no interval"
    return verdict, "its interval reaches over the limit"


# Answers


def _quality(pair: _CasePair) -> Iterator[Check]:
    before, after = _scored(pair.before), _scored(pair.after)
    differences: dict[str, Points | None] = {}
    if before and after and not pair.other_queries:
        differences = points(before, after)
    for name, threshold in (("gIoU", pair.allowed.gIoU), ("cIoU", pair.allowed.cIoU)):
        own_points = 0.0
        if pair.own_spread:
            own_points = pair.own_spread.points.get(name, 0.0)
        allowed, limit = None, None
        if threshold is not None:
            allowed = threshold + BOTH_SIDES * own_points
            limit = -allowed  # a loss is a negative difference
        difference = differences.get(name)
        verdict, why = _of_points(pair, difference, allowed)
        if own_points and allowed is not None:
            why = _joined(why, OWN_SPREAD)
        numbers = {
            "before": METRICS[name].compute([query.counts for query in before]),
            "after": METRICS[name].compute([query.counts for query in after]),
            "limit": limit,
        }
        if difference is not None:
            numbers["change"] = difference.difference
            numbers["low"] = difference.low
            numbers["high"] = difference.high
            numbers["detectable"] = difference.smallest_detectable
        yield pair.check(f"quality.{name}", verdict, "score", **numbers, why=why)


def _joined(why: str | None, further: str) -> str:
    if why is None:
        return further
    return f"{why}; {further}"


def _scored(case: BaselineCase) -> list[ScoredQuery]:
    """Return the queries of a case with their counts; none where its weights are random."""
    if case.has_quality is not True:
        return []
    return case.answers.scored()


def _of_points(
    pair: _CasePair, difference: Points | None, threshold: float | None
) -> tuple[Verdict, str | None]:
    """Return the verdict on a difference of scores, and the reason where it needs one."""
    if threshold is None:
        return "not gated", pair.other_queries
    if pair.before.has_quality is not True:
        return "n/a", "random weights have no quality"
    if pair.other_queries:
        return "refused", pair.other_queries
    if pair.after.has_quality is not True:
        return "missing", "the run has no quality, and the baseline had"
    if difference is None:
        return "n/a", "no query defines it"
    too_few = "one image" if difference.low is None else None
    return _with_reason(VERDICTS[loss_at_most(difference, threshold)], too_few)


def _masks(pair: _CasePair) -> Check:
    """Return the check of the kept masks: the worst of them against its counterpart.

    It is also made where weights are random: those give the same masks.

    The limit is lowered by twice the distance D that masks of one query have within the baseline.
    The distance 1 - IoU obeys the triangle inequality: where some answer of the new side keeps the
    limit with some answer of the baseline, the two that were kept are at most D farther apart for
    either side. The new side is granted the baseline's D and not its own, or a change that makes
    answers random would excuse itself.

    Source: the Jaccard distance is a metric, Levandowsky and Winter 1971.
    """
    kept = pair.before.masks
    own_distance = 0.0
    if pair.own_spread:
        own_distance = pair.own_spread.mask_distance
    if pair.allowed.mask_iou is None:
        return pair.check(MASKS, "not gated", "IoU", limit=None)
    limit = max(0.0, pair.allowed.mask_iou - BOTH_SIDES * own_distance)
    if not kept:
        why = "the baseline keeps no masks"
        return pair.check(MASKS, "n/a", "IoU", limit=limit, why=why)
    if pair.other_queries:
        return pair.check(MASKS, "refused", "IoU", limit=limit, why=pair.other_queries)

    ious = {name: _overlap(pair, name) for name in kept if name in pair.after.masks}
    worst = min(ious.values(), default=None)
    beyond = [name for name, iou in ious.items() if iou < limit]
    lost = len(kept) - len(ious)
    verdict, why = "holds", None
    if beyond:
        worst_query = min(beyond, key=lambda name: ious[name])
        verdict = "regression"
        why = f"{len(beyond)} of {len(ious)} masks, worst of query {worst_query}"
    elif lost:
        verdict = "inconclusive"
        why = f"{lost} of {len(kept)} masks have no counterpart; run with --save-masks"
    if own_distance:
        why = _joined(why, OWN_SPREAD)
    return pair.check(MASKS, verdict, "IoU", after=worst, limit=limit, why=why)


def _overlap(pair: _CasePair, name: str) -> float:
    """Return the IoU of the two kept masks of a query."""
    before_HW = masks.unpack(pair.before.masks[name].model_dump())
    after_HW = masks.unpack(pair.after.masks[name].model_dump())
    return masks.overlap(before_HW, after_HW)
