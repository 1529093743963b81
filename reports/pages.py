"""The files of a report, and how its page is written."""

from pathlib import Path

from ..harness.records.whole_file import whole_file
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
    """Write a folder's ``report.md`` whole or not at all, and return its path."""
    path = folder / REPORT
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
