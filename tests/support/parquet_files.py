"""Small parquet files, nested as those of the field are; each returns its masks, drawn by numpy."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = (24, 32)  # height and width
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` stores pictures
SENTENCE = pa.struct(
    [
        ("raw", pa.string()),
        ("sent", pa.string()),
        ("sent_id", pa.int64()),
        ("tokens", pa.list_(pa.string())),
    ]
)
RLE = pa.struct([("counts", pa.string()), ("size", pa.list_(pa.int32()))])
SAMPLE = pa.struct(
    [
        ("id", pa.int64()),
        ("image_id", pa.int64()),
        ("category", pa.string()),
        ("supercategory", pa.string()),
        ("label", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("bbox", pa.list_(pa.float32())),
        ("mask", RLE),
    ]
)


def picture(seed: int, suffix: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    return encoded(pixels, suffix)


def encoded(pixels: np.ndarray, suffix: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix)
    return file.getvalue()


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask_HW = np.zeros(SIZE, bool)
    mask_HW[y : y + height, x : x + width] = True
    return mask_HW


def corners(x: int, y: int, width: int, height: int) -> list[float]:
    """The outline of a rectangle, of which COCO's drawing fills just the pixels."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def write(path: Path, columns: dict[str, pa.Array], **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def reasonseg_copy(root: Path, count: int = 3) -> dict[str, np.ndarray]:
    """As Ricky06662/ReasonSeg_val: its split is named test, its masks are nested lists of bool."""
    masks = {f"q{number}": rectangle(2 + number, 3, 8, 9 + number) for number in range(count)}
    write(
        root / "data" / "test-00000-of-00001.parquet",
        {
            "image": pa.array(
                [
                    {"bytes": picture(number), "path": f"{name}.jpg"}
                    for number, name in enumerate(masks)
                ],
                IMAGE,
            ),
            "mask": pa.array(
                [mask.tolist() for mask in masks.values()], pa.list_(pa.list_(pa.bool_()))
            ),
            "text": pa.array([f"what is number {number}?" for number in range(count)]),
            "image_id": pa.array(list(masks)),
            "ann_id": pa.array(list(masks)),
            "img_height": pa.array([SIZE[0]] * count),
            "img_width": pa.array([SIZE[1]] * count),
        },
        row_group_size=2,
    )
    return masks


def refcoco_of_lmms(root: Path) -> dict[str, np.ndarray]:
    """As lmms-lab/RefCOCO: sentences in `answer`, one flat polygon in `segmentation`."""
    boxes = {"469306": (4, 5, 10, 7), "469307": (0, 0, 32, 24)}
    for split in ("val", "testA"):
        write(
            root / "data" / f"{split}-00000-of-00001.parquet",
            {
                "question_id": pa.array(list(boxes)),
                "image": pa.array([{"bytes": picture(7), "path": None}] * 2, IMAGE),
                "question": pa.array(["come up with a caption for the area circled"] * 2),
                "answer": pa.array([["left guy", "man in red"], ["all of it"]]),
                "segmentation": pa.array(
                    [corners(*box) for box in boxes.values()], pa.list_(pa.float32())
                ),
                "bbox": pa.array([list(box) for box in boxes.values()], pa.list_(pa.float32())),
                "iscrowd": pa.array([0, 0], pa.int8()),
                "file_name": pa.array([f"COCO_train2014_000000581857_{i}.jpg" for i in range(2)]),
            },
        )
    return {name: rectangle(*box) for name, box in boxes.items()}


def refcoco_of_jxu(root: Path, run_lengths: list[int]) -> dict[str, np.ndarray]:
    """As jxu124/refcoco: sentences as structs, COCO's annotation as JSON, pictures elsewhere.

    Args:
        root: of the data.
        run_lengths: of the second target's mask.
    """
    boxes = [(4, 5, 10, 7), (1, 1, 3, 20)]
    polygons = {"segmentation": [corners(*box) for box in boxes], "area": 130, "iscrowd": 0}
    crowd = {"segmentation": {"counts": run_lengths, "size": list(SIZE)}, "iscrowd": 1}
    name = "coco/train2014/COCO_train2014_000000581857.jpg"
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(picture(3))
    sentences = [
        [{"raw": "Left guy!", "sent": "left guy", "sent_id": 1, "tokens": ["left", "guy"]}],
        [{"raw": "Them", "sent": "them", "sent_id": 2, "tokens": ["them"]}],
    ]
    write(
        root / "data" / "validation-00000-of-00001-bfeafdc84ca37aa2.parquet",
        {
            "sent_ids": pa.array([[1], [2]]),
            "file_name": pa.array([f"COCO_train2014_000000581857_{i}.jpg" for i in (16, 17)]),
            "ann_id": pa.array([1719310, 1719311]),
            "ref_id": pa.array([11, 12]),
            "image_id": pa.array([581857, 581857]),
            "split": pa.array(["val", "val"]),
            "sentences": pa.array(sentences, pa.list_(SENTENCE)),
            "category_id": pa.array([1, 1]),
            "raw_anns": pa.array([json.dumps(polygons), json.dumps(crowd)]),
            "raw_image_info": pa.array([json.dumps({"height": 24, "width": 32})] * 2),
            "raw_sentences": pa.array(["[]", "[]"]),
            "image_path": pa.array([name, name]),
            "bbox": pa.array([[1.0, 1.0, 14.0, 21.0]] * 2),
            "captions": pa.array([["left guy"], ["them"]]),
        },
    )
    return {"11": rectangle(*boxes[0]) | rectangle(*boxes[1])}


def refcoco_m(root: Path, compressed: dict[str, str]) -> None:
    """As moondream/refcoco-m: a row is an image, with a list of samples with run lengths.

    Args:
        root: of the data.
        compressed: run lengths as COCO writes them, by the id of the sample.
    """
    samples = []
    for sample_id, counts in compressed.items():
        samples.append(
            {
                "id": int(sample_id),
                "image_id": 5,
                "category": "dog",
                "supercategory": "animal",
                "label": "dog",
                "sentences": [f"the dog {sample_id}", "a dog"],
                "bbox": [0.0, 0.0, 1.0, 1.0],
                "mask": {"counts": counts, "size": list(SIZE)},
            }
        )
    write(
        root / "data" / "validation-00000-of-00001.parquet",
        {
            "image": pa.array([{"bytes": picture(5), "path": "5.jpg"}], IMAGE),
            "image_id": pa.array([5]),
            "file_name": pa.array(["5.jpg"]),
            "samples": pa.array([samples], pa.list_(SAMPLE)),
        },
    )


def with_masks(path: Path, masks: pa.Array) -> Path:
    """A table of one form of masks."""
    count = len(masks)
    pictures = [{"bytes": picture(number), "path": None} for number in range(count)]
    return write(
        path,
        {
            "image": pa.array(pictures, IMAGE),
            "text": pa.array([f"thing {number}" for number in range(count)]),
            "mask": masks,
        },
    )
