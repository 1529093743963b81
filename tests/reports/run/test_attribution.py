"""Changes taken apart into what each factor causes, on records whose effects are known."""

import json
import math

import numpy as np
import pytest
from matplotlib.text import Text
from run_factory import edit_lines, edit_run, failed, write_lines, write_run
from scipy import stats

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.factors import design
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.resolve import resolve
from lisabench.benchmarks.run.session import Session
from lisabench.benchmarks.suite import Suite
from lisabench.harness.errors import UsageError
from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.run import read_run
from lisabench.reports.page.waterfall import message, waterfall
from lisabench.reports.run.schema import Summary
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

FACTORS = {
    "vision": ("dual", "clip"),
    "quantization": ("none", "nf4"),
    "execution": ("eager", "compiled"),
}
CASES = {  # the factors that each case has changed
    "dual": (),
    "clip": ("vision",),
    "nf4": ("quantization",),
    "compiled": ("execution",),
    "clip-nf4": ("vision", "quantization"),
    "clip-compiled": ("vision", "execution"),
    "nf4-compiled": ("quantization", "execution"),
    "clip-nf4-compiled": ("vision", "quantization", "execution"),
}
TIMES = {"vision": 0.5, "quantization": 1.25, "execution": 0.8}
MIB = {"vision": -70, "quantization": -300, "execution": 40}


def multiplied(changed, process):
    return (1 + process) * math.prod(TIMES[factor] for factor in changed)


def added(changed, process):
    return 1000 + 100 * process + sum(MIB[factor] for factor in changed)


START_MIB = 300  # of a process before its model is built


def write_design(folder, time=multiplied, mib=added, processes=3):
    """A run whose cases take `time` times as long as the query's own time, and whose queries peak
    at `mib`.
    """
    write_run(
        folder, cases=1, controls=False, queries=4, processes=processes, size=(24, 32), gallery=0
    )
    (entry,) = json.loads((folder / "run.json").read_text())["cases"]
    levels = {
        name: {f: sides[f in changed] for f, sides in FACTORS.items()}
        for name, changed in CASES.items()
    }
    cases = [
        entry | {"name": name, "given": own, "settings": entry["settings"] | own}
        for name, own in levels.items()
    ]
    edit_run(folder, cases=cases, design=levels)
    samples = read_lines(folder / "samples.jsonl")
    write_lines(
        folder / "samples.jsonl", [_timed(line, name, time) for name in CASES for line in samples]
    )
    write_lines(
        folder / "memory.jsonl",
        [
            {
                "case": name,
                "process": process,
                "stage": stage,
                "instrument": "resident set",
                "peak_bytes": peak,
                "start_bytes": START_MIB << 20,
            }
            for name, changed in CASES.items()
            for process in range(processes)
            for stage, peak in (
                ("build", 2 << 30),
                ("vision", round((START_MIB + mib(changed, process)) * 2**20)),
            )
        ],
    )
    return folder


def _timed(line, case, time):
    own_ns = 1_000_000 * (1 + int(line["sample_id"][-4:]))
    latency_ns = round(own_ns * time(CASES[case], line["process"]))
    return line | {
        "case": case,
        "latency_ns": latency_ns,
        "host_ns": latency_ns,
        "regions": {},
        "unattributed_ns": 0,
    }


def attributed(folder, candidate="clip-nf4-compiled"):
    return next(
        found for found in summarise(read_run(folder)).attributions if found.candidate == candidate
    )


def interval(values):
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(np.mean(values)), found.low, found.high


def test_effects_that_multiply_have_an_interaction_of_one(tmp_path):
    """Each process is slower than the last and each query than the one before, as on a machine that
    drifts.
    """
    time = attributed(write_design(tmp_path)).time
    for factor, ratio in TIMES.items():
        assert (time.own[factor].low, time.own[factor].high) == pytest.approx(
            (ratio, ratio), rel=1e-9, abs=0
        )
    found = (time.interaction.ratio, time.interaction.low, time.interaction.high)
    assert found == pytest.approx((1, 1, 1), rel=1e-9, abs=0)
    assert time.whole.ratio == pytest.approx(0.5 * 1.25 * 0.8, rel=1e-9, abs=0)
    assert time.interaction.processes == 3


