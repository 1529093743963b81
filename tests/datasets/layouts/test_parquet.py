"""Reading parquet files in the field's layouts."""

import json
import os
from pathlib import Path

import numpy as np
import parquet_files
import pytest
from parquet_files import SIZE, corners, encoded, rectangle, with_masks, write

from lisabench.datasets.layouts.columns import EXPECTED
from lisabench.datasets.layouts.known import layout_of
from lisabench.datasets.layouts.parquet import files_of_splits, found
from lisabench.harness.errors import DataError, UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
coco = pytest.importorskip("pycocotools.mask")

pytestmark = pytest.mark.no_clock

PNG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NUMBERS = pa.list_(pa.list_(pa.uint8()))


def queries(source, split):
    return {query.id: query for query in layout_of(str(source)).queries(split)}


def drawn(query, label="target"):
    """The mask of a query's shapes with a label, decoded by pycocotools."""
    mask_HW = np.zeros(SIZE, bool)
    for shape in query.shapes:
        if shape["label"] == label:
            rle = shape["rle"]
            if isinstance(rle["counts"], list):
                rle = coco.frPyObjects(rle, *rle["size"])
            mask_HW |= coco.decode(rle).astype(bool)
    return mask_HW


def error_of(source, split="val"):
    with pytest.raises(DataError) as raised:
        list(layout_of(str(source)).queries(split))
    message = str(raised.value)
    assert "\n" not in message
    return message


# The field's layouts


def test_a_copy_of_reasonseg_is_read_and_says_that_ignored_regions_became_target(tmp_path):
    masks = parquet_files.reasonseg_copy(tmp_path)
    layout = layout_of(str(tmp_path))
    assert (layout.name, list(layout.splits())) == ("parquet", ["test"])
    read = queries(tmp_path, "test")
    assert list(read) == list(masks)
    for query_id, mask_HW in masks.items():
        np.testing.assert_array_equal(drawn(read[query_id]), mask_HW)
    first = read["q0"]
    assert (first.texts, first.is_sentence) == (("what is number 0?",), True)
    assert first.image == parquet_files.picture(0)
    assert first.image_name.endswith(".jpg")
    assert layout.facts.ignored.startswith("none: the masks hold only true and false")
    assert "count them as target" in layout.facts.warnings[0]


def test_the_type_of_reasoning_is_a_tag_by_which_scores_are_sliced(tmp_path):
    """As in ReasonSeg-X; a type that is a number, or missing, is read as well."""
    for name, types in (("words", ["spatial", "", None]), ("numbers", [2, None, 0])):
        root = tmp_path / name
        parquet_files.reasonseg_copy(root)
        (path,) = root.rglob("*.parquet")
        table = pq.read_table(path)
        pq.write_table(table.append_column("reasoning_type", pa.array(types)), path)
    of_words = [query.tags for query in queries(tmp_path / "words", "test").values()]
    assert of_words == [{"reasoning_type": "spatial"}, {}, {}]
    of_numbers = [query.tags for query in queries(tmp_path / "numbers", "test").values()]
    assert of_numbers == [{"reasoning_type": "2"}, {}, {"reasoning_type": "0"}]


def test_refcoco_of_lmms_is_read(tmp_path):
    masks = parquet_files.refcoco_of_lmms(tmp_path)
    assert list(layout_of(str(tmp_path)).splits()) == ["testA", "val"]
    read = queries(tmp_path, "val")
    assert list(read) == ["469306#0", "469306#1", "469307#0"]  # each sentence is a query
    assert read["469306#1"].texts == ("man in red",)
    assert not read["469306#0"].is_sentence
    assert len({query.image_name for query in read.values()}) == 1  # it is the same picture
    for query_id, query in read.items():
        np.testing.assert_array_equal(drawn(query), masks[query_id.partition("#")[0]])
    assert any("single polygon" in warning for warning in layout_of(str(tmp_path)).facts.warnings)


def test_refcoco_of_jxu_is_read_with_pictures_beside_it(tmp_path):
    crowd = rectangle(20, 2, 5, 5)
    runs = coco.encode(np.asfortranarray(crowd.astype(np.uint8)))
    lengths = lengths_of(crowd)
    np.testing.assert_array_equal(
        coco.decode(coco.frPyObjects({"counts": lengths, "size": list(SIZE)}, *SIZE)),
        coco.decode(runs),
    )
    masks = parquet_files.refcoco_of_jxu(tmp_path, lengths)
    read = queries(tmp_path, "val")
    np.testing.assert_array_equal(drawn(read["11#0"]), masks["11"])
    np.testing.assert_array_equal(drawn(read["12#0"]), crowd)
    assert read["11#0"].texts == ("left guy",)
    assert read["11#0"].image == tmp_path / "coco/train2014/COCO_train2014_000000581857.jpg"
    assert read["11#0"].image_name == read["12#0"].image_name

    read["11#0"].image.unlink()
    message = error_of(tmp_path)
    assert "row 1: image_path names 'coco/train2014/COCO" in message
    assert "put them there" in message


