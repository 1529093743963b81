"""The table of what gates find, at the noise of gates whose records are published."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...harness.errors import DataError
from ...harness.records.journal import RUN
from ...harness.records.run import Run, read_run
from ...harness.statistics.power import pooled_spread, shares_of_gates
from ..energy import ENERGY
from ..gate.pairs import Pairs, time_pairs
from ..gate.thresholds import Thresholds, gate_of
from ..markdown import Row, markdown_table
from ..times import END_TO_END
from .records import RESULTS

NAMES: Mapping[str, str] = {END_TO_END: "time of a query", ENERGY: "energy of a query"}
HEADER = [
    "what",
    "limit",
    "pairs",
    "they vary by",
    "planted",
    "red",
    "inconclusive",
    "holds",
]


def power_table(
    folders: Sequence[str], case: str, changes: Sequence[float], results: Path = RESULTS
) -> str:
    """Return how gates end that vary as published ones do, a row for each planted change.

    What was planted in the published gates does not matter: their pairs vary around its mean.

    Args:
        folders: of the gates, below `results`, and of their second measurements.
        case: that they have in common.
        changes: that are planted, as shares; 0 is an unchanged tree.
        results: the folder of all published records.

    Raises:
        DataError: a folder holds no gate, or one without this case; or the gates have different
            limits or numbers of pairs.
    """
    runs = [_versions(folder, results) for folder in folders]
    limits = {_limits(head, case) for _, head in runs}
    numbers_of_pairs = {head.manifest.plan.processes for _, head in runs}
    if len(limits) != 1 or len(numbers_of_pairs) != 1:
        raise DataError(
            f"the gates {', '.join(folders)} differ in limits or pairs; give those that are alike"
        )
    (limit_of_metric,), (processes,) = limits, numbers_of_pairs
    pairs_of_gates = []
    for folder, (base, head) in zip(folders, runs, strict=True):
        pairs_of_gates.append(_pairs_with(case, folder, base, head))
    rows: list[Row] = []
    for metric, limit in zip(NAMES, limit_of_metric, strict=True):
        samples = [pairs_of_gate[case, metric] for pairs_of_gate in pairs_of_gates]
        if limit is not None and all(len(logs) > 1 for logs in samples):
            rows += _rows(NAMES[metric], limit, processes, pooled_spread(samples), changes)
    return markdown_table(HEADER, rows)


def _versions(folder: str, results: Path) -> tuple[Run, Run]:
    """Return both versions of a published gate, or raise a `DataError` if one is not there."""
    for version in ("base", "head"):
        if not (results / folder / version / RUN).is_file():
            raise DataError(f"results/{folder}/{version} has no {RUN}: publish the gate there")
    return read_run(results / folder / "base"), read_run(results / folder / "head")


def _pairs_with(case: str, folder: str, base: Run, head: Run) -> Pairs:
    """Return the log ratios of the pairs of a gate, or raise a `DataError` without the case."""
    pairs = time_pairs(base, head)
    if (case, END_TO_END) not in pairs:
        names = ", ".join(entry.name for entry in head.manifest.models)
        raise DataError(f"results/{folder} has no case {case!r}; it has: {names}")
    return pairs


def _limits(head: Run, case: str) -> tuple[float | None, ...]:
    """Return the limits of a gate, in the order of `NAMES`."""
    allowed: Thresholds = gate_of(head.manifest.definition).of(case)
    return allowed.end_to_end, allowed.energy


def _rows(
    name: str, limit: float, pairs: int, spread: float, changes: Sequence[float]
) -> list[Row]:
    """Return a row of a metric for each planted change."""
    rows: list[Row] = []
    for change in changes:
        shares = shares_of_gates(change, limit, spread, pairs)
        row = [name, _percent(limit), str(pairs), f"{100 * spread:.2f} %", _percent(change)]
        row += [f"{100 * share:.1f} %" for share in (shares.red, shares.inconclusive, shares.holds)]
        rows.append(row)
    return rows


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if math.isclose(percent, round(percent)) else f"{percent:.2g} %"
