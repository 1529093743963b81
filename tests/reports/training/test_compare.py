"""Trainings side by side: what is a repetition of what, what is reached when, and what is not
compared.
"""

import json
import math
import sys

import numpy as np
import pytest
from run_factory import edit_lines, edit_run, write_run
from scipy import stats
from training_factory import CLIP, DUAL, PASSPORT, falling, write_training

from lisabench import cli
from lisabench.harness.errors import DataError, NothingToCompare, UsageError
from lisabench.harness.statistics.estimate import Estimate
from lisabench.harness.statistics.ratios import mean_of, paired_ratio
from lisabench.reports.training.compare import compare_folders
from lisabench.reports.training.tables import training_sections

pytestmark = pytest.mark.no_clock

LEARNS = {"losses": falling(20), "mious": [0.1, 0.2, 0.3, 0.4]}
LEARNS_LATE = {"losses": falling(20, 4.0, 2.0), "mious": [0.0, 0.1, 0.2, 0.3]}


def pair(tmp_path, first=None, second=None):
    """A dual and a clip; the clip learns later and takes 80 ms a step instead of 100."""
    dual = write_training(tmp_path / "dual", **LEARNS | {"options": DUAL} | (first or {}))
    clip = write_training(
        tmp_path / "clip", **LEARNS_LATE | {"options": CLIP, "step_ms": 80.0} | (second or {})
    )
    return [dual, clip]


def only(found):
    (one,) = found.comparisons
    return one


def test_the_default_target_is_the_worst_final_so_that_all_reach_it(tmp_path):
    found = compare_folders(pair(tmp_path))
    assert found.target_mIoU == pytest.approx(0.3, rel=0, abs=1e-5)
    assert [side.steps_to_mIoU for side in found.sides] == [[15], [20]]
    seconds = [side.seconds_to_mIoU[0] for side in found.sides]
    assert seconds == pytest.approx([1.5, 1.6], rel=1e-9, abs=0)  # of steps alone
    assert only(found).steps_to_mIoU.ratio == pytest.approx(20 / 15, rel=1e-9, abs=0)
    assert only(found).seconds_to_mIoU.ratio == pytest.approx(1.6 / 1.5, rel=1e-9, abs=0)


def test_the_loss_is_reached_when_its_running_mean_is_that_low(tmp_path):
    found = compare_folders(pair(tmp_path))
    means = [np.convolve(falling(20, 4.0, end), np.full(4, 0.25), "valid") for end in (1.0, 2.0)]
    assert found.loss_window == 4
    assert found.target_loss == pytest.approx(means[1][-1], rel=1e-9, abs=0)
    first = int(np.flatnonzero(means[0] <= found.target_loss)[0]) + 4
    assert [side.steps_to_loss for side in found.sides] == [[first], [20]]
    assert found.sides[0].seconds_to_loss == pytest.approx([first / 10], rel=1e-9, abs=0)


def test_a_target_that_was_not_reached_is_said_and_never_extrapolated(tmp_path):
    found = compare_folders(pair(tmp_path), target_miou=0.35)
    assert [side.steps_to_mIoU for side in found.sides] == [[20], [None]]
    assert only(found).steps_to_mIoU.ratio is None and only(found).seconds_to_mIoU.ratio is None
    text = training_sections(found)
    assert "steps to mIoU 0.35" in text and "not reached in 20 steps" in text


def test_steps_of_distillation_count_on_the_way_to_a_target(tmp_path):
    found = compare_folders(pair(tmp_path, second={"distilled": 10}), target_loss=3.0)
    assert found.sides[1].steps_to_mIoU == [30]
    assert found.sides[1].seconds_to_mIoU == pytest.approx([10 * 0.04 + 20 * 0.08], rel=1e-9, abs=0)
    assert found.sides[1].step_ms == pytest.approx([80], rel=1e-9, abs=0)
    means = np.convolve(falling(20, 4.0, 2.0), np.full(4, 0.25), "valid")
    assert found.sides[1].steps_to_loss == [10 + 4 + int(np.flatnonzero(means <= 3.0)[0])]


def test_one_seed_a_side_gives_no_interval_and_says_so(tmp_path):
    found = compare_folders(pair(tmp_path))
    time = only(found).step_time
    assert (time.ratio, time.low, time.high) == (pytest.approx(0.8, rel=1e-9, abs=0), None, None)
    text = training_sections(found)
    assert "One seed a side: no interval" in text
    assert "faster" not in text and "worse" not in text and "A word" not in text


def repeated(tmp_path, seeds=(0, 1, 2)):
    """Three seeds a side; clip's steps take 50, 60 and 70 % of dual's, its final mIoU is 5, 10 and
    15 points below.
    """
    folders = []
    for i, seed in enumerate(seeds):
        folders.append(write_training(tmp_path / f"dual-{seed}", seed=seed, **LEARNS))
        late = {"losses": falling(20), "mious": [0.0, 0.1, 0.2, 0.35 - 0.05 * i]}
        made = write_training(
            tmp_path / f"clip-{seed}", seed=seed, options=CLIP, step_ms=50.0 + 10 * i, **late
        )
        folders.append(made)
    return folders


