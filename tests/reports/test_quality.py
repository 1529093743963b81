import pytest
from run_factory import edit_lines, failed, write_lines, write_run

from lisabench.harness.metrics import METRICS
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.bootstrap import bootstrap_differences, bootstrap_scores
from lisabench.reports import formatting
from lisabench.reports.page.tables import comparison_table
from lisabench.reports.run import verdict_words
from lisabench.reports.run.schema import Joint, Summary
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report
from lisabench.reports.schema_base import Quality, Ratio

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 12, "size": (24, 32), "gallery": 0, "controls": False}


def quality_of(folder, name):
    """A case's counts, one a query, in the order of their queries; with the images that they are
    about.
    """
    scored = sorted(read_run(folder).case(name).scored, key=lambda query: query.sample_id)
    return [query.counts for query in scored], [query.image_id for query in scored]


def interval(ratio: float, low: float | None, high: float | None) -> Ratio:
    return Ratio(ratio=ratio, low=low, high=high, processes=3, smallest_detectable=None)


def test_differences_in_points_are_the_bootstraps_a_hundredfold(tmp_path):
    write_run(tmp_path, cases=3, **SMALL)
    found = summarise(read_run(tmp_path)).comparison("clip")
    (before, images), (after, _) = quality_of(tmp_path, "dual"), quality_of(tmp_path, "clip")
    expected = bootstrap_differences(images, before, after)
    for name in ("gIoU", "cIoU", "mIoU"):
        points, difference = getattr(found, f"{name}_points"), expected[name]
        given = (
            difference.value,
            difference.low,
            difference.high,
            difference.detectable_difference,
        )
        shown = (points.difference, points.low, points.high, points.smallest_detectable)
        assert shown == pytest.approx([100 * value for value in given], rel=1e-12, abs=1e-12)
        assert points.low < points.difference < points.high and points.clusters == 12


def test_queries_about_one_image_are_one_cluster(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: q | {"image_id": str(int(q["sample_id"][-4:]) // 2)}
    )
    assert summarise(read_run(tmp_path)).comparisons[0].gIoU_points.clusters == 6


def test_each_score_has_an_interval_and_the_summary_says_how_it_was_drawn(tmp_path):
    write_run(tmp_path, cases=1, **SMALL)
    summary = summarise(read_run(tmp_path))
    quality, (queries, images) = summary.cases[0].quality, quality_of(tmp_path, "dual")
    expected = {
        name: (score.low, score.high) for name, score in bootstrap_scores(images, queries).items()
    }
    assert quality.intervals == expected
    assert quality.intervals["gIoU"][0] < quality.gIoU < quality.intervals["gIoU"][1]
    assert (summary.bootstrap.resamples, summary.bootstrap.seed) == (10_000, 0)
    assert (
        f"{quality.gIoU:.3f} [{quality.intervals['gIoU'][0]:.3f}, "
        in write_report(tmp_path).read_text()
    )


def test_a_single_image_has_a_difference_without_an_interval(tmp_path):
    write_run(tmp_path, cases=2, **SMALL | {"queries": 1})
    summary = summarise(read_run(tmp_path))
    points = summary.comparisons[0].gIoU_points
    assert (
        points.difference is not None
        and (points.low, points.high, points.smallest_detectable) == (None,) * 3
    )
    assert summary.comparisons[0].joint is None and summary.cases[0].quality.intervals == {}
    assert "[" not in formatting.points_with_interval(points)


def test_time_and_quality_are_bounded_together_by_their_intervals(tmp_path):
    write_run(tmp_path, cases=3, **SMALL)
    found = summarise(read_run(tmp_path)).comparison("clip")
    assert found.joint.time_saved_at_least == pytest.approx(
        1 - found.end_to_end.high, rel=1e-12, abs=0
    )
    assert found.joint.gIoU_points_lost_at_most == pytest.approx(
        -found.gIoU_points.low, rel=1e-12, abs=0
    )
    assert (
        verdict_words.joint_bounds(found)
        in write_report(tmp_path).read_text().split("<details>")[0]
    )


@pytest.mark.parametrize("lost", [{"quality": False}, {"processes": 1}])
def test_without_either_interval_nothing_is_stated_together(tmp_path, lost):
    write_run(tmp_path, cases=2, **SMALL | lost)
    (found,) = summarise(read_run(tmp_path)).comparisons
    assert found.joint is None and verdict_words.joint_bounds(found) == ""
    assert "both at 95 %" not in write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    ("low", "high", "lost", "expected"),
    [
        (0.70, 0.8149, 0.91, "at least 18.5 % less time and is at most 1.0 points worse"),
        (0.95, 1.0311, -0.49, "at most 3.2 % more time and is at least 0.4 points better"),
        (1.0599, 1.20, 0.0, "at least 5.9 % more time and is at most 0.0 points worse"),
    ],
)
def test_bounds_are_rounded_to_the_side_on_which_they_hold(tmp_path, low, high, lost, expected):
    (found,) = summarise(read_run(write_run(tmp_path, cases=2, **SMALL))).comparisons
    joint = Joint(time_saved_at_least=1 - high, gIoU_points_lost_at_most=lost)
    found = found.model_copy(
        update={"end_to_end": interval((low * high) ** 0.5, low, high), "joint": joint}
    )
    assert verdict_words.joint_bounds(found) == f"it takes {expected} in gIoU, both at 95 %"


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.2, "regression"), (0.8, "improvement"), (1.01, "same"), (1.05, "inconclusive")],
)
def test_the_verdict_on_time_is_drawn_at_5_per_cent(tmp_path, factor, verdict):
    write_run(tmp_path, cases=2, **SMALL)

    def timed(line):
        noise = 1 + 0.005 * (line["process"] - 1)
        return line | {
            "latency_ns": int(10_000_000 * (factor * noise if line["case"] == "sam" else 1))
        }

    edit_lines(tmp_path / "samples.jsonl", timed)
    assert summarise(read_run(tmp_path)).comparisons[0].time_verdict == verdict


