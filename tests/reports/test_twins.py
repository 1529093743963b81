"""A/A twins: two measurements of one model, which keep intervals from being too narrow."""

import json
import math

import numpy as np
import pytest
from run_factory import EMPTY_CLAIM, edit_lines, edit_run, write_lines, write_run
from scipy import stats

from lisabench.harness.records.run import read_run
from lisabench.reports import formatting
from lisabench.reports.page import terminal
from lisabench.reports.page.across_tables import side_by_side
from lisabench.reports.run.across import compare_cases
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report
from lisabench.reports.schema_base import Ratio
from lisabench.reports.twins import no_narrower, twin_from

pytestmark = pytest.mark.no_clock

PLAIN = {"queries": 8, "size": (24, 32), "gallery": 0, "controls": False}
NOISE = (-0.2, 0.1, 0.2)  # by process, of the log of the twin's ratio


def ratio(low, high):
    middle = math.sqrt(low * high)
    return Ratio(ratio=middle, low=low, high=high, processes=5, smallest_detectable=high / middle)


def twin(low, high):
    return twin_from("dual", "dual-again", {"time.vision": ratio(low, high)}, {})


def with_twin(folder):
    """A run of dual, sam and a twin of dual, whose times differ from those of dual by `NOISE`."""
    write_run(folder, cases=2, **PLAIN)
    cases = json.loads((folder / "run.json").read_text())["cases"]
    dual = next(case for case in cases if case["name"] == "dual")
    edit_run(folder, cases=[*cases, dual | {"name": "dual-again"}])
    for name in ("samples.jsonl", "memory.jsonl"):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        again = [_slower(line | {"case": "dual-again"}) for line in lines if line["case"] == "dual"]
        write_lines(folder / name, [*lines, *again])
    return folder


def _slower(line):
    if "latency_ns" not in line:
        return line
    factor = math.exp(NOISE[line["process"]])
    regions = {name: part | {"exclusive_ns": round(part["exclusive_ns"] * factor)}
               for name, part in line["regions"].items()}  # fmt: skip
    return line | {"latency_ns": round(line["latency_ns"] * factor), "regions": regions}


def half_width(found):
    return math.log(found.high / found.low) / 2


def expected_half_width():
    low, high = stats.ttest_1samp(NOISE, 0).confidence_interval(0.95)
    return (high - low) / 2


def test_an_interval_narrower_than_the_twins_is_widened_on_the_scale_of_logarithms():
    found = no_narrower(ratio(0.49, 0.51), "time.vision", [twin(0.8, 1.25)])
    assert found.ratio == pytest.approx(math.sqrt(0.49 * 0.51), rel=1e-12, abs=0)
    assert (found.low / found.ratio, found.high / found.ratio) == pytest.approx(
        (0.8, 1.25), rel=1e-9, abs=0
    )
    assert found.smallest_detectable == pytest.approx(1.25, rel=1e-9, abs=0)


def test_a_wider_interval_and_another_quantity_stay_as_they_are():
    wide, narrow = ratio(0.3, 0.9), ratio(0.49, 0.51)
    assert no_narrower(wide, "time.vision", [twin(0.8, 1.25)]) == wide
    assert no_narrower(narrow, "time.llm", [twin(0.8, 1.25)]) == narrow
    assert no_narrower(narrow, "time.vision", []) == narrow


def test_an_offset_within_the_twins_interval_adds_nothing_and_one_beyond_it_is_the_half_width():
    """1.05 to 1.10 excludes the true ratio of two measurements of one model, so that it is too
    narrow itself.
    """
    within, beyond = (
        twin(0.9, 1.2).half_widths["time.vision"],
        twin(1.05, 1.10).half_widths["time.vision"],
    )
    assert within == pytest.approx(math.log(1.2 / 0.9) / 2, rel=1e-9, abs=0)
    assert beyond == pytest.approx(math.log(1.05 * 1.10) / 2, rel=1e-9, abs=0)


