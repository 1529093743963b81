"""The gallery of masks."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from run_factory import edit_lines, failed, make_older, write_run

from lisabench.harness.contract import IGNORED
from lisabench.harness.errors import DataError
from lisabench.harness.masks import encode
from lisabench.harness.metrics import iou
from lisabench.harness.records.gallery import KeptImage, KeptQuery
from lisabench.harness.records.run import read_run
from lisabench.reports import palette
from lisabench.reports.page.gallery import (
    GalleryQuery,
    Tile,
    disagreement,
    draw_query,
    gallery,
    query_tiles,
    shown,
)
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


def test_a_gallery_that_was_cut_short_costs_the_gallery_only(tmp_path):
    write_run(tmp_path, **SMALL)
    whole = (tmp_path / "gallery.npz").read_bytes()
    (tmp_path / "gallery.npz").write_bytes(whole[: len(whole) // 2])
    text = write_report(tmp_path).read_text()
    assert "gallery.png" not in text
    assert "stage_times.png" in text
    assert text.count("pictures of 2 of 2 queries cannot be read") == 1


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def keep_without(path, name):
    arrays = dict(np.load(path))
    del arrays[name]
    np.savez(path, **arrays)


def keep_with(path, name, array):
    np.savez(path, **(dict(np.load(path)) | {name: array}))


DAMAGES = {
    "empty": (lambda path: path.write_bytes(b""), 2),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-30]), 2),
    "a flipped byte": (flip_a_byte, 2),
    "no archive": (lambda path: path.write_text("<html>"), 2),
    "a target is missing": (lambda path: keep_without(path, "target_1"), 1),
    "a target of numbers": (lambda path: keep_with(path, "target_0", np.zeros((24, 32))), 1),
    "no image": (lambda path: keep_with(path, "image_0", np.zeros(99, np.uint8)), 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_pictures_that_cannot_be_read_are_a_warning_of_the_report(tmp_path, damage):
    write_run(tmp_path, **SMALL)
    spoil, lost = DAMAGES[damage]
    spoil(tmp_path / "gallery.npz")
    warning = f"gallery.npz: pictures of {lost} of 2 queries cannot be read, and are not shown"
    (warned,) = [line for line in summarise(read_run(tmp_path)).warnings if warning in line]
    assert len(warned.splitlines()) == 1


@pytest.mark.parametrize("kept", ["whole", "not there", "none asked for"])
def test_a_gallery_that_is_whole_or_was_not_kept_is_no_warning(tmp_path, kept):
    write_run(tmp_path, **(SMALL | {"gallery": 0 if kept == "none asked for" else 2}))
    if kept == "not there":
        (tmp_path / "gallery.npz").unlink()
    warnings = summarise(read_run(tmp_path)).warnings
    assert not [line for line in warnings if "cannot be read" in line]


def test_failed_queries_and_masks_that_were_not_kept_have_their_place_in_the_gallery(tmp_path):
    write_run(tmp_path, **SMALL)

    def changed(line):
        if line["case"] == "sam":
            return failed(line)
        if line["case"] == "clip":
            return line | {"mask_rle": None}
        return line

    edit_lines(tmp_path / "samples.jsonl", changed)
    run = read_run(tmp_path)
    texts = [text.get_text() for text in gallery(run, summarise(run)).findobj(Text)]
    of_two_queries = 2
    assert sum(text.startswith("failed: ") for text in texts) == of_two_queries
    assert sum(text.endswith(", mask not kept") for text in texts) == of_two_queries
    assert sum(text.startswith("IoU ") for text in texts) == 2 * of_two_queries
    assert "gallery.png" in write_report(tmp_path).read_text()


def test_older_and_newer_records_of_the_same_masks_have_the_same_gallery(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    newer = (tmp_path / "gallery.png").read_bytes()
    (tmp_path / "gallery.png").unlink()
    write_report(make_older(tmp_path))
    assert (tmp_path / "gallery.png").read_bytes() == newer


def test_one_query_is_drawn_alone_and_an_unknown_one_is_refused(tmp_path):
    run = read_run(write_run(tmp_path, **SMALL))
    summary = summarise(run)
    first = run.cases[0].scored[0].query
    assert draw_query(run, summary, first, tmp_path / "one.png").is_file()
    with pytest.raises(DataError, match="has no query 'no such words'"):
        draw_query(run, summary, "no such words", tmp_path / "none.png")


def test_the_queries_about_which_cases_disagree_most_come_first(tmp_path):
    write_run(tmp_path, queries=8, size=(24, 32), gallery=8)
    run = read_run(tmp_path)
    figure = gallery(run, summarise(run))
    first = {record.sample_id: record for record in run.cases[0].scored}
    spread = {}
    for sample_id in run.manifest.gallery:
        scores = []
        for case in run.cases[:3]:
            (record,) = (record for record in case.scored if record.sample_id == sample_id)
            scores.append(iou(record.counts))
        spread[sample_id] = max(scores) - min(scores)
    most = sorted(spread, key=lambda sample_id: -spread[sample_id])[:6]
    expected = [first[sample_id].query for sample_id in most]
    queries = [text.get_text() for text in figure.texts if text.get_fontstyle() == "italic"]
    assert [" ".join(query.split()) for query in queries] == expected
    assert spread[most[0]] > 0


def query_about(text, *, has_target):
    target_HW = np.full((4, 4), int(has_target), np.uint8)
    return GalleryQuery(kept_query(np.zeros((4, 4, 3), np.uint8), target_HW), text, {})


def kept_query(image: np.ndarray, target_HW: np.ndarray) -> KeptQuery:
    return KeptQuery(KeptImage(image, image.shape[:2]), target_HW)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("--------++++++++", "---+++"),
        ("+-+-+-+-+-", "+-+-+-"),
        ("++++++----", "++++++"),
        ("-----+", "-----+"),
        ("-------", "------"),
        ("+", "+"),
    ],
)
def test_no_more_than_half_of_the_queries_seek_nothing_where_others_were_kept(targets, expected):
    queries = [query_about(str(n), has_target=kind == "+") for n, kind in enumerate(targets)]
    chosen = shown(queries)
    assert "".join("+" if query.target_HW.any() else "-" for query in chosen) == expected
    numbers = [int(query.text) for query in chosen]
    assert numbers == sorted(numbers)


class Looked(NamedTuple):
    """What `query_tiles` gives for one case with a square mask on a square target."""

    image: Tile
    target: Tile
    answer: Tile


SIDE = 400


def looked_at(summary, record, target, mask, value=1) -> Looked:
    """Returns the tiles of a grey image with these rectangles: rows and columns, ends included."""
    target_HW = np.zeros((SIDE, SIDE), np.uint8)
    target_HW[target] = value
    mask_HW = np.zeros((SIDE, SIDE), bool)
    mask_HW[mask] = True
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    case = summary.cases[0]
    answer = replace(record, mask_rle=encode(mask_HW))
    query = GalleryQuery(kept_query(image, target_HW), "the square", {case.name: answer})
    look = palette.Look(palette.ENCODERS["dual"])
    return Looked(*query_tiles(query, [case], {case.name: look}))


def has_colour(pixels, colour: str) -> bool:
    wanted = np.round(255 * np.array(to_rgb(colour)))
    return bool((np.abs(pixels.astype(float) - wanted).max(axis=2) < 2).any())


@pytest.fixture
def summary_and_record(tmp_path):
    run = read_run(write_run(tmp_path, cases=1, **SMALL))
    return summarise(run), run.cases[0].scored[0]


def test_a_picture_of_a_small_target_is_cut_to_it_and_the_image_shows_where(summary_and_record):
    small = np.s_[40:60, 40:60]
    looked = looked_at(*summary_and_record, target=small, mask=small)
    assert looked.image.pixels.shape[:2] == (SIDE, SIDE)
    # What is not the target is paler than the image's grey, or an outline.
    is_target = (looked.target.pixels == 128).all(axis=2)
    assert is_target.mean() > 10 * (20 / SIDE) ** 2
    assert looked.target.pixels.shape == looked.answer.pixels.shape
    assert looked.image.caption == "box: shown beside"
    wide = np.s_[40:360, 40:360]
    whole = looked_at(*summary_and_record, target=wide, mask=small)
    assert whole.image.pixels.shape == whole.answer.pixels.shape and not whole.image.caption


def test_what_a_mask_has_too_much_and_what_it_misses_is_striped(summary_and_record):
    left, right = np.s_[100:200, 100:200], np.s_[100:200, 150:250]
    answers = {
        "hit": looked_at(*summary_and_record, target=left, mask=left).answer.pixels,
        "both": looked_at(*summary_and_record, target=left, mask=right).answer.pixels,
    }
    for colour in (palette.TOO_MUCH, palette.MISSED):
        assert has_colour(answers["both"], colour)
        assert not has_colour(answers["hit"], colour)


def test_a_mask_over_ignored_pixels_is_neither_a_hit_nor_an_error(summary_and_record):
    place = np.s_[100:200, 100:200]
    hit = looked_at(*summary_and_record, target=place, mask=place).answer.pixels
    ignored = looked_at(*summary_and_record, place, place, IGNORED).answer.pixels
    for colour in (palette.TOO_MUCH, palette.MISSED):
        assert not has_colour(ignored, colour)
    wanted = 255 * np.array(to_rgb(palette.ENCODERS["dual"]))

    def nearest(pixels):
        return np.abs(pixels - wanted).sum(axis=2).min()

    assert nearest(hit) < nearest(ignored) / 1.5


def test_trivial_baselines_have_no_say_in_which_queries_are_shown(tmp_path):
    run = read_run(write_run(tmp_path, **SMALL))
    record = run.cases[0].scored[0]
    query = GalleryQuery(
        kept_query(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)),
        "it",
        {"dual": record, "empty": failed_record(record)},
    )
    assert disagreement(query, ["dual"]) == 0
    assert disagreement(query, ["dual", "empty"]) == iou(record.counts) > 0


def failed_record(record):
    return replace(record, status="error")
