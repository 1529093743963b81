import json
import math

import numpy as np
import pytest
from run_factory import edit_lines, edit_run, failed, nothing_found, write_lines, write_run
from scipy import stats

from lisabench.harness.records.run import read_run
from lisabench.reports.formatting import machine
from lisabench.reports.page.tables import comparison_table, warm_up_table
from lisabench.reports.run import verdict_words
from lisabench.reports.run.schema import Summary
from lisabench.reports.run.summary import summarise, write_summary
from lisabench.reports.run.verdicts import in_a_sentence, verdicts
from lisabench.reports.schema_base import Cold, WarmUpTimes

pytestmark = pytest.mark.no_clock

PLAIN = {"queries": 8, "size": (24, 32), "gallery": 0}


def edit_cases(folder, change) -> None:
    """Maps `change` over the cases of run.json, in place."""
    cases = json.loads((folder / "run.json").read_text())["cases"]
    for case in cases:
        change(case)
    edit_run(folder, cases=cases)


def case_of(summary: Summary, name: str):
    return next(case for case in [*summary.cases, *summary.trivial_baselines] if case.name == name)


def warned(summary: Summary, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in summary.warnings)


def test_times_are_medians_over_all_processes_and_stages_are_sums_of_their_regions(tmp_path):
    run = read_run(write_run(tmp_path, **PLAIN))
    records = run.case("dual").queries
    time = case_of(summarise(run), "dual").time
    vision_ns = [
        sum(r.exclusive_ns for name, r in q.regions.items() if name.startswith("vision"))
        for q in records
    ]
    assert time.n == 24 and time.queries == 8 and time.processes == 3
    assert time.end_to_end_ms == pytest.approx(
        np.median([q.latency_ns for q in records]) / 1e6, rel=1e-12, abs=0
    )
    assert time.stages["vision"].median_ms == pytest.approx(
        np.median(vision_ns) / 1e6, rel=1e-12, abs=0
    )
    assert time.stages["vision"].calls == 2  # vision.clip is entered twice, vision once
    assert time.regions["vision.sam"].calls == 1
    assert list(time.stages) == ["preprocess", "vision", "llm", "decoder", "postprocess"]


def test_stages_and_the_rest_add_up_in_shares(tmp_path):
    time = case_of(summarise(read_run(write_run(tmp_path, **PLAIN))), "dual").time
    whole = sum(stage.share for stage in time.stages.values()) + time.unattributed_share
    assert whole == pytest.approx(
        1, rel=0, abs=0.02
    )  # a sum of medians is not quite the median of the sum


def test_ratios_pair_by_query_and_process(tmp_path):
    """Each process is slower than the last, and each query than the one before: only pairing sees
    the exact half.
    """
    write_run(tmp_path, cases=2, controls=False, **PLAIN)

    def timed(line):
        base_ns = (1 + line["process"]) * (1000 + int(line["sample_id"][-4:])) * 1000
        latency_ns = base_ns // (2 if line["case"] == "sam" else 1)
        regions = {"vision": {"calls": 1, "exclusive_ns": latency_ns, "inclusive_ns": latency_ns}}
        return line | {"latency_ns": latency_ns, "regions": regions, "unattributed_ns": 0}

    edit_lines(tmp_path / "samples.jsonl", timed)
    (found,) = summarise(read_run(tmp_path)).comparisons
    for ratio in (found.end_to_end, found.stages["vision"]):
        assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx(
            (0.5, 0.5, 0.5), rel=1e-9, abs=0
        )
        assert ratio.processes == 3


def test_a_process_that_only_one_side_has_is_no_pair(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    lost = {("sam", 1), ("sam", 2)}
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda line: None if (line["case"], line["process"]) in lost else line,
    )
    summary = summarise(read_run(tmp_path))
    ratio = summary.comparisons[0].end_to_end
    assert ratio.processes == 1 and ratio.ratio is not None and ratio.low is None
    assert warned(summary, "sam has 8 of 24 records")


