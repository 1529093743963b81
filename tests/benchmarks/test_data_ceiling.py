"""What a grid leaves of a mask: cases by hand on cells of four pixels, and a folder's table."""

from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from samples import write_sample

from lisabench.benchmarks.data_ceiling import compute_ceilings, table
from lisabench.benchmarks.grids import READINGS, Grid, interpolated, whole_cells
from lisabench.datasets.scenes.generator import make
from lisabench.harness.errors import DataError
from lisabench.harness.metrics import count, iou
from lisabench.models.lisa.frames import FRAMES, crop_frame, extent_in_frame, whole_frame
from lisabench.models.lisa.resampling import grid_map, logits_at_size

pytestmark = pytest.mark.no_clock

IGNORED = 255
each_reading = pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)


def target(height, width, rows=slice(0), columns=slice(0)):
    """A rectangle in an otherwise empty mask."""
    mask_HW = np.zeros((height, width), np.uint8)
    mask_HW[rows, columns] = 1
    return mask_HW


def iou_of(read, target_HW, frame="whole", cells=16):
    grid = Grid.on(target_HW.shape, frame, 224, cells)
    return iou(count(read(target_HW, grid), target_HW))


def ceilings_of(root, split=None):
    return compute_ceilings(root, split, lambda *_: None)


# By hand


@each_reading
def test_a_band_that_is_aligned_to_the_cells_comes_back_whole(read):
    assert iou_of(read, target(64, 64, slice(8, 24), slice(64))) == 1


def test_of_an_aligned_square_interpolation_rounds_the_corners_and_whole_cells_do_not():
    """The outermost pixel of a corner has 5/8 of its cell on either axis.

    So it has 25/64 of the target, which is less than one half.
    """
    square_HW = target(64, 64, slice(8, 16), slice(20, 28))
    assert iou_of(interpolated, square_HW) == 60 / 64
    assert iou_of(whole_cells, square_HW) == 1


def test_a_single_pixel_is_lost_in_interpolation_and_becomes_its_cell_in_whole_cells():
    pixel_HW = target(64, 64, slice(9, 10), slice(21, 22))
    assert iou_of(interpolated, pixel_HW) == 0
    assert iou_of(whole_cells, pixel_HW) == 1 / 16


def test_a_cell_covered_by_less_than_half_is_left_and_by_more_than_half_is_taken():
    assert iou_of(interpolated, target(64, 64, slice(16, 17), slice(64))) == 0
    assert iou_of(interpolated, target(64, 64, slice(16, 19), slice(64))) > 0.5


@each_reading
def test_a_crop_loses_what_lies_outside_of_it(read):
    """Of an image of 3 : 1 the crop is the middle third."""
    assert iou_of(read, target(32, 96, slice(32), slice(96)), "crop") == 1 / 3
    assert iou_of(read, target(32, 96, slice(32), slice(32, 64)), "crop") == 1
    assert iou_of(read, target(32, 96, slice(32), slice(28)), "crop") == 0
    assert iou_of(read, target(96, 32, slice(64, 96), slice(32)), "crop") == 0


@each_reading
def test_ignored_pixels_count_in_neither_set(read):
    """Half a cell is target and the other half ignored: the cell is known to be target."""
    mask_HW = target(64, 64, slice(16, 18), slice(64))
    mask_HW[18:20] = IGNORED
    assert iou_of(read, mask_HW) == 1
    mask_HW[18:20] = 0
    assert iou_of(read, mask_HW) < 1


@each_reading
def test_a_cell_of_which_nothing_is_known_takes_no_side(read):
    """Three of a cell's four rows are target, both its neighbours ignored: it decides alone."""
    mask_HW = target(64, 64, slice(16, 19), slice(64))
    mask_HW[20:24] = mask_HW[12:16] = IGNORED
    assert iou_of(read, mask_HW) == 3 / 4


@each_reading
def test_padding_is_not_background(read):
    """The lower half of the last row of cells is padding."""
    assert iou_of(read, target(42, 64, slice(40, 42), slice(64))) == 1