def test_of_several_twins_the_widest_counts_and_no_interval_is_made_up():
    single = ratio(0.49, 0.51).model_copy(
        update={"low": None, "high": None, "smallest_detectable": None}
    )
    assert no_narrower(single, "time.vision", [twin(0.8, 1.25)]) == single
    found = no_narrower(ratio(0.49, 0.51), "time.vision", [twin(0.9, 1.1), twin(0.8, 1.25)])
    assert half_width(found) == pytest.approx(math.log(1.25), rel=1e-9, abs=0)


def test_tables_verdicts_and_the_summary_take_the_twin_in(tmp_path):
    alone = summarise(read_run(write_run(tmp_path / "alone", cases=2, **PLAIN))).comparison("sam")
    summary = summarise(read_run(with_twin(tmp_path / "run")))
    (found,) = summary.twins
    assert (found.reference, found.candidate) == ("dual", "dual-again")
    assert found.half_widths["time.end_to_end"] == pytest.approx(
        expected_half_width(), rel=1e-3, abs=0
    )
    sam, again = summary.comparison("sam"), summary.comparison("dual-again")
    assert half_width(alone.end_to_end) < 0.1 and alone.time_verdict == "improvement"
    for ratio_of_time in (
        sam.end_to_end,
        sam.without_preprocess,
        *sam.stages.values(),
        again.end_to_end,
    ):
        assert half_width(ratio_of_time) == pytest.approx(expected_half_width(), rel=1e-3, abs=0)
    assert sam.end_to_end.ratio == alone.end_to_end.ratio
    assert sam.time_verdict == "inconclusive"
    assert sam.peak_memory == alone.peak_memory  # memory has no noise of this kind
    assert sam.joint.time_saved_at_least == pytest.approx(1 - sam.end_to_end.high, rel=1e-9, abs=0)


def test_the_report_the_terminal_and_compare_print_the_widened_interval_and_say_why(
    tmp_path, capsys
):
    folder = with_twin(tmp_path / "run")
    text = write_report(folder).read_text()
    shown = formatting.ratio_with_interval(summarise(read_run(folder)).comparison("sam").end_to_end)
    assert f"(cannot tell, {shown})" in text
    assert "`dual-again` has the settings of `dual`: two measurements of one model" in text
    assert "No interval of a ratio of times is narrower" in text
    terminal.print_summary(folder)
    low, high = shown.split("[")[1].rstrip("]").split(", ")
    assert f"x, {low} to {high}\n" in capsys.readouterr().out
    compared = compare_cases(folder, "dual", "sam")
    assert compared.comparisons[0].comparison == summarise(read_run(folder)).comparison("sam")
    assert "No interval of a time is narrower than that of dual-again against dual" in side_by_side(
        compared
    )


def test_a_claim_takes_the_twin_in_and_says_so(tmp_path):
    folder = with_twin(tmp_path / "run")
    stated = EMPTY_CLAIM | {
        "claim": "faster",
        "reference": "dual",
        "candidate": "sam",
        "at_most": 1.0,
    }
    edit_run(
        folder, claims=[stated | {"quantity": name} for name in ("time.end_to_end", "time.vision")]
    )
    summary = summarise(read_run(folder))
    sam = summary.comparison("sam")
    for claim, expected in zip(summary.claims, (sam.end_to_end, sam.stages["vision"]), strict=True):
        assert (claim.measured, *claim.interval) == (expected.ratio, expected.low, expected.high)
        assert claim.verdict == "inconclusive"
        assert "no narrower than that of dual-again against dual" in claim.reason


def test_other_settings_or_another_clock_are_no_twin(tmp_path):
    folder = with_twin(tmp_path / "run")
    cases = json.loads((folder / "run.json").read_text())["cases"]
    for change in (
        {"clock": "virtual"},
        {"settings": None},
        {"settings": cases[0]["settings"] | {"frame": "crop"}},
    ):
        edit_run(
            folder,
            cases=[case | (change if case["name"] == "dual-again" else {}) for case in cases],
        )
        assert summarise(read_run(folder)).twins == []