def test_quality_is_computed_from_one_record_a_query(tmp_path):
    run = read_run(write_run(tmp_path, **PLAIN))
    records = [query for query in run.case("clip").queries if query.process == 0]
    quality = case_of(summarise(run), "clip").quality
    intersections, unions = (
        np.array([getattr(query.counts, key) for query in records])
        for key in ("intersection_px", "union_px")
    )
    ious = [i / u if u else 1 for i, u in zip(intersections, unions, strict=True)]
    assert quality.n == 8 and quality.status.ok == 8
    assert quality.gIoU == pytest.approx(np.mean(ious), rel=1e-12, abs=0)
    assert quality.cIoU == pytest.approx(intersections.sum() / unions.sum(), rel=1e-12, abs=0)
    assert sum(part.n for part in quality.slices["family"].values()) == 8


def test_the_record_of_the_lowest_process_counts_wherever_it_stands(tmp_path):
    whole = case_of(summarise(read_run(write_run(tmp_path, **PLAIN))), "clip").quality
    edit_lines(tmp_path / "samples.jsonl", lambda q: nothing_found(q) if q["process"] else q)
    journal = tmp_path / "samples.jsonl"
    journal.write_text("".join(reversed(journal.read_text().splitlines(keepends=True))))
    quality = case_of(summarise(read_run(tmp_path)), "clip").quality
    assert (quality.gIoU, quality.cIoU) == pytest.approx((whole.gIoU, whole.cIoU), rel=1e-12, abs=0)