def test_an_interaction_is_found_with_the_interval_of_its_logs_by_process(tmp_path):
    both = (1.40, 1.50, 1.45)

    def time(changed, process):
        together = both[process] if {"vision", "quantization"} <= set(changed) else 1
        return multiplied(changed, process) * together

    write_design(tmp_path, time=time)
    expected = np.exp(interval(np.log(both)))
    for candidate in ("clip-nf4", "clip-nf4-compiled"):
        found = attributed(tmp_path, candidate).time.interaction
        assert (found.ratio, found.low, found.high) == pytest.approx(
            tuple(expected), rel=1e-6, abs=0
        )
        assert found.low > 1
    assert attributed(tmp_path, "nf4-compiled").time.interaction.ratio == pytest.approx(
        1, rel=1e-9, abs=0
    )


def test_the_whole_is_the_product_of_its_parts_whatever_was_measured(tmp_path):
    rng = np.random.default_rng(0)
    drawn = {
        (changed, process): rng.uniform(0.5, 2)
        for changed in CASES.values()
        for process in range(3)
    }
    write_design(tmp_path, time=lambda *key: drawn[key])
    for found in summarise(read_run(tmp_path)).attributions:
        product = math.prod(
            part.ratio for part in (*found.time.own.values(), found.time.interaction)
        )
        assert found.time.whole.ratio == pytest.approx(product, rel=1e-12, abs=0)


def test_a_fixed_cost_is_no_interaction_in_milliseconds(tmp_path):
    """Sharing saves 4 ms and NF4 adds 3, whatever the rest takes: as ratios the two seem to depend
    on each other.
    """
    saved_ms = {"vision": -4, "quantization": 3, "execution": 2}

    write_design(tmp_path)

    def fixed(line):
        own_ms = 10 + line["process"] + sum(saved_ms[factor] for factor in CASES[line["case"]])
        return line | {"latency_ns": own_ms * 1_000_000}

    edit_lines(tmp_path / "samples.jsonl", fixed)
    found = attributed(tmp_path, "clip-nf4").time
    assert found.interaction.ratio > 1.1
    change = found.end_to_end_ms
    assert change.reference_ms == pytest.approx(11, rel=1e-9, abs=0)
    assert change.whole.ms == pytest.approx(-1, rel=1e-9, abs=0)
    assert {factor: part.ms for factor, part in change.own.items()} == {
        "vision": -4.0,
        "quantization": 3.0,
    }
    interaction = change.interaction
    assert (interaction.ms, interaction.low, interaction.high, interaction.processes) == (
        0,
        0,
        0,
        3,
    )


def test_an_interaction_in_milliseconds_has_the_interval_of_its_processes(tmp_path):
    extra_ms = (5, 7, 9)
    write_design(tmp_path)

    def change(line):
        both = {"vision", "quantization"} <= set(CASES[line["case"]])
        own_ms = 10 + int(line["sample_id"][-4:]) + both * extra_ms[line["process"]]
        return line | {"latency_ns": own_ms * 1_000_000}

    edit_lines(tmp_path / "samples.jsonl", change)
    found = attributed(tmp_path, "clip-nf4").time.end_to_end_ms.interaction
    assert (found.ms, found.low, found.high) == pytest.approx(interval(extra_ms), rel=1e-9, abs=0)


def test_milliseconds_add_up_end_to_end_and_in_each_stage_whatever_was_measured(tmp_path):
    rng = np.random.default_rng(0)
    drawn = {
        (changed, process): rng.uniform(0.5, 2)
        for changed in CASES.values()
        for process in range(3)
    }
    write_design(tmp_path, time=lambda *key: drawn[key])

    def with_stages(line):
        spans_ns = {
            stage: int(rng.integers(1, 9) * 1e6) for stage in ("preprocess", "vision", "llm")
        }
        regions = {
            stage: {"calls": 1, "exclusive_ns": ns, "inclusive_ns": ns}
            for stage, ns in spans_ns.items()
        }
        return line | {"regions": regions}

    edit_lines(tmp_path / "samples.jsonl", with_stages)
    for found in summarise(read_run(tmp_path)).attributions:
        assert (
            list(found.time.stages_ms) == ["preprocess", "vision", "llm"]
            and not found.time.stages_synchronised
        )
        for change in (found.time.end_to_end_ms, *found.time.stages_ms.values()):
            total = sum(part.ms for part in (*change.own.values(), change.interaction))
            assert change.whole.ms == pytest.approx(total, rel=1e-9, abs=1e-9)


