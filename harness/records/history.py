"""The history of a suite: a file with one line for each run, ``history.jsonl`` or any other name.

A line has every number that a gate looks at, with its interval, and the commit that was measured.
It is a few kilobytes, so that it can be kept for years where whole runs cannot.
"""

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from .from_json import NotNegativeFloat, from_json, read_from
from .journal import read_lines

HISTORY_SCHEMA = "lisabench.history/1"
Unit = Literal["ms", "1/s", "bytes", "mJ", "score"]


@dataclass(frozen=True)
class HistoryValue:
    """One number of one case of a run.

    Attributes:
        case: name of the case.
        metric: such as ``time.end_to_end`` or ``quality.gIoU``.
        unit: of the value and its ends; a score is from 0 to 1.
        setup: digest of what was measured and how. Values are compared only where it is the same.
        value: the number.
        low, high: ends of its 95 % interval; None with one process, or one image.
        n: how many processes, or images, it is of.
        limit: what the suite's gate accepts: a share, or of a score a difference; None where the
            gate accepts anything.
    """

    case: str
    metric: str
    unit: Unit
    setup: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    limit: NotNegativeFloat | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "HistoryValue":
        """Return the value of an object.

        Raises:
            DataError: a key is missing, or a cost is not above 0, which has no ratio.
        """
        read = from_json(cls, value)
        if read.unit != "score" and read.value <= 0:
            raise DataError(f"{read.metric} of {read.case} is {read.value}; expected more than 0")
        if read.unit == "1/s" and (read.limit or 0) >= 1:
            raise DataError(f"the limit of {read.metric} is {read.limit}; expected less than 1")
        return read


@dataclass(frozen=True)
class HistoryLine:
    """One run in a history.

    Attributes:
        suite: its name.
        started: ISO 8601.
        commit: what was measured; None where nobody said.
        machine: in one line.
        facts: of the machine; costs are compared where all of them are the same.
        values: of its models.
    """

    suite: str
    started: str
    machine: str
    facts: Mapping[str, Any]
    values: tuple[HistoryValue, ...]
    commit: str | None = None

    @property
    def key(self) -> Hashable:
        """What no two lines of a history have in common: no machine runs two at once."""
        return self.suite, self.started, self.machine, self.commit

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "HistoryLine":
        """Return the run of a line.

        Raises:
            DataError: it has another schema, or a key is missing.
        """
        if line.get("schema") != HISTORY_SCHEMA:
            raise DataError(
                f"schema {line.get('schema')!r}; expected {HISTORY_SCHEMA!r}, as in the lines "
                "that `lisabench history --add` writes"
            )
        values = tuple(HistoryValue.from_json(value) for value in line["values"])
        return from_json(cls, line, values=values)

    def as_json(self) -> dict[str, Any]:
        """Return the line of the file."""
        return {"schema": HISTORY_SCHEMA} | asdict(self)


def read_history(path: Path) -> list[HistoryLine]:
    """Return the runs of a history in the order of its lines; of a file that is missing, none.

    Raises:
        DataError: a line is damaged.
    """
    runs = []
    for line in read_lines(path):
        with read_from(line.place):
            runs.append(HistoryLine.from_json(line))
    return runs
