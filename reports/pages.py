"""The files of a report, and how its page is written."""

from pathlib import Path

from .peaks import GROWTH

SUMMARY = "summary.json"
REPORT = "report.md"
INSTRUMENTS = {
    "resident set": (
        f"{GROWTH}, in a fresh process. Ratios, differences and gates are of it. The peak of the "
        "whole process, Python and its libraries included, is shown as well"
    ),
    "cuda allocator": "the peak of PyTorch's CUDA allocator, reset at the start of each stage",
}


def write_page(folder: Path, text: str) -> Path:
    """Write a folder's ``report.md`` whole or not at all, and return its path.

    A report may be read, or its process killed, while it is written. So the text goes into a file
    beside it first, which then takes its place in one step.
    """
    path = folder / REPORT
    temporary = folder / f".{REPORT}.partial"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
