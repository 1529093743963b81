"""Counts and scores, on masks made by hand, against torchmetrics, and against a brute-force
computation.
"""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_masks
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryJaccardIndex
from torchmetrics.functional.classification import binary_jaccard_index, multiclass_jaccard_index

from lisabench.harness.metrics import (
    METRICS,
    Counts,
    boundary,
    boundary_iou,
    box_giou,
    count,
    failed,
    iou,
    scores,
)

pytestmark = pytest.mark.no_clock


def mask(*rows):
    """A mask from pictures of its rows: # is 1, . is 0, ? is ignored."""
    return np.array([[{"#": 1, ".": 0, "?": 255}[c] for c in row] for row in rows], dtype=np.uint8)


EMPTY = mask("....", "....")
LEFT = mask("##..", "##..")
TOP = mask("####", "....")


def counted(predicted, target):
    return count(predicted == 1, target)


def masks(rng, share):
    return (rng.random((13, 17)) < share).astype(np.uint8)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    shares = [(a, b) for a in (0.0, 0.1, 0.6) for b in (0.0, 0.3, 0.9)]
    return [(masks(rng, a), masks(rng, b)) for a, b in shares * 3]


def test_counts_of_a_pair_made_by_hand():
    assert counted(LEFT, TOP) == Counts(
        2, 6, 4, 4, 8, target_box=(0, 0, 4, 1), predicted_box=(0, 0, 2, 2)
    )


def test_boxes_are_half_open_edges_and_none_for_an_empty_mask():
    target = mask("....", ".#..", "..#.")
    assert counted(EMPTY[:, :4].repeat(2, 0)[:3], target).target_box == (1, 1, 3, 3)
    assert counted(EMPTY, EMPTY).predicted_box is None


def test_ignored_pixels_count_in_neither_set():
    target = mask("##??", "..??")
    ours = counted(mask("#.##", "..##"), target)
    assert ours == Counts(1, 2, 2, 1, 4, target_box=(0, 0, 2, 1), predicted_box=(0, 0, 1, 1))


def test_counts_are_plain_integers_that_json_can_write():
    assert json.loads(json.dumps(vars(counted(LEFT, TOP))))["union_px"] == 6


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match="one size"):
        count(np.zeros((2, 3), bool), np.zeros((3, 2), np.uint8))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_a_prediction_that_is_not_of_booleans_is_refused(dtype):
    with pytest.raises(
        ValueError, match=f"the mask has dtype {dtype}; expected bool: compare logits with > 0"
    ):
        count(LEFT.astype(dtype), LEFT)


def test_giou_is_one_where_both_are_empty_and_zero_where_only_one_is():
    assert iou(counted(EMPTY, EMPTY)) == 1
    assert iou(counted(LEFT, EMPTY)) == 0
    assert iou(counted(EMPTY, LEFT)) == 0
    assert scores([counted(EMPTY, EMPTY), counted(LEFT, EMPTY)])["gIoU"] == 0.5


def test_ciou_divides_sums_and_is_not_a_mean():
    ours = scores([counted(LEFT, TOP), counted(EMPTY, mask("#...", "...."))])
    assert ours["cIoU"] == pytest.approx(2 / 7, rel=0, abs=1e-12)
    assert ours["gIoU"] == pytest.approx((2 / 6 + 0) / 2, rel=0, abs=1e-12)


def test_miou_precision_and_box_giou_leave_out_empty_targets():
    alone, beside = [counted(LEFT, TOP)], [counted(LEFT, TOP), counted(LEFT, EMPTY)]
    for name in ("mIoU", "box_GIoU", "precision_0.5", "T_acc"):
        assert scores(alone)[name] == scores(beside)[name]


def test_precision_holds_at_the_threshold_itself():
    target = mask("##########")
    thresholds = ("0.5", "0.6", "0.7", "0.8", "0.9")
    for tenths, reached in ((4, 0), (5, 1), (6, 2), (7, 3), (8, 4), (9, 5)):
        predicted = mask("#" * tenths + "." * (10 - tenths))
        ours = scores([counted(predicted, target)])
        assert sum(ours[f"precision_{threshold}"] for threshold in thresholds) == reached


def test_target_and_no_target_accuracies():
    ours = scores([counted(EMPTY, EMPTY), counted(LEFT, EMPTY), counted(LEFT, TOP)])
    assert (ours["N_acc"], ours["T_acc"]) == (0.5, 1)


def test_scores_are_none_where_undefined():
    assert set(scores([]).values()) == {None}
    empty = scores([counted(EMPTY, EMPTY)])
    assert [name for name, value in empty.items() if value is None] == [
        *("cIoU", "mIoU", "box_GIoU"),
        *("precision_0.5", "precision_0.6", "precision_0.7", "precision_0.8", "precision_0.9"),
        *("T_acc", "boundary_IoU"),
    ]
    assert scores([counted(LEFT, LEFT)])["N_acc"] is None


