"""The table of gates: its changes, intervals and exit codes are those of the records."""

import pytest
from published import gate

from lisabench.harness.errors import DataError
from lisabench.reports.published.gates import PublishedGate, gates_table

pytestmark = pytest.mark.no_clock

ONE_CORE = "gate-gpu/one-core"


def rows_of(*folders):
    table = gates_table([PublishedGate(folder, folder) for folder in folders], case="dual")
    header, _, *rows = table.splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in (header, *rows)]


def test_the_times_come_out_by_numpy_alone():
    _, unchanged, planted = rows_of(f"{ONE_CORE}/unchanged", f"{ONE_CORE}/planted")
    assert unchanged[1] == gate("unchanged")
    assert planted[1] == f"{gate('planted')}, again {gate('planted/again')}"


@pytest.mark.parametrize(
    ("folder", "exit_code", "measurements"),
    [
        (f"{ONE_CORE}/unchanged", "0", 1),
        (f"{ONE_CORE}/planted", "1", 2),
        ("gate-gpu/any-core/unchanged", "3", 1),
    ],
)
def test_a_gate_ends_as_it_ended(folder, exit_code, measurements):
    *_, ended, seconds = rows_of(folder)[1]
    assert (ended, len(seconds.split(", "))) == (exit_code, measurements)


def test_each_metric_has_its_limit_in_its_heading():
    assert rows_of(f"{ONE_CORE}/planted")[0] == [
        "what was changed",
        "time of a query (limit 1.05x)",
        "energy (limit 1.5x)",
        "peak memory (limit 1.005x)",
        "exit code",
        "seconds per measurement",
    ]


def test_a_gate_that_is_not_published_is_named():
    with pytest.raises(DataError, match=r"results/gate-gpu/lost/base has no run\.json"):
        rows_of("gate-gpu/lost")
