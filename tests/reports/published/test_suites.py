"""The table of suites: memory and duration are those of the published run."""

import json

import pytest
from places import RESULTS

from lisabench.reports.published.suites import ShippedSuite, suites_table

pytestmark = pytest.mark.no_clock


def row_of(suite):
    *_, row = suites_table([suite]).splitlines()
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_row_has_the_largest_process_and_the_time_from_start_to_end():
    lines = (RESULTS / "graphs-7b" / "memory.jsonl").read_text().splitlines()
    largest_bytes = max(json.loads(line)["device_process_bytes"] for line in lines)
    assert row_of(ShippedSuite("some", "GPU", folder="graphs-7b")) == [
        "`some`",
        "GPU",
        "random",
        f"{largest_bytes / 2**30:.2f} GiB",
        "6 min 4 s on NVIDIA H200",
        "`results/graphs-7b`",
    ]


def test_the_memory_of_trainings_has_what_lies_outside_of_the_allocator():
    taken = []
    for manifest in (RESULTS / "training-7b" / "trainings").glob("*/run.json"):
        outside = json.loads(manifest.read_text())["memory"]["beside_bytes"]
        lines = (manifest.parent / "training.jsonl").read_text().splitlines()
        reserved = [json.loads(line).get("peak_reserved_bytes") or 0 for line in lines]
        if outside is not None:
            taken.append(max(reserved, default=0) + outside)
    row = row_of(ShippedSuite("some", "GPU", folder="training-7b", remark=" in all"))
    assert row[3] == f"{max(taken) / 2**30:.2f} GiB in all"


def test_what_no_run_says_was_not_measured():
    assert row_of(ShippedSuite("some", "CPU", "packaged", memory="none")) == [
        *("`some`", "CPU", "packaged", "none", "not measured", "none")
    ]
    assert row_of(ShippedSuite("some", "GPU", folder="h200", duration="in parts"))[4] == "in parts"


def test_the_duration_of_a_resumed_run_says_so():
    manifest = json.loads((RESULTS / "claims" / "run.json").read_text())
    duration = row_of(ShippedSuite("some", "GPU", folder="claims"))[4]
    assert duration.endswith(", resumed") == (manifest["attempts"] > 0)
