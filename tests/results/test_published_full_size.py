"""What is said of a checkpoint at full size is in its records."""

import json

import pytest
from places import RESULTS, ROOT

pytestmark = pytest.mark.no_clock

FOLDER = RESULTS / "full-size-7b"
GB = 10**9


def lines(name: str) -> list[str]:
    return sorted((FOLDER / name).read_text().splitlines())


def test_conversion_took_less_than_a_shard_and_a_gigabyte():
    measured = json.loads((FOLDER / "full-size.json").read_text())
    converted = measured["convert"]
    assert measured["faults"] == [] and measured["statuses"] == ["ok"]
    assert converted["peak_bytes"] < max(measured["shard_bytes"]) + GB
    index = (RESULTS / "index.yaml").read_text()
    said = f"{converted['seconds']:.0f} s and {converted['peak_bytes'] / GB:.1f} GB of memory"
    assert said in index
    page = (ROOT / "docs" / "data.md").read_text()
    assert f"{converted['peak_bytes'] / GB:.1f} GB at 7B" in page


def test_two_shards_on_a_gpu_have_the_records_of_one_run():
    whole = lines("quality.jsonl")
    parts = lines("quality-1-of-2.jsonl") + lines("quality-2-of-2.jsonl")
    assert len(whole) == 96 and whole == sorted(parts)
    # The masks are empty, so what is compared is the predicted IoU, a float for each query.
    estimates = {json.loads(line)["predicted_iou"] for line in whole}
    assert len(estimates) > 48
