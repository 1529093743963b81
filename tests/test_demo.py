"""What `make demo` shows: trained LISAs side by side, on scenes that no training has looked at."""

import json

import pytest
from command import lisabench

pytestmark = pytest.mark.no_clock


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The suite that runs where none is named, over all of its queries: its folder, and how it ended.

    One process a case: masks are the same in each, and times are not looked at here.
    """
    folder = tmp_path_factory.mktemp("demo") / "run"
    single = ("--set", "processes=1", "--set", "memory_processes=1")
    return folder, lisabench("run", *single, "--out", folder)


@pytest.fixture(scope="module")
def summary(demo):
    return json.loads((demo[0] / "summary.json").read_text())


def test_it_ends_well_and_no_checkpoint_is_refused(demo, summary):
    assert demo[1].returncode == 0, demo[1].stderr
    assert summary["suite"] == "tiny" and summary["status"] == "complete"


def test_every_model_is_a_trained_one_that_comes_with_the_package(summary):
    assert [case["name"] for case in summary["cases"]] == ["dual", "clip", "sam"]
    assert {case["settings"]["weights"] for case in summary["cases"]} == {"packaged"}
    assert len({case["settings"]["weights_hash"] for case in summary["cases"]}) == 3


def test_the_original_finds_what_it_is_asked_for(summary):
    quality = summary["cases"][0]["quality"]
    assert quality["n"] == summary["data"]["count"] == 48
    assert quality["gIoU"] >= 0.70


def test_every_model_is_surely_better_than_answers_without_a_look(summary):
    verdicts = {found["case"]: found["verdict"] for found in summary["against_floors"]}
    assert verdicts == dict.fromkeys(("dual", "clip", "sam"), "better")


@pytest.mark.parametrize("metric", ["gIoU", "cIoU", "mIoU"])
def test_the_difference_of_each_variant_has_an_interval(summary, metric):
    found = {comparison["candidate"]: comparison[f"{metric}_points"] for comparison in summary["comparisons"]}
    assert list(found) == ["clip", "sam"]
    for points in found.values():
        assert points["low"] < points["high"] and points["low"] <= points["difference"] <= points["high"]


def test_the_report_shows_scores_and_the_masks_they_are_of(demo):
    page = (demo[0] / "report.md").read_text()
    assert "n/a" not in page.split("## Comparison")[1].split("**Time of a query")[0]
    assert "](gallery.png)" in page and "weights of all models are random" not in page
