"""The campaigns, in short. By hand they run for as long as you like: see each module."""

import kill
import pytest
import scarcity
from runs import a_run

pytestmark = [pytest.mark.no_clock, pytest.mark.slow]


def test_killed_runs_lose_nothing_and_leave_nothing(tmp_path):
    assert list(kill.campaign(a_run(tmp_path), kills=3, seed=0, workspace=tmp_path)) == []


def test_runs_that_get_too_little_end_in_one_line_and_can_be_resumed(tmp_path):
    assert list(scarcity.campaign(a_run(tmp_path), runs=3, seed=0, workspace=tmp_path)) == []
