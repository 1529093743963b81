"""What a record of a long run costs: reading and summarising it.

The promise is a report of 100,000 records in 10 s. By default the run has a tenth of that;
``LISABENCH_LONG_RUN=70`` gives the whole.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from lisabench.harness.records.run import SAMPLES, paused_garbage_collection, read_run
from lisabench.reports.run.summary import summarise

PUBLISHED = Path(__file__).parents[2] / "results" / "claims-described"
TIMES = int(os.environ.get("LISABENCH_LONG_RUN", "7"))  # 1,440 records each


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Return the folder of a published run with several times as many queries."""
    folder = tmp_path_factory.mktemp("long") / "run"
    shutil.copytree(PUBLISHED, folder)
    lines = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    with (folder / SAMPLES).open("w") as journal:
        for number in range(TIMES):
            for line in lines:
                names = {name: f"{line[name]}-{number}" for name in ("sample_id", "image_id")}
                journal.write(json.dumps(line | names) + "\n")
    return folder


def test_reading_a_record(fastest, long_run):
    run = fastest(lambda: read_run(long_run), 60e-6, rounds=3, divided_by=1440 * TIMES)
    assert sum(len(case.queries) for case in run.cases) == 1440 * TIMES


def test_reading_and_summarising_a_record(fastest, long_run):
    def summary():
        with paused_garbage_collection():
            return summarise(read_run(long_run))

    cases = fastest(summary, 100e-6, rounds=3, divided_by=1440 * TIMES).cases
    assert sum(case.time.n for case in cases) == 1440 * TIMES
