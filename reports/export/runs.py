"""The table of all runs below a folder: when and where each was measured, and what it found."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...harness.errors import LisabenchError, UsageError
from ...harness.paths import missing, user_path
from ...harness.records.from_json import read_from
from ...harness.records.journal import RUN, read_any_manifest
from ...harness.records.manifest import Manifest
from ...harness.records.run import READABLE_RUN_SCHEMAS
from ...harness.records.training import TRAINING_SCHEMA, TrainingManifest
from .. import formatting
from ..document import SUMMARY
from ..formatting import machine
from ..markdown import cell
from ..run.summary import read_summary
from .shown import ShownTable
from .table import Row, Table, Value, interval_values, texts, whole_numbers, with_interval

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *texts("folder", "kind", "started", "suite", "machine", "status"),
    *whole_numbers("cases", "queries", "processes"),
    *texts("reference", "fastest", "ratio_of"),
    *with_interval("ratio"),
    *texts("problem"),
]
# Folders of a gate whose runs are parts of those in its folders `base` and `head`.
PARTS = ("parts", "again")
HEADER = ["run", "date", "suite", "machine", "cases", "status", "fastest, over the reference"]
NOT_WHERE_NARROW = (3, 4)  # machine and cases


def runs(folder: str | Path) -> "pd.DataFrame":
    """Return a table of all runs below a folder, newest first; see `runs_table`.

    Raises:
        UsageError: there is no such folder.
    """
    return runs_table(user_path(folder)).frame()


def runs_table(folder: Path) -> Table:
    """Return a row for each run and training below a folder, newest first.

    The ratio of a run is that of its fastest variant to the reference, of those that answer in the
    same way (teacher-forced, or generated). It is as its ``summary.json`` has it: of the time of a
    query, or of the queries per second. A run whose files are damaged has a row too, which says so.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{missing('folder', folder)}; name one with runs below it: lisabench runs DIR"
        )
    rows = []
    for path in _folders_of_runs(folder):
        row: dict[str, Value] = {"folder": os.path.relpath(path, folder)}
        try:
            row |= _facts(path)
        except LisabenchError as error:
            row |= {"status": "damaged", "problem": str(error)}
        rows.append(row)
    rows.sort(key=lambda row: str(row["folder"]))
    rows.sort(key=lambda row: str(row.get("started") or ""), reverse=True)
    return Table(COLUMNS, rows)


def _folders_of_runs(folder: Path) -> Iterator[Path]:
    """Yield the folders with a run. What lies below such a folder belongs to that run."""
    for place, folders, files in os.walk(folder):
        if RUN in files:
            folders.clear()
            yield Path(place)
        elif "base" in folders and "head" in folders:
            folders[:] = [name for name in folders if name not in PARTS]


def _facts(folder: Path) -> dict[str, Value]:
    """Return what the manifest and the summary of a run say.

    Raises:
        DataError: a file is damaged.
    """
    content = read_any_manifest(folder)
    schema = content.get("schema")
    if schema == TRAINING_SCHEMA:
        return _training_facts(folder, content)
    if schema not in READABLE_RUN_SCHEMAS:
        return {"status": "unknown", "problem": f"it has schema {schema!r}"}
    with read_from(folder / RUN):
        manifest = Manifest.from_json(content)
    facts: dict[str, Value] = {
        "kind": "run",
        "started": manifest.started,
        "suite": manifest.suite,
        "machine": machine(manifest.environment or {}),
        "status": manifest.status,
        "cases": len(manifest.models),
        "queries": manifest.data.count,
        "processes": manifest.plan.processes,
        "reference": manifest.reference,
    }
    return facts | _main_ratio(folder)


def _training_facts(folder: Path, content: Mapping[str, Any]) -> dict[str, Value]:
    with read_from(folder / RUN):
        manifest = TrainingManifest.from_json(content)
    model = manifest.model
    return {
        "kind": "training",
        "started": manifest.started,
        "suite": f"{model.vision}, recipe {model.recipe}",
        "machine": machine(manifest.environment),
        "status": manifest.status,
    }


def _main_ratio(folder: Path) -> dict[str, Value]:
    """Return the ratio of the fastest variant; nothing without a report, or without a variant.

    A variant whose answers come about in another way, such as one that is given its answer while
    the reference generates it, is no faster model, and left out.
    """
    if not (folder / SUMMARY).is_file():
        return {}
    try:
        summary = read_summary(folder)
    except LisabenchError as error:
        return {"problem": str(error)}
    answer_of = {case.name: (case.settings or {}).get("answer") for case in summary.cases}
    of = "throughput" if summary.measures_throughput else "time"
    fastest, least_time = None, math.inf
    for comparison in summary.comparisons:
        answers_alike = answer_of.get(comparison.candidate) == answer_of.get(comparison.reference)
        if comparison.same_settings or not answers_alike:
            continue
        time_ratio = comparison.end_to_end.ratio
        if time_ratio is not None and time_ratio < least_time:
            fastest, least_time = comparison, time_ratio
    if fastest is None:
        return {}
    ratio = fastest.throughput if summary.measures_throughput else fastest.end_to_end
    values: dict[str, Value] = {
        "reference": fastest.reference,
        "fastest": fastest.candidate,
        "ratio_of": of,
    }
    return values | interval_values("ratio", ratio.ratio, ratio)


def shown_runs(table: Table) -> ShownTable:
    """Return the table of runs as people read it."""
    rows = []
    for row in table.complete_rows():
        started = str(row["started"] or "-")[:10]
        # The GPU, or the CPU where there is none, without its memory and cores.
        chip = str(row["machine"] or "-").split("; ")[0].split(", ")[0]
        facts = [cell(row[name]) for name in ("suite", "cases", "status")]
        suite, cases, status = facts
        if status == "running":
            status = "unfinished"
        rows.append([str(row["folder"]), started, suite, chip, cases, status, _shown_ratio(row)])
    return ShownTable(HEADER, rows, NOT_WHERE_NARROW)


def _shown_ratio(row: Row) -> str:
    """Return the main ratio, such as ``clip 0.79x [0.75, 0.84]``."""
    ratio, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    if not isinstance(ratio, float):
        return "-"
    text = f"{row['fastest']} {formatting.ratio(ratio)}"
    if isinstance(low, float) and isinstance(high, float):
        text += f" [{low:.2f}, {high:.2f}]"
    return f"{text} queries/s" if row["ratio_of"] == "throughput" else text
