"""Masks as run lengths: COCO's form against pycocotools, older records, and the packed form of
baselines.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from places import RESULTS
from pycocotools import mask as coco
from raw_runs import raw_run
from run_factory import row_by_row

from lisabench.harness.errors import DataError
from lisabench.harness.masks import decode, encode, overlap, pack, resized, shrunk, unpack

pytestmark = pytest.mark.no_clock

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
RANDOM = np.random.default_rng(0).random((171, 256)) < 0.5
LONG_RUNS = np.random.default_rng(1).random((3, 2)).repeat(400, 0).repeat(500, 1) < 0.5


def with_ones(size, rows, columns):
    mask_HW = np.zeros(size, dtype=bool)
    mask_HW[rows, columns] = True
    return mask_HW


SHAPES = {
    "random": RANDOM,
    "long runs": LONG_RUNS,
    "empty": np.zeros((480, 640), dtype=bool),
    "full": np.ones((480, 640), dtype=bool),
    "one pixel": with_ones((480, 640), 17, 33),
    "first pixel": with_ones((480, 640), 0, 0),
    "last pixel": with_ones((480, 640), -1, -1),
    "one row of many": with_ones((480, 640), 100, slice(None)),
    "one column of many": with_ones((480, 640), slice(None), 100),
    "a single row": np.arange(70)[None] % 7 < 3,
    "a single column": np.arange(70)[:, None] % 7 < 3,
    "a single pixel": np.ones((1, 1), dtype=bool),
    "more than a million ones": np.ones((1500, 1400), dtype=bool),
}


def by_coco(mask_HW):
    """The record that pycocotools makes of a mask, with text instead of bytes, as JSON needs it."""
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def through_json(value):
    return json.loads(json.dumps(value))


def assert_same(found_HW, mask_HW):
    assert found_HW.dtype == bool
    np.testing.assert_array_equal(found_HW, mask_HW)


@pytest.mark.parametrize("name", SHAPES)
def test_pycocotools_reads_what_is_encoded_and_what_it_encodes_is_read(name):
    mask_HW = SHAPES[name]
    encoded = through_json(encode(mask_HW))
    np.testing.assert_array_equal(coco.decode(encoded), mask_HW)
    assert_same(decode(through_json(by_coco(mask_HW))), mask_HW)
    assert encoded == by_coco(mask_HW)


@given(MASKS)
def test_any_small_mask_is_encoded_as_pycocotools_encodes_it_and_comes_back(mask_HW):
    assert encode(mask_HW) == by_coco(mask_HW)
    assert_same(decode(through_json(encode(mask_HW))), mask_HW)


SIZES = st.tuples(st.integers(1, 14), st.integers(1, 14))


@given(st.lists(st.tuples(MASKS, SIZES, st.booleans()), max_size=5))
def test_masks_are_shrunk_by_their_runs_as_by_their_pixels(masks):
    rles, sizes_hw, expected = [], [], []
    for mask_HW, size_hw, is_older in masks:
        rles.append(row_by_row(mask_HW) if is_older else encode(mask_HW))
        sizes_hw.append(size_hw)
        expected.append(encode(resized(mask_HW, size_hw)))
    assert shrunk(rles, sizes_hw) == expected


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("size_hw", [(1, 1), (37, 61), (70, 1)])
def test_a_shrunk_mask_has_the_pixels_under_the_centres(name, size_hw):
    mask_HW = SHAPES[name]
    by_hand = np.zeros(size_hw, dtype=bool)
    for row, column in np.ndindex(size_hw):
        centre = (row + 0.5) * mask_HW.shape[0] / size_hw[0]
        middle = (column + 0.5) * mask_HW.shape[1] / size_hw[1]
        by_hand[row, column] = mask_HW[int(centre), int(middle)]
    (shown,) = shrunk([encode(mask_HW)], [size_hw])
    assert_same(coco.decode(shown) > 0, by_hand)


def test_runs_of_no_pixels_at_either_end_are_not_shown():
    rle = {"size": [2, 2], "counts": "040"}  # no 0, four 1, no 0
    assert shrunk([rle], [(2, 2)]) == [encode(decode(rle))]


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_among_other_masks_a_text_is_damaged_where_it_is_alone(text):
    rle, sound = {"size": [3, 4], "counts": text}, encode(np.ones((3, 4), dtype=bool))
    try:
        expected = encode(decode(rle))
    except DataError:
        with pytest.raises(DataError, match=r"^mask_rle: [^\n]+; the record is damaged$"):
            shrunk([sound, rle, sound], [(3, 4)] * 3)
    else:
        assert shrunk([sound, rle, sound], [(3, 4)] * 3) == [sound, expected, sound]


@pytest.mark.parametrize("size", [[2**70, 2**70], [2**40, 2**40], [0, 2**70], [5, 2]])
def test_runs_that_do_not_fill_a_mask_of_any_size_are_damaged(size):
    with pytest.raises(DataError, match=f"a mask of {size[0]} x {size[1]}; the record"):
        shrunk([{"size": size, "counts": "4"}], [(2, 2)])


def test_slices_and_transposed_masks_are_encoded_by_their_own_columns():
    for mask_HW in (RANDOM.T, RANDOM[::2, 1:], np.asfortranarray(RANDOM)):
        np.testing.assert_array_equal(coco.decode(encode(mask_HW)), mask_HW)


def test_the_order_of_older_records_gives_pycocotools_another_mask():
    """The defect that COCO's form mends: had `encode` kept the order of rows, this would not
    differ.
    """
    mask_HW = with_ones((60, 80), slice(5, 15), slice(50, 75))
    rle = coco.frPyObjects(row_by_row(mask_HW), 60, 80)
    assert overlap(coco.decode(rle) > 0, mask_HW) < 0.1
    assert overlap(coco.decode(encode(mask_HW)) > 0, mask_HW) == 1


@pytest.mark.parametrize("name", SHAPES)
def test_older_records_are_read_row_by_row(name):
    assert_same(decode(through_json(row_by_row(SHAPES[name]))), SHAPES[name])


def test_an_older_record_as_it_was_written():
    older = {"size": [2, 3], "counts": [1, 3, 2]}
    np.testing.assert_array_equal(decode(older), [[0, 1, 1], [1, 0, 0]])


def test_the_masks_of_a_published_run_have_as_many_pixels_as_its_records_say():
    run = raw_run(RESULTS / "h200-tiny")
    assert run.run["schema"] == "lisabench.run/1"
    kept = [record for record in run.samples if record.get("mask_rle")]
    # Records count the pixels that are not ignored: where some are, the mask may have more.
    kept = [record for record in kept if record["valid_px"] == record["height"] * record["width"]]
    assert len(kept) == 18
    for record in kept:
        mask_HW = decode(record["mask_rle"])
        assert mask_HW.shape == (record["height"], record["width"])
        assert mask_HW.sum() == record["predicted_px"]
        assert box(mask_HW) == record["predicted_box"]  # which runs read by columns would change


def box(mask_HW):
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return [*map(int, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))] if rows.size else None


@pytest.mark.parametrize(
    "counts",
    [
        [3],
        [5, 1],
        [6, -2],
        [],
        [2**70],
        [2**62, 2**62, 2**62, 2**62, 4],
        [4.0],
        [True, 3],
        ["4"],
        None,
        7,
        {"4": 4},
        "",
        "3",
        "13N",
        "\x1f",
        "p",
        "4é",
        "T",
        "4T",
        "OOO",
        "oooooooooooo0",
        "ooooooo?4",
    ],
)
def test_damaged_counts_are_one_line(counts):
    with pytest.raises(DataError, match=r"^mask_rle: [^\n]+; the record is damaged$"):
        decode({"size": [2, 2], "counts": counts})


@pytest.mark.parametrize("size", [None, [4], [2, 2, 1], ["2", "2"], [-2, -2], [2.0, 2], 4, "22"])
def test_a_damaged_size_is_one_line(size):
    with pytest.raises(DataError, match=r"^mask_rle: its size is [^\n]+; the record is damaged$"):
        decode({"size": size, "counts": "4"})


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_text_is_a_mask_or_damaged(text):
    try:
        mask_HW = decode({"size": [3, 4], "counts": text})
    except DataError:
        return
    np.testing.assert_array_equal(coco.decode({"size": [3, 4], "counts": text}), mask_HW)


def test_a_record_that_holds_no_mask_at_all_is_one_line():
    with pytest.raises(DataError, match="mask_rle: its size is None"):
        decode("4")


@given(MASKS)
def test_packed_masks_come_back(mask_HW):
    assert_same(unpack(through_json(pack(mask_HW))), mask_HW)


def test_a_packed_mask_of_an_older_baseline_is_read_row_by_row():
    older = {"size": [2, 3], "packed": "eNpjZGBgYAZiJiAGAAA4AAc="}
    np.testing.assert_array_equal(unpack(older), [[0, 1, 1], [1, 0, 0]])


def test_packed_masks_are_short():
    mask_HW = with_ones((400, 600), slice(100, 300), slice(200, 400))
    assert len(pack(mask_HW)["packed"]) < len(json.dumps(row_by_row(mask_HW)["counts"])) / 10


@pytest.mark.parametrize("text", ["?", "AAAA", "eJwBAwD8/wECAwALAAc="])
def test_packed_text_that_is_damaged_is_refused(text):
    with pytest.raises(DataError, match="packed mask"):
        unpack({"size": [1, 1], "packed": text})


def test_the_overlap_of_two_masks_is_their_iou():
    a_HW, b_HW = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    assert overlap(a_HW, b_HW) == 1.0
    a_HW[0, :3] = True
    b_HW[0, 1:] = True
    assert overlap(a_HW, b_HW) == 2 / 4
    assert overlap(a_HW, np.zeros((4, 5), dtype=bool)) == 0.0