def test_trainings_that_differ_in_the_seed_alone_are_repetitions(tmp_path):
    found = compare_folders(repeated(tmp_path))
    assert [(side.name, side.seeds) for side in found.sides] == [
        ("dual", [0, 1, 2]),
        ("clip", [0, 1, 2]),
    ]
    logs = [math.log(share) for share in (0.5, 0.6, 0.7)]
    expected, time = paired_ratio(logs), only(found).step_time
    assert (time.ratio, time.low, time.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-9
    )
    text = training_sections(found)
    assert "Paired by seed, over 3 seeds" in text and "within 5 % of a time, 1 % of memory" in text
    assert " faster, 0.59x [" in text  # of a step
    assert " cannot tell, -10.0 points [-22.4, +2.4]" in text


def test_pairs_are_made_by_the_seed_and_not_by_the_order(tmp_path):
    folders = repeated(tmp_path)
    forth, back = compare_folders(folders), compare_folders([folders[0], *reversed(folders[1:])])
    assert only(forth) == only(back)


def test_an_interval_of_quality_has_the_images_and_the_seeds_in_it(tmp_path):
    folders = repeated(tmp_path)
    found = only(compare_folders(folders)).final["mIoU"]
    alone = only(compare_folders(folders[:2])).final["mIoU"]
    differences = [-5.0, -10.0, -15.0]
    half = stats.t.ppf(0.975, 2) * np.std(differences, ddof=1) / math.sqrt(3)
    assert found.difference == pytest.approx(-10, rel=0, abs=1e-2)
    arms = found.high - found.difference, found.difference - found.low
    assert arms == pytest.approx((half, half), rel=0.01, abs=0)  # all images differ by the same
    assert alone.difference == pytest.approx(-5, rel=0, abs=1e-2)
    assert alone.high - alone.low < 0.1


def test_one_seed_has_students_interval_over_its_images(tmp_path):
    """An image has one query here, so that the mIoU is the mean of the images' IoUs."""
    dual, clip = pair(tmp_path)

    def varied(row):
        number = int(row["image_id"].removeprefix("i"))
        return row | {"intersection_px": row["intersection_px"] - 1000 * (number % 4)}

    edit_lines(clip / "evaluations.jsonl", varied)
    gains = []
    for before, after in zip(final_ious(dual), final_ious(clip), strict=True):
        gains.append(100 * (after - before))
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    found = only(compare_folders([dual, clip])).final["mIoU"]
    assert found.difference == pytest.approx(np.mean(gains), rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert found.smallest_detectable == pytest.approx(found.high - found.difference, rel=1e-9)
    assert found.clusters == len(gains) == 10


def final_ious(folder):
    rows = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    last = max(row["epoch"] for row in rows)
    return [row["intersection_px"] / row["union_px"] for row in rows if row["epoch"] == last]


def test_without_an_epoch_there_is_no_difference_of_quality(tmp_path):
    folders = repeated(tmp_path, seeds=(0, 1))
    for name in ("training.jsonl", "evaluations.jsonl"):  # the last training has not ended one yet
        edit_lines(
            folders[-1] / name,
            lambda row: row | ({"superseded": True} if row.get("kind") != "step" else {}),
        )
    found = only(compare_folders(folders))
    assert found.final == {"mIoU": None, "gIoU": None} == found.best
    assert found.step_time.ratio is not None


def test_a_step_count_is_no_surer_than_the_evaluations_allow(tmp_path):
    """All reach the target by the same evaluation, in all seeds; each may have reached it five
    steps earlier.
    """
    alike = {"losses": falling(20), "mious": [0.1, 0.2, 0.3, 0.4]}
    folders = [write_training(tmp_path / f"dual-{seed}", seed=seed, **alike) for seed in (0, 1)]
    folders += [
        write_training(tmp_path / f"clip-{seed}", seed=seed, options=CLIP, **alike)
        for seed in (0, 1)
    ]
    found = only(compare_folders(folders, target_miou=0.25)).steps_to_mIoU
    assert (found.ratio, found.low, found.high) == pytest.approx(
        (1, 11 / 15, 15 / 11), rel=1e-9, abs=0
    )


def test_without_a_seed_in_common_nothing_is_paired(tmp_path):
    found = compare_folders(pair(tmp_path, second={"seed": 1}))
    assert only(found).seeds == [] and only(found).step_time.ratio is None
    assert only(found).final == {"mIoU": None, "gIoU": None}
    assert "no seed in common" in training_sections(found)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (
            {"weights": {"ce": 1, "bce": 2.0, "dice": 1.0, "iou": 0}},
            "they minimise different losses",
        ),
        ({"options": CLIP | {"ignored": "left_out"}}, "ignored pixels count differently"),
        (
            {
                "data": {
                    "train": {"count": 16, "fingerprint": "other"},
                    "val": {"count": 10, "fingerprint": "v"},
                }
            },
            "data",
        ),
    ],
)
def test_losses_that_are_not_the_same_have_no_common_target(tmp_path, second, expected):
    folders = pair(tmp_path, second=second)
    found = compare_folders(folders)
    assert found.target_loss is None and expected in found.not_compared["losses"]
    assert found.target_mIoU is not None
    with pytest.raises(UsageError, match="cannot be held to one target"):
        compare_folders(folders, target_loss=1.0)


