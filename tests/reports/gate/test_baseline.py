"""The file that one commits: what is in it, that intervals can be made again from it, and that an
edit shows.
"""

import json
import math

import numpy as np
import pytest
from command import lisabench
from pycocotools import mask as coco
from run_factory import edit_lines, edit_run, failed, make_older, write_run

from lisabench.benchmarks.gate.check import keep_baseline
from lisabench.harness import masks
from lisabench.harness.errors import DataError, NothingToCompare, UsageError
from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.run import SAMPLES, read_run
from lisabench.harness.statistics.ratios import unpaired_ratio
from lisabench.reports.gate.baseline import digest, read_baseline, reduced, write_baseline
from lisabench.reports.quality import points
from lisabench.reports.ratios import unpaired_memory_ratio, unpaired_time_ratio

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "cases": 2, "gallery": 2}


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", **SMALL)


@pytest.fixture
def file(folder, tmp_path):
    write_baseline(tmp_path / "baseline.json", reduced(read_run(folder)))
    return tmp_path / "baseline.json"


def test_a_baseline_reads_back_as_it_was_written_and_holds_the_models_alone(folder, file):
    found = read_baseline(file)
    assert found == reduced(read_run(folder))
    assert [case.name for case in found.cases] == ["dual", "sam"]
    assert found.environment["cpu"].startswith("AMD") and found.versions["torch"] == "2.13.0"


@pytest.mark.parametrize("stage", [None, "vision", "decoder"])
def test_the_interval_of_a_time_is_that_of_the_records(folder, file, stage):
    def times(case):
        return case.end_to_end_ns if stage is None else case.stages_ns[stage]

    sides = [times(read_run(folder).case(name)) for name in ("dual", "sam")]
    cases = [read_baseline(file).case(name) for name in ("dual", "sam")]
    kept = [case.end_to_end_ns if stage is None else case.stages_ns[stage] for case in cases]
    again = unpaired_ratio(*(list(map(math.log, side)) for side in kept))
    expected = unpaired_time_ratio(*sides)
    for end in ("value", "low", "high"):
        np.testing.assert_allclose(
            getattr(again, end), getattr(expected.estimate, end), rtol=1e-6, atol=0
        )


def test_peaks_are_those_of_each_process_by_what_is_reserved_where_that_is_known(folder, tmp_path):
    edit_lines(folder / "memory.jsonl", lambda line: line | {"process": 1})
    cases = reduced(read_run(folder)).cases
    assert (cases[0].peak_figure, cases[0].peak_bytes) == ("peak_bytes", [742 << 20])
    sides = [read_run(folder).case(name).memory for name in ("dual", "sam")]
    expected = unpaired_memory_ratio(*sides, False)
    assert cases[1].growth_bytes[0] / cases[0].growth_bytes[0] == pytest.approx(
        expected.ratio, rel=1e-12, abs=0
    )
    assert cases[0].growth_bytes == [(742 - 360) << 20]
    gpu = reduced(read_run(write_run(tmp_path / "gpu", **SMALL, clock="cuda events"))).cases[0]
    assert (gpu.peak_figure, gpu.peak_bytes) == ("peak_reserved_bytes", [(742 + 64) << 20])
    assert gpu.growth_bytes == []


def test_the_peak_of_a_query_leaves_out_the_build(folder):
    built = {"peak_bytes": 9 << 30}
    edit_lines(
        folder / "memory.jsonl", lambda line: line | (built if line["stage"] == "build" else {})
    )
    case = reduced(read_run(folder)).case("dual")
    assert (case.peak_bytes, case.query_peak_bytes) == ([9 << 30], [742 << 20])


def test_a_memory_pass_that_broke_leaves_no_peak(folder):
    entries = json.loads((folder / "run.json").read_text())["cases"]
    edit_run(folder, cases=[entry | {"memory_error": "killed"} for entry in entries])
    assert reduced(read_run(folder)).case("dual").peak_bytes == []


def test_differences_of_quality_are_those_of_the_records(folder, file):
    sides = [read_run(folder).case(name).scored for name in ("dual", "sam")]
    again = [read_baseline(file).case(name).answers.scored() for name in ("dual", "sam")]
    assert points(*again) == points(*sides)


@pytest.mark.parametrize("older", [False, True])
def test_kept_masks_come_back_to_the_pixel(folder, tmp_path, older):
    queries = read_run(folder).case("dual").queries
    expected = {q.sample_id: coco.decode(q.mask_rle) for q in queries if q.mask_rle}
    if older:
        make_older(folder)
    write_baseline(tmp_path / "baseline.json", reduced(read_run(folder)))
    packed = read_baseline(tmp_path / "baseline.json").case("dual").masks
    assert len(packed) == 2 and packed.keys() == expected.keys()
    for name, mask_HW in expected.items():
        np.testing.assert_array_equal(masks.unpack(packed[name].model_dump()), mask_HW)


def test_runs_of_older_and_newer_masks_have_the_same_baseline(folder):
    newer = reduced(read_run(folder))
    assert reduced(read_run(make_older(folder))) == newer


def test_a_damaged_mask_is_one_line(folder, tmp_path):
    damaged = {"mask_rle": {"size": [24, 32], "counts": "1?"}}
    edit_lines(
        folder / "samples.jsonl", lambda line: line | (damaged if "mask_rle" in line else {})
    )
    done = lisabench("baseline", folder, "--out", tmp_path / "b.json")
    assert (done.returncode, done.stderr.count("\n")) == (DataError.exit_code, 1)
    assert done.stderr.startswith("lisabench: mask_rle: ") and not (tmp_path / "b.json").exists()


