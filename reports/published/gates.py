"""The table of published gates: what was planted, what the gate measured, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...harness.errors import DataError
from ...harness.records.journal import RUN
from ...harness.records.run import Run, read_run
from ..gate.baseline import Baseline, reduced
from ..gate.checks import Check, gate_checks
from ..gate.outcome import checked, to_remeasure, with_remeasurements
from ..gate.pairs import time_pairs
from ..gate.thresholds import gate_of
from ..markdown import Row, markdown_table
from .cells import DASH
from .records import RESULTS

AGAIN = "again"  # the folder of a second measurement
METRICS = {  # the columns, by the metric that is gated
    "time.end_to_end": "time of a query",
    "energy.query": "energy",
    "memory.peak": "peak memory",
}


@dataclass(frozen=True)
class PublishedGate:
    """A gate whose records are published: two versions that were measured in pairs.

    Attributes:
        change: what was changed, in words.
        folder: of its records, below ``results``.
    """

    change: str
    folder: str


@dataclass(frozen=True)
class _Measurement:
    """One measurement of both versions.

    Attributes:
        before, after: the two versions, reduced to what is compared.
        checks: of the second version.
        seconds: how long the measurement took.
    """

    before: Baseline
    after: Baseline
    checks: list[Check]
    seconds: int


def gates_table(gates: Sequence[PublishedGate], case: str, results: Path = RESULTS) -> str:
    """Return a row for each gate: the changes with their intervals, the exit code, and the time.

    A metric that no gate measured has no column.

    Args:
        gates: the published gates.
        case: whose metrics are shown.
        results: the folder of all published records.

    Raises:
        DataError: a folder holds no gate.
    """
    measurements_of_gates = [_measurements(gate, results) for gate in gates]
    header = ["what was changed"]
    rows: list[Row] = [[gate.change] for gate in gates]
    for metric, name in METRICS.items():
        limits: set[str] = set()
        cells = []
        for measurements in measurements_of_gates:
            checks = _checks(measurements, case, metric)
            limits.update(_limit(check) for check in checks)
            cells.append(", again ".join(_change(check) for check in checks) or DASH)
        if limits:
            header.append(f"{name} ({' or '.join(sorted(limits))})")
            for row, cell in zip(rows, cells, strict=True):
                row.append(cell)
    header += ["exit code", "seconds per measurement"]
    for gate, row, measurements in zip(gates, rows, measurements_of_gates, strict=True):
        seconds = ", ".join(str(measurement.seconds) for measurement in measurements)
        row += [str(_exit_code(gate, measurements)), seconds]
    return markdown_table(header, rows)


def _measurements(gate: PublishedGate, results: Path) -> list[_Measurement]:
    """Return the measurement of a gate, and the second one if a case had regressed."""
    measurements = [_measurement(gate.folder, results)]
    if to_remeasure(measurements[0].checks):
        measurements.append(_measurement(f"{gate.folder}/{AGAIN}", results))
    return measurements


def _measurement(folder: str, results: Path) -> _Measurement:
    """Return the measurement of both versions in a folder below `results`.

    Raises:
        DataError: it holds none, or one that has not finished.
    """
    base, head = _version(folder, "base", results), _version(folder, "head", results)
    before, after = reduced(base), reduced(head)
    limits = gate_of(head.manifest.definition)
    checks = gate_checks(before, after, limits, pairs=time_pairs(base, head))
    started, finished = head.manifest.started, head.manifest.finished
    if started is None or finished is None:
        raise DataError(f"results/{folder}/head has not finished; publish a gate that has")
    seconds = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
    return _Measurement(before, after, checks, round(seconds.total_seconds()))


def _version(folder: str, version: str, results: Path) -> Run:
    path = results / folder / version
    if not (path / RUN).is_file():
        raise DataError(
            f"results/{folder}/{version} has no {RUN}: publish the gate there, or name another "
            "folder in reports/published/tables.py"
        )
    return read_run(path)


def _checks(measurements: Sequence[_Measurement], case: str, metric: str) -> list[Check]:
    """Return the checks of a metric that compared something, in the order of the measurements."""
    checks = []
    for measurement in measurements:
        for check in measurement.checks:
            if (check.case, check.metric) == (case, metric) and check.change is not None:
                checks.append(check)
    return checks


def _limit(check: Check) -> str:
    """Return the limit of a check in words: ``limit 1.05x``, or that there is none."""
    return "shown only" if check.limit is None else f"limit {check.limit:.4g}x"


def _change(check: Check) -> str:
    """Return a change as a ratio with its interval, unless that is a point."""
    if check.low is None or check.high is None or check.low == check.high:
        return f"{check.change:.3f}x"
    return f"{check.change:.3f}x [{check.low:.3f}, {check.high:.3f}]"


def _exit_code(gate: PublishedGate, measurements: Sequence[_Measurement]) -> int:
    """Return the exit code that the gate ends with, by its checks and their re-measurement."""
    first, *others = measurements
    again = {}
    for case in to_remeasure(first.checks):
        again[case] = others[0].checks
    final = with_remeasurements(first.checks, again)
    return checked(gate.folder, "base", first.before, first.after, final).exit_code