@each_reading
@pytest.mark.parametrize("frame", FRAMES)
def test_an_empty_target_comes_back_empty(read, frame):
    mask_HW = target(40, 64)
    mask_HW[3:9, 5:30] = IGNORED
    assert not read(mask_HW, Grid.on((40, 64), frame, 224, 16)).any()
    assert iou_of(read, mask_HW, frame) == 1


# Against other ways to the same


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("seed", range(10))
def test_no_choice_of_whole_cells_is_better_than_the_one_that_is_made(frame, seed):
    rng = np.random.default_rng(seed)
    shares_HW, ignored_HW = (
        rng.choice(values, (3, 3)).repeat(6, 0).repeat(7, 1) for values in ((0.2, 0.8), (0, 0.9))
    )
    mask_HW = (rng.random((18, 21)) < shares_HW).astype(np.uint8)
    mask_HW[rng.random((18, 21)) < ignored_HW] = IGNORED
    grid = Grid.on((18, 21), frame, 30, 3)
    y, x = (np.floor(side.centres()) for side in (grid.y, grid.x))
    cell_HW = np.where((x >= 0) & (x < 3), 3 * y[:, None] + x, -1)
    choices = product([False, True], repeat=9)
    best = max(iou(count(np.isin(cell_HW, np.flatnonzero(choice)), mask_HW)) for choice in choices)
    assert iou(count(whole_cells(mask_HW, grid), mask_HW)) == best


def test_coverage_is_exact_where_cells_cut_pixels():
    """Cells of 1.5 pixels, once by overlap and once by drawing every pixel as two."""
    values = np.random.default_rng(0).random(24).astype(np.float32)
    side = Grid.on((24, 24), "whole", 224, 16).y
    np.testing.assert_allclose(
        side.overlaps() @ values, values.repeat(2).reshape(16, 3).mean(1), rtol=1e-5, atol=0
    )


SIZES = [
    (480, 640),
    (640, 480),
    (333, 333),
    (427, 640),
    (375, 500),
    (968, 1296),
    (1, 7),
    (3001, 17),
    (683, 1024),
]
SIZES += [tuple(size) for size in np.random.default_rng(0).integers(1, 4000, (300, 2)).tolist()]


@pytest.mark.parametrize("crop_px", [112, 224, 336, 1024])
def test_a_pixel_lies_in_the_crop_where_the_models_map_says(crop_px):
    """The models' map says where in the crop, from -1 to 1, the cells of SAM's frame lie."""
    centres_px = np.arange(8) * 128 + 64
    # Of an image that is 500 times as long as it is wide, no row is left in SAM's frame.
    sizes = [size for size in SIZES if max(size) < 500 * min(size)]
    for size_HW in sizes:
        grid = Grid.on(size_HW, "crop", crop_px, 16)
        extent_HW = extent_in_frame(size_HW, 1024)
        map_hw2 = grid_map(crop_frame(size_HW, crop_px), whole_frame(size_HW, 1024), 8).numpy()
        mapped_y, mapped_x = map_hw2[:, 0, 1], map_hw2[0, :, 0]
        for side, extent_px, mapped in (
            (grid.y, extent_HW[0], mapped_y),
            (grid.x, extent_HW[1], mapped_x),
        ):
            in_cells = side.in_cells(centres_px * (side.image_px / extent_px))
            np.testing.assert_allclose(2 * in_cells / 16 - 1, mapped, rtol=1e-5, atol=1e-4)


def test_a_grid_is_brought_back_as_the_models_bring_back_their_logits():
    """On an image as long as SAM's frame, where the models' second resizing changes nothing."""
    size_HW = (680, 1024)
    logits_hw = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    grid = Grid.on(size_HW, "whole", 1024, 64)
    (theirs_HW,) = logits_at_size(torch.from_numpy(logits_hw)[None], size_HW, 1024).numpy()
    np.testing.assert_allclose(
        grid.y.weights() @ logits_hw @ grid.x.weights().T, theirs_HW, rtol=0, atol=1e-4
    )


# Folders


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    make(root, "val", 45, seed=0)
    return ceilings_of(root)


