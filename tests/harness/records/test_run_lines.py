"""The lines of a run's journals: what is written is what was read, key by key and in the same
order.
"""

import json

import pytest
from places import RESULTS

from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.query import QueryRecord
from lisabench.harness.records.run import FitRecord, MemoryRecord, PassRecord

pytestmark = pytest.mark.no_clock

PUBLISHED = RESULTS / "claims-described"  # the newest run on a GPU
TYPES = {"samples": QueryRecord, "memory": MemoryRecord, "passes": PassRecord}
COUNTS = {
    "intersection_px": 3,
    "union_px": 5,
    "target_px": 4,
    "predicted_px": 4,
    "valid_px": 100,
    "target_box": [0, 0, 2, 2],
    "predicted_box": None,
    "failed": False,
}
SCORED = {
    "case": "dual",
    "process": 0,
    "attempt": 1,
    "position": 2,
    "sample_id": "q2",
    "image_id": "a",
    "query": "the mug",
    "tags": {"family": "exist"},
    "height": 10,
    "width": 10,
    "batch": 8,
    "status": "ok",
    "reason": None,
    "predicted_iou": 0.5,
    "text": None,
    "prompt_tokens": 9,
    "answer_tokens": 0,
    "kv_cache_bytes": None,
    **COUNTS,
    "mask_rle": {"size": [10, 10], "counts": "T3"},
}
TIMED_IN_BATCHES = {
    "case": "dual",
    "process": 0,
    "attempt": 0,
    "block": 0,
    "position": 2,
    "sample_id": "q2",
    "image_id": "a",
    "query": "the mug",
    "tags": {},
    "height": 10,
    "width": 10,
    "batch": 8,
    "latency_ns": 1200,
    "host_ns": 1300,
    "regions": {"vision": {"calls": 1, "exclusive_ns": 1200, "inclusive_ns": 1200}},
    "unattributed_ns": 0,
    "warnings": [],
    "status": "ok",
    "reason": None,
    "predicted_iou": 0.5,
    "text": None,
    "prompt_tokens": 9,
    "answer_tokens": 0,
    "kv_cache_bytes": None,
    **COUNTS,
    "energy_mj": None,
    "sm_clock_mhz": None,
    "other_cores": None,
}
FITTED = {
    "case": "dual",
    "card": "8GB",
    "attempt": 0,
    "status": "ok",
    "reason": None,
    "beside_bytes": 5,
    "asked": 4,
    "answered": 4,
    "peak_reserved_bytes": 7,
    "device_process_bytes": None,
}


@pytest.mark.parametrize("journal", TYPES)
def test_a_published_line_is_written_as_it_was_read(journal):
    lines = read_lines(PUBLISHED / f"{journal}.jsonl")
    assert lines
    for line in lines:
        written = TYPES[journal].from_json(line).as_json()
        # Newer lines of the language model's stage have a key more.
        if line.get("stage") == "llm" and "kv_cache_bytes" not in line:
            assert written.pop("kv_cache_bytes") is None
        assert json.dumps(written) == json.dumps(line)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (QueryRecord, SCORED),
        (QueryRecord, {name: value for name, value in SCORED.items() if name != "mask_rle"}),
        (QueryRecord, TIMED_IN_BATCHES),
        (FitRecord, FITTED),
        (FitRecord, FITTED | {"status": "oom", "reason": "OutOfMemoryError", "answered": 1}),
        (
            FitRecord,
            {name: FITTED[name] for name in ("case", "card", "attempt", "status", "reason")},
        ),
    ],
)
def test_a_line_is_written_as_it_was_read(kind, line):
    assert json.dumps(kind.from_json(line).as_json()) == json.dumps(line)
