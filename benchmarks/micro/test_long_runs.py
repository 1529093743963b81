"""What a record of a long run costs: reading, summarising and showing it.

The promise is a report of 100,000 records in 10 s. By default the runs have a tenth of that;
``LISABENCH_LONG_RUN=70`` gives the whole.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from run_factory import edit_run, write_lines, write_run

from lisabench.harness.records.run import QUALITY, SAMPLES, paused_garbage_collection, read_run
from lisabench.reports.html.page import html
from lisabench.reports.run.summary import summarise

PUBLISHED = Path(__file__).parents[2] / "results" / "claims-described"
TIMES = int(os.environ.get("LISABENCH_LONG_RUN", "7"))  # 1,440 records each
QUERIES = 160  # of the smaller run with masks: 480 records of the timed rounds, 960 of quality
QUERIES_AN_IMAGE = 3


def times_as_many(lines, times):
    """Return the records of several times as many queries, each about an image of its own."""
    records = []
    for number in range(times):
        for line in lines:
            names = {name: f"{line[name]}-{number}" for name in ("sample_id", "image_id")}
            records.append(line | names)
    return records


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Return the folder of a published run with several times as many queries."""
    folder = tmp_path_factory.mktemp("long") / "run"
    shutil.copytree(PUBLISHED, folder)
    lines = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    write_lines(folder / SAMPLES, times_as_many(lines, TIMES))
    return folder


@pytest.fixture(scope="module")
def long_run_with_masks(tmp_path_factory):
    """Return the folder of a run with a quality pass that kept the mask of each model's answer.

    Two thirds of its records are of that pass.
    """
    folder = tmp_path_factory.mktemp("long") / "masks"
    write_run(folder, queries=QUERIES, processes=1, size=(240, 320), gallery=QUERIES)
    timed, quality = [], []
    for text in (folder / SAMPLES).read_text().splitlines():
        line = json.loads(text)
        number = int(line["sample_id"].removeprefix("scene-"))
        line["image_id"] = f"image-{number // QUERIES_AN_IMAGE}"
        mask = {"mask_rle": line.pop("mask_rle")} if "mask_rle" in line else {}
        if mask:  # trivial baselines are not timed, and keep none
            timed.append(line)
        quality.append(line | mask | {"block": None, "latency_ns": None, "regions": {}})
    write_lines(folder / SAMPLES, times_as_many(timed, TIMES))
    write_lines(folder / QUALITY, times_as_many(quality, TIMES))
    edit_run(folder, quality_pass={"queries": QUERIES * TIMES, "batch": 1})
    return folder


def test_reading_a_record(fastest, long_run):
    run = fastest(lambda: read_run(long_run), 60e-6, rounds=3, divided_by=1440 * TIMES)
    assert sum(len(case.queries) for case in run.cases) == 1440 * TIMES


def test_reading_and_summarising_a_record(fastest, long_run):
    def summary():
        with paused_garbage_collection():
            return summarise(read_run(long_run))

    cases = fastest(summary, 90e-6, rounds=3, divided_by=1440 * TIMES).cases
    assert sum(case.time.n for case in cases) == 1440 * TIMES


def test_reading_summarising_and_showing_a_record_of_which_a_third_has_a_mask(
    fastest, long_run_with_masks
):
    def page():
        with paused_garbage_collection():
            run = read_run(long_run_with_masks)
            return html(run, summarise(run))

    text = fastest(page, 125e-6, rounds=3, divided_by=9 * QUERIES * TIMES)
    assert text.count('"mask": ') == 3 * QUERIES * TIMES