def test_a_finer_grid_leaves_more_of_the_scenes(scenes):
    for reading, frame in product(READINGS, FRAMES):
        by_grid = [
            (c.gIoU, c.mIoU, c.cIoU) for c in scenes if (c.reading, c.frame) == (reading, frame)
        ]
        assert len(by_grid) == 3
        assert (np.diff(by_grid, axis=0) > 0).all()


def test_every_query_with_a_target_is_in_one_class_of_size_and_the_classes_make_up_the_mean(scenes):
    for one in scenes:
        assert one.queries == 45
        assert sum(size.queries for size in one.sizes) == 45 - 3  # one in fifteen has no target
        total = sum(size.queries * size.mIoU for size in one.sizes if size.queries)
        np.testing.assert_allclose(total / 42, one.mIoU, rtol=1e-9, atol=0)
        np.testing.assert_allclose(one.gIoU, (42 * one.mIoU + 3) / 45, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("size_WH", "expected"),
    # Cells of 6, 4 and 1.5 pixels in the whole image, of 4.5, 3 and 1.125 in the crop; then of 20
    # to 3.75.
    [
        ((96, 72), {(16, "whole"): "4-16", (24, "whole"): "4-16", (64, "whole"): ">= 16",
                    (16, "crop"): "4-16", (24, "crop"): ">= 16", (64, "crop"): ">= 16"}),
        ((320, 240), {(16, "whole"): "< 1", (24, "whole"): "< 1", (64, "whole"): "4-16",
                      (16, "crop"): "< 1", (24, "crop"): "1-4", (64, "crop"): "4-16"}),
    ],
)  # fmt: skip
def test_objects_are_classed_by_their_area_in_cells_of_the_grid_and_frame(
    tmp_path, size_WH, expected
):
    """A target of 12 x 12 pixels: 4 cells of 6 x 6 are no longer less than 4."""
    write_sample(tmp_path / "val", "a")
    Image.new("RGB", size_WH).save(tmp_path / "val" / "a.jpg")
    for one in ceilings_of(tmp_path):
        classes = {size.name: size.queries for size in one.sizes}
        assert list(classes) == ["< 1", "1-4", "4-16", ">= 16"]
        assert {name for name, queries in classes.items() if queries} == {
            expected[one.cells, one.frame]
        }


def test_all_splits_are_taken_unless_one_is_named(tmp_path):
    write_sample(tmp_path / "train", "a")
    write_sample(tmp_path / "val", "b", seed=1)
    write_sample(tmp_path / "val", "c", seed=2)
    assert {one.queries for one in ceilings_of(tmp_path)} == {3}
    assert {one.queries for one in ceilings_of(tmp_path, "val")} == {2}
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        ceilings_of(tmp_path, "test")


def test_progress_tells_which_query_is_next_and_ends_with_all_of_them(tmp_path):
    write_sample(tmp_path / "val", "a")
    write_sample(tmp_path / "val", "b")
    told = []
    compute_ceilings(tmp_path, None, lambda *step: told.append(step))
    assert told == [(0, 2, "a"), (1, 2, "b"), (2, 2, "done")]


def test_the_table_has_a_row_for_each_reading_grid_and_frame_and_says_how_many_queries_it_is_of(
    scenes,
):
    lines = table(scenes).splitlines()
    assert len(lines) == 1 + 12 + 3
    first = scenes[0]
    expected = [
        "interpolated",
        "16",
        "x",
        "16",
        "whole",
        *(f"{v:.3f}" for v in (first.gIoU, first.mIoU, first.cIoU)),
    ]
    assert lines[1].split()[:8] == expected
    assert lines[-2] == "45 queries, 42 of them with a target."


def test_without_any_target_only_giou_is_known(tmp_path):
    write_sample(tmp_path / "val", "a")
    path = tmp_path / "val" / "a.json"
    path.write_text('{"text": ["nothing"], "is_sentence": false, "shapes": []}')
    for one in ceilings_of(tmp_path):
        assert (one.gIoU, one.mIoU, one.cIoU) == (1, None, None)
        assert not any(size["queries"] or size["mIoU"] for size in asdict(one)["sizes"])
    assert "n/a" in table(ceilings_of(tmp_path))