def test_stages_of_claims_are_of_the_pass_that_waits_where_both_cases_have_it(tmp_path):
    """In the timing sam's vision stage takes 0.8x; in the synchronised pass 0.5x."""
    folder = write_run(tmp_path / "run", cases=2, **PLAIN)
    stated = EMPTY_CLAIM | {
        "claim": "c",
        "quantity": "time.vision",
        "reference": "dual",
        "candidate": "sam",
        "at_most": 0.6,
    }
    edit_run(folder, claims=[stated])
    timed = summarise(read_run(folder)).claims[0]
    assert timed.measured > 0.7 and "this run has no synchronised pass" in timed.reason
    lines = [
        {"case": case, "process": process, "attempt": 0, "pass": "synchronised",
         "sample_id": "scene-0000",
         "stages_ns": {"vision": ns}}
        for case, ns in (("dual", 40_000_000), ("sam", 20_000_000)) for process in range(3)
    ]  # fmt: skip
    write_lines(folder / "passes.jsonl", lines)
    summary = summarise(read_run(folder))
    waited = summary.claims[0]
    assert waited.measured == pytest.approx(0.5, rel=1e-9, abs=0) and waited.verdict == "confirmed"
    assert waited.measured == summary.comparison("sam").stages["vision"].ratio
    assert waited.reason == "by the pass that waits for the GPU at the end of each stage"
    edit_lines(folder / "passes.jsonl", lambda line: None if line["case"] == "sam" else line)
    assert summarise(read_run(folder)).claims[0].measured == timed.measured


def test_a_claim_on_time_says_what_of_it_is_preprocessing(tmp_path):
    """Preprocessing falls from 30 to 10 ms, the rest stays at 70: 0.8x with it and 1x without."""
    folder = write_run(tmp_path / "run", cases=2, **PLAIN)
    claim = EMPTY_CLAIM | {
        "claim": "c",
        "quantity": "time.end_to_end",
        "reference": "dual",
        "candidate": "sam",
    }
    edit_run(folder, claims=[claim | {"at_most": 0.8}])

    def change(line):
        preprocess_ns = {"dual": 30_000_000, "sam": 10_000_000}[line["case"]]
        region = {"calls": 1, "exclusive_ns": preprocess_ns, "inclusive_ns": preprocess_ns}
        regions = line["regions"] | {"preprocess": region}
        return line | {"regions": regions, "latency_ns": 70_000_000 + preprocess_ns}

    edit_lines(folder / "samples.jsonl", change)
    summary = summarise(read_run(folder))
    found = summary.claims[0]
    assert found.measured == pytest.approx(0.8, rel=1e-9, abs=0) and found.verdict == "confirmed"
    assert "differ by -20.0 ms, of which -20.0 ms are preprocessing" in found.reason
    assert "without preprocessing the ratio is 1.00x, which alone would be refuted" in found.reason
    assert summary.comparison("sam").without_preprocess.ratio == pytest.approx(1, rel=1e-9, abs=0)
    text = write_report(folder).read_text()
    assert "| end to end, without preprocessing | 70.0 | 70.0 (1.00x) |" in text


def test_times_are_paired_by_query_when_preprocessing_is_left_out(tmp_path):
    folder = write_run(tmp_path / "run", cases=2, **PLAIN)
    run = read_run(folder)
    spans = {}
    for query in (*run.case("dual").queries, *run.case("sam").queries):
        preprocess_ns = query.regions["preprocess"].exclusive_ns
        spans[query.case, query.process, query.sample_id] = query.latency_ns - preprocess_ns
    logs = []
    for process in range(3):
        queries = [key[2] for key in spans if key[:2] == ("dual", process)]
        ratios = [spans["sam", process, query] / spans["dual", process, query] for query in queries]
        logs.append(float(np.median(np.log(ratios))))
    found = summarise(run).comparison("sam").without_preprocess
    low, high = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert (found.ratio, found.low, found.high) == pytest.approx(
        (np.exp(np.mean(logs)), low, high), rel=1e-9, abs=0
    )
