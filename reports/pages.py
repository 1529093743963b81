"""The names of the files that a report consists of."""

from .peaks import GROWTH

SUMMARY = "summary.json"


REPORT = "report.md"


INSTRUMENTS = {
    "resident set": f"{GROWTH}, in a fresh process; ratios, differences and gates are of it. The peak of the whole "
    "process, Python and its libraries included, stands beside it",
    "cuda allocator": "the peak of PyTorch's CUDA allocator, reset at the start of each stage",
}
