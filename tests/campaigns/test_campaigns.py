"""The campaigns, in short. By hand they run for as long as you like: see each module."""

import full_size
import fuzz
import hostile
import kill
import pytest
import readers
import scale
import scarcity
from disturbed import ACTIVITIES, a_run

pytestmark = pytest.mark.no_clock


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVITIES)
def test_what_is_killed_loses_nothing_and_leaves_nothing(tmp_path, name):
    activity = ACTIVITIES[name](tmp_path)
    assert list(kill.campaign(activity, kills=3, seed=0, workspace=tmp_path)) == []


@pytest.mark.slow
def test_runs_that_get_too_little_end_in_one_line_and_can_be_resumed(tmp_path):
    assert list(scarcity.campaign(a_run(tmp_path), limits=3, seed=0, workspace=tmp_path)) == []


@pytest.mark.slow
def test_a_checkpoint_of_the_originals_layout_is_converted_segmented_and_run(tmp_path):
    numbers = list(full_size.campaign("tiny", tmp_path))
    assert [value for name, value in numbers if name == "fault"] == []


@pytest.mark.slow
def test_a_quality_pass_in_two_processes_survives_kills_with_flat_memory(tmp_path):
    found = list(scale.campaign(queries=240, images=80, alone=16, workspace=tmp_path))
    assert [sentence for sentence in found if sentence.startswith("FAULT")] == []


@pytest.mark.slow
def test_a_hostile_adapter_costs_its_own_case_and_nothing_else(tmp_path):
    assert list(hostile.campaign(a_run(tmp_path), adapters=3, seed=0, workspace=tmp_path)) == []


@pytest.mark.parametrize("reader", readers.READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_read_or_named_in_one_line(reader):
    inputs = 10 if reader.is_slow else 40
    assert list(fuzz.fuzz([reader], inputs, seed=0)) == []
