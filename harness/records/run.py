"""The folder of a run: what was measured, written down before anything is derived from it.

run.json        the suite, the cases with their resolved settings, the machine's passport, versions, status
samples.jsonl   one line per timed query, case and process (`measure.measure` says what is in it)
quality.jsonl   one line per query and case, from the quality pass (`measure.evaluate` says what is in it);
                where a run has that pass, scores are computed from these lines
memory.jsonl    one line per case, process and stage, from the memory pass
passes.jsonl    on a GPU, lines of the passes beside the timing (`passes.py`): stages waited for, GPU at work
fits.jsonl      one line per case and card, where a suite claims that the one fits the other
gallery.npz     a few images and targets, for the report's gallery
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .journal import current_lines, read_manifest

RUN_SCHEMA = "lisabench.run/2"
# Version 1 kept masks row by row, as lists of integers. Version 2 keeps them in COCO's form, as
# text, which versions of lisabench from before it cannot read. `masks.decode` tells the two apart.
READABLE_RUN_SCHEMAS = (RUN_SCHEMA, "lisabench.run/1")
SAMPLES = "samples.jsonl"
MEMORY = "memory.jsonl"
GALLERY = "gallery.npz"
QUALITY = "quality.jsonl"
PASSES = "passes.jsonl"
FITS = "fits.jsonl"


@dataclass(frozen=True)
class Run:
    """A run read back: superseded lines are left out."""

    folder: Path
    run: dict[str, Any]
    samples: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    passes: list[dict[str, Any]]
    fits: list[dict[str, Any]]
    quality: list[dict[str, Any]] = field(default_factory=list)

    def has_quality_pass(self, case: str) -> bool:
        """Return whether the quality of a case has a pass of its own.

        Older runs have no such pass, and cases with random weights take no part in it.
        """
        if not self.run.get("quality_pass"):
            return False
        entry = next(entry for entry in self.run["cases"] if entry["name"] == case)
        return entry.get("has_quality") is not False

    def scored(self, case: str) -> list[dict[str, Any]]:
        """Return the lines that the quality of a case is computed from, one a query.

        They are those of the quality pass. Without such a pass they are the timed lines: of each query
        the one of the lowest process that has it.
        """
        if self.has_quality_pass(case):
            return [line for line in self.quality if line["case"] == case]
        return one_per_query(line for line in self.samples if line["case"] == case)


def one_per_query(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each query the line of the lowest process that has it."""
    chosen: dict[str, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: line["process"]):
        chosen.setdefault(line["sample_id"], line)
    return list(chosen.values())


def read_run(folder: Path) -> Run:
    """Reads a run's folder, finished or not.

    Raises:
        UsageError: the folder holds no run.
    """
    page = read_manifest(folder, READABLE_RUN_SCHEMAS)
    return Run(folder, page, *(current_lines(folder / name) for name in (SAMPLES, MEMORY, PASSES, FITS, QUALITY)))