def lengths_of(mask_HW):
    """The run lengths of a mask, pixel by pixel."""
    lengths, current = [0], False
    for value in mask_HW.T.ravel():
        if value != current:
            lengths.append(0)
            current = value
        lengths[-1] += 1
    return lengths


def test_samples_of_refcoco_m_are_queries_about_the_image_of_their_row(tmp_path):
    masks = {"3": rectangle(1, 2, 3, 4), "4": rectangle(10, 10, 9, 9)}
    compressed = {}
    for sample_id, mask_HW in masks.items():
        rle = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
        compressed[sample_id] = rle["counts"].decode()
    parquet_files.refcoco_m(tmp_path, compressed)
    read = queries(tmp_path, "val")
    assert list(read) == ["3#0", "3#1", "4#0", "4#1"]
    assert [query.texts[0] for query in read.values()] == [
        "the dog 3",
        "a dog",
        "the dog 4",
        "a dog",
    ]
    assert read["4#0"].tags == {"category": "dog"}
    assert len({query.image_name for query in read.values()}) == 1
    for query_id, query in read.items():
        np.testing.assert_array_equal(drawn(query), masks[query_id.partition("#")[0]])
    facts = layout_of(str(tmp_path)).facts
    assert facts.ignored == "none: polygons and run lengths have no ignored pixels"


# Forms of masks


def test_255_is_ignored_where_1_is_the_target(tmp_path):
    mask_HW = rectangle(2, 2, 5, 5).astype(np.uint8)
    mask_HW[20:] = 255
    for name, masks in {
        "lists": pa.array([mask_HW.tolist(), (mask_HW * 0).tolist()], NUMBERS),
        "png": pa.array([{"bytes": encoded(m), "path": None} for m in (mask_HW, mask_HW * 0)], PNG),
        "bytes": pa.array([encoded(mask_HW), encoded(mask_HW * 0)], pa.binary()),
    }.items():
        path = with_masks(tmp_path / f"{name}-val.parquet", masks)
        first, second = queries(path, "val").values()
        np.testing.assert_array_equal(drawn(first), mask_HW == 1)
        np.testing.assert_array_equal(drawn(first, "ignore"), mask_HW == 255)
        assert second.shapes == []
        assert found(str(path)).facts.ignored == "as 255 in the masks, in which 1 is the target"


def test_255_is_the_target_in_pictures_of_black_and_white(tmp_path):
    mask_HW = rectangle(2, 2, 5, 5)
    stored = [encoded(mask_HW * np.uint8(255)), encoded(mask_HW)]  # the second with 1 bit a pixel
    path = with_masks(tmp_path / "val.parquet", pa.array(stored, pa.binary()))
    for query in queries(path, "val").values():
        np.testing.assert_array_equal(drawn(query), mask_HW)
    assert found(str(path)).facts.ignored.startswith("none: 255 is the target")


