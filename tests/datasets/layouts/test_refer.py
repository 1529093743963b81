"""REFER's tree is read as the original reads it: each sentence a query, each target its object."""

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from coco_factory import (
    TRAIN_2014,
    file_name,
    instances,
    mask_of,
    reference,
    write_data_set,
    write_images,
    write_tree,
)
from pycocotools import mask

from lisabench.datasets.layouts.query import LaidQuery
from lisabench.datasets.layouts.refer import ReferTree, found
from lisabench.harness.errors import DataError

pytestmark = pytest.mark.no_clock


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("dataset"))


def layout(source: Path | str) -> ReferTree:
    tree = found(str(source))
    assert tree is not None
    return tree


def target_of(query: LaidQuery, height: int, width: int) -> np.ndarray:
    """Return the union of a query's shapes by pycocotools."""
    assert {shape["label"] for shape in query.shapes} <= {"target"}
    union_HW = np.zeros((height, width), np.uint8)
    for shape in query.shapes:
        assert shape["rle"]["size"] == [height, width]
        union_HW |= mask.decode(shape["rle"])
    return union_HW


def texts(queries: Sequence[LaidQuery]) -> list[str]:
    return [text for query in queries for text in query.texts]


def test_each_sentence_is_a_query_about_its_object(tree):
    queries = list(layout(tree / "refcoco").queries("val"))
    assert [query.id for query in queries] == ["0#0", "0#1", "2#20"]
    assert texts(queries) == ["the lady", "lady in blue", "man on the right"]
    assert not any(query.is_sentence for query in queries)
    for query, annotation_id in zip(queries, (101, 101, 104), strict=True):
        expected_HW = mask_of(annotation_id)
        assert np.array_equal(target_of(query, *expected_HW.shape), expected_HW)
        assert query.tags == {"category": "person"}


def test_images_are_those_of_the_instances_and_not_of_the_references(tree):
    for query in layout(tree / "refcoco").queries("val"):
        assert isinstance(query.image, Path)
        assert query.image.is_file()
        assert query.image.parent == tree / TRAIN_2014
        assert query.image_name == query.image.name
    assert query.image_name == file_name(25)


def test_an_object_of_several_polygons_is_their_union(tree):
    (query,) = layout(tree / "refcoco").queries("train")
    assert len(query.shapes) == 1
    assert np.array_equal(target_of(query, 48, 64), mask_of(102))


def test_splits_are_those_of_the_file(tree):
    assert layout(tree / "refcoco").splits() == ("val", "train", "testA", "testB")
    assert texts(list(layout(tree / "refcoco").queries("testB"))) == ["chair"]


def test_a_blank_sentence_is_left_out_with_a_warning(tree):
    data = layout(tree / "refcoco")
    assert texts(list(data.queries("testA"))) == ["man on the left", "left man"]
    assert data.facts.warnings == ("blank sentences, left out: 1 of testA",)
    assert data.facts.ignored.startswith("none: ")


def test_in_grefcoco_objects_are_united_and_may_be_none(tree):
    queries = list(layout(tree / "grefcoco").queries("val"))
    assert texts(queries) == ["both men", "the lady", "woman", "a red bus"]
    assert [query.tags["objects"] for query in queries] == ["several", "one", "one", "none"]
    assert np.array_equal(target_of(queries[0], 60, 40), mask_of(103, 104))
    assert list(queries[3].shapes) == []
    assert "category" not in queries[3].tags


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("refcoco", "refs(unc).p"),
        ("refcoco@google", "refs(google).p"),
        ("refcoco/refs(google).p", "refs(google).p"),
        ("refcocog", "refs(umd).p"),
        ("refcocog@google", "refs(google).p"),
        ("refcoco+", "refs(unc).p"),
        ("grefcoco", "grefs(unc).json"),
        ("grefcoco/grefs(unc).json", "grefs(unc).json"),
    ],
)
def test_who_split_the_data_can_be_named(tree, words, file):
    data = layout(f"{tree}/{words}")
    assert data.references.name == file
    assert data.name == words.split("/")[0].split("@")[0]
    assert data.facts.source == f"{tree}/{words} ({file})"


def test_of_a_pickle_and_a_json_the_pickle_is_read(tmp_path):
    in_json = [reference(0, 101, 12, "val", "in json")]
    in_pickle = [reference(0, 101, 12, "val", "in pickle")]
    tree = tmp_path / "refer_seg"
    files = {"grefs(unc).json": in_json, "grefs(unc).p": in_pickle}
    write_data_set(tree / "grefcoco", files)
    write_images(tree / TRAIN_2014)
    assert texts(list(layout(tree).queries("val"))) == ["in pickle"]


