"""`lisabench compare`: what may be compared, how, and what is said where it may not."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from command import lisabench
from run_factory import edit_lines, edit_run, write_run
from scipy import stats

from lisabench.harness.errors import NothingToCompare, UsageError
from lisabench.harness.records.run import read_run
from lisabench.reports.page.across_tables import side_by_side
from lisabench.reports.ratios import unpaired_memory_ratio
from lisabench.reports.run.across import Compared, compare_cases
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.warnings import while_measuring

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0}


@pytest.fixture
def runs(tmp_path):
    """Two runs on one machine over the same queries."""
    return write_run(tmp_path / "old", **SMALL), write_run(tmp_path / "new", **SMALL)


def edit_page(folder, **changes) -> None:
    """Adds to mappings of run.json."""
    page = json.loads((folder / "run.json").read_text())
    edit_run(folder, **{key: page[key] | change for key, change in changes.items()})


def only(found: Compared):
    (one,) = found.comparisons
    return one


def log_medians(folder, processes: int) -> list[float]:
    """Of each process of `dual`, the median over its queries of the log of their time."""
    queries = read_run(folder).case("dual").queries
    return [
        float(np.median([math.log(q.latency_ns) for q in queries if q.process == p]))
        for p in range(processes)
    ]


def test_two_cases_of_one_team_are_compared_as_in_the_report(runs):
    found = only(compare_cases(runs[0], "dual", "clip"))
    expected = summarise(read_run(runs[0])).comparison("clip")
    assert found.paired and found.queries == 8 and found.not_compared == {}
    assert found.comparison == expected
    text = side_by_side(Compared(comparisons=[found]))
    assert "Paired: both took turns" in text
    first = [line.partition(":")[0] for line in text.split("\n\n")[1].splitlines()]
    assert first == ["- time faster", "- memory cannot tell", "- masks worse"]


def test_two_candidates_of_a_team_are_a_pair_too(runs):
    found = only(compare_cases(runs[0], "sam", "clip"))
    assert found.paired and found.comparison.differences == {"vision": ("sam", "clip")}


def test_cases_of_different_teams_took_no_turns(runs):
    one = {"name": "one", "reference": "dual", "cases": ["dual", "sam"]}
    edit_run(runs[0], teams=[one, {"name": "two", "reference": "clip", "cases": ["clip"]}])
    found = only(compare_cases(runs[0], "dual", "clip"))
    assert not found.paired and found.comparison.end_to_end.low is not None
    assert "of different groups and did not take turns" in side_by_side(
        Compared(comparisons=[found])
    )


def test_across_runs_the_interval_is_welchs_over_the_processes_log_medians(tmp_path):
    old = write_run(tmp_path / "old", **SMALL | {"processes": 3})
    new = write_run(tmp_path / "new", **SMALL | {"processes": 5, "seed": 0})
    edit_lines(
        new / "samples.jsonl",
        lambda q: q | {"latency_ns": q["latency_ns"] * (100 + q["process"]) // 80},
    )
    ratio = only(compare_cases(old, "dual", "dual", [new])).comparison.end_to_end
    sides = [log_medians(old, 3), log_medians(new, 5)]
    expected = stats.ttest_ind(sides[1], sides[0], equal_var=False).confidence_interval(0.95)
    assert math.log(ratio.ratio) == pytest.approx(
        np.mean(sides[1]) - np.mean(sides[0]), rel=1e-9, abs=1e-12
    )
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx(
        tuple(expected), rel=1e-6, abs=1e-9
    )


def test_peaks_across_runs_are_compared_without_pairs(runs):
    peaks = {runs[0]: (700, 710, 690), runs[1]: (350, 352)}
    for folder, mib in peaks.items():
        line = {
            "case": "dual",
            "stage": "build",
            "instrument": "resident set",
            "start_bytes": 300 << 20,
        }
        lines = [line | {"process": p, "peak_bytes": peak << 20} for p, peak in enumerate(mib)]
        (folder / "memory.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ratio = only(compare_cases(runs[0], "dual", "dual", [runs[1]])).comparison.peak_memory
    logs = [np.log(np.subtract(peaks[folder], 300)) for folder in runs]
    expected = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx(
        tuple(expected), rel=1e-6, abs=1e-9
    )


def test_peaks_by_different_instruments_have_no_ratio_without_pairs_either(runs):
    memory = read_run(runs[0]).case("dual").memory
    assert unpaired_memory_ratio(memory, memory, False).ratio == pytest.approx(1, rel=1e-12, abs=0)
    other = [replace(record, instrument="cuda allocator") for record in memory]
    assert unpaired_memory_ratio(memory, other, False).ratio is None


def test_the_first_run_is_compared_with_each_further_one(tmp_path, runs):
    third = write_run(tmp_path / "third", **SMALL)
    found = compare_cases(runs[0], "dual", "sam", [runs[1], third]).comparisons
    assert [(one.reference_run, one.candidate_run) for one in found] == [
        (str(runs[0]), str(f)) for f in (runs[1], third)
    ]
    assert (
        found[0].reference.name == f"dual ({runs[0]})"
        and found[0].candidate.name == f"sam ({runs[1]})"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("cpu", "Another"), ("cpu_count", 4), ("gpu", "NVIDIA H100"), ("gpu_count", 2),
     ("driver", "580.1"),
     ("power_limit_w", 300.0), ("ecc", False), ("mig", True)],
)  # fmt: skip
def test_another_machine_is_refused_for_time_and_memory_and_allowed_for_quality(runs, key, value):
    edit_page(runs[1], passport={key: value})
    found = only(compare_cases(runs[0], "dual", "clip", [runs[1]]))
    assert set(found.not_compared) == {"time", "memory"}
    assert all("different machines" in why and key in why for why in found.not_compared.values())
    compared = found.comparison
    assert (
        compared.end_to_end.ratio is None
        and compared.peak_memory.ratio is None
        and compared.joint is None
    )
    assert {ratio.ratio for ratio in compared.stages.values()} == {None}
    assert compared.gIoU_points.low < compared.gIoU_points.difference


def test_what_else_differs_of_a_machine_is_listed_and_not_refused(runs):
    for folder, driver in zip(runs, ("570.86", "570.99"), strict=True):
        edit_page(folder, passport={"driver": driver, "kernel": f"6.{driver}"})
    found = only(compare_cases(runs[0], "dual", "clip", [runs[1]]))
    assert found.not_compared == {} and set(found.machine) == {"driver", "kernel"}


def test_other_data_is_refused_for_quality_and_costs_are_of_the_common_queries(runs):
    edit_page(runs[0], data={"fingerprint": "a"})
    edit_page(runs[1], data={"fingerprint": "b"})
    edit_lines(
        runs[1] / "samples.jsonl",
        lambda q: q | ({"image_id": "other"} if q["position"] < 3 else {}),
    )
    found = only(compare_cases(runs[0], "dual", "dual", [runs[1]]))
    assert (
        set(found.not_compared) == {"quality"} and "different data" in found.not_compared["quality"]
    )
    assert found.queries == 5 and found.comparison.gIoU_points is None
    assert any("queries of the memory passes" in warning for warning in found.warnings)
    assert (found.reference.time.queries, found.candidate.time.queries) == (5, 5)
    text = side_by_side(Compared(comparisons=[found]))
    assert "Common queries: 5" in text and "pairs of processes show" not in text


def test_targets_that_changed_are_no_common_ground_for_quality(runs):
    def larger(line):
        if not line["target_px"]:
            return line
        # Where the mask is the whole image, the new pixel is in it.
        other = "union_px" if line["union_px"] < line["valid_px"] else "intersection_px"
        return line | {name: line[name] + 1 for name in ("target_px", other)}

    edit_lines(runs[1] / "samples.jsonl", larger)
    found = only(compare_cases(runs[0], "dual", "dual", [runs[1]]))
    assert found.not_compared == {"quality": "the targets of the common queries differ"}


def test_a_query_that_a_process_did_not_time_is_left_out_for_all_of_them(runs):
    def slow_first(line):
        missing = line["process"] == 1 and line["position"] > 3
        return None if missing else line | {"latency_ns": 10**9 if line["position"] > 3 else 10**6}

    edit_lines(runs[1] / "samples.jsonl", slow_first)
    edit_lines(
        runs[0] / "samples.jsonl",
        lambda q: q | {"latency_ns": 10**9 if q["position"] > 3 else 10**6},
    )
    ratio = only(compare_cases(runs[0], "dual", "dual", [runs[1]])).comparison.end_to_end
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((1, 1, 1), rel=1e-9, abs=0)


def test_random_weights_leave_quality_out_and_say_so(tmp_path):
    folder = write_run(tmp_path, quality=False, **SMALL)
    found = only(compare_cases(folder, "dual", "clip"))
    assert found.not_compared == {"quality": "random weights have no quality (dual and clip)"}
    assert "n/a, quality: random weights" in side_by_side(Compared(comparisons=[found]))


def test_a_control_has_quality_and_no_costs(runs):
    found = only(compare_cases(runs[0], "dual", "empty"))
    assert (
        set(found.not_compared) == {"time", "memory"}
        and "is a trivial baseline" in found.not_compared["time"]
    )
    assert found.comparison.gIoU_points is not None


def test_clocks_and_instruments_that_differ_are_named(runs):
    cases = json.loads((runs[1] / "run.json").read_text())["cases"]
    edit_run(runs[1], cases=[case | {"clock": "virtual"} for case in cases])
    edit_lines(runs[1] / "memory.jsonl", lambda line: line | {"instrument": "cuda allocator"})
    why = only(compare_cases(runs[0], "dual", "dual", [runs[1]])).not_compared
    assert why == {
        "time": "measured by different clocks (host and virtual)",
        "memory": "measured by different instruments (resident set and cuda allocator)",
    }


def test_settings_versions_and_plan_that_differ_are_listed_with_their_confounds(runs):
    edit_page(runs[1], versions={"torch": "2.14.0"}, plan={"warmup": 3})
    cases = json.loads((runs[1] / "run.json").read_text())["cases"]
    for case in cases:
        case["settings"] |= {"quantization": "nf4"}
    edit_run(runs[1], cases=cases)
    found = only(compare_cases(runs[0], "dual", "clip", [runs[1]]))
    assert found.comparison.differences == {
        "vision": ("dual", "clip"),
        "quantization": ("none", "nf4"),
    }
    assert found.versions == {"torch": ("2.13.0", "2.14.0")} and found.plan == {"warmup": (12, 3)}
    assert any(
        "differ in more than one setting (vision and quantization)" in warning
        for warning in found.warnings
    )
    assert any("versions of torch differ" in warning for warning in found.warnings)
    text = side_by_side(Compared(comparisons=[found]))
    assert "version torch" in text and "setting vision" in text and "plan warmup" in text


def test_doubts_about_either_side_are_told_with_their_run(runs):
    edit_lines(runs[1] / "samples.jsonl", lambda q: None if q["process"] == 2 else q)
    warnings = only(compare_cases(runs[0], "dual", "dual", [runs[1]])).warnings
    assert warnings == [
        f"{runs[1]}: Not all records are there: dual has 16 of 24 records. All numbers are of "
        "these."
    ]


def unsteady(folder, stable: tuple[bool, ...]) -> None:
    """Say of each process of all cases whether it was steady after its warm-up."""
    cases = json.loads((folder / "run.json").read_text())["cases"]
    for case in cases:
        case["warmups"] = []
        for process, steady in enumerate(stable):
            warm_up = {"process": process, "first_query_ms": 1.0, "warmup_queries": 6}
            case["warmups"].append(warm_up | {"warmup_stable": steady})
        for name in ("first_query_ms", "warmup_queries", "warmup_stable"):
            case.pop(name)
    edit_run(folder, cases=cases)


def test_both_cases_of_a_run_share_a_warning_of_one_cause(runs):
    unsteady(runs[0], (False, False, True))
    assert only(compare_cases(runs[0], "dual", "clip")).warnings == [
        "not steady after warm-up: dual (2 of 3 processes), clip (2 of 3)"
    ]


def test_two_runs_share_a_warning_of_one_cause(runs):
    unsteady(runs[0], (False, False, True))
    unsteady(runs[1], (False, True, True))
    warnings = only(compare_cases(runs[0], "dual", "dual", [runs[1]])).warnings
    assert warnings == [
        f"{runs[0]} and {runs[1]}: not steady after warm-up: dual (1 to 2 of 3 processes)"
    ]


def test_what_disturbed_two_runs_of_a_gate_is_one_warning_a_cause(runs):
    unsteady(runs[0], (False, False, True))
    edit_run(runs[0], warnings=["another program kept 2.0 cores of the host busy"])
    edit_run(runs[1], warnings=["another program kept 3.5 cores of the host busy"])
    base, head = read_run(runs[0]), read_run(runs[1])
    assert while_measuring({"base": base, "this change": head}) == [
        "base: not steady after warm-up: dual (2 of 3 processes), sam (2 of 3), clip (2 of 3)",
        "base and this change: another program kept 2.0 to 3.5 cores of the host busy",
    ]
    assert while_measuring({"RUN": head}) == ["another program kept 3.5 cores of the host busy"]


def test_warnings_about_all_comparisons_stand_once_at_the_end(runs, tmp_path):
    third = write_run(tmp_path / "third", **SMALL)
    unsteady(runs[0], (False, True, True))
    edit_lines(third / "samples.jsonl", lambda q: None if q["process"] == 2 else q)
    text = side_by_side(compare_cases(runs[0], "dual", "dual", [runs[1], third]))
    compared, shared = text.split("## Warnings about all comparisons")
    assert shared.count("warning:") == 1 and "not steady after warm-up: dual" in shared
    assert compared.count("warning:") == 1 and "dual has 16 of 24 records" in compared


def test_the_same_case_in_two_runs_is_worth_comparing(runs):
    text = side_by_side(compare_cases(runs[0], "dual", "dual", [runs[1]]))
    assert "No setting, version" in text and "nothing to compare" not in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("dull", "clip"), "did you mean 'dual'"), (("dual", "dual"), "compared with itself")],
)
def test_names_are_checked(runs, arguments, expected):
    with pytest.raises(UsageError, match=expected):
        compare_cases(runs[0], *arguments)


def test_where_nothing_can_be_compared_all_reasons_are_given(runs):
    edit_page(runs[1], passport={"cpu": "Another"}, data={"fingerprint": "b"})
    with pytest.raises(
        NothingToCompare, match=r"time: .*machines.*memory: .*machines.*quality: .*data"
    ):
        compare_cases(runs[0], "dual", "dual", [runs[1]])


def test_the_table_lines_up_and_shows_each_figure_with_its_interval(runs):
    found = compare_cases(runs[0], "dual", "clip")
    text = side_by_side(found)
    table = text.split("\n\n")[3].splitlines()
    ratio = only(found).comparison.end_to_end
    assert len({len(line) for line in table}) == 1
    row = next(line for line in table if line.startswith("| end to end"))
    assert row.rstrip(" |").endswith(
        f"faster, {ratio.ratio:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    )
    names = [line.split("|")[1].strip() for line in table[2:]]
    assert names[:6] == [
        "end to end (ms)",
        "preprocess (ms)",
        "vision (ms)",
        "llm (ms)",
        "decoder (ms)",
        "postprocess (ms)",
    ]
    memory = [
        "growth of memory (MiB)",
        "growth of memory, build left out (MiB)",
        "peak, whole process (MiB)",
    ]
    assert names[6:] == [*memory, "gIoU", "cIoU", "mIoU"]
    assert "Memory: the ratio is of the growth of the resident set" in text


def test_a_run_that_lacks_what_stood_there_before_the_build_has_no_ratio_of_memory(runs):
    edit_lines(runs[1] / "memory.jsonl", lambda line: line | {"start_bytes": None})
    found = only(compare_cases(runs[0], "dual", "dual", [runs[1]]))
    assert found.comparison.peak_memory.ratio is None
    assert "before the model was built" in found.not_compared["memory"]


def test_the_command_prints_tables_or_json_and_ends_with_0_2_or_4(runs):
    done = lisabench("compare", runs[0], "dual", "clip")
    assert (
        done.returncode == 0
        and done.stdout.startswith("## clip against dual\n")
        and done.stderr == ""
    )
    printed = lisabench("compare", runs[0], "dual", "dual", runs[1], "--json")
    assert Compared.model_validate_json(printed.stdout) == compare_cases(
        runs[0], "dual", "dual", [runs[1]]
    )
    assert lisabench("compare", runs[0], "dual", "clap").returncode == 2
    edit_page(runs[1], passport={"cpu": "Another"}, data={"fingerprint": "b"})
    none = lisabench("compare", runs[0], "dual", "dual", runs[1])
    assert none.returncode == 4 and none.stdout == "" and "nothing can be compared" in none.stderr


def test_comparing_imports_no_torch():
    program = (
        "import lisabench.reports.page.across_tables, sys; "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