def test_the_report_says_what_differences_it_could_have_seen(tmp_path):
    text = write_report(write_run(tmp_path, cases=2, **SMALL)).read_text()
    points = summarise(read_run(tmp_path)).comparisons[0].gIoU_points.smallest_detectable
    assert f"smallest detectable difference of gIoU: {points:.1f} points for `sam`" in text
    assert "10,000 bootstrap resamples of the images (seed 0)" in text
    silent = write_report(
        write_run(tmp_path / "random", cases=2, **SMALL | {"quality": False})
    ).read_text()
    assert "difference of gIoU" not in silent and "bootstrap" not in silent


def test_failures_change_what_both_answered_and_nothing_else_does(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    (whole,) = summarise(read_run(tmp_path)).comparisons
    assert whole.both_answered.gIoU_points == whole.gIoU_points
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: failed(q) if q["sample_id"] == "scene-0000" else q
    )
    (found,) = summarise(read_run(tmp_path)).comparisons
    assert (
        found.both_answered.n,
        found.both_answered.gIoU_points.clusters,
        found.gIoU_points.clusters,
    ) == (11, 11, 12)


def test_a_ratio_of_peaks_shows_its_interval_unless_it_is_certain(tmp_path):
    write_run(tmp_path, cases=3, **SMALL)
    peaks = {"dual": (700, 700, 700), "sam": (350, 350, 350), "clip": (340, 350, 360)}
    lines = [
        {
            "case": case,
            "process": p,
            "stage": "vision",
            "instrument": "cuda allocator",
            "peak_bytes": mib << 20,
        }
        for case, found in peaks.items()
        for p, mib in enumerate(found)
    ]
    write_lines(tmp_path / "memory.jsonl", [line | {"start_bytes": None} for line in lines])
    summary = summarise(read_run(tmp_path))
    clip, sam = (summary.comparison(name).peak_memory for name in ("clip", "sam"))
    table = comparison_table(summary)
    assert f"360 (0.50x [{clip.low:.2f}, {clip.high:.2f}])" in table
    assert "350 (0.50x)" in table and "was the same in every process" in table
    assert sam.low == pytest.approx(sam.high, rel=1e-12, abs=0)
    ratio = formatting.ratio_with_interval(summary.comparison("clip").peak_memory)
    assert ratio.startswith("0.50x [0.")


def test_a_summary_from_before_there_were_intervals_still_reads(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, cases=2, quality=False, **SMALL)))
    older = summary.model_dump(mode="json", by_alias=True)
    del older["bootstrap"], older["cases"][0]["quality"]["intervals"]
    for name in ("joint", "mIoU_points", "time_verdict"):
        del older["comparisons"][0][name]
    assert Summary.model_validate(older).comparisons[0].joint is None


def test_the_summary_has_a_field_for_every_metric():
    in_file = {field.alias or name for name, field in Quality.model_fields.items()}
    assert set(METRICS) <= in_file
