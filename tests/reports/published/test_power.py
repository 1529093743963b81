"""The table of what gates find, from the records of published gates."""

import numpy as np
import pytest
from published import gate_noise, gate_pairs

from lisabench.harness.errors import DataError
from lisabench.harness.statistics.power import pooled_spread, shares_of_gates
from lisabench.reports.published.power import power_table

pytestmark = pytest.mark.no_clock

ONE_CORE = "gate-gpu/one-core"
UNCHANGED = [f"{ONE_CORE}/unchanged", f"{ONE_CORE}/unchanged-again"]


def rows_of(folders, changes):
    _, _, *rows = power_table(folders, "dual", changes).splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_a_row_has_the_noise_of_the_gates_and_how_such_gates_end():
    rows = rows_of(UNCHANGED, [0, 0.1])
    time = [row for row in rows if row[0] == "time of a query"]
    assert [row[1:5] for row in time] == [
        ["5 %", "5", f"{100 * gate_noise():.2f} %", planted] for planted in ("0 %", "10 %")
    ]
    shares = shares_of_gates(0.1, 0.05, gate_noise(), 5)
    assert time[1][5] == f"{100 * shares.red:.1f} %"
    for row in rows:
        assert sum(float(cell.removesuffix(" %")) for cell in row[5:]) == pytest.approx(
            100, abs=0.2
        )
    assert [row[1] for row in rows if row[0] == "energy of a query"] == ["50 %", "50 %"]


def test_what_was_planted_is_no_noise():
    logs = np.array(gate_pairs("planted"))
    assert pooled_spread([logs, logs + 0.3]) == pytest.approx(np.std(logs, ddof=1))
    (row, *_) = rows_of([f"{ONE_CORE}/planted"], [0])
    assert row[3] == f"{100 * np.std(logs, ddof=1):.2f} %"


def test_gates_with_other_limits_and_folders_without_a_gate_are_named():
    with pytest.raises(DataError, match=r"results/gate-gpu/lost/base has no run\.json"):
        power_table(["gate-gpu/lost"], "dual", [0])


def test_a_case_that_a_gate_lacks_is_named():
    with pytest.raises(DataError, match=r"unchanged has no case 'dull'; it has: dual"):
        power_table(UNCHANGED, "dull", [0])
