"""Times by process and query: which pass they are of, and what ratios and medians make of them."""

import math

import numpy as np
import pytest
from query_records import query_record

from lisabench.harness.records.manifest import CaseEntry
from lisabench.harness.records.query import RegionTime
from lisabench.harness.records.run import CaseRecords, PassRecord
from lisabench.reports.ratios import medians_ms, time_logs, unpaired_time_ratio
from lisabench.reports.times import (
    by_process,
    in_columns,
    synchronised_times,
    times_by_stage,
    were_synchronised,
)

pytestmark = pytest.mark.no_clock


def timed(sample_id, latency_ns, process=0, status="ok", **stages_ns):
    regions = {name: RegionTime(1, time_ns, time_ns) for name, time_ns in stages_ns.items()}
    return query_record(sample_id, process, status=status, latency_ns=latency_ns, regions=regions)


def waited(sample_id, **stages_ns):
    return PassRecord("dual", 0, "synchronised", stages_ns, sample_id=sample_id)


def case(queries, passes=()):
    entry = CaseEntry(name="dual", adapter="lisa", role="model")
    return CaseRecords(entry, queries=tuple(queries), passes=tuple(passes))


def test_a_time_of_0_is_left_out_of_the_times_by_process():
    assert by_process({(0, "a"): 60, (0, "b"): 0, (1, "a"): 70}) == [{"a": 60}, {"a": 70}]


def test_stages_are_of_the_synchronised_pass_where_all_cases_have_it():
    both = case([timed("a", 100, vision=60)], [waited("a", vision=20)])
    alone = case([timed("a", 100, vision=60)])
    assert were_synchronised([both, both]) and not were_synchronised([both, alone])
    assert times_by_stage([both, both])["vision"] == [{(0, "a"): 20}] * 2
    assert times_by_stage([both, alone])["vision"] == [{(0, "a"): 60}] * 2


def test_a_stage_that_some_line_lacks_is_not_of_the_synchronised_pass():
    lines = [waited("a", vision=20, llm=30), waited("b", vision=25)]
    records = case([timed("a", 100, vision=60)], lines)
    assert list(times_by_stage([records])) == ["vision"]
    assert synchronised_times(lines, "llm") == {(0, "a"): 30, (0, "b"): 0}


def test_log_ratios_are_medians_over_the_queries_of_both_within_each_process():
    before = {(0, "a"): 100, (0, "b"): 100, (0, "c"): 100, (1, "a"): 100, (1, "z"): 0}
    after = {(0, "a"): 110, (0, "b"): 120, (0, "d"): 500, (1, "a"): 50, (1, "z"): 70}
    logs = time_logs(before, after)
    assert logs == {
        0: pytest.approx(np.median([math.log(1.1), math.log(1.2)])),
        1: pytest.approx(math.log(0.5)),
    }


def test_medians_are_over_the_queries_that_all_sides_have_in_a_process():
    first = {(0, "a"): 1_000_000, (0, "b"): 3_000_000, (1, "a"): 9_000_000}
    second = {(0, "a"): 2_000_000, (0, "b"): 6_000_000, (0, "c"): 50_000_000}
    assert medians_ms([first, second]) == [{0: 2.0}, {0: 4.0}]


def test_sides_without_a_common_query_have_no_ratio():
    assert unpaired_time_ratio({(0, "a"): 5}, {(0, "b"): 5}).ratio is None
    assert unpaired_time_ratio({(0, "a"): 5}, {}).ratio is None
    assert unpaired_time_ratio({(0, "a"): 5}, {(7, "a"): 10}).ratio == pytest.approx(2)


def test_columns_are_of_the_queries_that_all_cases_have_in_the_order_of_the_first():
    first = {(1, "a"): 10, (0, "a"): 20, (0, "b"): 30, (1, "c"): 40}
    second = {(0, "b"): 3, (1, "a"): 1, (0, "a"): 2, (2, "a"): 9}
    processes, (of_first, of_second) = in_columns([first, second])
    assert processes.tolist() == [1, 0, 0]
    assert of_first.tolist() == [10, 20, 30] and of_second.tolist() == [1, 2, 3]
    processes, (alone,) = in_columns([first])
    assert processes.tolist() == [1, 0, 0, 1] and alone.tolist() == [10, 20, 30, 40]
    processes, (of_first, of_nothing) = in_columns([first, {}])
    assert len(processes) == len(of_first) == len(of_nothing) == 0


def test_the_order_of_queries_changes_no_ratio_and_no_median():
    before = {(process, name): 100 + process for process in (0, 1) for name in "abc"}
    after = {query: 2 * time_ns + len(query[1]) for query, time_ns in before.items()}
    turned = dict(reversed(after.items()))
    assert time_logs(before, turned) == time_logs(before, after)
    assert medians_ms([before, turned]) == medians_ms([before, after])
