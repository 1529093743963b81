"""Models against trivial baselines: which checkpoints are refused, and which only doubted."""

import json

import pytest
from raw_runs import raw_run
from run_factory import edit_lines, edit_run, failed, write_run

from lisabench.harness.records.run import read_run
from lisabench.reports.page.terminal import refusals
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report
from lisabench.reports.trivial_baselines import against_trivial_baselines

pytestmark = pytest.mark.no_clock

PLAIN = {"processes": 1, "gallery": 0}


def checkpoint_run(folder, queries=12, **changes):
    """A run of one trained checkpoint, whose pixels `changes` alters."""
    write_run(folder, cases=1, queries=queries, **PLAIN, **changes)
    cases = json.loads((folder / "run.json").read_text())["cases"]
    (dual,) = (case for case in cases if case["name"] == "dual")
    loaded = dual | {"settings": {**dual["settings"], "weights_hash": "sha256:0"}}
    edit_run(folder, cases=[loaded, *(case for case in cases if case["role"] == "control")])
    return folder


def miss(folder, share=1.0):
    """Takes away this share of what the model hits."""

    def worse(line):
        lost = int(share * line["intersection_px"]) if line["case"] == "dual" else 0
        return line | {
            "intersection_px": line["intersection_px"] - lost,
            "union_px": line["union_px"] + lost,
        }

    edit_lines(folder / "samples.jsonl", worse)


def test_a_trained_checkpoint_is_better_than_the_floors(tmp_path):
    (found,) = against_trivial_baselines(read_run(checkpoint_run(tmp_path)).cases)
    assert (found.case, found.verdict, found.refused) == ("dual", "better", False)
    assert found.gIoU - found.baseline_gIoU == pytest.approx(
        found.gIoU_points.difference / 100, rel=0, abs=1e-9
    )
    assert refusals_of(tmp_path) == []


def refusals_of(folder):
    write_report(folder)
    return refusals(folder)


def test_a_checkpoint_that_is_no_better_is_refused_on_the_first_page_and_keeps_its_records(
    tmp_path,
):
    miss(checkpoint_run(tmp_path))
    before = (tmp_path / "samples.jsonl").read_text()
    (sentence,) = refusals_of(tmp_path)
    assert sentence.startswith(
        "refused: the checkpoint of dual is no better than the trivial baseline "
    )
    page = (tmp_path / "report.md").read_text()
    assert (
        "**The checkpoint of dual is refused: " in page.split("<details>")[0]
        and sentence in summarise(read_run(tmp_path)).warnings
    )
    assert (tmp_path / "samples.jsonl").read_text() == before


def test_the_best_of_the_floors_counts_and_a_tie_with_it_is_not_better(tmp_path):
    checkpoint_run(tmp_path)
    boxes = {r["sample_id"]: r for r in raw_run(tmp_path).samples if r["case"] == "centre-box"}
    as_box = lambda line: (  # noqa: E731
        {**boxes[line["sample_id"]], **who(line)} if line["case"] == "dual" else line
    )
    edit_lines(tmp_path / "samples.jsonl", as_box)
    (found,) = against_trivial_baselines(read_run(tmp_path).cases)
    assert (found.baseline, found.verdict, found.refused) == ("centre-box", "not better", True)
    assert found.gIoU == found.baseline_gIoU and found.gIoU_points.difference == 0


def who(line):
    return {key: line[key] for key in ("case", "process", "sample_id")}


def test_whole_image_and_empty_mask_follow_from_the_pixels_of_a_run_without_controls(tmp_path):
    with_controls = against_trivial_baselines(read_run(checkpoint_run(tmp_path / "with")).cases)[0]
    checkpoint_run(tmp_path / "without", controls=False)
    (alone,) = against_trivial_baselines(read_run(tmp_path / "without").cases)
    controls = {
        case.name: case.quality.gIoU
        for case in summarise(read_run(tmp_path / "with")).trivial_baselines
    }
    assert alone.baseline in ("whole-image", "empty")
    assert alone.baseline_gIoU == pytest.approx(
        max(controls["whole-image"], controls["empty"]), rel=0, abs=1e-12
    )
    assert with_controls.baseline_gIoU == pytest.approx(max(controls.values()), rel=0, abs=1e-12)


def test_a_checkpoint_above_the_floor_whose_interval_reaches_it_is_doubted_and_not_refused(
    tmp_path,
):
    checkpoint_run(tmp_path, queries=40)
    lucky = {f"scene-{i:04d}" for i in range(11)}

    def nearly(line):
        if line["case"] != "dual":
            return line
        hit = line["target_px"] if line["sample_id"] in lucky else 0
        predicted = max(hit, 1)
        union = line["target_px"] + predicted - hit
        return line | {"intersection_px": hit, "union_px": union, "predicted_px": predicted}

    edit_lines(tmp_path / "samples.jsonl", nearly)
    (found,) = against_trivial_baselines(read_run(tmp_path).cases)
    assert found.gIoU_points.low < 0 < found.gIoU_points.difference and found.verdict == "doubtful"
    assert refusals_of(tmp_path) == []
    assert (
        "dual (gIoU 0.250) is not surely better than the trivial baseline"
        in (tmp_path / "report.md").read_text()
    )


def test_too_few_images_refuse_nothing_but_say_so(tmp_path):
    miss(checkpoint_run(tmp_path / "seven", queries=7))
    (found,) = against_trivial_baselines(read_run(tmp_path / "seven").cases)
    assert (found.verdict, found.refused, found.gIoU_points.clusters) == ("not better", False, 7)
    assert any(
        "7 images are too few to refuse it" in w
        for w in summarise(read_run(tmp_path / "seven")).warnings
    )
    miss(checkpoint_run(tmp_path / "eight", queries=8))
    assert against_trivial_baselines(read_run(tmp_path / "eight").cases)[0].refused


def test_only_loaded_checkpoints_are_refused(tmp_path):
    write_run(tmp_path, cases=1, **PLAIN)
    miss(tmp_path)
    (found,) = against_trivial_baselines(read_run(tmp_path).cases)
    assert (found.verdict, found.refused) == ("not better", False)
    write_run(tmp_path / "random", cases=1, quality=False, **PLAIN)
    assert against_trivial_baselines(read_run(tmp_path / "random").cases) == []


def test_queries_that_failed_condemn_no_checkpoint(tmp_path):
    checkpoint_run(tmp_path)

    def without_memory(line):
        return failed(line) if line["case"] == "dual" and line["position"] > 0 else line

    edit_lines(tmp_path / "samples.jsonl", without_memory)
    assert not any(found.refused for found in against_trivial_baselines(read_run(tmp_path).cases))


def test_no_claim_about_quality_is_judged_by_a_refused_checkpoint(tmp_path):
    claim = {
        "claim": "as good",
        "quantity": "quality.gIoU",
        "reference": "dual",
        "candidate": "dual",
        "at_least": -2,
    }
    claim |= {"at_most": None, "published": None, "source": None, "needs": None}
    checkpoint_run(tmp_path)
    edit_run(tmp_path, claims=[claim])
    assert summarise(read_run(tmp_path)).claims[0].verdict == "confirmed"
    miss(tmp_path)
    (judged,) = summarise(read_run(tmp_path)).claims
    assert judged.verdict == "not measured" and "its checkpoint is refused" in judged.reason
