"""Series over commits: one number of one case on one machine, its steps, and whether it drifts.

A step is a change from one run to the next that is beyond the limit of the gate, where the two
intervals do not overlap. Scores are of the same images each time, so theirs need not be apart.

A drift is found by `harness/statistics/drift.py`, of what the gate of the suite limits.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...harness.errors import UsageError
from ...harness.records.history import HistoryLine, HistoryValue
from ...harness.statistics.drift import WINDOW, Growth, growth_of
from ...harness.text import code
from .. import formatting
from ..gate.checks import PEAK
from ..times import END_TO_END
from .shown import ShownTable
from .table import Table, Value, numbers, texts, whole_numbers, with_interval

Verdict = Literal["drift", "no drift", "too few runs", "not gated"]
COLUMNS = [
    *texts("suite", "case", "machine", "metric", "unit", "setup", "started", "commit"),
    *with_interval("value"),
    *whole_numbers("n"),
    *numbers("limit"),
    *texts("step"),
]
SERIES_HEADER = ["suite, machine", "case", "metric", "runs", "first", "newest",
                 "newest 5 over earlier 5 [95 %]", "steps", "verdict"]  # fmt: skip
VALUES_HEADER = ["suite", "case", "metric", "date", "commit", "value [95 %]", "step"]
SHOWN_COMMIT = 9  # characters
BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 12  # the newest runs
COMMENTED = {END_TO_END: "time", PEAK: "memory"}  # in a gate's comment
MOST_STEPS = 3  # in the table of series, the newest ones


@dataclass(frozen=True)
class Point:
    """One run in a series."""

    line: HistoryLine
    value: HistoryValue

    @property
    def commit(self) -> str:
        """The commit, shortened; the time of the run where nobody said."""
        return (self.line.commit or self.line.started)[: SHOWN_COMMIT if self.line.commit else 16]


@dataclass(frozen=True)
class Series:
    """One number of one case on one machine, measured in the same way each time.

    Attributes:
        points: its runs, oldest first; there is at least one.
    """

    points: Sequence[Point]

    @property
    def newest(self) -> Point:
        """The newest run."""
        return self.points[-1]

    @property
    def is_score(self) -> bool:
        """Whether changes are differences, rather than ratios."""
        return self.newest.value.unit == "score"

    @property
    def less_is_worse(self) -> bool:
        """Whether a smaller value is worse: of scores and rates, not of costs."""
        return self.newest.value.unit in ("score", "1/s")

    @cached_property
    def badness(self) -> list[float]:
        """Values on a scale where more is worse, and where differences are changes."""
        values = []
        for point in self.points:
            value = point.value.value if self.is_score else math.log(point.value.value)
            values.append(-value if self.less_is_worse else value)
        return values

    @property
    def limit(self) -> float | None:
        """How much worse the gate accepts, on the scale of `badness`; None: not gated."""
        limit = self.newest.value.limit
        if limit is None or self.is_score:
            return limit
        # A share x fewer queries per second are 1 / (1 - x) times the seconds of a query.
        return -math.log1p(-limit) if self.less_is_worse else math.log1p(limit)

    @cached_property
    def growth(self) -> Growth | None:
        """The newest runs against the earlier ones; None with too few of them."""
        return growth_of(self.badness)

    @property
    def verdict(self) -> Verdict:
        """Whether the number became worse, slowly or at once, by more than the gate accepts."""
        if self.limit is None:
            return "not gated"
        if self.growth is None:
            return "too few runs"
        low = self.growth.change.low
        return "drift" if low is not None and low > self.limit else "no drift"

    def step(self, place: int) -> float | None:
        """Return the change of a run from the one before, on the scale of `badness`, if a step."""
        if place == 0 or self.limit is None:
            return None
        change = self.badness[place] - self.badness[place - 1]
        before, after = self.points[place - 1].value, self.points[place].value
        if abs(change) <= self.limit or (not self.is_score and _overlap(before, after)):
            return None
        return change

    def shown_change(self, change: float) -> str:
        """Return a change on the scale of `badness`, such as ``+7.2 %`` or ``-0.8 points``."""
        signed = -change if self.less_is_worse else change
        if self.is_score:
            return f"{100 * signed:+z.1f} points"
        return f"{100 * math.expm1(signed):+z.1f} %"

    @property
    def steps(self) -> list[str]:
        """Every step with its commit: ``+12.0 % at 1a2b3c4d5``."""
        shown = []
        for place, point in enumerate(self.points):
            step = self.step(place)
            if step is not None:
                shown.append(f"{self.shown_change(step)} at {point.commit}")
        return shown


def _overlap(before: HistoryValue, after: HistoryValue) -> bool:
    """Return whether two intervals overlap; without intervals they never do."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return False
    return before.low <= after.high and after.low <= before.high


