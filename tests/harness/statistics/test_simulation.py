"""Intervals must cover what is true as often as they say.

That holds also where processes are not normally distributed.

To print the figures of the documents:
`LISABENCH_SIMULATIONS=1000 pytest tests/harness/statistics/test_simulation.py -rP`
"""

import pytest
from simulation import COMPARISONS, SCENARIOS, TRIALS, at_least, coverage, moments, quality_coverage

from lisabench.harness.statistics import bootstrap, ratios

pytestmark = pytest.mark.no_clock

PROCESSES = (3, 5, 8)


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_intervals_of_a_ratio_cover_the_truth_in_93_percent_whatever_the_processes_do(
    scenario, processes
):
    paired, unpaired = coverage(scenario, processes, COMPARISONS)
    print(
        f"{scenario}, {processes} processes: {paired} paired, {unpaired} unpaired of {COMPARISONS}"
    )
    assert min(paired, unpaired) >= at_least(0.93, COMPARISONS)


@pytest.mark.parametrize("processes", PROCESSES)
def test_intervals_are_no_wider_than_normal_processes_call_for(processes):
    assert coverage("normal", processes, COMPARISONS)[0] <= 0.97 * COMPARISONS


@pytest.mark.parametrize("images", [10, 20, 50])
def test_intervals_of_a_quality_difference_cover_the_truth_in_93_percent_from_ten_images_on(images):
    covered = quality_coverage(images, TRIALS)
    print(f"{images} images: {covered} of {TRIALS}")
    assert min(covered.values()) >= at_least(0.93, TRIALS)


def test_too_narrow_an_interval_is_found(monkeypatch):
    monkeypatch.setattr(ratios, "student_quantile", lambda *_: 1.96)
    assert coverage("normal", 3, COMPARISONS)[0] < at_least(0.93, COMPARISONS)


def test_too_narrow_an_interval_of_quality_is_found(monkeypatch):
    monkeypatch.setattr(bootstrap, "tail", lambda *_: 0.1)
    assert quality_coverage(10, TRIALS)["gIoU"] < at_least(0.93, TRIALS)


def test_every_query_of_a_simulated_session_has_a_moment_of_its_own():
    passed = moments(processes=2, block=8)
    assert sorted(passed.ravel() * passed.size) == pytest.approx(range(passed.size), abs=1e-9)
    assert passed[0, 0, 0] == 0
    assert passed[1, 1, 0] < passed[1, 0, 0]  # the second round begins the other way round