def test_stages_are_taken_apart_by_the_pass_that_waits_where_all_cases_have_it(tmp_path):
    write_design(tmp_path)
    vision_ms = {(): 50, ("vision",): 12, ("quantization",): 52}

    def lines(names):
        return [
            {"case": name, "process": process, "attempt": 0, "pass": "synchronised",
             "sample_id": "scene-0000",
             "stages_ns": {"vision": vision_ms.get(CASES[name], 14) * 1_000_000}}
            for name in names for process in range(3)
        ]  # fmt: skip

    write_lines(tmp_path / "passes.jsonl", lines(["dual", "clip", "nf4", "clip-nf4"]))
    found = attributed(tmp_path, "clip-nf4").time
    assert found.stages_synchronised and list(found.stages_ms) == ["vision"]
    parts = found.stages_ms["vision"]
    assert (parts.own["vision"].ms, parts.own["quantization"].ms, parts.interaction.ms) == (
        -38,
        2,
        0,
    )
    assert not attributed(tmp_path, "clip-compiled").time.stages_synchronised


def test_memory_adds_up_to_the_byte(tmp_path):
    rng = np.random.default_rng(0)
    drawn = {
        (changed, process): rng.integers(200, 900)
        for changed in CASES.values()
        for process in range(3)
    }
    write_design(tmp_path, mib=lambda *key: int(drawn[key]))
    for found in summarise(read_run(tmp_path)).attributions:
        memory, end = (
            found.memory,
            np.mean([drawn[CASES[found.candidate], process] for process in range(3)]) * 2**20,
        )
        parts = [*memory.own.values(), memory.interaction]
        assert memory.reference_bytes + sum(p.bytes for p in parts) == pytest.approx(
            end, rel=0, abs=1e-3
        )
        assert memory.reference_bytes + memory.whole.bytes == pytest.approx(end, rel=0, abs=1e-3)


def test_changes_of_memory_are_paired_by_process_and_have_intervals_and_shares(tmp_path):
    extra = (0, 3, 6)
    write_design(
        tmp_path,
        mib=lambda changed, process: added(changed, process) + (len(changed) == 3) * extra[process],
    )
    memory = attributed(tmp_path).memory
    assert memory.own["vision"].model_dump() == pytest.approx(
        {
            "bytes": -70 << 20,
            "low": -70 << 20,
            "high": -70 << 20,
            "processes": 3,
            "share": 70 / 327,
        },
        rel=1e-9,
        abs=0,
    )
    found = memory.interaction
    assert (found.bytes, found.low, found.high) == pytest.approx(
        tuple(v * 2**20 for v in interval(extra)), rel=1e-9, abs=0
    )
    assert sum(part.share for part in (*memory.own.values(), found)) == pytest.approx(
        1, rel=1e-9, abs=0
    )
    assert memory.reference_bytes == 1100 << 20  # the build's peak of 2 GiB is left out


def test_a_change_of_memory_that_cannot_be_told_from_none_has_no_shares(tmp_path):
    noise = {("vision", "quantization"): (-40, 60, 10)}
    write_design(
        tmp_path, mib=lambda changed, process: 1000 + noise.get(changed, (0, 0, 0))[process]
    )
    found = attributed(tmp_path, "clip-nf4")
    assert found.memory.whole.bytes == 10 << 20 and found.memory.whole.share is None
    assert message(found) == "clip-nf4 and dual cannot be told apart in memory"


def test_one_process_gives_parts_without_intervals(tmp_path):
    found = attributed(write_design(tmp_path, processes=1))
    assert found.time.own["vision"].ratio == pytest.approx(0.5, rel=1e-9, abs=0)
    assert found.memory.own["vision"].bytes == -70 << 20
    for part in (*found.time.own.values(), found.time.interaction, *found.memory.own.values()):
        assert part.low is None and part.high is None and part.processes == 1


def test_what_one_side_lacks_leaves_no_number(tmp_path):
    write_design(tmp_path)
    edit_lines(tmp_path / "samples.jsonl", lambda q: failed(q) if q["case"] == "nf4" else q)
    edit_lines(tmp_path / "memory.jsonl", lambda m: None if m["case"] == "compiled" else m)
    found = attributed(tmp_path)
    assert {
        part.ratio for part in (found.time.whole, *found.time.own.values(), found.time.interaction)
    } == {None}
    assert {
        part.bytes
        for part in (found.memory.whole, *found.memory.own.values(), found.memory.interaction)
    } == {None}
    assert attributed(tmp_path, "clip-compiled").time.whole.ratio is not None
    assert attributed(tmp_path, "clip-nf4").memory.whole.bytes is not None


def test_a_query_that_one_side_failed_is_left_out_on_all_sides(tmp_path):
    """Of four queries two are 1.5 times as slow with clip; where one of those failed, the median is
    that of three.
    """
    write_design(tmp_path)
    slow = ("scene-0000", "scene-0001")

    def change(line):
        if line["case"] == "clip" and line["sample_id"] in slow:
            line = line | {"latency_ns": round(1.5 * line["latency_ns"])}
        return failed(line) if (line["case"], line["sample_id"]) == ("nf4", slow[0]) else line

    edit_lines(tmp_path / "samples.jsonl", change)
    assert attributed(tmp_path).time.own["vision"].ratio == pytest.approx(0.5, rel=1e-9, abs=0)


