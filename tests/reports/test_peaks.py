"""What a process takes of a card: one definition, and words where an older record lacks a part of
it.
"""

import json

import pytest
from places import RESULTS
from training_factory import falling, write_training

from lisabench.harness.records.run import read_run
from lisabench.harness.records.training import read_training
from lisabench.reports.peaks import RESERVED_ALONE, bytes_on_card
from lisabench.reports.run.claims import claim_result
from lisabench.reports.training.summary import memory_of, on_card

pytestmark = pytest.mark.no_clock

MIB = 1 << 20


def test_bytes_of_a_card_are_what_is_reserved_and_what_lies_beside():
    assert (bytes_on_card(700, 68).bytes, bytes_on_card(700, 68).about) == (768, None)
    assert (bytes_on_card(700, None).bytes, bytes_on_card(700, None).about) == (700, RESERVED_ALONE)
    assert bytes_on_card(None, 68).bytes is None


def test_a_published_fit_of_an_older_record_states_how_many_queries_answered():
    run = read_run(RESULTS / "claims-7b")
    claim = next(claim for claim in run.manifest.claims if claim.quantity == "fits")
    found = claim_result(claim, run)
    fit = run.case(claim.candidate).fits[0]
    assert found.reason == "answered 2 of 2 queries under the cap (answers forced)"
    assert found.measured == fit.peak_reserved_bytes + fit.outside_allocator_bytes


@pytest.mark.parametrize(
    ("memory", "expected"), [({"start_bytes": 300 * MIB}, 400 * MIB), ({}, None)]
)
def test_the_memory_of_a_training_on_a_cpu_is_its_growth_and_unknown_in_older_records(
    tmp_path, memory, expected
):
    folder = write_training(tmp_path / "t", losses=falling(4), mious=[0.1], memory=memory)
    training = read_training(folder)
    assert memory_of(training) == expected
    assert on_card(training).bytes is None  # no GPU


def test_a_training_on_a_gpu_has_what_lies_beside_its_allocator_where_it_was_capped(tmp_path):
    folder = write_training(
        tmp_path / "t", losses=falling(4), mious=[0.1], memory={"beside_bytes": 5}
    )
    lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    lines = [
        line | ({"peak_reserved_bytes": 700} if line["kind"] == "epoch" else {}) for line in lines
    ]
    (folder / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert on_card(read_training(folder)).bytes == 705
