"""The table of all published runs, ``results/README.md``.

It is made from the records and from ``results/index.yaml``.

The index holds a question and an answer for each run, which no record can know. Machine, date and
size come from the records. To write the table again, in a clone of the repository:

    python -m lisabench.reports.published_runs
"""

import datetime
from dataclasses import dataclass
from pathlib import Path

from ..harness.errors import DataError
from ..harness.input_file import read_text
from ..harness.records.from_json import InnerFolder, from_json, read_from
from ..harness.records.journal import RUN, read_manifest
from ..harness.records.manifest import Manifest
from ..harness.records.run import READABLE_RUN_SCHEMAS
from ..harness.yaml_file import read_yaml
from .formatting import machine
from .markdown import Markup, link, markdown_table
from .study.schema import StudySummary

RESULTS = Path(__file__).parents[1] / "results"
INDEX, TABLE = "index.yaml", "README.md"
HEADER = ["run", "question", "answer", "machine", "date", "size"]
INTRODUCTION = """\
# Published runs

These are the raw records that the documents cite, newest first.

- [docs/results.md](../docs/results.md) says what was found, and explains the words of this table.
- [LOG.md](LOG.md) says what was tried, predicted and concluded, failures included.
- [docs/records.md](../docs/records.md) says what is in the files.
- `lisabench report FOLDER` writes a report again from its records.

Two words of the gates: an *unchanged* tree is one version of lisabench, measured against itself; a
*planted* one was made slower and larger on purpose. This page is generated from
`results/index.yaml` by `reports/published_runs.py`.
"""


@dataclass(frozen=True)
class IndexEntry:
    """A published run in the index.

    Attributes:
        folder: of its records, below ``results``.
        question: that it was made to answer.
        answer: what came out, in a sentence.
        machine, date, size: where the records lack them.
    """

    folder: InnerFolder
    question: str
    answer: str
    machine: str | None = None
    date: datetime.date | str | None = None  # YAML reads 2026-11-29 as a date
    size: str | None = None


@dataclass(frozen=True)
class RecordFacts:
    """What the records of a run say about it; None where they say nothing."""

    machine: str | None = None
    date: str | None = None
    size: str | None = None


def published_runs_page(results: Path = RESULTS) -> str:
    """Return the page of all published runs.

    Args:
        results: the folder with the index and the records.

    Raises:
        DataError: an entry lacks a fact that its records do not have either.
    """
    rows = []
    for entry in read_index(results):
        facts = record_facts(results / entry.folder)
        columns = {
            "machine": entry.machine or facts.machine,
            "date": entry.date or facts.date,
            "size": entry.size or facts.size,
        }
        for name, value in columns.items():
            if value is None:
                raise DataError(
                    f"{INDEX}: the records of {entry.folder} do not give its {name}; "
                    f"add `{name}` to its entry"
                )
        report = _link(results, entry.folder)
        # The index is Markdown that we write ourselves.
        texts = [Markup(entry.question), Markup(entry.answer)]
        rows.append([report, *texts, *map(str, columns.values())])
    return f"{INTRODUCTION}\n{markdown_table(HEADER, rows, numbers=False)}\n"


def read_index(results: Path = RESULTS) -> list[IndexEntry]:
    """Return the entries of the index, in its order.

    Raises:
        LisabenchError: it is damaged.
    """
    listed = read_yaml(read_text(results / INDEX), INDEX)
    with read_from(results / INDEX):
        return [from_json(IndexEntry, entry) for entry in listed]


def record_facts(folder: Path) -> RecordFacts:
    """Return what the records in a folder say about machine, date and size."""
    if (folder / "study.json").is_file():
        return _of_study(folder)
    if (folder / "head" / "run.json").is_file():  # a gate: two versions, measured in pairs
        return _of_run(folder / "head", processes="pairs of processes")
    if (folder / "run.json").is_file():
        return _of_run(folder, processes="processes")
    return RecordFacts()


def _of_run(folder: Path, processes: str) -> RecordFacts:
    content = read_manifest(folder, READABLE_RUN_SCHEMAS)
    with read_from(folder / RUN):
        manifest = Manifest.from_json(content)
    models = [case for case in manifest.cases if case.is_model]
    if manifest.trainings:
        size = f"{len(manifest.trainings)} trainings"
    else:
        size = ", ".join(
            [
                _counted(len(models), "case"),
                _counted(manifest.data.count, "query"),
                _counted(manifest.plan.processes, processes),
            ]
        )
    chip = _chip(machine(manifest.environment or {}))
    return RecordFacts(chip, manifest.started[:10], size)


def _of_study(folder: Path) -> RecordFacts:
    summary = StudySummary.read(folder / "summary.json")
    trainings = len(list(folder.glob("*/training.json")))
    size = f"{trainings} trainings, {summary.queries:,} queries"
    chips = [_chip(description) for description in summary.machines]
    return RecordFacts(" and ".join(chips), None, size)


def _chip(description: str) -> str:
    """Return the first part of a machine's description: its GPU, or its CPU where it has none."""
    return description.split("; ")[0]


def _counted(count: int, noun: str) -> str:
    """Return ``1 case``, ``9 cases``, ``32 queries`` or ``5 processes``."""
    if count == 1:
        return f"1 {noun.replace('processes', 'process', 1)}"
    plurals = {"case": "cases", "query": "queries"}
    return f"{count} {plurals.get(noun, noun)}"


def _link(results: Path, folder: str) -> Markup:
    """Return a link to the report of a run, or to its folder where it has none."""
    report = f"{folder}/report.md"
    return link(folder, report if (results / report).is_file() else folder)


def main() -> None:
    """Write the table again."""
    (RESULTS / TABLE).write_text(published_runs_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