def test_a_failure_is_zero_and_adds_its_target_to_the_union():
    assert failed(TOP) == Counts(0, 4, 4, 0, 8, (0, 0, 4, 1), None, failed=True)
    ours = scores([counted(LEFT, LEFT), failed(TOP)])
    assert (ours["gIoU"], ours["cIoU"], ours["T_acc"], ours["box_GIoU"]) == (0.5, 0.5, 0.5, 0)


def test_a_failure_on_an_empty_target_is_no_hit():
    ours = scores([failed(EMPTY)])
    assert (ours["gIoU"], ours["N_acc"], ours["class_IoU"]) == (0, 0, 0)


def test_box_giou_of_boxes_made_by_hand():
    apart = counted(mask("#..."), mask("...#"))
    assert box_giou(apart) == pytest.approx(0 - (4 - 2) / 4, rel=0, abs=1e-12)
    assert box_giou(counted(EMPTY, LEFT)) == -1
    assert box_giou(counted(LEFT, LEFT)) == 1


def brute_force_box_giou(predicted, target):
    """Counts the pixels of painted boxes, instead of computing with edges."""
    boxes = []
    for mask_HW in (predicted, target):
        ys, xs = np.nonzero(mask_HW)
        box = np.zeros(mask_HW.shape, bool)
        box[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
        boxes.append(box)
    union = boxes[0] | boxes[1]
    ys, xs = np.nonzero(union)
    hull = (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
    return (boxes[0] & boxes[1]).sum() / union.sum() - (hull - union.sum()) / hull


def test_box_giou_agrees_with_painting_the_boxes():
    rng = np.random.default_rng(1)
    for _ in range(50):
        predicted, target = masks(rng, 0.02), masks(rng, 0.02)
        if predicted.any() and target.any():
            ours = box_giou(counted(predicted, target))
            assert ours == pytest.approx(brute_force_box_giou(predicted, target), rel=0, abs=1e-12)


def test_every_iou_agrees_with_torchmetrics(pairs):
    for predicted, target in pairs:
        if predicted.any() or target.any():
            theirs = binary_jaccard_index(torch.tensor(predicted), torch.tensor(target))
            assert iou(counted(predicted, target)) == pytest.approx(float(theirs), rel=0, abs=1e-6)


def test_ciou_and_class_iou_agree_with_torchmetrics_over_all_pixels(pairs):
    predicted, target = (torch.tensor(np.stack(side)) for side in zip(*pairs, strict=True))
    ours = scores([counted(*pair) for pair in pairs])
    theirs = multiclass_jaccard_index(
        predicted.long(), target.long(), num_classes=2, average="macro"
    )
    assert ours["cIoU"] == pytest.approx(
        float(binary_jaccard_index(predicted, target)), rel=0, abs=1e-6
    )
    assert ours["class_IoU"] == pytest.approx(float(theirs), rel=0, abs=1e-6)


def test_ignored_pixels_agree_with_torchmetrics(pairs):
    rng = np.random.default_rng(2)
    for predicted, target in pairs:
        target = np.where(rng.random(target.shape) < 0.3, 255, target).astype(np.uint8)
        if (target == 1).any():
            theirs = binary_jaccard_index(
                torch.tensor(predicted), torch.tensor(target.astype(int)), ignore_index=255
            )
            assert iou(counted(predicted, target)) == pytest.approx(float(theirs), rel=0, abs=1e-6)


def test_sums_over_a_data_set_agree_with_torchmetrics_and_pycocotools(pairs):
    """torchmetrics adds pixels up query by query for cIoU, and means for gIoU and precision."""
    ciou, giou, miou = BinaryJaccardIndex(), MeanMetric(), MeanMetric()
    reached = {threshold: MeanMetric() for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)}
    # Some targets are answered well, since chance alone reaches no threshold.
    rng = np.random.default_rng(3)
    answered_well = []
    for _, target in pairs:
        noise = rng.random(target.shape) < rng.random() / 2
        answered_well.append((target ^ noise.astype(np.uint8), target))
    queries = [*pairs, *answered_well]
    for predicted, target in queries:
        ciou.update(torch.tensor(predicted), torch.tensor(target))
        encoded = []
        for mask_HW in (predicted, target):
            encoded.append(coco_masks.encode(np.asfortranarray(mask_HW)))
        is_empty = not predicted.any() and not target.any()
        iou_of_coco = 1.0 if is_empty else coco_masks.iou(encoded[:1], encoded[1:], [False])[0, 0]
        giou.update(iou_of_coco)
        if target.any():
            miou.update(iou_of_coco)
            for threshold, metric in reached.items():
                metric.update(float(iou_of_coco >= threshold - 1e-9))
    theirs = {"cIoU": ciou, "gIoU": giou, "mIoU": miou}
    theirs |= {f"precision_{threshold}": metric for threshold, metric in reached.items()}
    ours = scores([counted(*query) for query in queries])
    assert 0 < ours["precision_0.9"] < ours["precision_0.5"] < 1
    for name, metric in theirs.items():
        assert ours[name] == pytest.approx(float(metric.compute()), rel=0, abs=1e-6), name


def test_accuracies_agree_with_the_confusion_of_empty_and_not_empty(pairs):
    confusion = np.zeros((2, 2), int)  # target, prediction; 0 is empty
    for predicted, target in pairs:
        confusion[int(target.any()), int(predicted.any())] += 1
    ours = scores([counted(*pair) for pair in pairs])
    assert ours["N_acc"] == confusion[0, 0] / confusion[0].sum()
    assert ours["T_acc"] == confusion[1, 1] / confusion[1].sum()


# Boundaries


def blob(rng, height, width):
    noise = rng.random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.5, 12)))
    return smooth > np.quantile(smooth, rng.random() * 0.6)


