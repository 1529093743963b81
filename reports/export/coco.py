"""The masks of a run in COCO's forms, which other tools of segmentation open.

A folder gets ``queries.json``, a data set whose images are the queries, and in ``results`` for each
case a file with its results: the two arguments of ``COCO(...).loadRes(...)`` in pycocotools. The
forms are described in https://cocodataset.org/#format-data and
https://cocodataset.org/#format-results.
"""

import json
from pathlib import Path
from typing import Any

from ...harness.errors import UsageError
from ...harness.masks import decode, encode
from ...harness.records.query import QueryRecord
from ...harness.records.run import file_stem, read_run
from ...harness.records.whole_file import whole_file
from ...harness.text import one_line
from ..load import records_with_masks

QUERIES = "queries.json"
RESULTS = "results"  # a folder of its own, since a case may be named `queries`
CATEGORY = {"id": 1, "name": "target"}
Json = dict[str, Any]


def export_masks(folder: Path, out: Path | None) -> list[Path]:
    """Write the kept masks of a run into a folder, and return the files.

    Args:
        folder: of the run.
        out: the folder that gets the files.

    Raises:
        UsageError: no folder is given, it cannot be written, the folder holds no run, or the run
            keeps no mask.
        DataError: a record is damaged.
    """
    if out is None:
        raise UsageError("masks of several cases are several files: name a folder with --out")
    run = read_run(folder)
    by_case: dict[str, list[QueryRecord]] = {}
    for record in records_with_masks(run):
        by_case.setdefault(record.case, []).append(record)
    if not by_case:
        raise UsageError(
            f"{folder} keeps no mask; measure it again with --set gallery=all or --save-masks"
        )
    images: dict[str, Json] = {}
    for records in by_case.values():
        for record in records:
            images.setdefault(record.sample_id, _image(record, len(images) + 1))
    data_set = {
        "info": {"description": f"queries of lisabench's suite {run.manifest.suite}"},
        "images": list(images.values()),
        "annotations": [],
        "categories": [CATEGORY],
    }
    files = [_write(out / QUERIES, data_set)]
    for case, records in by_case.items():
        results = [_result(record, images[record.sample_id]["id"]) for record in records]
        files.append(_write(out / RESULTS / f"{file_stem(case)}.json", results))
    return files


def _image(record: QueryRecord, number: int) -> Json:
    """Return a query as an image of COCO's: two queries about one picture are two images."""
    return {
        "id": number,
        "file_name": record.sample_id,
        "height": record.height,
        "width": record.width,
        "query": one_line(record.query),
        "picture": record.image_id,
    }


def _result(record: QueryRecord, image_id: int) -> Json:
    """Return a mask as one of COCO's results. A model that gives no estimate has the score 1."""
    score = 1.0 if record.predicted_iou is None else record.predicted_iou
    return {
        "image_id": image_id,
        "category_id": CATEGORY["id"],
        # Masks of older runs are written row by row, which COCO does not know.
        "segmentation": encode(decode(record.mask_rle)),
        "score": score,
    }


def _write(path: Path, content: Json | list[Json]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; name another folder with --out"
        ) from error
    return path
