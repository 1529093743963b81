"""Merge several runs of one suite, each of one process a case, into one of many processes.

The runs may be of another version of lisabench. So their lines and manifests are taken as they are,
and only what the process changes is rewritten.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...harness.errors import RunFailed, UsageError
from ...harness.records.journal import (
    RUN,
    append,
    create,
    current_lines,
    read_any_manifest,
    write_json,
)
from ...harness.records.run import FITS, GALLERY, MEMORY, PASSES, QUALITY, SAMPLES, Run, read_run

Json = dict[str, Any]


def merge_runs(parts: Sequence[Run], folder: Path, source: Json) -> Run:
    """Write the folder of the merged run; part i becomes process i.

    Trivial baselines, fits and quality are those of the first part: each query is evaluated once
    per version, not once per pair.

    Args:
        parts: finished or failed runs, in the order in which they were measured.
        folder: a new one.
        source: where the version is from that was run.

    Raises:
        RunFailed: the folder cannot be written.
    """
    try:
        create(folder, (SAMPLES, MEMORY))
    except UsageError as error:
        # Nothing is begun here: all is measured, and what the user named could be written before.
        raise RunFailed(str(error)) from error
    for journal in (SAMPLES, MEMORY, PASSES):
        lines = _merge_journals(parts, journal)
        if lines:
            append(folder / journal, lines)
    for journal in (FITS, QUALITY):
        lines = current_lines(parts[0].folder / journal)
        if lines:
            append(folder / journal, lines)
    gallery = parts[0].folder / GALLERY
    if gallery.is_file():
        shutil.copyfile(gallery, folder / GALLERY)
    manifests = [read_any_manifest(part.folder) for part in parts]
    write_json(folder / RUN, _merge_manifests(manifests) | {"source": source})
    return read_run(folder)


def _merge_journals(parts: Sequence[Run], journal: str) -> list[Json]:
    """Return the lines of a journal of every part, those of trivial baselines from the first."""
    baselines = {entry.name for entry in parts[0].manifest.cases if not entry.is_model}
    lines = []
    for process, part in enumerate(parts):
        for line in current_lines(part.folder / journal):
            if process == 0 or line["case"] not in baselines:
                lines.append(line | {"process": process})
    return lines


def _merge_manifests(manifests: Sequence[Json]) -> Json:
    first = manifests[0]
    memory_processes = 0
    warnings: list[str] = []
    status = "complete"
    for manifest in manifests:
        memory_processes += manifest["plan"]["memory_processes"]
        for text in manifest["warnings"]:
            if text not in warnings:
                warnings.append(text)
        if manifest["status"] == "failed":
            status = "failed"
    processes = {"processes": len(manifests), "memory_processes": memory_processes}
    definition = first["definition"]
    # Every version lists the cases in the order of the suite.
    cases = []
    for entries in zip(*(manifest["cases"] for manifest in manifests), strict=True):
        cases.append(_merge_entries(entries))
    return first | {
        "status": status,
        "finished": manifests[-1]["finished"],
        # Older versions have no such key: they are never in lockstep.
        "in_turns": all(manifest.get("in_turns") for manifest in manifests),
        "plan": first["plan"] | processes,
        "definition": definition | {"plan": definition["plan"] | processes},
        "cases": cases,
        "warnings": warnings,
    }


def _merge_entries(entries: Sequence[Json]) -> Json:
    """Return the entry of a case: of the build, it has what the first process noted."""
    merged = entries[0] | {"error": None, "memory_error": None, "warmups": []}
    for entry in entries:
        for key in ("error", "memory_error", "out_of_memory"):
            # The first process that failed says why.
            merged[key] = merged.get(key) or entry.get(key)
    for process, entry in enumerate(entries):
        if process == 0 or entry["role"] == "model":
            for warm_up in entry.get("warmups", ()):
                merged["warmups"].append(warm_up | {"process": process})
    return merged
