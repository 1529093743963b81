"""Records as a table, for notebooks."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..harness.contract import STAGES
from ..harness.errors import UsageError
from ..harness.masks import decode, encode
from ..harness.records.readings import Record, stage_ns, timed
from ..harness.records.run import read_run


def load(*folders: str | Path) -> pd.DataFrame:
    """The queries of one run or of several, a row per line of their journals that counts.

    The column ``pass`` tells the timed lines (``timed``, one per query, case and process) from those of the quality
    pass (``quality``, one per query and case, without times).

    Nested fields become columns with dots: ``regions.vision.clip.exclusive_ns``, ``tags.family``. Beside them stand
    ``run``, the folder as it was given, ``role``, model or control, and ``stages.vision_ns`` and its like: the stage's
    time as the report has it, the exclusive times of all its regions; missing where a query has no time. Kept masks are
    in COCO's form (``mask_rle.size``, ``mask_rle.counts``), also those of older runs, which were written row by row.

    Raises:
        UsageError: a folder holds no run, or none is given.
        DataError: a kept mask is damaged.
    """
    if not folders:
        raise UsageError("load needs the folder of a run, such as lisabench.load('runs/mine')")
    return pd.json_normalize([row for folder in folders for row in _rows(folder)])


def _rows(folder: str | Path) -> Iterator[Record]:
    run = read_run(Path(folder))
    roles = {case["name"]: case["role"] for case in run.run["cases"]}
    for name, lines in (("timed", run.samples), ("quality", run.quality)):
        for row in lines:
            where = {"run": str(folder), "role": roles.get(row["case"]), "pass": name}
            yield where | row | _mask(row) | _stages(row)


def _mask(row: Record) -> Record:
    """Return the kept mask in COCO's form, also from a record of ``lisabench.run/1``."""
    if not row.get("mask_rle"):
        return {}
    return {"mask_rle": encode(decode(row["mask_rle"]))}


def _stages(row: Record) -> dict[str, int]:
    if not timed([row]):
        return {}
    return {f"stages.{stage}_ns": stage_ns(row, stage) for stage in STAGES}
