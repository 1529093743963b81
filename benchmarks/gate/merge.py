"""Several runs of one suite, of a process a case each, as one run of as many processes.

The first measures memory and has the quality pass: each query is evaluated once per version, not once per pair.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...harness.records.journal import RUN, append, create, write_json
from ...harness.records.run import FITS, GALLERY, MEMORY, PASSES, QUALITY, SAMPLES, Run, read_run

Lines = list[dict[str, Any]]


def merged(parts: Sequence[Run], folder: Path, source: dict[str, Any]) -> Run:
    """Writes the run's folder; part i becomes process i. Controls, fits and quality are those of the first part.

    Args:
        parts: finished or failed runs, in the order in which they were measured.
        folder: a new one.
        source: where the version is from that was run.

    Raises:
        UsageError: the folder cannot be written.
    """
    create(folder, (SAMPLES, MEMORY))
    controls = {entry["name"] for entry in parts[0].run["cases"] if entry["role"] == "control"}
    journals: dict[str, Lines] = {
        SAMPLES: list(_numbered([part.samples for part in parts], controls)),
        MEMORY: list(_numbered([part.memory for part in parts], controls)),
        PASSES: list(_numbered([part.passes for part in parts], controls)),
        FITS: parts[0].fits,
        QUALITY: parts[0].quality,
    }
    for name, lines in journals.items():
        if lines:
            append(folder / name, lines)
    gallery = parts[0].folder / GALLERY
    if gallery.is_file():
        shutil.copyfile(gallery, folder / GALLERY)
    write_json(folder / RUN, _page([part.run for part in parts]) | {"source": source})
    return read_run(folder)


def _numbered(journals: Sequence[Lines], controls: set[str]) -> Iterator[dict[str, Any]]:
    for process, lines in enumerate(journals):
        yield from (
            line | {"process": process}
            for line in lines
            if process == 0 or line["case"] not in controls
        )


def _page(pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, processes = pages[0], {"processes": len(pages), "memory_processes": _with_memory(pages)}
    failed = any(page["status"] == "failed" for page in pages)
    return first | {
        "status": "failed" if failed else "complete",
        "finished": pages[-1]["finished"],
        "in_turns": all(page.get("in_turns") for page in pages),  # older versions never do
        "plan": first["plan"] | processes,
        "definition": first["definition"] | {"plan": first["definition"]["plan"] | processes},
        "cases": [
            _entry(entries) for entries in zip(*(page["cases"] for page in pages), strict=True)
        ],
        "warnings": list(dict.fromkeys(warning for page in pages for warning in page["warnings"])),
    }


def _with_memory(pages: Sequence[dict[str, Any]]) -> int:
    return sum(page["plan"]["memory_processes"] for page in pages)


def _entry(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of one case: what its first process said of how it was built stands."""
    numbered = [
        (process, entry)
        for process, entry in enumerate(entries)
        if not process or entry["role"] == "model"
    ]
    warm_ups = [
        warm_up | {"process": process}
        for process, entry in numbered
        for warm_up in entry.get("warmups", ())
    ]
    broken = {
        key: next((e[key] for e in entries if e.get(key)), None)
        for key in ("error", "memory_error")
    }
    return entries[0] | broken | {"warmups": warm_ups}