def quality_figures(value, key=""):
    """Every figure of quality in a summary, wherever it stands."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from quality_figures(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from quality_figures(inner, key)
    elif any(word in key for word in ("IoU", "precision", "_acc", "no_seg_rate")):
        yield value


@pytest.mark.parametrize("has_quality", [False, None])
def test_random_weights_have_no_quality_anywhere(tmp_path, has_quality):
    write_run(tmp_path, controls=False, **PLAIN)
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    edit_run(tmp_path, cases=[case | {"has_quality": has_quality} for case in cases])
    figures = list(
        quality_figures(summarise(read_run(tmp_path)).model_dump(mode="json", by_alias=True))
    )
    assert len(figures) > 40 and set(figures) == {None}


def test_differences_of_quality_are_in_points_and_need_quality_on_both_sides(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    summary = summarise(read_run(tmp_path))
    expected = 100 * (case_of(summary, "sam").quality.gIoU - case_of(summary, "dual").quality.gIoU)
    assert summary.comparisons[0].gIoU_points.difference == pytest.approx(
        expected, rel=1e-9, abs=1e-9
    )
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    cases[0]["has_quality"] = False
    edit_run(tmp_path, cases=cases)
    assert summarise(read_run(tmp_path)).comparisons[0].gIoU_points is None


def test_failures_count_as_iou_0_have_no_time_and_are_reported_by_status(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    whole = summarise(read_run(tmp_path))
    hit = ("sam", "scene-0000")
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: failed(q) if (q["case"], q["sample_id"]) == hit else q
    )
    summary = summarise(read_run(tmp_path))
    sam = case_of(summary, "sam")
    assert (sam.quality.n, sam.quality.status.ok, sam.quality.status.oom, sam.time.n) == (
        8,
        7,
        1,
        21,
    )
    assert sam.quality.gIoU < case_of(whole, "sam").quality.gIoU
    assert warned(summary, "sam: 3 of 24 queries ended in oom", "OutOfMemoryError")
    both = summary.comparisons[0].both_answered
    assert (
        both.n == 7 and both.gIoU_points.difference > summary.comparisons[0].gIoU_points.difference
    )


def test_a_query_that_either_side_failed_is_not_answered_by_both(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    hits = {("sam", "scene-0000"), ("dual", "scene-0001")}
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda q: failed(q) if (q["case"], q["sample_id"]) in hits else q,
    )
    assert summarise(read_run(tmp_path)).comparisons[0].both_answered.n == 6


def test_an_answer_without_seg_is_timed_and_counted(tmp_path):
    write_run(tmp_path, cases=1, **PLAIN)
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda q: q | {"status": "no_seg"} if q["sample_id"] == "scene-0001" else q,
    )
    dual = case_of(summarise(read_run(tmp_path)), "dual")
    assert dual.time.n == 24 and dual.quality.no_seg_rate == pytest.approx(1 / 8, rel=1e-12, abs=0)


def test_peaks_are_the_largest_of_all_stages(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **PLAIN)))
    memory = case_of(summary, "dual").memory
    assert memory.peak_bytes == memory.stages["vision"].peak_bytes == 742 << 20
    assert (memory.instrument, memory.peak_reserved_bytes) == ("resident set", None)
    assert memory.growth_bytes == memory.query_growth_bytes == (742 - 360) << 20


def test_a_ratio_of_memory_is_of_the_growth_on_a_cpu_and_of_the_peak_on_a_gpu(tmp_path):
    """Of 671 and 742 MiB, 360 stood there before the model was built."""
    on_cpu = summarise(read_run(write_run(tmp_path / "cpu", **PLAIN))).comparison("clip")
    on_gpu = summarise(
        read_run(write_run(tmp_path / "gpu", **PLAIN, clock="cuda events"))
    ).comparison("clip")
    assert (on_cpu.memory_definition, on_gpu.memory_definition) == ("growth", "peak")
    for name in ("peak_memory", "query_peak_memory"):
        assert getattr(on_cpu, name).ratio == pytest.approx(
            (671 - 360) / (742 - 360), rel=1e-12, abs=0
        )
        assert getattr(on_gpu, name).ratio == pytest.approx(671 / 742, rel=1e-12, abs=0)


def test_records_without_what_stood_there_before_the_build_give_no_ratio_of_memory_and_say_so(
    tmp_path,
):
    write_run(tmp_path, cases=2, **PLAIN)
    edit_lines(
        tmp_path / "memory.jsonl",
        lambda m: m | ({"start_bytes": None} if m["case"] == "sam" else {}),
    )
    summary = summarise(read_run(tmp_path))
    assert summary.comparison("sam").peak_memory.ratio is None
    assert case_of(summary, "sam").memory.growth_bytes is None
    assert case_of(summary, "sam").memory.peak_bytes == 718 << 20
    assert warned(
        summary, "sam: the records do not have what the process held before the model was built"
    )


def test_memory_by_different_instruments_has_no_ratio(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    edit_lines(
        tmp_path / "memory.jsonl",
        lambda m: m | ({"instrument": "cuda allocator"} if m["case"] == "sam" else {}),
    )
    summary = summarise(read_run(tmp_path))
    assert summary.comparisons[0].peak_memory.ratio is None
    assert warned(summary, "different memory instruments")


def test_times_by_different_clocks_have_no_ratio(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    cases[1]["clock"] = "cuda events"
    edit_run(tmp_path, cases=cases)
    summary = summarise(read_run(tmp_path))
    assert (
        summary.comparisons[0].end_to_end.ratio is None
        and summary.comparisons[0].stages["vision"].ratio is None
    )
    assert warned(summary, "different clocks")


def test_the_reference_comes_first_and_controls_are_compared_with_nothing(tmp_path):
    write_run(tmp_path, **PLAIN)
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    edit_run(tmp_path, reference="clip", cases=cases[3:] + cases[:3])
    summary = summarise(read_run(tmp_path))
    assert [case.name for case in summary.cases] == ["clip", "dual", "sam"]
    assert [case.name for case in summary.trivial_baselines] == [
        "whole-image",
        "centre-box",
        "empty",
    ]
    assert [found.candidate for found in summary.comparisons] == ["dual", "sam"]


def test_settings_that_differ_are_listed_and_more_than_one_is_a_warning(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, cases=6, **PLAIN)))
    assert summary.comparison("sam").differences == {"vision": ("dual", "sam")}
    assert summary.comparison("sam-nf4").differences == {
        "vision": ("dual", "sam"),
        "quantization": ("none", "nf4"),
    }
    assert warned(
        summary, "sam-nf4", "and dual differ in more than one setting (vision and quantization)"
    )
    assert not warned(summary, "sam and dual differ")


def test_a_setting_that_one_side_does_without_is_listed_but_no_confound(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    cases[1]["settings"]["sam"] = None
    edit_run(tmp_path, cases=cases)
    summary = summarise(read_run(tmp_path))
    assert summary.comparison("sam").differences == {
        "vision": ("dual", "sam"),
        "sam": ("tiny", None),
    }
    assert summary.warnings == []


def test_unattributed_time_over_5_per_cent_is_a_warning(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    assert not warned(summarise(read_run(tmp_path)), "unattributed")
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda q: (
            q | ({"unattributed_ns": int(0.06 * q["latency_ns"])} if q["case"] == "sam" else {})
        ),
    )
    summary = summarise(read_run(tmp_path))
    assert summary.warnings == ["Time that is unattributed: sam 6.0% (expected: at most 5%)."]


def test_warnings_of_records_are_counted_and_those_of_controls_left_out(tmp_path):
    write_run(tmp_path, cases=1, **PLAIN)
    edit_run(tmp_path, warnings=["the machine is busy"])

    def mark(line):
        return line | {"warnings": [f"{line['process']}.5% of the query's time lies in no stage"]}

    edit_lines(tmp_path / "samples.jsonl", mark)
    summary = summarise(read_run(tmp_path))
    assert "the machine is busy" in summary.warnings
    assert warned(summary, "dual 24 of 24") and len(summary.warnings) == 2


def test_a_warm_up_that_did_not_settle_is_a_warning(tmp_path):
    write_run(tmp_path, cases=1, **PLAIN)
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    edit_run(tmp_path, cases=[case | {"warmup_stable": False} for case in cases])
    summary = summarise(read_run(tmp_path))
    assert "not steady after warm-up: dual" in summary.warnings and not warned(summary, "empty")


def test_a_model_that_is_not_better_than_the_floors_is_a_warning(tmp_path):
    write_run(tmp_path, cases=1, **PLAIN)
    assert not warned(summarise(read_run(tmp_path)), "not better")
    edit_lines(tmp_path / "samples.jsonl", lambda q: nothing_found(q) if q["case"] == "dual" else q)
    assert warned(summarise(read_run(tmp_path)), "dual", "not better than the trivial baseline")


def test_a_run_that_has_hardly_begun_has_no_figures(tmp_path):
    write_run(tmp_path, status="running", **PLAIN)
    for name in ("samples.jsonl", "memory.jsonl"):
        (tmp_path / name).write_text("")
    unknown = dict.fromkeys(
        ("settings", "has_quality", "parameters", "build_s", "first_query_ms", "clock")
    )
    cases = json.loads((tmp_path / "run.json").read_text())["cases"]
    edit_run(tmp_path, cases=[case | unknown for case in cases])
    summary = write_summary(read_run(tmp_path))
    dual = case_of(summary, "dual")
    assert (
        dual.time.end_to_end_ms is None
        and dual.time.stages == {}
        and dual.time.percentiles_ms == {}
    )
    assert dual.memory.peak_bytes is None and dual.quality.gIoU is None and dual.quality.n == 0
    assert (
        summary.comparisons[0].end_to_end.ratio is None and summary.comparisons[0].differences == {}
    )
    assert warned(summary, "Not all is measured")


def test_percentiles_wait_for_enough_queries_however_often_they_were_repeated(tmp_path):
    few = write_run(tmp_path / "few", cases=1, controls=False, **PLAIN | {"queries": 35})
    enough = write_run(tmp_path / "enough", cases=1, controls=False, **PLAIN | {"queries": 36})
    assert case_of(summarise(read_run(few)), "dual").time.percentiles_ms == {}
    assert list(case_of(summarise(read_run(enough)), "dual").time.percentiles_ms) == ["P90"]


def test_the_written_summary_is_the_documented_schema_and_nothing_else(tmp_path):
    written = write_summary(read_run(write_run(tmp_path, clock="cuda events", **PLAIN)))
    text = (tmp_path / "summary.json").read_text()
    assert Summary.model_validate_json(text) == written
    raw = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in summary.json"))
    assert raw["schema"] == "lisabench.summary/1" and "precision_0.5" in raw["cases"][0]["quality"]
    with pytest.raises(ValueError, match="extra"):
        Summary.model_validate(raw | {"more": 1})
    assert [path.name for path in tmp_path.glob(".*")] == []  # no half-written file is left


def test_the_first_process_of_a_warm_up_is_apart_from_the_median_of_the_later_ones(tmp_path):
    write_run(tmp_path, **PLAIN)
    seconds = {0: 40.0, 1: 9.0, 2: 7.0, 3: 12.0}

    def add_warm_ups(case):
        if case["name"] == "dual":
            case["warmups"] = [
                {
                    "process": process,
                    "warmup_stable": True,
                    "warmup_s": whole_s,
                    "graphs": 5,
                    "capture_s": whole_s - 2,
                    "compile_s": whole_s / 2,
                }
                for process, whole_s in seconds.items()
            ]

    edit_cases(tmp_path, add_warm_ups)
    summary = summarise(read_run(tmp_path))
    cold = case_of(summary, "dual").cold
    assert cold.first_warm_up == WarmUpTimes(
        processes=1, warmup_s=40, graphs=5, capture_s=38, compile_s=20
    )
    assert cold.later_warm_ups == WarmUpTimes(
        processes=3, warmup_s=9, graphs=5, capture_s=7, compile_s=4.5
    )
    # Its run is of before warm-ups were timed.
    assert case_of(summary, "clip").cold.first_warm_up is None
    assert warm_up_table(summary).splitlines()[2:4] == [
        "| dual | first | 40.00 | 5 | 38.00 | 20.00 |",
        "| dual | later 3, median | 9.00 | 5 | 7.00 | 4.50 |",
    ]


def test_a_model_that_says_nothing_of_graphs_has_a_warm_up_all_the_same(tmp_path):
    write_run(tmp_path, **PLAIN)
    warm_up = {"process": 0, "warmup_stable": True, "warmup_s": 0.5}
    edit_cases(tmp_path, lambda case: case.update(warmups=[warm_up]))
    table = warm_up_table(summarise(read_run(tmp_path)))
    assert "| dual | first | 0.50 |" in table
    assert "graphs" not in table and "later" not in table
    captured = warm_up | {"graphs": 3, "capture_s": 0.25, "compile_s": 0.0}
    edit_cases(
        tmp_path,
        lambda case: case.update(warmups=[captured if case["name"] == "clip" else warm_up]),
    )
    table = warm_up_table(summarise(read_run(tmp_path)))
    assert "| dual | first | 0.50 | n/a | n/a | n/a |" in table
    assert "| clip | first | 0.50 | 3 | 0.25 | 0.00 |" in table


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        Cold(build_s=value, first_query_ms=None)


def test_every_field_of_the_schema_is_described():
    schema = Summary.model_json_schema()
    parts = schema["$defs"] | {"Summary": schema}
    bare = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, f in part.get("properties", {}).items()
        if not f.get("description")
    ]
    assert bare == []


def test_the_machine_is_one_line_of_what_is_known():
    assert machine(
        {"cpu": "A CPU", "cpu_count": 2, "memory_bytes": 8 << 30, "os": "Linux", "gpu": None}
    ) == ("A CPU, 2 cores, 8 GiB; Linux")
    assert machine({}) == "unknown machine"


def test_each_team_is_compared_with_its_own_reference(tmp_path):
    write_run(tmp_path, **PLAIN)
    one = {"name": "one", "reference": "sam", "cases": ["dual", "sam"]}
    edit_run(tmp_path, teams=[one, {"name": "two", "reference": "clip", "cases": ["clip"]}])
    summary = summarise(read_run(tmp_path))
    assert [(found.reference, found.candidate) for found in summary.comparisons] == [
        ("sam", "dual")
    ]
    page = comparison_table(summary)
    places = [
        page.index(words) for words in ("### one", "sam (reference)", "### two", "clip (reference)")
    ]
    assert places == sorted(places)


def test_cases_with_the_same_settings_are_a_loud_warning_and_no_claim(tmp_path):
    write_run(tmp_path, **PLAIN)
    edit_cases(
        tmp_path, lambda case: case["role"] == "model" and case["settings"].update(vision="clip")
    )
    summary = summarise(read_run(tmp_path))
    assert summary.warnings[0] == (
        "dual, sam and clip have the same settings: any difference between them is noise."
    )
    assert all(found.same_settings for found in summary.comparisons)
    of_time = verdicts(summary.comparison("clip"), summary)[0]
    assert (of_time.word, of_time.note) == ("", "two measurements of one model")
    assert verdict_words.time_title(summary.comparisons) == verdict_words.memory_title(
        summary.comparisons
    )
    assert verdict_words.time_title(summary.comparisons).startswith("Nothing is compared")


def test_settings_that_are_not_known_yet_are_not_the_same_settings(tmp_path):
    write_run(tmp_path, status="running", **PLAIN)
    edit_cases(tmp_path, lambda case: case.update(settings=None))
    summary = summarise(read_run(tmp_path))
    assert not warned(summary, "same settings") and not summary.comparisons[0].same_settings


def test_a_failed_build_and_a_failed_memory_pass_are_told_apart(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    wrong = {
        "sam": {"error": "no such file"},
        "dual": {"memory_error": "no driver" + 300 * " page"},
    }
    edit_cases(tmp_path, lambda case: case.update(wrong.get(case["name"], {})))
    warnings = summarise(read_run(tmp_path)).warnings
    assert warnings[0] == "sam could not be run: no such file"
    assert warnings[1].startswith("the memory of dual could not be measured: no driver page")
    assert warnings[1].endswith(" ...") and len(warnings[1]) < 300
    assert len(warnings) == 2


def test_a_case_that_ran_out_of_memory_does_not_fit_and_has_no_ratio_of_memory(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    too_large = {"memory_error": "MemoryError: no more", "out_of_memory": True}
    edit_cases(tmp_path, lambda case: case.update(too_large) if case["name"] == "sam" else None)
    summary = summarise(read_run(tmp_path))
    assert (
        summary.warnings[0] == "sam does not fit the memory of this machine: MemoryError: no more"
    )
    assert in_a_sentence(summary).startswith("sam does not fit the memory of this machine. ")
    assert summary.comparisons[0].peak_memory.ratio is None


def test_what_failed_for_one_reason_is_one_warning(tmp_path):
    def timed_out(line):
        return failed(line) | {"status": "timeout"}

    write_run(tmp_path, **PLAIN)
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda line: timed_out(line) if line["case"] in ("dual", "clip") else line,
    )
    (warning,) = [text for text in summarise(read_run(tmp_path)).warnings if "ended in" in text]
    assert warning.startswith(
        "dual: 24 of 24 and clip: 24 of 24 queries ended in timeout, most often: "
    )
    edit_cases(tmp_path, lambda case: case.update(error=f"no card for a {case['role']}"))
    warnings = summarise(read_run(tmp_path)).warnings
    assert warnings[0] == "dual, sam and clip could not be run: no card for a model"
    assert sum("no card for a model" in warning for warning in warnings) == 1


def test_unsteady_processes_are_counted_by_case_in_one_warning(tmp_path):
    write_run(tmp_path, **PLAIN)
    steady = {"dual": (False, True, False), "sam": (True, True, True), "clip": (True, False, True)}

    def kept_by_process(case):
        flat = [case.pop(name) for name in ("first_query_ms", "warmup_queries", "warmup_stable")]
        case["warmups"] = [
            {
                "process": process,
                "first_query_ms": flat[0] + process,
                "warmup_queries": 6,
                "warmup_stable": stable,
            }
            for process, stable in reversed(list(enumerate(steady.get(case["name"], ()))))
        ]

    edit_cases(tmp_path, kept_by_process)
    summary = summarise(read_run(tmp_path))
    assert summary.warnings == ["not steady after warm-up: dual (2 of 3 processes), clip (1 of 3)"]
    assert case_of(summary, "dual").cold.first_query_ms == 131.0


@pytest.mark.parametrize(
    ("derived", "axis", "sides"),
    [("dtype", "precision", ("fp32", "bf16")), ("clip_view", "vision", ("dual", "clip")),
     ("head", "execution", ("eager", "upstream")), ("mask_grid", "preset", ("tiny", "lisa-7b"))],
)  # fmt: skip
def test_a_setting_that_follows_from_another_counts_only_where_that_one_is_the_same(
    tmp_path, derived, axis, sides
):
    write_run(tmp_path, cases=2, **PLAIN)

    def differ(case, *names):
        if case["role"] == "model":
            side = case["name"] == "sam"
            same = {"vision": "dual", "quantization": ("none", "nf4")[side]}
            case["settings"] |= same | {axis: sides[0]} | dict.fromkeys(names, sides[side])

    edit_cases(tmp_path, lambda case: differ(case, derived, axis))
    summary = summarise(read_run(tmp_path))
    assert derived in summary.comparison("sam").differences
    (warning,) = summary.warnings
    assert f"{axis} (with it {derived})" in warning and f", {derived}" not in warning
    edit_cases(tmp_path, lambda case: differ(case, derived))
    (warning,) = summarise(read_run(tmp_path)).warnings
    assert derived in warning and "with it" not in warning


def test_one_axis_with_what_follows_from_it_is_no_confound(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    edit_cases(tmp_path, lambda case: case["settings"].update(clip_view=case["name"]))
    assert summarise(read_run(tmp_path)).warnings == []


def test_a_setting_that_was_asked_for_differently_counts_though_it_might_follow(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    parts = {"dual": "clip+llm", "sam": "llm"}
    edit_cases(tmp_path, lambda case: case["settings"].update(quantized=parts.get(case["name"])))
    assert summarise(read_run(tmp_path)).warnings == []
    edit_cases(tmp_path, lambda case: case["given"].update(quantized=parts.get(case["name"])))
    assert warned(summarise(read_run(tmp_path)), "sam and dual differ", "vision and quantized")


def test_comparisons_that_differ_in_the_same_settings_share_a_warning(tmp_path):
    write_run(tmp_path, **PLAIN)
    edit_cases(tmp_path, lambda case: case["settings"].update(template=str(case["name"] != "dual")))
    assert [w for w in summarise(read_run(tmp_path)).warnings if "differ" in w] == [
        "sam, clip and dual differ in more than one setting (vision and template): "
        "the ratios are of all of them together."
    ]


def test_the_peak_of_a_query_is_told_from_that_of_the_build(tmp_path):
    write_run(tmp_path, cases=2, **PLAIN)
    high = {"peak_bytes": 900 << 20}
    edit_lines(
        tmp_path / "memory.jsonl",
        lambda m: m | (high if (m["case"], m["stage"]) == ("sam", "build") else {}),
    )
    summary = summarise(read_run(tmp_path))
    memory, found = case_of(summary, "sam").memory, summary.comparison("sam")
    assert (memory.peak_bytes, memory.query_peak_bytes) == (900 << 20, 718 << 20)
    assert found.peak_memory.ratio == pytest.approx((900 - 360) / (742 - 360), rel=1e-12, abs=0)
    assert found.query_peak_memory.ratio == pytest.approx(
        (718 - 360) / (742 - 360), rel=1e-12, abs=0
    )
    assert verdict_words.memory_of_a_query(found) == "0.94x for a query without the build"


def test_a_ratio_of_memory_has_an_interval_over_the_processes_of_the_memory_pass(tmp_path):
    write_run(tmp_path)
    peaks = {"dual": [700, 710, 690], "clip": [350, 351, 349]}
    lines = [
        {
            "case": case,
            "process": process,
            "stage": "vision",
            "instrument": "cuda allocator",
            "peak_bytes": peak << 20,
        }
        for case, found in peaks.items()
        for process, peak in enumerate(found)
    ]
    write_lines(tmp_path / "memory.jsonl", lines)
    found = summarise(read_run(tmp_path)).comparison("clip").peak_memory
    logs = np.log(np.divide(peaks["clip"], peaks["dual"]))
    expected = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert found.ratio == pytest.approx(math.exp(logs.mean()), rel=1e-12, abs=0)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12, abs=0)
    assert found.processes == 3
