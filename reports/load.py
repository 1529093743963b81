"""Records for notebooks: queries as a table, and masks as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..harness.contract import STAGES
from ..harness.errors import UsageError
from ..harness.masks import decode, encode
from ..harness.paths import user_path
from ..harness.records.journal import current_lines
from ..harness.records.query import COUNTED, QueryRecord
from ..harness.records.run import QUALITY, SAMPLES, Run, read_run

NESTED = ("counts", "regions", "tags", "mask_rle")  # fields of a record that become several columns
# What every run has a column of. Those of regions, tags and masks are as the lines have them.
COLUMNS = (
    "run",
    "role",
    "pass",
    *(field.name for field in fields(QueryRecord) if field.name not in NESTED),
    *COUNTED,
    *(f"stages.{stage}_ns" for stage in STAGES),
)


def load(*folders: str | Path) -> pd.DataFrame:
    """Return the queries of one run or of several, a row per line of their journals that counts.

    The column ``pass`` tells the timed lines (``timed``, one per query, case and process) from
    those of the quality pass (``quality``, one per query and case, without times).

    Nested fields become columns with dots: ``regions.vision.clip.exclusive_ns``, ``tags.family``.
    Beside them stand ``run``, the folder as it was given, ``role``, model or control, and
    ``stages.vision_ns`` and its like: the stage's time as the report has it, the exclusive times of
    all its regions; missing where a query has no time. Kept masks are in COCO's form
    (``mask_rle.size``, ``mask_rle.counts``), also those of older runs, which were written row by
    row.

    The columns of every line are there for any run, also for one that has just begun and has no
    lines.

    Raises:
        UsageError: a folder holds no run, or none is given.
        DataError: a kept mask is damaged.
    """
    if not folders:
        raise UsageError("load needs the folder of a run, such as lisabench.load('runs/mine')")
    rows = []
    for folder in folders:
        rows += _rows(folder)
    table = pd.json_normalize(rows)
    missing = [name for name in COLUMNS if name not in table]
    # A run that has only begun has no rows, and one without timed rounds no times.
    return table.reindex(columns=[*table.columns, *missing])


def _rows(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Return the lines as they stand in the journals, with every key, also of a newer version."""
    run = read_run(user_path(folder))
    roles = {entry.name: entry.role for entry in run.manifest.cases}
    for kind, journal in (("timed", SAMPLES), ("quality", QUALITY)):
        for line in current_lines(run.folder / journal):
            row = {"run": str(folder), "role": roles.get(line["case"]), "pass": kind} | line
            if line.get("mask_rle"):
                row["mask_rle"] = encode(decode(line["mask_rle"]))
            query = QueryRecord.from_json(line)
            if query.is_timed:
                for stage in STAGES:
                    row[f"stages.{stage}_ns"] = query.stage_ns(stage)
            yield row


@dataclass(frozen=True)
class KeptMask:
    """What a case answered to a query.

    Attributes:
        case: name of the case.
        sample_id: id of the query.
        image_id: id of the image; several queries may share it.
        query: the text.
        mask_HW: bool [H, W], of the size of the image.
    """

    case: str
    sample_id: str
    image_id: str
    query: str
    mask_HW: np.ndarray


def masks(folder: str | Path) -> Iterator[KeptMask]:
    """Yield every mask that a run keeps, case by case, in the order of the data.

    One mask is decoded at a time, so that a large run takes little memory.

    Args:
        folder: of the run.

    Raises:
        UsageError: the folder holds no run.
        DataError: a record is damaged.
    """
    for record in records_with_masks(read_run(user_path(folder))):
        mask_HW = decode(record.mask_rle)
        yield KeptMask(record.case, record.sample_id, record.image_id, record.query, mask_HW)


def records_with_masks(run: Run) -> Iterator[QueryRecord]:
    """Yield a record of each query whose mask a run keeps, one for each case.

    It is that of the quality pass; of a case in no quality pass that of the first process with one.
    """
    for case in run.cases:
        by_query: dict[str, QueryRecord] = {}
        for record in (*case.scored, *case.queries):
            if record.mask_rle is not None:
                by_query.setdefault(record.sample_id, record)
        yield from sorted(by_query.values(), key=lambda record: record.position)
