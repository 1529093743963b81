"""The campaigns, in short. By hand they run for as long as you like: see each module."""

import fuzz
import kill
import pytest
import readers
import scarcity
from disturbed import a_run

pytestmark = pytest.mark.no_clock


@pytest.mark.slow
def test_killed_runs_lose_nothing_and_leave_nothing(tmp_path):
    assert list(kill.campaign(a_run(tmp_path), kills=3, seed=0, workspace=tmp_path)) == []


@pytest.mark.slow
def test_runs_that_get_too_little_end_in_one_line_and_can_be_resumed(tmp_path):
    assert list(scarcity.campaign(a_run(tmp_path), runs=3, seed=0, workspace=tmp_path)) == []


@pytest.mark.parametrize("reader", readers.READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_read_or_named_in_one_line(reader):
    assert list(fuzz.fuzz([reader], inputs=40, seed=0)) == []
