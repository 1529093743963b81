"""Masks, counts and scores that the original LISA computed, recorded in goldens/lisa_data.*."""

import json

import numpy as np
import pytest
from places import GOLDENS

from lisabench.datasets.annotation import read_annotation
from lisabench.datasets.drawing import draw_mask
from lisabench.harness.metrics import count, iou, scores

pytestmark = pytest.mark.no_clock

FOLDER = GOLDENS
LISA_EPSILON = 1e-5  # the original adds it to the union before dividing


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "lisa_data.npz") as arrays:
        return json.loads((FOLDER / "lisa_data.json").read_text(encoding="utf-8")), dict(arrays)


@pytest.fixture(scope="module")
def counted(golden):
    facts, arrays = golden
    return [
        count(arrays[f"pred_{i}"] == 1, arrays[f"mask_{i}"]) for i in range(len(facts["cases"]))
    ]


def test_golden_masks_are_drawn_to_the_pixel(golden):
    facts, arrays = golden
    assert facts["cases"]
    for i, case in enumerate(facts["cases"]):
        mask_HW = draw_mask(case["annotation"], case["height"], case["width"])
        np.testing.assert_array_equal(mask_HW, arrays[f"mask_{i}"], err_msg=f"case {i}")


def test_golden_annotations_are_read_in_their_own_encoding(golden, tmp_path):
    facts, _ = golden
    for i, case in enumerate(facts["cases"]):
        path = tmp_path / f"{i}.json"
        path.write_bytes(
            json.dumps(case["annotation"], ensure_ascii=False).encode(case["encoding"])
        )
        assert read_annotation(path) == case["annotation"]


def test_golden_counts_of_every_mask_are_exact(golden, counted):
    facts, _ = golden
    assert len(facts["per_mask"]) == len(counted)
    for ours, (intersection, union, foreground_iou) in zip(counted, facts["per_mask"], strict=True):
        assert (ours.intersection_px, ours.union_px) == (intersection, union)
        assert iou(ours) == pytest.approx(foreground_iou, rel=0, abs=LISA_EPSILON)


def test_golden_giou_and_ciou(golden, counted):
    facts, _ = golden
    ours = scores(counted)
    assert ours["gIoU"] == pytest.approx(facts["giou"], rel=0, abs=1e-6)
    assert ours["cIoU"] == pytest.approx(facts["ciou"], rel=0, abs=1e-6)
