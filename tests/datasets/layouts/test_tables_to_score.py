"""From parquet files to a score by the command line, against a computation by numpy."""

import json
from pathlib import Path

import numpy as np
import parquet_files
import pytest
from command import lisabench
from parquet_files import SIZE, encoded, rectangle, with_masks

pa = pytest.importorskip("pyarrow")
coco = pytest.importorskip("pycocotools.mask")

pytestmark = pytest.mark.no_clock

SUITE = """
title: tables
reference: fake
plan: {processes: 1, warmup: 0, timed_queries: 1}
cases: {fake: {adapter: fake}, whole: {adapter: whole-image}, box: {adapter: centre-box}}
metrics: [gIoU, cIoU]
"""
CROWD = rectangle(20, 2, 5, 5)
CROWD_RUNS = [20 * 24 + 2, *[5, 19] * 4, 5, 768 - 20 * 24 - 2 - 4 * 24 - 5]
DOGS = {"3": rectangle(1, 2, 3, 4), "4": rectangle(10, 10, 9, 9)}


def reasonseg(root: Path) -> list[np.ndarray]:
    return list(parquet_files.reasonseg_copy(root).values())


def lmms(root: Path) -> list[np.ndarray]:
    first, second = parquet_files.refcoco_of_lmms(root).values()
    return [first, first, second]  # the first has two sentences


def jxu(root: Path) -> list[np.ndarray]:
    masks = parquet_files.refcoco_of_jxu(root, CROWD_RUNS)
    return [masks["11"], CROWD]


def moondream(root: Path) -> list[np.ndarray]:
    rles = {
        name: coco.encode(np.asfortranarray(dog.astype(np.uint8))) for name, dog in DOGS.items()
    }
    parquet_files.refcoco_m(root, {name: rle["counts"].decode() for name, rle in rles.items()})
    return [*DOGS.values()] * 2  # two sentences each


def with_ignored(root: Path) -> list[np.ndarray]:
    """Pictures with 1 and 255, and one without a target."""
    mask_HW = rectangle(4, 4, 9, 9).astype(np.uint8)
    mask_HW[8:] = 255
    with_masks(root / "test.parquet", pa.array([encoded(mask_HW), encoded(mask_HW * 0)]))
    return [mask_HW, mask_HW * 0]


LAYOUTS = {
    "reasonseg": (reasonseg, "test"),
    "lmms": (lmms, "testA"),
    "jxu": (jxu, "val"),
    "moondream": (moondream, "val"),
    "ignored": (with_ignored, "test"),
}


def scores(case: str, targets: list[np.ndarray]) -> dict[str, float]:
    height, width = SIZE
    answer_HW = np.ones(SIZE, bool)
    if case == "box":
        answer_HW[:] = False
        answer_HW[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
    intersections, unions = [], []
    for target_HW in targets:
        counted = target_HW != 255  # True and False are none of it
        intersections.append(np.sum(counted & answer_HW & (target_HW == 1)))
        unions.append(np.sum(counted & (answer_HW | (target_HW == 1))))
    ious = np.array(intersections) / np.array(unions)
    return {"gIoU": float(ious.mean()), "cIoU": float(sum(intersections) / sum(unions))}


@pytest.fixture(scope="module", params=LAYOUTS)
def measured(request, tmp_path_factory) -> tuple[str, list[np.ndarray], Path, str]:
    """Run a data set; return its name, its targets, the run's folder and what was printed."""
    folder = tmp_path_factory.mktemp(request.param)
    write, split = LAYOUTS[request.param]
    targets = write(folder / "data")
    (folder / "suite.yaml").write_text(SUITE)
    words = ("run", folder / "suite.yaml", "--data", folder / "data", "--split", split)
    done = lisabench(*words, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return request.param, targets, folder / "run", done.stderr


def test_scores_are_those_of_numpy(measured):
    _, targets, out, _ = measured
    summary = json.loads((out / "summary.json").read_text())
    for case in ("whole", "box"):
        (quality,) = [entry["quality"] for entry in summary["cases"] if entry["name"] == case]
        assert quality["n"] == len(targets)
        expected = scores(case, targets)
        shown = {metric: quality[metric] for metric in expected}
        assert shown == pytest.approx(expected, rel=1e-12)


def test_the_record_says_what_became_of_ignored_pixels(measured):
    name, _, out, printed = measured
    data = json.loads((out / "run.json").read_text())["data"]
    assert (data["layout"], data["source"]) == ("parquet", str(out.parent / "data"))
    assert data["ignored"].startswith("as 255" if name == "ignored" else "none: ")
    assert ("count them as target" in printed) == (name == "reasonseg")