def series_of(
    lines: Sequence[HistoryLine],
    since: str | None = None,
    case: str | None = None,
    metric: str | None = None,
) -> list[Series]:
    """Return the series of a history, those of the newest runs first.

    Args:
        lines: of the history, in any order.
        since: the beginning of a commit's id; runs before its first one are left out.
        case, metric: only these; None: all.

    Raises:
        UsageError: no run has that commit, or there is nothing of that case and metric.
    """
    in_order = sorted(lines, key=lambda line: line.started)
    if since is not None:
        commits = [line.commit or "" for line in in_order]
        places = [place for place, name in enumerate(commits) if name.startswith(since)]
        if not places:
            raise UsageError(f"no run of the history has a commit that begins with {since!r}")
        in_order = in_order[places[0] :]
    points: dict[tuple[str, ...], list[Point]] = {}
    for line in in_order:
        facts = json.dumps(line.facts, sort_keys=True, default=str)
        for value in line.values:
            if case in (None, value.case) and metric in (None, value.metric):
                key = (line.suite, facts, value.case, value.metric, value.setup)
                points.setdefault(key, []).append(Point(line, value))
    if not points:
        raise UsageError("the history has no run with such a case and metric")
    series = [Series(of_key) for of_key in points.values()]
    # The sort is stable: cases and metrics stay in the order of the suite.
    return sorted(series, key=lambda one: one.newest.line.started, reverse=True)


def values_table(series: Sequence[Series]) -> Table:
    """Return every value with its interval and commit, for other programs."""
    rows: list[dict[str, Value]] = []
    for one in series:
        for place, point in enumerate(one.points):
            line, value = point.line, point.value
            step = one.step(place)
            rows.append(
                {
                    "suite": line.suite,
                    "case": value.case,
                    "machine": line.machine,
                    "metric": value.metric,
                    "unit": value.unit,
                    "setup": value.setup,
                    "started": line.started,
                    "commit": line.commit,
                    "value": value.value,
                    "value_low": value.low,
                    "value_high": value.high,
                    "n": value.n,
                    "limit": value.limit,
                    "step": None if step is None else one.shown_change(step),
                }
            )
    return Table(COLUMNS, rows)


def shown_values(series: Sequence[Series]) -> ShownTable:
    """Return every value with its interval and commit, as people read it."""
    rows = []
    for one in series:
        for place, point in enumerate(one.points):
            step = one.step(place)
            rows.append(
                [
                    point.line.suite,
                    point.value.case,
                    point.value.metric,
                    point.line.started[:10],
                    point.commit,
                    shown_value(point.value),
                    "" if step is None else one.shown_change(step),
                ]
            )
    return ShownTable(VALUES_HEADER, rows)


def shown_series(series: Sequence[Series]) -> ShownTable:
    """Return a row for each series: how it began, how it is now, its steps, and the verdict.

    What the gate does not limit, such as most stages, is left out unless there is nothing else.
    """
    rows = []
    limited = [one for one in series if one.limit is not None]
    for one in limited or series:
        first, newest = one.points[0], one.newest
        machine = newest.line.machine.split("; ")[0].split(", ")[0]
        rows.append(
            [
                f"{newest.line.suite}, {machine}",
                newest.value.case,
                newest.value.metric,
                f"{len(one.points)} {sparkline(one)}",
                shown_value(first.value, interval=False),
                shown_value(newest.value, interval=False),
                _shown_growth(one),
                "; ".join(one.steps[-MOST_STEPS:]),
                one.verdict,
            ]
        )
    return ShownTable(SERIES_HEADER, rows)


