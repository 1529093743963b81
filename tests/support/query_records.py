"""Typed records for tests that need few of their fields."""

from typing import Any

from lisabench.harness.metrics import Counts
from lisabench.harness.records.query import QueryRecord
from lisabench.harness.records.run import MemoryRecord

NO_COUNTS = Counts(
    intersection_px=0,
    union_px=0,
    target_px=0,
    predicted_px=0,
    valid_px=0,
    target_box=None,
    predicted_box=None,
)


def query_record(sample_id: str = "q", process: int = 0, **fields: Any) -> QueryRecord:
    """Return the record of an answered query about its own image, with some fields changed."""
    plain: dict[str, Any] = {
        "case": "dual",
        "process": process,
        "sample_id": sample_id,
        "image_id": sample_id,
        "query": "the red disc",
        "status": "ok",
        "counts": NO_COUNTS,
        "height": 24,
        "width": 32,
    }
    return QueryRecord(**(plain | fields))


def counted_record(counts: dict[str, Any], **fields: Any) -> QueryRecord:
    """Return the record of a query whose pixels were counted as `run_factory.counted` does."""
    boxes = {}
    for name in ("target_box", "predicted_box"):
        boxes[name] = tuple(counts[name]) if counts[name] is not None else None
    return query_record(counts=Counts(**(counts | boxes)), **fields)


def memory_record(stage: str, **fields: Any) -> MemoryRecord:
    """Return a record of the memory pass on a GPU, with these fields changed."""
    plain: dict[str, Any] = {
        "case": "dual",
        "process": 0,
        "stage": stage,
        "instrument": "cuda allocator",
    }
    return MemoryRecord(**(plain | fields))
