"""Reading listings, and shapes that are run lengths or files of masks."""

import json
import pickle
import shutil

import numpy as np
import pytest
from laid_data import HEIGHT, RIGHT_HALF, SQUARE, WIDTH, line, png, write_listing
from PIL import Image
from pycocotools import mask as coco_mask

from lisabench.datasets.decoding import AheadDecoder
from lisabench.datasets.drawing import draw_mask
from lisabench.datasets.layouts import listing
from lisabench.datasets.layouts.listing import Listing
from lisabench.datasets.opening import open_samples
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.verify import verify
from lisabench.harness.errors import DataError, UsageError

pytestmark = pytest.mark.no_clock


def drawn(*shapes, folder=None):
    return draw_mask({"shapes": list(shapes)}, HEIGHT, WIDTH, folder)


def rle(counts, label="target", size=(HEIGHT, WIDTH)):
    return {"label": label, "rle": {"size": list(size), "counts": counts}}


@pytest.fixture
def three(tmp_path):
    """Two queries about one picture, and one about another."""
    return write_listing(
        tmp_path / "birds",
        line("a", "images/0.png", SQUARE, meta={"category": "bird"}),
        line("b", "images/1.png", RIGHT_HALF),
        line("c", "images/0.png", is_sentence=True),
        warnings=["beware of birds"],
    )


# Shapes


def test_run_lengths_are_those_of_coco_as_text_and_as_a_list():
    mask_HW = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    encoded = coco_mask.encode(np.asfortranarray(mask_HW, np.uint8))
    by_columns = np.ravel(mask_HW, order="F").astype(int)
    edges = np.flatnonzero(np.diff(by_columns, prepend=0)).tolist()
    runs = np.diff([0, *edges, mask_HW.size]).tolist()
    for counts in (encoded["counts"].decode(), runs):
        np.testing.assert_array_equal(drawn(rle(counts)), mask_HW)


def test_smaller_masks_lie_on_top_whatever_their_kind():
    for shapes in ((SQUARE, rle([96, 96], "ignore")), (rle([96, 96], "ignore"), SQUARE)):
        mask_HW = drawn(*shapes)
        assert (mask_HW[5, 8], mask_HW[5, 12], mask_HW[5, 4]) == (1, 255, 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGB", "RGBA", "LA"])
def test_a_pixel_of_a_file_that_is_not_0_belongs_to_the_mask(tmp_path, mode):
    image = Image.new(mode, (WIDTH, HEIGHT))
    corner = {"RGB": (0, 0, 1), "RGBA": (0, 3, 0, 0), "LA": (7, 0)}.get(mode, 1)
    image.putpixel((3, 2), corner)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 0])  # the index counts, not the colour
    image.save(tmp_path / "mask.png")
    shape = {"label": "target", "mask": "mask.png"}
    assert np.argwhere(drawn(shape, folder=tmp_path)).tolist() == [[2, 3]]


def test_a_folder_of_pairs_may_have_masks_in_a_folder_of_their_own(tmp_path):
    (tmp_path / "val" / "masks").mkdir(parents=True)
    (tmp_path / "val" / "a.png").write_bytes(png(0))
    mask = tmp_path / "val" / "masks" / "a.png"
    Image.new("L", (WIDTH, HEIGHT), 255).save(mask)
    annotation = line("a", "", {"label": "target", "mask": "masks/a.png"})
    (tmp_path / "val" / "a.json").write_text(json.dumps(annotation))
    data = ReasonSeg(tmp_path, "val")
    assert (data[0].target_HW == 1).all()
    assert verify(tmp_path) == []
    before = data.fingerprint()
    Image.new("L", (WIDTH, HEIGHT), 1).save(mask)
    assert data.fingerprint() != before
    Image.new("L", (WIDTH, HEIGHT + 1), 1).save(mask)
    expected = f"a.json: shapes\\[0\\]: its mask has {WIDTH} x 13 pixels; expected .*{WIDTH} x 12"
    with pytest.raises(DataError, match=expected):
        _ = data[0].target_HW
    assert [problem.reason for problem in verify(tmp_path)] == [
        f"shapes[0]: its mask has {WIDTH} x 13 pixels; expected the image's {WIDTH} x {HEIGHT}"
    ]


BROKEN_SHAPES = {
    "expected the image's 16 x 12": rle([4], size=(2, 2)),
    "its runs do not add up": rle([96, 97]),
    "a character that COCO does not use": rle("~"),
    "ends? within a number": rle("P"),
    "counts are neither text nor a list": rle(None),
    r"an rle whose size is \[12.5, 16\]": rle([192], size=(12.5, 16)),
    "an rle that is no object": {"label": "target", "rle": []},
    "a mask that is 7": {"label": "target", "mask": 7},
    r"gone\.png: cannot be read": {"label": "target", "mask": "gone.png"},
    "has points and rle": SQUARE | RIGHT_HALF,
}


@pytest.mark.parametrize("reason", BROKEN_SHAPES)
def test_a_broken_shape_is_named_with_its_line_by_the_reader_and_by_verify(tmp_path, reason):
    root = write_listing(
        tmp_path / "data", line("a", "images/0.png", SQUARE, BROKEN_SHAPES[reason])
    )
    with pytest.raises(DataError, match=rf"val\.jsonl, line 1: shapes\[1\].*{reason}"):
        _ = Listing(root)[0].target_HW
    (problem,) = verify(root)
    assert problem.reason.startswith("line 1: shapes[1]")


# Reading