def sparkline(one: Series) -> str:
    """Return the newest values as bars, the lowest of them lowest: ``▁▁▂▁▁▁▁█``.

    The whole height is at least what the gate accepts, so that noise is no mountain.
    """
    values = [point.value.value for point in one.points[-MOST_BARS:]]
    accepted = one.limit or 0.0
    if not one.is_score:
        accepted *= min(values)
    span = max(max(values) - min(values), accepted)
    bars = ""
    for value in values:
        share = (value - min(values)) / span if span else 0.0
        bars += BARS[round(share * (len(BARS) - 1))]
    return bars


def newest_runs(series: Sequence[Series]) -> str:
    """Return the newest runs on one line of Markdown, for the comment of a gate.

    It has the time and the peak of each case of the newest run; it is empty where there is no
    earlier run. Such as ``Last 8 runs: `dual` time ▂▂▃▂▂▃▂█ 131 to 154 ms, memory ▁▁▁▁▁▁▁█ ...``.
    """
    started = max(one.newest.line.started for one in series)
    by_case: dict[str, list[str]] = {}
    most_runs = 0
    for one in series:
        value = one.newest.value
        name = COMMENTED.get(value.metric)
        if name is None or one.newest.line.started != started or len(one.points) < 2:
            continue
        newest = [point.value for point in one.points[-MOST_BARS:]]
        most_runs = max(most_runs, len(newest))
        least = min(newest, key=lambda value: value.value)
        most = max(newest, key=lambda value: value.value)
        low, high = shown_value(least, interval=False), shown_value(most, interval=False)
        text = high if low == high else f"{low} to {high}"
        by_case.setdefault(value.case, []).append(f"{name} {sparkline(one)} {text}")
    if not by_case:
        return ""
    cases = [f"{code(case)} {', '.join(texts)}" for case, texts in by_case.items()]
    return f"Last {most_runs} runs: {'; '.join(cases)}"


def _shown_growth(one: Series) -> str:
    """Return the change of the newest runs with its interval, in per cent or in points."""
    if one.growth is None:
        return f"{len(one.points)} of {2 * WINDOW} runs"
    change = one.growth.change
    assert change.low is not None and change.high is not None
    # Where less is worse the ends change places, since the scale is turned around.
    ends = sorted([change.low, change.high], reverse=one.less_is_worse)
    low, high = [one.shown_change(end).split(" ")[0] for end in ends]
    return f"{one.shown_change(change.value)} [{low}, {high}]"


def shown_value(value: HistoryValue, interval: bool = True) -> str:
    """Return a value with its unit, and with its interval where it has one."""
    numbers = [value.value]
    if interval and value.low is not None and value.high is not None:
        numbers += [value.low, value.high]
    if value.unit == "bytes":
        written = [f"{number / 2**20:,.1f}" for number in numbers]
        unit = " MiB"
    elif value.unit == "score":
        written, unit = [f"{number:.3f}" for number in numbers], ""
    else:
        written = [formatting.milliseconds(number) for number in numbers]
        unit = f" {value.unit}"
    if len(written) == 1:
        return f"{written[0]}{unit}"
    return f"{written[0]} [{written[1]}, {written[2]}]{unit}"


def drifts(series: Sequence[Series]) -> list[str]:
    """Return a sentence for each series that drifts."""
    sentences = []
    for one in series:
        if one.verdict != "drift" or one.growth is None or one.limit is None:
            continue
        earlier = one.points[one.growth.start : one.growth.start + WINDOW]
        newest = one.points[-WINDOW:]
        value = one.newest.value
        cause = f"steps: {'; '.join(one.steps)}" if one.steps else "no step: it came slowly"
        sentences.append(
            f"drift: {value.case} {value.metric} is {_shown_growth(one)} "
            f"in {newest[0].commit} to {newest[-1].commit} "
            f"against {earlier[0].commit} to {earlier[-1].commit}, "
            f"and the gate accepts {one.shown_change(one.limit)}; {cause}"
        )
    return sentences