def boundary_by_repeated_erosion(mask_HW):
    """The way of the paper's own code: pad, then erode by 3 x 3 once for each pixel of width."""
    height, width = mask_HW.shape
    times = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    padded = np.pad(mask_HW.astype(np.uint8), 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=times)[1:-1, 1:-1]
    return mask_HW & (eroded == 0)


def boundary_by_distances(mask_HW):
    """The pixels of a mask that a pixel outside of it, or the border, is near to, one by one."""
    height, width = mask_HW.shape
    radius = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    near = np.zeros_like(mask_HW)
    for y, x in np.argwhere(mask_HW):
        top, left = y - radius, x - radius
        leaves_image = top < 0 or left < 0 or y + radius >= height or x + radius >= width
        square = mask_HW[max(top, 0) : y + radius + 1, max(left, 0) : x + radius + 1]
        near[y, x] = leaves_image or not square.all()
    return near


def test_a_boundary_is_that_of_the_papers_code():
    rng = np.random.default_rng(4)
    for _ in range(60):
        mask_HW = blob(rng, *rng.integers(1, 260, 2))
        assert np.array_equal(boundary(mask_HW), boundary_by_repeated_erosion(mask_HW))


def test_a_boundary_agrees_with_looking_at_each_pixel():
    rng = np.random.default_rng(5)
    for mask_HW in (blob(rng, 90, 130), blob(rng, 130, 90), np.ones((80, 110), bool)):
        expected = boundary_by_distances(mask_HW)
        assert 0 < expected.sum() < mask_HW.sum()
        assert np.array_equal(boundary(mask_HW), expected)


def test_boundary_iou_is_the_mean_over_targets_of_their_boundaries_iou():
    rng = np.random.default_rng(6)
    queries, ious = [], []
    for _ in range(8):
        target, predicted = blob(rng, 120, 160), blob(rng, 120, 160)
        queries.append(count(predicted, target.astype(np.uint8), with_boundary=True))
        ours, theirs = (boundary_by_repeated_erosion(mask_HW) for mask_HW in (predicted, target))
        ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert [boundary_iou(query) for query in queries] == pytest.approx(ious, rel=0, abs=1e-12)
    empty = np.zeros((120, 160), np.uint8)
    queries.append(count(empty == 1, empty, with_boundary=True))
    assert scores(queries)["boundary_IoU"] == pytest.approx(np.mean(ious), rel=0, abs=1e-12)


def test_the_edge_of_an_ignored_region_is_no_boundary():
    target = np.ones((100, 100), np.uint8)
    target[40:60, 40:60] = 255
    predicted = target == 1
    of_target = boundary(predicted)
    of_prediction = boundary(np.ones((100, 100), bool))
    ours = count(np.ones((100, 100), bool), target, with_boundary=True)
    valid = target != 255
    assert ours.boundary_intersection_px == (of_target & of_prediction & valid).sum()
    assert ours.boundary_union_px == ((of_target | of_prediction) & valid).sum()


def test_boundaries_are_counted_only_where_that_is_asked_for():
    assert scores([counted(LEFT, TOP)])["boundary_IoU"] is None
    with_boundary = count(LEFT == 1, TOP, with_boundary=True)
    assert scores([with_boundary])["boundary_IoU"] is not None
    assert scores([with_boundary, counted(LEFT, TOP)])["boundary_IoU"] is None


def test_a_failure_has_a_boundary_iou_of_zero():
    ours = scores([failed(TOP, with_boundary=True), count(TOP == 1, TOP, with_boundary=True)])
    assert ours["boundary_IoU"] == 0.5


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_scores_stay_in_their_ranges(seed):
    rng = np.random.default_rng(seed)
    queries = [
        count(masks(rng, rng.random() ** 4) == 1, masks(rng, rng.random() ** 4), with_boundary=True)
        for _ in range(4)
    ]
    queries.append(failed(masks(rng, rng.random()), with_boundary=True))
    for name, value in scores(queries).items():
        assert value is None or (-1 if name == "box_GIoU" else 0) <= value <= 1
    assert list(scores(queries)) == list(METRICS)