def test_lines_are_samples_in_their_order(three):
    data = open_samples(three)
    assert isinstance(data, Listing)
    assert [sample.id for sample in data] == ["a", "b", "c"]
    first, second, third = data
    assert (first.query, first.is_sentence, third.is_sentence) == ("the a", False, True)
    assert first.tags == {"category": "bird", "form": "phrase"}
    np.testing.assert_array_equal(second.target_HW, np.arange(WIDTH) // 8 * np.ones((HEIGHT, 1)))
    assert not third.target_HW.any()
    assert first.source == three / "images" / "0.png"


def test_queries_about_one_picture_are_one_cluster(three):
    first, second, third = Listing(three)
    assert first.image_id == third.image_id != second.image_id


def test_all_texts_are_queries_of_their_own_and_limit_counts_queries(three):
    assert [sample.id for sample in Listing(three, texts="all", limit=3)] == ["a#0", "a#1", "b#0"]
    assert Listing(three, texts="all")[1].query == "another wording"
    assert len(Listing(three, limit=2)) == 2
    with pytest.raises(UsageError, match="limit is 0"):
        Listing(three, limit=0)


def test_an_image_may_be_named_by_its_absolute_path(three, tmp_path):
    elsewhere = shutil.move(three / "images", tmp_path / "elsewhere")
    text = (three / "val.jsonl").read_text()
    (three / "val.jsonl").write_text(text.replace('"images/', f'"{elsewhere}/'))
    assert Listing(three)[0].image.shape == (HEIGHT, WIDTH, 3)


def test_samples_can_be_decoded_ahead_and_sent_to_another_process(three):
    data = pickle.loads(pickle.dumps(Listing(three)))
    decoder = AheadDecoder(data, 1, batch=2, block=3)
    ahead = list(decoder.samples(range(3)))
    decoder.close()
    for sample, expected in zip(ahead, data, strict=True):
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.target_HW, expected.target_HW)


def test_the_fingerprint_is_of_the_content_and_not_of_the_places(three, tmp_path):
    before = Listing(three).fingerprint()
    moved = tmp_path / "moved"
    shutil.copytree(three, moved)
    (moved / "images").rename(moved / "pictures")
    text = (moved / "val.jsonl").read_text()
    (moved / "val.jsonl").write_text(text.replace('"images/', '"pictures/'))
    assert Listing(moved).fingerprint() == before
    (moved / "pictures" / "1.png").write_bytes(png(7))
    assert Listing(moved).fingerprint() != before
    assert Listing(moved, limit=1).fingerprint() == Listing(three, limit=1).fingerprint()
    assert Listing(three, texts="all").fingerprint() != before
    data = Listing(three)
    assert (data.fingerprint(), data.warnings) == (before, ("beware of birds",))


BROKEN_LINES = {
    "not JSON": "{",
    "not a JSON object": "[]",
    "lacks id and image": "{}",
    "id is 7": json.dumps(line("a", "images/0.png") | {"id": 7}),
    "image is ''": json.dumps(line("a", "")),
    "text is empty": json.dumps(line("a", "images/0.png", text=[])),
    "it is empty": "",
}


@pytest.mark.parametrize("reason", BROKEN_LINES)
def test_a_broken_line_is_named(tmp_path, reason):
    root = write_listing(tmp_path / "d", line("x", "images/0.png"), BROKEN_LINES[reason])
    data = Listing(root)
    assert data[0].id == "x"
    with pytest.raises(DataError, match=rf"val\.jsonl, line 2: .*{reason}"):
        _ = data[1]
    with pytest.raises(DataError, match=rf"val\.jsonl, line 2: .*{reason}"):
        data.fingerprint()
    (problem,) = verify(root)
    assert problem.reason.startswith("line 2: ")


def test_a_line_has_a_longest_length(three, monkeypatch):
    monkeypatch.setattr(listing, "LONGEST_LINE", 50)
    with pytest.raises(DataError, match="line 1: has more than"):
        Listing(three)


def test_two_lines_with_one_id_are_refused(tmp_path):
    root = write_listing(tmp_path / "d", *[line("x", f"images/{i}.png", SQUARE) for i in (0, 1)])
    with pytest.raises(DataError, match="line 2: has the same id as line 1"):
        Listing(root).fingerprint()
    assert ["has the same id as line 1" in str(problem) for problem in verify(root)] == [True]


def test_what_is_wrong_with_the_folder_is_said(three):
    with pytest.raises(DataError, match=r"has no split 'test'; it has val: choose one with --spl"):
        Listing(three, "test")
    (three / "val.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no query"):
        Listing(three)
    (three / "data.json").write_text('{"schema": "other/1"}')
    with pytest.raises(DataError, match=r"its schema is 'other/1'; expected 'lisabench\.data/1'"):
        Listing(three)


def test_verify_finds_all_that_is_wrong(three):
    assert verify(three) == []
    (three / "images" / "0.png").write_bytes(png(0)[:100])
    with (three / "val.jsonl").open("a") as file:
        outside = {"label": "target", "points": [[50, 2], [60, 2], [60, 9]]}
        file.write(json.dumps(line("d", "images/1.png", outside, rle([192]))) + "\n")
    found = [str(problem).removeprefix(f"{three}/") for problem in verify(three, "val")]
    assert found == [
        "images/0.png: is damaged (it breaks off before the end of the picture); replace the file",
        f"val.jsonl: line 4: shapes[0] lies wholly outside the image of {WIDTH} x {HEIGHT} pixels",
        "val.jsonl: line 4: shapes[1] is a mask without any pixel",
        "val.jsonl: line 4: has a target shape, but ignored regions or the frame leave no pixel "
        "of it",
    ]
