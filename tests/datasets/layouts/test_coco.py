"""COCO annotation files: a query for each category of an image, or for each text."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_factory import SIZES, file_name, instances, mask_of, write_images
from pycocotools import mask

from lisabench.datasets.layouts.coco import CocoFile, found
from lisabench.harness.errors import DataError, UsageError

pytestmark = pytest.mark.no_clock

CROWD = {
    "id": 200,
    "image_id": 12,
    "category_id": 1,
    "iscrowd": 1,
    "segmentation": {"size": [48, 64], "counts": [0, 48, 3024]},
}


def write(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def layout(source: str) -> CocoFile:
    file = found(source)
    assert file is not None
    return file


def test_each_category_of_an_image_is_a_query_for_all_its_objects(tmp_path):
    write_images(tmp_path / "val2017")
    source = write(tmp_path / "annotations" / "instances_val2017.json", instances())
    data = layout(source)
    assert data.splits() == ("val",)
    queries = {query.id: query for query in data.queries("val")}
    assert list(queries) == ["12#person", "12#dog", "25#person", "36#chair"]
    both = queries["25#person"]
    assert (both.texts, both.tags, both.is_sentence) == (("person",), {"category": "person"}, False)
    assert both.image == tmp_path / "val2017" / file_name(25)
    assert {shape["label"] for shape in both.shapes} == {"target"}
    union_HW = np.zeros(SIZES[25], np.uint8)
    for shape in both.shapes:
        union_HW |= mask.decode(shape["rle"])
    assert np.array_equal(union_HW, mask_of(103, 104))


def test_crowds_of_the_category_are_ignored_and_are_no_query_of_their_own(tmp_path):
    write_images(tmp_path)
    content = instances()
    content["annotations"] += [CROWD, CROWD | {"id": 201, "category_id": 62}]
    queries = {
        query.id: query for query in layout(write(tmp_path / "a.json", content)).queries("val")
    }
    labels = [shape["label"] for shape in queries["12#person"].shapes]
    assert labels == ["target", "ignore"]
    assert [shape["label"] for shape in queries["12#dog"].shapes] == ["target"]
    assert "12#chair" not in queries


@pytest.mark.parametrize("key", ["caption", "phrase", "sentence"])
def test_each_annotation_with_a_text_is_a_query(tmp_path, key):
    write_images(tmp_path / "images")
    content = instances()
    for number, annotation in enumerate(content["annotations"]):
        annotation[key] = [f" Object {number}", "again"] if number else f" Object {number}"
    data = layout(write(tmp_path / "phrases_test.json", content))
    assert data.splits() == ("test",)
    assert data.facts.ignored.startswith("none: ")
    queries = list(data.queries("test"))
    assert [query.id for query in queries] == ["101", "102", "103", "104", "105"]
    assert [query.texts for query in queries][:2] == [("Object 0",), ("Object 1", "again")]
    assert np.array_equal(mask.decode(queries[1].shapes[0]["rle"]), mask_of(102))
    assert queries[1].tags == {"category": "dog"}


def test_texts_without_masks_are_an_error(tmp_path):
    write_images(tmp_path)
    content = instances()
    for annotation in content["annotations"]:
        annotation["caption"] = "A photo."
        del annotation["segmentation"]
    with pytest.raises(DataError, match="annotation 101: has a text, but no segmentation"):
        list(layout(write(tmp_path / "captions.json", content)).queries("val"))


def test_a_text_that_is_missing_is_an_error(tmp_path):
    write_images(tmp_path)
    content = instances()
    content["annotations"][1]["phrase"] = "the dog"
    with pytest.raises(DataError, match="annotation 101: has no phrase"):
        list(layout(write(tmp_path / "a.json", content)).queries("val"))


def test_the_folder_of_images_can_be_named(tmp_path):
    write_images(tmp_path / "elsewhere")
    source = write(tmp_path / "a.json", instances())
    with pytest.raises(DataError, match=rf"{file_name(12)} is not in .*name the folder.*@FOLDER"):
        next(layout(source).queries("val"))
    data = layout(f"{source}@{tmp_path / 'elsewhere'}")
    assert next(data.queries("val")).image == tmp_path / "elsewhere" / file_name(12)
    with pytest.raises(DataError, match="there is no such folder"):
        found(f"{source}@{tmp_path / 'nowhere'}")


def test_images_in_folders_have_names_of_their_own(tmp_path):
    names = {12: "a/1.jpg", 25: "b/1.jpg", 36: "1.jpg"}
    write_images(tmp_path, names)
    queries = list(layout(write(tmp_path / "x.json", instances(names))).queries("val"))
    shown = {query.image_name: query.image for query in queries}
    assert shown == {
        "12-1.jpg": tmp_path / "a/1.jpg",
        "25-1.jpg": tmp_path / "b/1.jpg",
        "1.jpg": tmp_path / "1.jpg",
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [("instances_train2017", "train"), ("test-dev", "test"), ("contest", "val"), ("VAL", "val")],
)
def test_the_split_is_the_word_in_the_files_name(tmp_path, name, split):
    assert layout(write(tmp_path / f"{name}.json", instances())).splits() == (split,)


def test_other_sources_are_not_in_this_layout(tmp_path):
    for source in (tmp_path, tmp_path / "missing.json", "hf://owner/name@main"):
        assert found(str(source)) is None


def test_the_identity_changes_with_the_file(tmp_path):
    source = write(tmp_path / "a.json", instances())
    before = layout(source).identity()
    assert layout(source).identity() == before
    write(tmp_path / "a.json", instances() | {"info": {}})
    assert layout(source).identity() != before


def changed(key: str, **values: Any) -> dict[str, Any]:
    content = instances()
    content[key][0] |= values
    return content


BROKEN = {
    "a list": ([], "is not an object"),
    "no annotations": ({"images": []}, "no list of objects 'annotations'"),
    "images of numbers": ({"images": [1], "annotations": []}, "no list of objects 'images'"),
    "no name": (changed("images", file_name=None), r"images\[0\]: file_name is None"),
    "outside": (changed("images", file_name="../x.jpg"), "relative to the folder of images"),
    "too long": (changed("images", file_name="x" * 5000), "its image xxx"),
    "absolute": (changed("images", file_name="/etc/passwd"), "relative to the folder of images"),
    "no height": (changed("images", height="48"), "height is '48'"),
    "huge": (changed("images", width=10**9), "width is 1000000000"),
    "no such image": (changed("annotations", image_id=99), "names the image 99"),
    "no such category": (changed("annotations", category_id=99), "has category_id 99"),
    "id of another": (
        changed("annotations", id=102),
        r"annotations\[1\]: has the id 102 of another",
    ),
    "a float as id": (changed("annotations", id=1.5), "id is 1.5"),
    "blank name": (changed("categories", name=" "), "name is ' '"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_end_with_one_line(tmp_path, name):
    content, message = BROKEN[name]
    write_images(tmp_path)
    with pytest.raises(DataError, match=message):
        list(layout(write(tmp_path / "a.json", content)).queries("val"))


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"images": [\ud800'])
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(DataError, match=r"a\.json: is not JSON"):
        list(layout(str(path)).queries("val"))


def test_without_pycocotools_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    write_images(tmp_path)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pip install 'lisabench\[data\]'"):
        list(layout(write(tmp_path / "a.json", instances())).queries("val"))
