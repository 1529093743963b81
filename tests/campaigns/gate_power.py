"""What a gate finds at the noise of gates that were measured, as a table.

    python tests/campaigns/gate_power.py runs/planted results/gate-gpu/graphed

Every folder below the given ones with a `base` and a `head` is a measurement. The log ratios of its
pairs of processes differ from their mean by noise, whatever was planted. With the standard
deviation over all measurements the table says, for some limits, how many gates are red where
nothing or something was planted: by the noncentral t distribution, for normal noise, and in
brackets simulated with noise drawn from the measured pairs themselves.

A smaller limit finds a change more often, and leaves more gates of an unchanged tree inconclusive.
So the limit to choose is the largest at which 80 % of the gates find the change.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
from scipy import stats
from simulated_pairs import outcomes, resampled

from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.power import (
    POWER,
    QUIET,
    largest_limit,
    pooled_spread,
    shares_of_gates,
    smallest_found,
    smallest_quiet_limit,
)
from lisabench.harness.statistics.ratios import paired_ratio
from lisabench.harness.statistics.verdicts import ratio_at_most
from lisabench.reports.energy import ENERGY
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.times import END_TO_END

PLANTED = (0.0, 0.01, 0.02, 0.03)
LIMITS = {
    END_TO_END: (0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.02),
    ENERGY: (0.005, 0.01, 0.015, 0.02, 0.03, 0.05),
}
PAIRS = (5, 6, 8)


@dataclass(frozen=True)
class Measurement:
    """One measurement of a gate.

    Attributes:
        name: its folder, below the one that was given.
        logs: the log ratios of the pairs, by case and metric.
    """

    name: str
    logs: dict[tuple[str, str], Sequence[float]]


def measurements_in(folder: Path) -> Iterator[Measurement]:
    """Yield the measurements below a folder; those that gates were merged from are left out."""
    for manifest in sorted(folder.rglob("base/run.json")):
        versions = manifest.parent.parent
        if (versions / "head" / "run.json").exists():
            pairs = time_pairs(read_run(versions / "base"), read_run(versions / "head"))
            yield Measurement(str(versions.relative_to(folder.parent)), dict(pairs))


def report(
    measurements: Sequence[Measurement], case: str, metric: str, numbers_of_pairs: Sequence[int]
) -> Iterator[str]:
    """Yield the lines on one metric of a case; none where no measurement has two pairs of it."""
    named = [(one.name, one.logs.get((case, metric), ())) for one in measurements]
    named = [(name, logs) for name, logs in named if len(logs) > 1]
    if not named:
        return
    samples = [logs for _, logs in named]
    spread = pooled_spread(samples)
    freedom = sum(len(logs) - 1 for logs in samples)
    low, high = (np.sqrt(freedom / stats.chi2.ppf(p, freedom)) for p in (0.975, 0.025))
    yield f"== {metric} of {case}"
    for name, logs in named:
        ratio = paired_ratio(logs)
        own = 100 * np.std(logs, ddof=1)
        yield (
            f"  {name}: {ratio.value:.4f}x [{ratio.low:.4f}, {ratio.high:.4f}], {len(logs)} pairs, "
            f"standard deviation {own:.2f} %"
        )
    yield (
        f"  standard deviation of a pair's log ratio: {100 * spread:.2f} % "
        f"[{100 * spread * low:.2f}, {100 * spread * high:.2f}], {freedom} degrees of freedom"
    )
    for pairs in numbers_of_pairs:
        yield from _table(metric, spread, pairs, samples)
        yield from _chosen(named, spread, pairs)


def _table(
    metric: str, spread: float, pairs: int, samples: Sequence[Sequence[float]]
) -> Iterator[str]:
    yield f"  {pairs} pairs: percent of gates, red by planted change; of an unchanged tree, others"
    heading = "".join(f"{f'{100 * change:g} %':>15}" for change in PLANTED)
    yield f"    {'limit':>6}{heading}{'0 %, holds':>15}{'inconclusive':>15}"
    draw = resampled(samples)
    for limit in LIMITS[metric]:
        cells = []
        for change in PLANTED:
            simulated = outcomes(draw, change, limit, pairs)
            cells.append((shares_of_gates(change, limit, spread, pairs).red, simulated.red))
        unchanged, simulated = (
            shares_of_gates(0, limit, spread, pairs),
            outcomes(draw, 0, limit, pairs),
        )
        cells.append((unchanged.holds, simulated.holds))
        cells.append((unchanged.inconclusive, simulated.inconclusive))
        text = "".join(f"{f'{100 * one:.1f} ({100 * two:.1f})':>15}" for one, two in cells)
        yield f"    {f'{100 * limit:g} %':>6}{text}"


def _chosen(
    named: Sequence[tuple[str, Sequence[float]]], spread: float, pairs: int
) -> Iterator[str]:
    """Yield the limits to choose, and what the measurements would have been by them."""
    quiet = smallest_quiet_limit(spread, pairs)
    found = smallest_found(quiet, spread, pairs)
    yield (
        f"    {100 * QUIET:g} % of unchanged trees hold from the limit {100 * quiet:.2f} % on, at "
        f"which {100 * found:.2f} % is red in {100 * POWER:g} %"
    )
    for change in PLANTED[1:]:
        limit = largest_limit(change, spread, pairs)
        what = f"    {100 * change:g} % is red in {100 * POWER:g} %"
        if limit is None:
            yield f"{what}: at no limit"
            continue
        unchanged = shares_of_gates(0, limit, spread, pairs)
        verdicts = [ratio_at_most(paired_ratio(logs), 1 + limit) for _, logs in named]
        counts = ", ".join(
            f"{verdicts.count(one)} {one}" for one in ("holds", "inconclusive", "fails")
        )
        holds = f"{100 * unchanged.holds:.1f} % of unchanged trees hold"
        yield f"{what} up to the limit {100 * limit:.2f} %, at which {holds}"
        yield f"      by that limit these measurements: {counts}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--pairs", nargs="+", type=int, default=list(PAIRS))
    arguments = parser.parse_args()
    measurements = []
    for folder in arguments.folders:
        measurements += measurements_in(folder.resolve())
    if not measurements:
        sys.exit("there is no measurement of a gate: expected folders with base and head")
    cases = sorted({case for one in measurements for case, _ in one.logs})
    for case in cases:
        for metric in LIMITS:
            for line in report(measurements, case, metric, arguments.pairs):
                print(line)


if __name__ == "__main__":
    main()
