"""Small copies of COCO's and REFER's data, nested as the real ones are."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask

TRAIN_2014 = "images/mscoco/images/train2014"
SIZES = {12: (48, 64), 25: (60, 40), 36: (32, 32)}  # height and width of each image, by its id
CATEGORIES = {1: "person", 18: "dog", 62: "chair"}
# Corners of polygons by annotation; the id of its image and of its category.
OBJECTS = {
    101: (12, 1, [[4.5, 4.2, 30.1, 4.9, 28.0, 40.7, 6.6, 38.2]]),
    102: (12, 18, [[40.0, 10.0, 60.0, 10.0, 60.0, 30.0], [42.5, 33.0, 55.0, 33.0, 50.0, 45.0]]),
    103: (25, 1, [[1.0, 1.0, 20.0, 1.5, 20.0, 50.0]]),
    104: (25, 1, [[22.0, 20.0, 38.5, 20.0, 38.5, 58.0, 22.0, 58.0]]),
    105: (36, 62, [[8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0]]),
}


def file_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def write_images(folder: Path, names: dict[int, str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image_id, (height, width) in SIZES.items():
        pixels_HW3 = np.random.default_rng(image_id).integers(0, 255, (height, width, 3), np.uint8)
        name = names[image_id] if names else file_name(image_id)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_HW3).save(folder / name)


def instances(names: dict[int, str] | None = None) -> dict[str, Any]:
    """Return the content of an ``instances.json``, with one RLE and one crowd among polygons."""
    images = []
    for image_id, (height, width) in SIZES.items():
        name = names[image_id] if names else file_name(image_id)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    annotations = []
    for annotation_id, (image_id, category_id, polygons) in OBJECTS.items():
        annotations.append(
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": category_id,
                "segmentation": polygons,
                "iscrowd": 0,
                "area": 1.0,
                "bbox": [0.0, 0.0, 1.0, 1.0],
            }
        )
    annotations[3]["segmentation"] = rle_of(104)
    categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def rle_of(annotation_id: int) -> dict[str, Any]:
    """Return an object's RLE, as in COCO's files: runs of pixels, column by column."""
    rle = mask.encode(np.asfortranarray(mask_of(annotation_id)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def mask_of(*annotation_ids: int, image_id: int | None = None) -> np.ndarray:
    """Return the union of objects by pycocotools, uint8 [H, W]."""
    height, width = SIZES[image_id or OBJECTS[annotation_ids[0]][0]]
    union_HW = np.zeros((height, width), np.uint8)
    for annotation_id in annotation_ids:
        parts = mask.frPyObjects(OBJECTS[annotation_id][2], height, width)
        union_HW |= mask.decode(mask.merge(parts))
    return union_HW


def reference(
    number: int,
    annotation_id: int | list[int],
    image_id: int,
    split: str,
    *texts: str,
) -> dict[str, Any]:
    """Return a reference as REFER's pickles hold it; its file name has an object's number."""
    sentences = []
    for count, text in enumerate(texts):
        sentences.append(
            {
                "tokens": text.split(),
                "raw": text.upper(),
                "sent_id": 10 * number + count,
                "sent": text,
            }
        )
    return {
        "ref_id": number,
        "ann_id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "file_name": file_name(image_id).replace(".jpg", f"_{number}.jpg"),
        "split": split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


REFERENCES = [
    reference(0, 101, 12, "val", "the lady", " Lady in BLUE "),
    reference(1, 102, 12, "train", "dog"),
    reference(2, 104, 25, "val", "man on the right"),
    reference(3, 103, 25, "testA", "man on the left", "", "left man"),
    reference(4, 105, 36, "testB", "chair"),
]
GENERAL_REFERENCES = [
    reference(0, [103, 104], 25, "val", "both men"),
    reference(1, [101], 12, "val", "the lady", "woman"),
    reference(2, [-1], 36, "val", "a red bus"),
    reference(3, [105], 36, "train", "chair"),
]


def write_data_set(folder: Path, files: dict[str, list[dict[str, Any]]]) -> None:
    """Write a data set of REFER's: references by file name, and ``instances.json``."""
    folder.mkdir(parents=True)
    (folder / "instances.json").write_text(json.dumps(instances()))
    for name, references in files.items():
        if name.endswith(".p"):
            (folder / name).write_bytes(pickle.dumps(references, 2))
        else:
            (folder / name).write_text(json.dumps(references))


def write_tree(root: Path) -> Path:
    """Write a tree with refCOCO, refCOCO+, refCOCOg and gRefCOCO, and return its folder."""
    tree = root / "refer_seg"
    write_images(tree / TRAIN_2014)
    by_google = [reference(7, 105, 36, "val", "the chair")]
    write_data_set(tree / "refcoco", {"refs(unc).p": REFERENCES, "refs(google).p": by_google})
    write_data_set(tree / "refcoco+", {"refs(unc).p": REFERENCES[:2]})
    write_data_set(tree / "refcocog", {"refs(umd).p": REFERENCES[:3], "refs(google).p": by_google})
    write_data_set(tree / "grefcoco", {"grefs(unc).json": GENERAL_REFERENCES})
    return tree