def test_outlines_may_be_lists_of_polygons_or_points_or_json(tmp_path):
    box = (4, 5, 10, 7)
    points = np.array(corners(*box)).reshape(-1, 2).tolist()
    polygons = pa.list_(pa.list_(pa.float64()))
    rle = {"size": list(SIZE), "counts": lengths_of(rectangle(*box))}
    for masks in (
        pa.array([[corners(*box)]], polygons),
        pa.array([points], polygons),
        pa.array([[points]], pa.list_(polygons)),
        pa.array([json.dumps([corners(*box)])]),
        pa.array([json.dumps(rle)]),
        pa.array([json.dumps([{"segmentation": rle}, {"segmentation": [corners(*box)]}])]),
        pa.array([[rle]]),
        pa.array([coco.frPyObjects(rle, *SIZE)]),  # counts as bytes
    ):
        path = with_masks(tmp_path / "val.parquet", masks)
        (query,) = queries(path, "val").values()
        np.testing.assert_array_equal(drawn(query), rectangle(*box))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (pa.array([None], NUMBERS), "mask is missing"),
        (pa.array([[[0, 1], [1]]], NUMBERS), "mask has rows of different lengths"),
        (pa.array([[[0, 1], [1, None]]], NUMBERS), "mask has missing values"),
        (pa.array([[[0, 1], [1, 0]]], NUMBERS), r"mask is of size \[2, 2\]; expected .*\[24, 32\]"),
        (
            pa.array([np.full(SIZE, 7).tolist()], NUMBERS),
            r"mask has the values \[7\]; expected 0, 1",
        ),
        (pa.array([b"no picture"]), "mask is no picture that can be decoded"),
        (
            pa.array([encoded(np.eye(3, dtype=np.uint8)[None].repeat(3, 0))]),
            "a picture with colours",
        ),
        (pa.array(["{"]), "mask is a text, but not JSON"),
        (pa.array(["[" * 100_000]), "mask is a text, but not JSON"),
        (pa.array(['"x"']), "mask: has no segmentation; expected polygons or an RLE"),
        (pa.array(['{"segmentation": 5}']), "mask: has no segmentation"),
        (pa.array(["[[1, 2, 3, 4, 5]]"]), "mask: expected polygons as lists"),
        (pa.array(["[1, [2, 3]]"]), "mask: a polygon has the coordinate"),
        (pa.array(["[[1, 2, 3, 4, 5, 1e9]]"]), "mask: a polygon has the coordinate 1000000000.0"),
        (
            pa.array(['{"size": [32, 24], "counts": "x"}']),
            r"size \[32, 24\]; its image has \[24, 32\]",
        ),
        (pa.array(['{"size": [24, 32], "counts": 5}']), "the RLE has no counts"),
    ],
)
def test_a_broken_mask_is_named_with_its_file_and_row(tmp_path, masks, message):
    path = with_masks(tmp_path / "val.parquet", masks)
    with pytest.raises(DataError, match=f"val.parquet, row 1: .*{message}"):
        list(found(str(path)).queries("val"))


# Rows


def test_texts_ids_and_sizes_are_checked(tmp_path):
    mask = pa.array([rectangle(1, 1, 3, 3).tolist()], pa.list_(pa.list_(pa.bool_())))
    sound = {"image": pa.array([parquet_files.picture(0)]), "text": pa.array(["it"]), "mask": mask}
    for changes, message in (
        ({"text": pa.array([" "])}, "row 1: text has no text"),
        ({"text": pa.array([None], pa.string())}, "row 1: text has no text"),
        ({"text": pa.array(["x" * 10_001])}, "row 1: text has 1 texts of up to 10001 characters"),
        ({"image": pa.array([b"no image"])}, "row 1: image is no image that can be decoded"),
        ({"image": pa.array([None], pa.binary())}, "row 1: image is missing"),
        ({"image": pa.array(["/etc/passwd"])}, "row 1: image names '/etc/passwd'; expected a path"),
        ({"image": pa.array(["../x.jpg"])}, "without `..`"),
        ({"image": pa.array(["x" * 300])}, "the table holds no pictures; put them there"),
        ({"height": pa.array([25])}, "row 1: height is 25, but the image has 32 x 24 pixels"),
    ):
        path = write(tmp_path / "val.parquet", sound | changes)
        assert message in error_of(path)


def test_ids_are_made_unique_and_blank_wordings_left_out(tmp_path):
    masks = pa.array([rectangle(1, 1, 3, 3).tolist()] * 3, pa.list_(pa.list_(pa.bool_())))
    path = write(
        tmp_path / "val.parquet",
        {
            "image": pa.array([parquet_files.picture(0)] * 3),
            "texts": pa.array([["", "one", "first"], ["two"], ["What is it?"]]),
            "is_sentence": pa.array([True, None, None]),
            "ann_id": pa.array([7, 7, None]),
            "mask": masks,
        },
    )
    read = queries(path, "val")
    assert list(read) == ["7", "7-2", "val-000002"]
    assert [query.is_sentence for query in read.values()] == [True, False, True]
    assert read["7"].texts == ("one", "first")


