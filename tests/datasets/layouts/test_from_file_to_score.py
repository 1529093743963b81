"""From a file of the field to a score by the command line, against a computation by pycocotools."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_factory import SIZES, TRAIN_2014, instances, mask_of, write_tree
from command import lisabench
from pycocotools import mask

pytestmark = pytest.mark.no_clock

SUITE = """
title: referring expressions
reference: fake
plan: {processes: 1, warmup: 0, timed_queries: 1}
cases: {fake: {adapter: fake}, whole: {adapter: whole-image}, box: {adapter: centre-box}}
metrics: [gIoU, cIoU, mIoU]
"""
# Of the crowd's 960 pixels, those of the person in front of it are target; the others are ignored.
CROWD = {
    "id": 200,
    "image_id": 12,
    "category_id": 1,
    "iscrowd": 1,
    "segmentation": {"size": [48, 64], "counts": [96, 960, 2016]},
}
# Image and objects of each query, in order.
QUERIES = {
    "refcoco val": [(12, [101]), (12, [101]), (25, [104])],
    "refcocog@google val": [(36, [105])],
    "grefcoco val": [(25, [103, 104]), (12, [101]), (12, [101]), (36, [])],
    "val.json val": [(12, [101]), (12, [102]), (25, [103, 104]), (36, [105])],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "suite.yaml").write_text(SUITE)
    tree = write_tree(folder)
    content = instances()
    content["annotations"].append(CROWD)
    # Beside the images, where they are looked for.
    (tree / TRAIN_2014 / "val.json").write_text(json.dumps(content))
    return tree


def answer(case: str, image_id: int) -> np.ndarray:
    """Return the mask of a trivial baseline, uint8 [H, W]."""
    height, width = SIZES[image_id]
    mask_HW = np.zeros((height, width), np.uint8)
    if case == "whole":
        mask_HW[:] = 1
    else:
        mask_HW[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return mask_HW


def encoded(mask_HW: np.ndarray) -> dict:
    return mask.encode(np.asfortranarray(mask_HW))


def scores(case: str, queries: list[tuple[int, list[int]]], crowd_HW: np.ndarray | None) -> dict:
    """Return the scores by pycocotools' areas of intersections and unions."""
    intersections, unions, is_empty = [], [], []
    for image_id, annotation_ids in queries:
        target_HW = mask_of(*annotation_ids, image_id=image_id)
        answer_HW = answer(case, image_id)
        if crowd_HW is not None and annotation_ids == [101]:
            answer_HW = answer_HW & ~(crowd_HW & ~target_HW)
        pair = [encoded(target_HW), encoded(answer_HW)]
        intersections.append(int(mask.area(mask.merge(pair, intersect=True))))
        unions.append(int(mask.area(mask.merge(pair))))
        is_empty.append(not annotation_ids)
    ious = np.array(intersections) / np.array(unions)
    return {
        "gIoU": ious.mean(),
        "cIoU": sum(intersections) / sum(unions),
        "mIoU": ious[~np.array(is_empty)].mean(),
    }


@pytest.fixture(scope="module", params=QUERIES)
def measured(request, tree, tmp_path_factory) -> tuple[str, Path, str]:
    """Run one of the queries' sources; return its words, the run's folder and what was printed."""
    name, split = request.param.split()
    folder = tree / TRAIN_2014 if name.endswith(".json") else tree
    suite = tree.parent / "suite.yaml"
    out = tmp_path_factory.mktemp("run") / "run"
    done = lisabench("run", suite, "--data", f"{folder}/{name}", "--split", split, "--out", out)
    assert done.returncode == 0, done.stderr
    return request.param, out, done.stderr


def test_scores_are_those_of_pycocotools(measured):
    words, out, _ = measured
    crowd_HW = None
    if words.startswith("val.json"):
        crowd_HW = np.zeros((48, 64), np.uint8)
        crowd_HW[:, 2:22] = 1
    summary = json.loads((out / "summary.json").read_text())
    for case in ("whole", "box"):
        (quality,) = [entry["quality"] for entry in summary["cases"] if entry["name"] == case]
        expected = scores(case, QUERIES[words], crowd_HW)
        shown = {metric: quality[metric] for metric in expected}
        assert shown == pytest.approx(expected, rel=1e-12)


def boundary_of(mask_HW: np.ndarray) -> np.ndarray:
    """Return the boundary as the paper's code computes it, bool [H, W]."""
    height, width = mask_HW.shape
    times = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
    padded = np.pad(mask_HW, 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=times)[1:-1, 1:-1]
    return (mask_HW == 1) & (eroded == 0)


