"""What a title and a sentence about a comparison may claim."""

import pytest
from run_factory import edit_lines, write_run

from lisabench.harness.records.run import read_run
from lisabench.reports.run import verdict_words
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


def comparisons_of(folder, latencies_ms):
    """Return the comparisons of a run whose cases take so many milliseconds in each process."""

    def timed(line):
        latency_ns = int(1e6 * latencies_ms[line["case"]][line["process"]])
        return line | {"latency_ns": latency_ns, "regions": {}, "unattributed_ns": 0}

    write_run(folder, cases=len(latencies_ms), controls=False, **SMALL)
    edit_lines(folder / "samples.jsonl", timed)
    return summarise(read_run(folder)).comparisons


def test_a_title_claims_a_difference_only_where_the_interval_excludes_1(tmp_path):
    comparisons = comparisons_of(tmp_path, {"dual": (10, 10, 10), "sam": (9.7, 10, 10.3)})
    title = verdict_words.time_title(comparisons)
    assert title == "no variant can be told apart from dual in time"


def test_of_three_cases_the_title_names_the_faster_variant_first(tmp_path):
    latencies_ms = {"dual": (10, 10, 10), "sam": (15, 15.1, 15), "clip": (5, 5.01, 5)}
    title = verdict_words.time_title(comparisons_of(tmp_path, latencies_ms))
    assert title == "clip takes 0.50x and sam 1.50x the time of dual"


def test_of_more_cases_the_title_names_only_the_one_that_differs_most(tmp_path):
    steady = {"dual": (10, 10, 10), "sam": (8, 8.01, 8), "clip": (30, 30.1, 30)}
    title = verdict_words.time_title(comparisons_of(tmp_path, steady | {"dual-nf4": (5, 5.1, 5)}))
    assert title == "clip takes 3.00x the time of dual"
