"""A table of raw numbers for other programs: typed columns, one for each number.

The name of a column ends with its unit, such as ``time_ms`` or ``peak_bytes``. Ratios, and scores
from 0 to 1, have none. The two ends of a 95 % interval are columns of their own, ``_low`` and
``_high``. An unknown value is empty, and never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "whole", "number"]
Value = str | int | float | None
Row = Mapping[str, Value]

# The types of pandas that can hold an unknown value, so that a column has the same type in each
# table, also where nothing in it is known.
DTYPES: Mapping[Kind, str] = {"text": "string", "whole": "Int64", "number": "Float64"}


@dataclass(frozen=True)
class Column:
    """A column: its name with the unit, and whether it holds texts, whole numbers or any."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Table:
    """Rows, and the columns in their order. A row that lacks a column has an unknown value there.

    Attributes:
        columns: with different names.
        rows: values by the name of their column.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def complete_rows(self) -> list[dict[str, Value]]:
        """Return the rows with a value, or None, in every column."""
        return [{name: row.get(name) for name in self.names} for row in self.rows]

    def frame(self) -> "pd.DataFrame":
        """Return the table as a DataFrame, with the types of `DTYPES`."""
        import pandas as pd

        series = {}
        for column in self.columns:
            values = [row.get(column.name) for row in self.rows]
            series[column.name] = pd.Series(values, dtype=DTYPES[column.kind])
        return pd.DataFrame(series, columns=self.names)


def texts(*names: str) -> list[Column]:
    """Return columns of texts."""
    return [Column(name, "text") for name in names]


def whole_numbers(*names: str) -> list[Column]:
    """Return columns of whole numbers."""
    return [Column(name, "whole") for name in names]


def numbers(*names: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(name, "number") for name in names]


def with_interval(*names: str) -> list[Column]:
    """Return for each name a column of a number, and two of the ends of its interval."""
    columns = []
    for name in names:
        columns += numbers(name, f"{name}_low", f"{name}_high")
    return columns


class Interval(Protocol):
    """Whatever has two ends, both None where there is no interval."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


def interval_values(name: str, value: float | None, interval: Interval | None) -> dict[str, Value]:
    """Return the values of the columns that `with_interval` makes for a name."""
    if interval is None:
        return {name: value}
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
