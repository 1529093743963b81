"""Merge several runs of one suite, each of one process a case, into one of many processes.

The runs may be of another version of lisabench. So their lines and manifests are taken as they are,
and only what the process changes is rewritten.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        UsageError: the folder cannot be written.
    """
    create(folder, (SAMPLES, MEMORY))
    baselines = {entry.name for entry in parts[0].manifest.cases if not entry.is_model}
    for journal in (SAMPLES, MEMORY, PASSES):
        lines = []
        for process, part in enumerate(parts):
            for line in current_lines(part.folder / journal):
                if process == 0 or line["case"] not in baselines:
                    lines.append(line | {"process": process})
        if lines:
            append(folder / journal, lines)
    for journal in (FITS, QUALITY):
        lines = current_lines(parts[0].folder / journal)
        if lines:
            append(folder / journal, lines)
    gallery = parts[0].folder / GALLERY
    if gallery.is_file():
        shutil.copyfile(gallery, folder / GALLERY)
    manifest = _merge_manifests([read_any_manifest(part.folder) for part in parts])
    write_json(folder / RUN, manifest | {"source": source})
    return read_run(folder)


def _merge_manifests(manifests: Sequence[Json]) -> Json:
    first = manifests[0]
    processes = {
        "processes": len(manifests),
        "memory_processes": sum(manifest["plan"]["memory_processes"] for manifest in manifests),
    }
    definition = first["definition"]
    cases = []
    for number in range(len(first["cases"])):
        cases.append(_merge_entries([manifest["cases"][number] for manifest in manifests]))
    warnings: list[str] = []
    for manifest in manifests:
        warnings += [text for text in manifest["warnings"] if text not in warnings]
    failed = any(manifest["status"] == "failed" for manifest in manifests)
    return first | {
        "status": "failed" if failed else "complete",
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
    merged = dict(entries[0])
    for key in ("error", "memory_error"):
        reasons = [entry[key] for entry in entries if entry.get(key)]
        merged[key] = reasons[0] if reasons else None
    merged["warmups"] = []
    for process, entry in enumerate(entries):
        if process == 0 or entry["role"] == "model":
            for warm_up in entry.get("warmups", ()):
                merged["warmups"].append(warm_up | {"process": process})
    return merged
