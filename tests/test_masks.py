"""Masks as run lengths."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from lisabench.harness.errors import DataError
from lisabench.harness.masks import decode, encode, overlap, pack, unpack

pytestmark = pytest.mark.no_clock

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS)
def test_decoding_gives_the_mask_back_through_json(mask_HW):
    decoded = decode(json.loads(json.dumps(encode(mask_HW))))
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask_HW)


@given(MASKS)
def test_only_the_first_run_may_be_empty_and_it_counts_zeros(mask_HW):
    counts = encode(mask_HW)["counts"]
    assert all(counts[1:])
    assert (counts[0] == 0) == bool(mask_HW[0, 0])
    assert sum(counts[1::2]) == mask_HW.sum()


def test_runs_go_row_by_row():
    mask_HW = np.array([[0, 1, 1], [1, 0, 0]], dtype=bool)
    assert encode(mask_HW) == {"size": [2, 3], "counts": [1, 3, 2]}
    assert encode(np.ones((2, 2), dtype=bool)) == {"size": [2, 2], "counts": [0, 4]}


def test_slices_and_transposed_masks_are_read_by_their_rows():
    mask_HW = np.random.default_rng(0).random((9, 7)) < 0.5
    np.testing.assert_array_equal(decode(encode(mask_HW.T)), mask_HW.T)
    np.testing.assert_array_equal(decode(encode(mask_HW[::2, 1:])), mask_HW[::2, 1:])


@pytest.mark.parametrize("counts", [[3], [5, 1], [6, -2, 2], []])
def test_runs_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(DataError, match="mask_rle"):
        decode({"size": [2, 2], "counts": counts})


def test_packed_runs_come_back_and_are_short():
    mask_HW = np.zeros((400, 600), dtype=bool)
    mask_HW[100:300, 200:400] = True
    packed = pack(encode(mask_HW))
    assert unpack(json.loads(json.dumps(packed))) == encode(mask_HW)
    assert len(packed["packed"]) < len(json.dumps(encode(mask_HW)["counts"])) / 10


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