def test_the_split_of_refcocog_by_google_warns_of_shared_images(tree):
    (warning,) = layout(f"{tree}/refcocog@google").facts.warnings
    assert "images of val are in train" in warning


def test_of_several_data_sets_one_must_be_chosen(tree):
    with pytest.raises(DataError, match="several data sets") as raised:
        found(str(tree))
    message = str(raised.value)
    assert (
        "grefcoco (unc), refcoco (google, unc), refcoco+ (unc), refcocog (google, umd)" in message
    )
    assert f"--data {tree / 'grefcoco'}" in message
    with pytest.raises(DataError, match="several data sets"):
        found(str(tree.parent))


def test_a_splitter_that_is_not_there_names_those_that_are(tree):
    with pytest.raises(
        DataError, match=r"by berkeley; it has google, umd: choose .*refcocog@google"
    ):
        found(f"{tree}/refcocog@berkeley")


@pytest.mark.parametrize("above", ["", "refer_seg"])
def test_a_single_data_set_is_found_below_a_folder(tmp_path, above):
    tree = tmp_path / "refer_seg"
    write_data_set(tree / "refcoco", {"refs(google).p": [reference(0, 101, 12, "val", "lady")]})
    write_images(tree / TRAIN_2014)
    assert layout(tmp_path / above).references == tree / "refcoco" / "refs(google).p"


@pytest.mark.parametrize("folder", [TRAIN_2014, "images/train2014", "train2014", "../train2014"])
def test_images_are_found_in_and_beside_the_tree(tmp_path, folder):
    tree = tmp_path / "refer_seg"
    write_data_set(tree / "refcoco", {"refs(unc).p": [reference(0, 101, 12, "val", "lady")]})
    write_images(tree / folder)
    (query,) = layout(tree / "refcoco").queries("val")
    assert isinstance(query.image, Path)
    assert query.image.samefile(tree / folder / file_name(12))


def test_a_link_to_a_data_set_has_the_name_and_the_images_of_its_place(tmp_path):
    store = tmp_path / "store"
    by_umd, by_google = ([reference(0, 101, 12, "val", text)] for text in ("umd", "google"))
    write_data_set(store / "v1", {"refs(umd).p": by_umd, "refs(google).p": by_google})
    tree = tmp_path / "refer_seg"
    write_images(tree / TRAIN_2014)
    (tree / "refcocog").symlink_to(store / "v1")
    assert layout(tree).name == "refcocog"
    assert texts(list(layout(tree / "refcocog").queries("val"))) == ["umd"]


def test_the_current_folder_can_be_the_data_set(tree, monkeypatch):
    monkeypatch.chdir(tree / "refcocog")
    data = layout(".")
    assert (data.name, data.references.name) == ("refcocog", "refs(umd).p")


def test_without_images_one_line_says_where_they_belong_and_come_from(tmp_path):
    tree = tmp_path / "refer_seg"
    write_data_set(tree / "refcoco", {"refs(unc).p": []})
    with pytest.raises(DataError) as raised:
        found(str(tree / "refcoco"))
    assert str(tree / TRAIN_2014) in str(raised.value)
    assert "http://images.cocodataset.org/zips/train2014.zip" in str(raised.value)


def test_an_image_that_is_missing_is_named(tree, tmp_path):
    copied = shutil.copytree(tree, tmp_path / "refer_seg")
    (copied / TRAIN_2014 / file_name(12)).unlink()
    with pytest.raises(DataError, match=rf"{file_name(12)} is not in .*train2014; get COCO's"):
        list(layout(copied / "refcoco").queries("val"))


def test_other_sources_are_not_in_this_layout(tmp_path):
    (tmp_path / "val").mkdir()
    for source in (tmp_path, tmp_path / "missing", "hf://owner/name@main", "refcoco@unc"):
        assert found(str(source)) is None


def test_instances_without_references_are_an_error_and_so_is_the_reverse(tmp_path):
    folder = tmp_path / "refcoco"
    write_data_set(folder, {})
    with pytest.raises(DataError, match="no references such as refs"):
        found(str(folder))
    (folder / "refs(unc).p").write_bytes(pickle.dumps([], 2))
    (folder / "instances.json").unlink()
    with pytest.raises(DataError, match=r"has refs\(unc\)\.p, but no instances\.json"):
        found(str(folder))