def scores_by_protocol(case: str, queries: list[tuple[int, list[int]]]) -> dict[str, float]:
    """Return the scores of referring expressions, of which nothing is ignored, by NumPy."""
    ious, boundary_ious, empty_hits = [], [], []
    for image_id, annotation_ids in queries:
        answer_HW = answer(case, image_id)
        target_HW = mask_of(*annotation_ids, image_id=image_id)
        if not annotation_ids:
            empty_hits.append(not answer_HW.any())
            continue
        ious.append((answer_HW & target_HW).sum() / (answer_HW | target_HW).sum())
        ours_HW, theirs_HW = boundary_of(answer_HW), boundary_of(target_HW)
        boundary_ious.append((ours_HW & theirs_HW).sum() / (ours_HW | theirs_HW).sum())
    result = {f"precision_0.{n}": np.mean(np.array(ious) >= n / 10) for n in (5, 6, 7, 8, 9)}
    result |= {"T_acc": 1.0, "boundary_IoU": np.mean(boundary_ious)}
    if empty_hits:
        result["N_acc"] = np.mean(empty_hits)
    return result


def test_each_data_set_is_evaluated_by_its_protocol(measured):
    words, out, _ = measured
    summary = json.loads((out / "summary.json").read_text())
    protocol = summary["protocol"]
    if words.startswith("val.json"):
        assert protocol is None
        return
    name = words.partition(" ")[0].partition("@")[0]
    queries = QUERIES[words]
    assert (protocol["name"], protocol["split"]) == (name, "val")
    assert protocol["queries"] == {"overall": len(queries)}  # each sentence is one
    assert protocol["departures"] == []
    has_published_rows = {"refcoco": True, "refcocog": False, "grefcoco": False}  # google's split
    assert bool(protocol["published"]) == has_published_rows[name]
    for case in ("whole", "box"):
        (row,) = [row for row in protocol["cases"] if row["name"] == case]
        (quality,) = [entry["quality"] for entry in summary["cases"] if entry["name"] == case]
        assert row["batch"] == quality["batch"] == len(queries)  # fewer than the plan's 8
        expected = scores_by_protocol(case, queries)
        shown = {metric: quality[metric] for metric in expected}
        assert shown == pytest.approx(expected, rel=1e-12)
        of_protocol = {"gIoU", "cIoU", "N_acc", "T_acc"}
        if name != "grefcoco":
            of_protocol = {"cIoU", "mIoU"} | {metric for metric in expected if "prec" in metric}
        assert row["scores"]["overall"] == {metric: quality[metric] for metric in of_protocol}


def test_the_record_says_which_file_the_queries_are_from(tree, measured):
    words, out, printed = measured
    data = json.loads((out / "run.json").read_text())["data"]
    layout, source = {
        "refcoco val": ("refcoco", f"{tree}/refcoco (refs(unc).p)"),
        "refcocog@google val": ("refcocog", f"{tree}/refcocog@google (refs(google).p)"),
        "grefcoco val": ("grefcoco", f"{tree}/grefcoco (grefs(unc).json)"),
        "val.json val": ("coco", f"{tree / TRAIN_2014}/val.json"),
    }[words]
    assert (data["layout"], data["source"]) == (layout, source)
    has_warning = "images of val are in train, too" in printed
    assert has_warning == words.startswith("refcocog@google")
    assert data["ignored"].startswith("crowd regions" if layout == "coco" else "none: ")


def test_a_copy_for_a_machine_without_the_tree_has_the_same_queries(tree, tmp_path):
    copy = tmp_path / "copy"
    done = lisabench("data", "import", tree / "grefcoco", copy)
    assert done.returncode == 0, done.stderr
    assert lisabench("data", "verify", copy).returncode == 0
    lines = [json.loads(line) for line in (copy / "val.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [
        ["both men"],
        ["the lady"],
        ["woman"],
        ["a red bus"],
    ]
    assert len(list((copy / "images").iterdir())) == len(SIZES)


def test_hostile_references_run_nothing_through_the_command_line(tree, tmp_path, monkeypatch):
    folder = tmp_path / "refer_seg" / "refcoco"
    folder.mkdir(parents=True)
    (folder / "instances.json").write_text(json.dumps(instances()))
    (folder / "refs(unc).p").write_bytes(b"cos\nmkdir\n(Vexecuted\ntR.")
    (tmp_path / "train2014").symlink_to(tree / TRAIN_2014)
    monkeypatch.chdir(tmp_path)
    done = lisabench("data", "verify", folder, "--split", "val")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "refs(unc).p: holds the instruction GLOBAL, which can run code" in line
    assert not (tmp_path / "executed").exists()
