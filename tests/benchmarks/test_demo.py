"""What `make demo` shows: trained LISAs side by side, on scenes that no training has looked at."""

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from demo_run import demo_run
from places import ROOT
from raw_runs import raw_run

from lisabench.harness.statistics.verdicts import quality_verdict

pytestmark = pytest.mark.no_clock


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return demo_run(tmp_path_factory)


@pytest.fixture(scope="module")
def summary(demo):
    return json.loads((demo.folder / "summary.json").read_text())


def test_it_ends_well_and_no_checkpoint_is_refused(demo, summary):
    assert demo.ended.returncode == 0, demo.ended.stderr
    assert summary["suite"] == "tiny" and summary["status"] == "complete"


def test_every_model_is_a_trained_one_that_comes_with_the_package(summary):
    assert [case["name"] for case in summary["cases"]] == ["dual", "clip", "sam"]
    assert {case["settings"]["weights"] for case in summary["cases"]} == {"packaged"}
    assert len({case["settings"]["weights_hash"] for case in summary["cases"]}) == 3


def test_the_original_finds_what_it_is_asked_for(summary):
    quality = summary["cases"][0]["quality"]
    assert quality["n"] == summary["data"]["count"] == summary["quality_pass"]["queries"] == 300
    assert quality["gIoU"] >= 0.75


def test_its_queries_are_about_a_hundred_scenes_each_evaluated_once_for_each_case(demo):
    lines = raw_run(demo.folder).quality
    assert len({line["image_id"] for line in lines}) == 100
    counts = Counter(line["case"] for line in lines)
    assert counts == dict.fromkeys(
        ("dual", "clip", "sam", "whole-image", "centre-box", "empty"), 300
    )


def test_its_page_holds_every_image_and_mask_and_can_be_sent(demo):
    page = demo.folder / "report.html"
    text = page.read_text()
    assert text.count('"data:image/webp;base64,') == 100
    assert text.count('"mask":') == 3 * 300
    assert page.stat().st_size < 1_500_000


@pytest.mark.parametrize(("case", "recipe"), [("clip", "clip-fine"), ("sam", "sam")])
def test_its_verdicts_do_not_contradict_those_of_the_study(summary, case, recipe):
    """Where 5,001 queries show a loss of more than 2 points, the demo must not say the opposite.

    It then says neither "as good" nor "better".
    """
    study = json.loads((ROOT / "results" / "accuracy-tiny" / "summary.json").read_text())
    published = next(one for one in study["recipes"] if one["name"] == recipe)["differences"][
        "gIoU"
    ]
    assert quality_verdict(SimpleNamespace(**published), 2.0) == "regression"
    found = next(one for one in summary["comparisons"] if one["candidate"] == case)
    assert found["gIoU_verdict"] in ("regression", "inconclusive")
    assert found["gIoU_points"]["difference"] < 0
    low, high = found["gIoU_points"]["low"], found["gIoU_points"]["high"]
    assert low < published["difference"] < high


def test_every_model_is_surely_better_than_answers_without_a_look(summary):
    verdicts = {found["case"]: found["verdict"] for found in summary["against_floors"]}
    assert verdicts == dict.fromkeys(("dual", "clip", "sam"), "better")


@pytest.mark.parametrize("metric", ["gIoU", "cIoU", "mIoU"])
def test_the_difference_of_each_variant_has_an_interval(summary, metric):
    found = {
        comparison["candidate"]: comparison[f"{metric}_points"]
        for comparison in summary["comparisons"]
    }
    assert list(found) == ["clip", "sam"]
    for points in found.values():
        assert (
            points["low"] < points["high"]
            and points["low"] <= points["difference"] <= points["high"]
        )


def shows_score(terminal, case):
    low, high = case["quality"]["intervals"]["gIoU"]
    score = f"{case['quality']['gIoU']:.3f} [{low:.3f}, {high:.3f}]"
    return re.search(rf"^{case['name']} .*  {re.escape(score)} ", terminal, re.MULTILINE)


def test_the_documents_quote_its_scores(summary):
    table = (ROOT / "docs" / "results.md").read_text()
    terminal = (ROOT / "README.md").read_text()
    dual = summary["cases"][0]["quality"]
    low, high = dual["intervals"]["gIoU"]
    assert f"| `dual` | {dual['gIoU']:.3f} [{low:.3f}, {high:.3f}] | |" in table
    assert shows_score(terminal, summary["cases"][0])
    for case, comparison in zip(summary["cases"][1:], summary["comparisons"], strict=True):
        assert case["name"] == comparison["candidate"]
        score = f"{case['quality']['gIoU']:.3f}"
        points = comparison["gIoU_points"]
        difference = f"{points['difference']:+.1f} [{points['low']:+.1f}, {points['high']:+.1f}]"
        assert f"| `{case['name']}` | {score} | {difference} |" in table
        assert shows_score(terminal, case)
        amount = re.escape(f"{points['difference']:+.1f} points gIoU")
        interval = re.escape(f"{points['low']:+.1f} to {points['high']:+.1f}")
        masks = rf"  masks +worse +{amount} +{interval}"
        verdict = rf"^{case['name']} against dual\n(  .*\n)*?{masks}$"
        assert re.search(verdict, terminal, re.MULTILINE)
    best = max(found["floor_gIoU"] for found in summary["against_floors"])
    assert f"| best trivial baseline | {best:.3f} | |" in table


def test_the_report_shows_scores_and_the_masks_they_are_of(demo):
    page = (demo.folder / "report.md").read_text()
    assert (
        "n/a" not in page.split("<summary>All numbers</summary>")[1].split("**Time of a query")[0]
    )
    assert "](gallery.png)" in page and "weights are random" not in page