def test_the_identity_changes_with_a_file(tree, tmp_path):
    copied = shutil.copytree(tree, tmp_path / "refer_seg")
    before = layout(copied / "refcoco").identity()
    assert layout(copied / "refcoco").identity() == before
    (copied / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([], 2))
    assert layout(copied / "refcoco").identity() != before


def test_a_sentence_that_comes_twice_is_taken_once(tmp_path):
    again = reference(0, 101, 12, "val", "the lady")
    tree = tmp_path / "refer_seg"
    write_data_set(tree / "grefcoco", {"grefs(unc).json": [again, again]})
    write_images(tree / TRAIN_2014)
    data = layout(tree)
    assert [query.id for query in data.queries("val")] == ["0#0"]
    assert data.facts.warnings == ("sentences that come twice, taken once: 1",)


def test_references_of_refclef_can_be_in_two_splits(tmp_path):
    both = reference(0, 101, 12, "testAB", "the lady")
    one = reference(1, 102, 12, "testB", "the dog")
    tree = tmp_path / "refer_seg"
    write_data_set(tree / "refclef", {"refs(unc).p": [both, one]})
    write_images(tree / "images" / "saiapr_tc-12")
    data = layout(tree)
    assert data.splits() == ("testA", "testB")
    assert texts(list(data.queries("testA"))) == ["the lady"]
    assert texts(list(data.queries("testB"))) == ["the lady", "the dog"]


LADY = reference(0, 101, 12, "val", "the lady")
BROKEN = {
    "no list": ({"images": []}, "is no list"),
    "no dict": ([1], "reference 0: is no dict"),
    "no object": ([LADY | {"ann_id": None}], "ann_id is None"),
    "a bool as id": ([LADY | {"ann_id": True}], "ann_id is True"),
    "no sentences": ([LADY | {"sentences": None}], "no list of sentences"),
    "no text": ([LADY | {"sentences": [{"sent_id": 1}]}], "without a text"),
    "half a character": ([reference(0, 101, 12, "val", "\ud800")], "whole characters"),
    "no such image": ([reference(0, 101, 99, "val", "x")], "names the image 99.*one download"),
    "no such object": ([reference(0, 999, 12, "val", "x")], "names the object 999.*one download"),
    "object elsewhere": ([reference(0, 101, 25, "val", "x")], "lacks in image 25"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_references_end_with_one_line(tmp_path, name):
    references, message = BROKEN[name]
    write_data_set(tmp_path / "refcoco", {"grefs(unc).json": []})
    (tmp_path / "refcoco" / "grefs(unc).json").write_text(json.dumps(references))
    write_images(tmp_path / TRAIN_2014)
    with pytest.raises(DataError, match=message):
        list(layout(tmp_path / "refcoco").queries("val"))


SEGMENTATIONS = {
    "nothing": (None, "no segmentation"),
    "a number": ([1], "expected polygons"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "expected polygons"),
    "texts": ([["1", "2", "3", "4", "5", "6"]], "coordinate '1'"),
    "far away": ([[0, 0, 1e9, 0, 1e9, 1e9]], "coordinate 1000000000.0; the image has 64 x 48"),
    "not a number": ([[0, 0, float("nan"), 0, 9, 9]], "coordinate nan"),
    "another size": ({"size": [1, 1], "counts": "0"}, "size .*its image has"),
    "no runs": ({"size": [48, 64]}, "no counts"),
}


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_broken_segmentations_end_with_one_line(tmp_path, name):
    segmentation, message = SEGMENTATIONS[name]
    write_data_set(tmp_path / "refcoco", {"refs(unc).p": [reference(0, 101, 12, "val", "x")]})
    content = instances()
    content["annotations"][0]["segmentation"] = segmentation
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(content))
    write_images(tmp_path / TRAIN_2014)
    with pytest.raises(DataError, match=f"annotation 101: .*{message}"):
        list(layout(tmp_path / "refcoco").queries("val"))


@pytest.mark.parametrize("segmentation", [[], [[1.0, 1.0, 9.0, 9.0]]])
def test_an_object_without_area_is_an_empty_target(tmp_path, segmentation):
    write_data_set(tmp_path / "refcoco", {"refs(unc).p": [reference(0, 101, 12, "val", "x")]})
    content = instances()
    content["annotations"][0]["segmentation"] = segmentation
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(content))
    write_images(tmp_path / TRAIN_2014)
    (query,) = layout(tmp_path / "refcoco").queries("val")
    assert list(query.shapes) == []