@pytest.mark.parametrize("name", ["clock", "instrument"])
def test_unlike_clocks_and_instruments_give_no_parts(tmp_path, name):
    write_design(tmp_path)
    if name == "clock":
        cases = json.loads((tmp_path / "run.json").read_text())["cases"]
        edit_run(
            tmp_path,
            cases=[
                case | {"clock": "virtual"} if case["name"] == "clip" else case for case in cases
            ],
        )
    else:
        edit_lines(
            tmp_path / "memory.jsonl",
            lambda m: m | ({name: "cuda allocator"} if m["case"] == "clip" else {}),
        )
    found = attributed(tmp_path)
    assert (found.time.whole.ratio is None) == (name == "clock")
    assert (found.memory.whole.bytes is None) == (name == "instrument")
    assert (
        "<summary>What causes the difference</summary>" in write_report(tmp_path).read_text()
    )  # one panel is left of two


def test_the_report_has_a_row_a_change_in_two_tables_and_a_figure(tmp_path):
    text = (
        write_report(write_design(tmp_path))
        .read_text()
        .split("<summary>What causes the difference</summary>")[1]
        .split("</details>")[0]
    )
    assert "](attribution.png)" in text and (tmp_path / "attribution.png").is_file()
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    candidates = ["clip-nf4-compiled", "clip-nf4", "clip-compiled", "nf4-compiled"]
    assert lines[0] == ["time of a query (ms)", "whole change", *FACTORS, "interaction"]
    assert [row[0] for row in lines[2:6]] == [f"**{name}**" for name in candidates]
    assert lines[3][2].startswith("clip: -") and lines[3][4] == "-"
    assert lines[6][0] == "time of a query (ratio)"
    assert [row[0] for row in lines[8:12]] == candidates
    assert lines[9][2:] == ["clip: 0.50x", "nf4: 1.25x", "-", "1.00x"]
    assert lines[14][:3] == ["clip-nf4-compiled", "-330 (100 %)", "clip: -70 (21 %)"]
    assert lines[14][-1] == "+0 (0 %)" and len(lines) == 18


def test_the_figure_says_what_causes_most_and_its_labels_stay_on_the_canvas(tmp_path):
    noise = {("quantization",): (-50, 100, -50)}
    write_design(
        tmp_path, mib=lambda changed, p: 9 * added(changed, 0) + noise.get(changed, (0, 0, 0))[p]
    )
    summary = summarise(read_run(tmp_path))
    figure = waterfall(summary, summary.attributions[0])
    shown = {text.get_text() for text in figure.findobj(Text)}
    assert "Peak memory of a query: quantization -2,700, vision -630 MiB" in shown
    heading = "clip-nf4-compiled takes 33 % less memory than dual and "
    assert any(text.startswith(heading) and text.endswith("x its time") for text in shown)
    figure.canvas.draw()
    for text in figure.findobj(Text):
        box = text.get_window_extent()
        assert not text.get_text() or (box.x0 >= 0 and box.x1 <= figure.bbox.width), text.get_text()


def test_without_memory_the_figure_speaks_of_time_and_claims_what_its_interval_carries(tmp_path):
    write_design(
        tmp_path,
        time=lambda changed, process: (
            (0.9, 1.0, 1.2)[process] if len(changed) == 2 else 1 + len(changed)
        ),
    )
    (tmp_path / "memory.jsonl").write_text("")
    assert message(attributed(tmp_path)) == "clip-nf4-compiled takes 4.00x the time of dual"
    assert (
        message(attributed(tmp_path, "clip-nf4"))
        == "clip-nf4 and dual cannot be told apart in time"
    )


def test_each_team_is_taken_apart_from_its_own_reference(tmp_path):
    write_design(tmp_path)
    teams = {
        "dual": ["dual", "clip", "nf4", "clip-nf4"],
        "compiled": [name for name in CASES if "compiled" in name],
    }
    edit_run(
        tmp_path,
        teams=[{"name": name, "reference": name, "cases": cases} for name, cases in teams.items()],
    )
    assert attributed(tmp_path).levels == {
        name: FACTORS[name] for name in ("vision", "quantization")
    }
    text = write_report(tmp_path).read_text()
    assert (
        text.count("| clip-nf4 against dual |")
        == text.count("| clip-nf4-compiled against compiled |")
        == 2
    )
    assert text.count("| **clip-nf4 against dual** |") == 1