def test_medians_are_over_the_queries_that_every_process_has_timed(folder):
    edit_lines(
        folder / "samples.jsonl",
        lambda line: (
            failed(line) if (line["process"], line["sample_id"]) == (1, "scene-0003") else line
        ),
    )
    case = reduced(read_run(folder)).case("dual")
    assert (case.untimed, case.failed, case.records) == (["scene-0003"], 1, 24)
    logs = [
        np.median([math.log(query.latency_ns) for query in read_run(folder).case("dual").queries
                   if query.process == process and query.sample_id != "scene-0003"])
        for process in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(np.log(case.end_to_end_ns), logs, rtol=1e-7, atol=0)


def test_stages_are_those_that_were_waited_for_where_there_are_such(folder):
    assert not reduced(read_run(folder)).case("dual").stages_synchronised
    lines = [
        {
            "case": "dual",
            "process": p,
            "pass": "synchronised",
            "sample_id": s,
            "stages_ns": {"vision": 1000 * (p + 1)},
        }
        for p in range(3)
        for s in ("scene-0000", "scene-0001")
    ]
    (folder / "passes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    case = reduced(read_run(folder)).case("dual")
    assert case.stages_synchronised and case.stages_ns == {"vision": [1000, 2000, 3000]}


def test_the_layout_of_the_file_is_nobodys_business(file):
    before = read_baseline(file)
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4).replace("\n", "\r\n"))
    assert read_baseline(file) == before


def edited(file, change):
    page = json.loads(file.read_text())
    change(page)
    file.write_text(json.dumps(page))


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page["cases"][0]["end_to_end_ns"].__setitem__(0, 10**12),
        lambda page: page["cases"][0]["answers"]["intersection_px"].__setitem__(0, 0),
        lambda page: page["cases"].pop(),
        lambda page: page.pop("digest"),
        lambda page: page.update(note="x"),
    ],
)
def test_an_edit_by_hand_shows(file, change):
    edited(file, change)
    with pytest.raises(DataError, match=r"baseline\.json was edited"):
        read_baseline(file)


def test_another_schema_is_named_with_the_way_out(file):
    edited(file, lambda page: page.update(schema="lisabench.baseline/0"))
    with pytest.raises(NothingToCompare, match=r"'lisabench\.baseline/0'.*lisabench baseline RUN"):
        read_baseline(file)


def test_a_right_digest_over_something_that_is_no_baseline_is_not_enough(file):
    page = json.loads(file.read_text())
    del page["digest"]
    page["cases"][0]["answers"]["union_px"].pop()
    file.write_text(json.dumps(page | {"digest": digest(page)}))
    with pytest.raises(DataError, match="not a whole baseline"):
        read_baseline(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "not JSON"),
        (b"<<<<<<< HEAD\n{}", "not JSON"),
        (b"[1]", "not a baseline"),
        (b"\xff\xfd", "not text"),
        (b'{"schema": NaN}', "NaN is not a finite number"),
        (b'{"schema": 1e999}', "1e999 is not a finite number"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, content, expected):
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_baseline(tmp_path / "b.json")
    assert "b.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_cannot_be_written_is_the_users_to_mend(tmp_path, folder):
    with pytest.raises(UsageError, match="there is no baseline"):
        read_baseline(tmp_path / "gone.json")
    with pytest.raises(UsageError, match="cannot read"):
        read_baseline(tmp_path)
    with pytest.raises(UsageError, match="cannot write"):
        write_baseline(tmp_path / "gone" / "b.json", reduced(read_run(folder)))


def test_the_command_keeps_a_finished_run_and_no_other(folder, tmp_path):
    done = lisabench("baseline", folder, "--out", tmp_path / "b.json")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "b.json"))
    assert "3 processes a case" in done.stderr
    assert read_baseline(tmp_path / "b.json") == reduced(read_run(folder))
    edit_run(folder, status="failed")
    done = lisabench("baseline", folder, "--out", tmp_path / "c.json")
    assert done.returncode == 2 and "failed in part" in done.stderr
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("status", "said"), [("running", "run --resume --out"), ("failed", "failed in part")]
)
def test_a_run_that_is_not_complete_is_no_baseline(folder, tmp_path, status, said):
    edit_run(folder, status=status)
    with pytest.raises(UsageError, match=f"{said}.*; a baseline needs one that is complete"):
        keep_baseline(folder, tmp_path / "b.json")


@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize("lost", ["a query", "a process", "all"])
def test_a_complete_run_whose_records_were_lost_is_no_baseline(folder, tmp_path, lost, is_older):
    lines = read_lines(folder / SAMPLES)
    queries = len({line["sample_id"] for line in lines})
    edit_run(folder, timed_queries=None if is_older else queries)
    keep_baseline(folder, tmp_path / "whole.json")
    kept = {
        "a query": lines[1:],
        "a process": [line for line in lines if line["process"] != 2],
        "all": [],
    }[lost]
    (folder / SAMPLES).write_text("".join(json.dumps(line) + "\n" for line in kept))
    with pytest.raises(DataError, match=r"says that it is complete, but of \w+ it has \d+ timed"):
        keep_baseline(folder, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
