"""The lines of a run's journals: what is written is what was read, key by key and in the same
order.
"""

import json
import random

import pytest
from places import RESULTS

from lisabench.harness.errors import DataError
from lisabench.harness.json_file import parse_object
from lisabench.harness.records.from_json import read_from
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
BOUNDARIES = {"boundary_intersection_px": 1, "boundary_union_px": 5}
SCORED_WITH_BOUNDARIES = {name: value for name, value in SCORED.items() if name != "mask_rle"}
SCORED_WITH_BOUNDARIES |= BOUNDARIES
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
        (QueryRecord, SCORED_WITH_BOUNDARIES),
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


@pytest.mark.parametrize(
    "changed",
    [
        {"boundary_union_px": 7},  # more than the union
        {"boundary_intersection_px": 4},  # more than the intersection
        {"boundary_union_px": None},
    ],
)
def test_boundaries_that_are_no_part_of_their_masks_are_damaged(changed):
    record = QueryRecord.from_json(SCORED_WITH_BOUNDARIES)
    assert QueryRecord.from_text(json.dumps(SCORED_WITH_BOUNDARIES).encode()) == record
    with pytest.raises(DataError, match="contradict each other"):
        QueryRecord.from_json(SCORED_WITH_BOUNDARIES | changed)


def read_with_care(text):
    """Return the record of a line's text as `from_json` reads it; None if it does not."""
    try:
        line = parse_object(text, RESULTS, 1)
        with read_from(RESULTS):
            return QueryRecord.from_json(line)
    except DataError:
        return None


@pytest.mark.parametrize("line", [SCORED, TIMED_IN_BATCHES], ids=["scored", "timed"])
def test_a_line_as_this_version_writes_it_is_parsed_and_checked_at_once(line):
    text = json.dumps(line).encode()
    record = QueryRecord.from_text(text)
    assert record == read_with_care(text) and record is not None


REGION = {"calls": 1, "exclusive_ns": 1, "inclusive_ns": 1}
OTHER_LINES = {
    "superseded": {"superseded": True},
    "of a newer version": {"colour": "red"},
    "a newer region": {"regions": {"vision": {**REGION, "cores": 2}}},
    "a mask of version 1": {"mask_rle": {"size": [10, 10], "counts": [100]}},
    "no regions": {"regions": None},
    "a whole number with a point": {"process": 1.0},
    "pixels that contradict each other": {"intersection_px": 6},
    "a union that is not that of its parts": {"union_px": 7},
    "more pixels than are counted": {"valid_px": 1},
    "a text for a number": {"latency_ns": "12"},
    "a number below 0": {"latency_ns": -1},
    "infinity": {"energy_mj": float("inf")},
    "infinity where nothing is expected": {"colour": float("inf")},
    "half a character": {"query": "\ud800"},
}


@pytest.mark.parametrize("name", OTHER_LINES)
def test_any_other_line_is_left_to_from_json(name):
    text = json.dumps(TIMED_IN_BATCHES | OTHER_LINES[name]).encode()
    assert QueryRecord.from_text(text) is None


def test_a_damaged_line_is_read_at_once_only_if_it_is_read_with_care():
    """Both ways must see the same in it, whatever bytes are changed."""
    fragments = [b"NaN", b"1e999", b"null", b"true", b"-1", b"0.5", b"\\ud800", b"\xff", b"\x01"]
    fragments += [b"{}", b"[]", b"01", b'"query": "a", ', b'"a": NaN, ', b"7", b" ", b"x", b","]
    rng = random.Random(0)
    texts = [json.dumps(line).encode() for line in (SCORED, TIMED_IN_BATCHES)]
    at_once = 0
    for _ in range(2000):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        end = start + rng.randrange(4)
        damaged = text[:start] + rng.choice(fragments) + text[end:]
        record = QueryRecord.from_text(damaged)
        if record is not None:
            at_once += 1
            assert record == read_with_care(damaged), damaged
    assert at_once > 50