def test_without_a_design_nothing_is_taken_apart(tmp_path):
    write_design(tmp_path)
    edit_run(tmp_path, design={})
    summary = summarise(read_run(tmp_path))
    assert summary.attributions == []
    assert (
        "What causes" not in write_report(tmp_path).read_text()
        and not (tmp_path / "attribution.png").exists()
    )
    older = summary.model_dump(mode="json", by_alias=True)
    del older["attributions"], older["twins"]
    assert Summary.model_validate(older) == summary


def test_what_is_taken_apart_is_no_confound(tmp_path):
    write_design(tmp_path)
    assert not [w for w in summarise(read_run(tmp_path)).warnings if "more than one setting" in w]
    levels = json.loads((tmp_path / "run.json").read_text())["design"]
    edit_run(tmp_path, design={name: own for name, own in levels.items() if name != "nf4"})
    (warning,) = [w for w in summarise(read_run(tmp_path)).warnings if "clip-nf4 " in w]
    assert "vision and quantization" in warning


SUITE = {
    "name": "mine",
    "title": "t",
    "reference": "a",
    "factors": ["vision_ms", "llm_ms"],
    "defaults": {"adapter": "fake", "clock": "virtual"},
    "cases": {
        "a": {},
        "b": {"vision_ms": 2.0},
        "c": {"llm_ms": 9.0},
        "d": {"vision_ms": 2, "llm_ms": 9},
    },
}


def test_a_case_that_differs_in_something_else_takes_no_part():
    more = {
        "other": {"vision_ms": 2.0, "decoder_ms": 5.0},
        "default": {"vision_ms": 2.0, "decoder_ms": 1.0},
    }
    found = design(suite_file.validate(SUITE | {"cases": SUITE["cases"] | more}))
    assert list(found) == ["a", "b", "c", "d", "default"]
    assert found["a"] == {"vision_ms": "4.0", "llm_ms": "3.0"}
    assert found["b"] == found["default"] == {"vision_ms": "2.0", "llm_ms": "3.0"}


def test_a_design_is_the_same_wherever_its_reference_is_listed():
    together = {"noise": 0.5, "drift": 0.5}
    cases = {"a": {}, "b": together | {"noise": 0.0}, "c": together, "d": {"vision_ms": 2.0}}
    factors = {"factors": {"disturbance": ["noise", "drift"], "vision": ["vision_ms"]}}
    designs = []
    for names in ("abcd", "bcda"):
        content = SUITE | factors | {"cases": {name: cases[name] for name in names}}
        designs.append(design(resolve(Suite.model_validate(content))))
    assert designs[0] == designs[1]
    assert "a" in designs[0] and "b" not in designs[0]  # b has a's first setting and not its other


def test_a_run_keeps_the_design_for_its_report(data_root, tmp_path):
    suite = suite_file.validate(SUITE | {"data": {"root": data_root}})
    session = Session(suite, Queries.of(suite), tmp_path / "out", lambda *_: None)
    kept = session.manifest.read().design
    assert kept == design(suite) and len(kept) == 4


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"factors": ["vision_s"]}, "unknown factor 'vision_s' (did you mean 'vision_ms'?)"),
        (
            {"factors": ["vision_ms", "llm_ms", "noise"]},
            "no case differs from 'a' in nothing but noise",
        ),
        (
            {"cases": {name: SUITE["cases"][name] for name in "abd"}},
            "no case differs from 'a' in nothing but llm_ms",
        ),
        ({"cases": {name: SUITE["cases"][name] for name in "abc"}}, "no change to take apart"),
        (
            {"groups": {"t": ["a", "b"], "u": ["c", "d"]}},
            "no case differs from 'a' in nothing but llm_ms",
        ),
    ],
)
def test_factors_that_the_cases_cannot_tell_apart_are_refused_in_one_clear_line(wrong, expected):
    with pytest.raises(UsageError) as caught:
        suite_file.validate(SUITE | wrong)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "corners"), [("factorial-tiny", 2), ("h200-lisa7b", 5)])
def test_the_shipped_factorial_suites_are_full_designs_with_controls_beside_them(name, corners):
    suite = suite_file.load(name)
    found = design(suite)
    forced, *controls = suite.groups
    varied = [
        case
        for case in forced.cases
        if sum(v != found["dual"][f] for f, v in found[case].items()) > 1
    ]
    assert len(varied) == corners and set(forced.cases) <= set(found)
    beside = [suite.case(case).config for group in controls for case in group.cases]
    assert {case.execution for case in beside if case.answer == "generated"} == {
        "eager",
        "upstream",
    }