def test_on_another_machine_steps_and_quality_are_compared_and_costs_are_not(tmp_path):
    found = compare_folders(pair(tmp_path, second={"passport": PASSPORT | {"cpu": "Xeon"}}))
    one = only(found)
    assert [
        one.step_time.ratio,
        one.peak_memory.ratio,
        one.seconds_to_mIoU.ratio,
        one.seconds_to_loss.ratio,
    ] == [None] * 4
    assert one.steps_to_mIoU.ratio is not None and one.final["mIoU"] is not None
    assert "different machines (cpu EPYC and Xeon)" in found.not_compared["time"]


def test_on_other_data_there_is_neither_quality_nor_a_target_for_it(tmp_path):
    other = {"train": {"count": 16, "fingerprint": "t"}, "val": {"count": 10, "fingerprint": "w"}}
    found = compare_folders(pair(tmp_path, second={"data": other}), target_miou=0.2)
    assert found.target_mIoU is None and only(found).final["mIoU"] is None
    assert "evaluated on different data" in found.not_compared["quality"]
    assert only(found).step_time.ratio is not None


def test_a_training_that_hits_nothing_leaves_no_target(tmp_path):
    found = compare_folders(pair(tmp_path, second={"mious": [0.0, -0.1]}))
    assert found.target_mIoU is None and "hits its target" in found.not_compared["target mIoU"]


def test_what_differs_is_listed_and_doubts_are_said(tmp_path):
    second = {"status": "running", "versions": {"lisabench": "0.1.0", "torch": "2.14.0"}}
    found = compare_folders(pair(tmp_path, second=second))
    assert found.differences == {"vision": ["dual", "clip"], "recipe": ["original", "lean"]}
    text = training_sections(found)
    assert (
        "clip is not finished: it has 20 steps so far." in text
        and "versions of torch differ" in text
    )
    assert "| recipe  | original | lean |" in text


def test_folders_that_say_nothing_new_are_refused(tmp_path):
    folders = repeated(tmp_path / "a", seeds=(0, 1))
    with pytest.raises(NothingToCompare, match="differ in the seed alone"):
        compare_folders(folders[::2])
    with pytest.raises(UsageError, match="the same training with the same seed"):
        compare_folders([*folders, folders[0]])
    with pytest.raises(DataError, match=r"expected 'lisabench\.training/1'"):
        compare_folders(
            [folders[0], write_run(tmp_path / "run", queries=2, size=(24, 32), gallery=0)]
        )


def run_cli(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lisabench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_compare_takes_folders_of_trainings_and_prints_json(tmp_path, monkeypatch, capsys):
    dual, clip = pair(tmp_path)
    assert run_cli(monkeypatch, "compare", dual, clip, "--target-miou", "0.09", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["target_mIoU"]) == ("lisabench.compare_trainings/1", 0.09)
    assert [side["steps_to_mIoU"] for side in found["sides"]] == [[5], [10]]


def test_targets_and_folders_alone_are_refused_of_runs(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", queries=2, size=(24, 32), gallery=0)
    assert run_cli(monkeypatch, "compare", run, run) == 2
    assert run_cli(monkeypatch, "compare", run, "dual", "clip", "--target-loss", "1") == 2
    said = capsys.readouterr().err
    assert "two cases are compared" in said and "are for trainings" in said


def test_a_mean_of_pairs_has_students_interval():
    values = [0.1, 0.4, 0.35]
    mean = mean_of(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean.value, mean.low, mean.high) == pytest.approx(
        (np.mean(values), *expected), rel=1e-9, abs=0
    )
    assert mean_of([0.3]) == Estimate(0.3, None, None, n=1)
    with pytest.raises(ValueError, match="at least one"):
        mean_of([])


def test_names_are_what_folders_have_in_common(tmp_path):
    """dual/seed-0 and clip/seed-0 are told apart by their paths."""
    folders = []
    for name, options in (("dual", DUAL), ("clip", CLIP)):
        made = [
            write_training(tmp_path / name / f"seed-{s}", seed=s, options=options, **LEARNS)
            for s in (10, 11)
        ]
        folders += made
    assert [side.name for side in compare_folders(folders).sides] == [
        f"{tmp_path}/dual/seed",
        f"{tmp_path}/clip/seed",
    ]
    edit_run(folders[0], status="running")
    assert "seed-10 is not finished" in training_sections(compare_folders(folders))