def test_memory_does_not_grow_with_the_table(tmp_path):
    """It is that of a group of rows: here 3 MB of 30, and as much again compressed."""
    size, count = (24, 32), 30
    mask_HW = np.zeros(size, bool)
    mask_HW[5:10, 2:9] = True
    lines = pa.array(mask_HW.tolist(), pa.list_(pa.bool_()))
    lines = pa.chunked_array([lines] * count).combine_chunks()
    starts = np.arange(count + 1, dtype=np.int32) * size[0]
    black = encoded(np.zeros((*size, 3), np.uint8), "JPEG")
    pictures = [black + os.urandom(1_000_000) for _ in range(count)]
    path = write(
        tmp_path / "val.parquet",
        {
            "image": pa.array(pictures),
            "text": pa.array(["it"] * count),
            "mask": pa.ListArray.from_arrays(starts, lines),
        },
        row_group_size=3,
    )
    del lines, pictures
    before = pa.total_allocated_bytes()
    peak = 0
    for query in found(str(path)).queries("val"):
        assert sum(query.shapes[0]["rle"]["counts"]) == mask_HW.size
        peak = max(peak, pa.total_allocated_bytes())
    assert peak - before < 15e6


# Files, splits and columns


def test_the_names_of_files_say_their_splits():
    assert files_of_splits(
        ["data/validation-00000-of-00002-ab.parquet", "data/val-00001-of-00002.parquet"]
    ) == {"val": ["data/val-00001-of-00002.parquet", "data/validation-00000-of-00002-ab.parquet"]}
    by_name = {
        "data/testA-00000-of-00001.parquet": "testA",
        "refcoco_unc-00000-of-00001.parquet": "refcoco_unc",
        "ref-l4-test.parquet": "test",
        "train/0000.parquet": "train",
        "default/partial-train/0000.parquet": "train",
        "default/refcoco_val/0000.parquet": "refcoco_val",
        "dev.parquet": "val",
        "contest.parquet": "val",
    }
    for name, split in by_name.items():
        assert list(files_of_splits([name])) == [split], name
    configurations = ["unc/val-00000-of-00001.parquet", "umd/val-00000-of-00001.parquet"]
    assert list(files_of_splits(configurations)) == ["umd-val", "unc-val"]
    converted = ["unc/val/0000.parquet", "umd/val/0000.parquet", "umd/test/0000.parquet"]
    assert list(files_of_splits(converted)) == ["umd-test", "umd-val", "unc-val"]


def test_a_split_that_is_not_there_is_told_from_those_that_are(tmp_path):
    parquet_files.reasonseg_copy(tmp_path)
    assert error_of(tmp_path) == (
        f"{tmp_path}: has no split 'val'; it has test: choose one with --split"
    )


def test_only_parquet_files_are_taken(tmp_path):
    (tmp_path / "val").mkdir()
    assert found(str(tmp_path)) is None
    assert found(str(tmp_path / "missing")) is None
    with pytest.raises(DataError, match=r"x.parquet: there is no such file; expected a parquet"):
        found(str(tmp_path / "x.parquet"))
    parquet_files.reasonseg_copy(tmp_path)
    (tmp_path / "data.json").write_text("{}")  # a listing, whatever else lies there
    assert found(str(tmp_path)) is None


def test_the_identity_changes_with_the_files(tmp_path):
    parquet_files.reasonseg_copy(tmp_path)
    before = found(str(tmp_path)).identity()
    assert found(str(tmp_path)).identity() == before
    parquet_files.reasonseg_copy(tmp_path, count=4)
    assert found(str(tmp_path)).identity() != before


def test_columns_of_no_layout_are_shown_with_those_expected(tmp_path):
    path = write(tmp_path / "val.parquet", {"a": pa.array([1]), "text": pa.array(["x"])})
    message = error_of(path)
    assert message == (
        f"{path}: its columns fit no known layout; expected {EXPECTED}; it has a (int64), "
        "text (string)"
    )


def test_a_file_that_is_no_parquet_or_damaged_is_named(tmp_path):
    parquet_files.reasonseg_copy(tmp_path)
    (path,) = tmp_path.rglob("*.parquet")
    content = path.read_bytes()
    path.write_bytes(b"no parquet")
    assert f"{path}: is damaged, or no parquet file (" in error_of(tmp_path, "test")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "pointer of Git LFS" in error_of(tmp_path, "test")
    path.write_bytes(content[:4] + bytes(len(content) // 3) + content[4 + len(content) // 3 :])
    assert f"{path}: is damaged, or no parquet file (" in error_of(tmp_path, "test")


def test_a_missing_package_is_one_line_with_the_command(tmp_path, monkeypatch):
    parquet_files.refcoco_of_lmms(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pycocotools: pip install 'lisabench\[data\]'"):
        list(found(str(tmp_path)).queries("val"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pyarrow: .* `pip install 'lisabench\[data\]'`"):
        list(found(str(Path(tmp_path))).queries("val"))
