"""The frontier picture of README and docs: its numbers are those of the published records."""

import json
from collections import defaultdict
from statistics import geometric_mean

import numpy as np
import published
import pytest
from published import ROOT, records

from lisabench.reports.published import figures
from lisabench.reports.published.figures import FIGURES, frontier, kept_numbers, main
from lisabench.reports.published.records import published_run, published_study
from lisabench.reports.study.schema import StudySummary

pytestmark = pytest.mark.no_clock

PICTURE = "docs/frontier.png"


def kept() -> dict:
    return json.loads(kept_numbers(ROOT / PICTURE))["variants"]


def drawn_from() -> tuple[str, str]:
    """The folders that the picture names as its sources, without reading them from its numbers."""
    published_run.cache_clear()
    published_study.cache_clear()
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        for name, read in (("run", published_run), ("study", published_study)):

            def noting(folder, read=read, name=name):
                asked.append((name, folder))
                return read(folder)

            patch.setattr(figures, f"published_{name}", noting)
        frontier()
    folders = dict(asked)
    return folders["run"], folders["study"]


def test_the_numbers_of_the_committed_pictures_are_those_of_the_records(capsys):
    assert main(["--check"]) == 0, "python -m lisabench.reports.published.figures"
    assert capsys.readouterr().out == ""


def test_the_time_of_each_variant_comes_out_by_numpy_alone():
    folder, _ = drawn_from()
    run = records(folder)
    times = {}
    for case in run.cases:
        for query in case.queries:
            times.setdefault(case.name, {})[query.process, query.sample_id] = query.latency_ns
    for name, numbers in kept().items():
        before, after = times["dual"], times[name]
        medians = []
        for process in sorted({process for process, _ in after}):
            pairs = [pair for pair in after if pair[0] == process and pair in before]
            logs = np.log([after[pair] / before[pair] for pair in pairs])
            medians.append(np.median(logs))
        assert numbers["time"][0] == pytest.approx(np.exp(np.mean(medians)), rel=1e-5)


def test_the_quality_of_each_variant_is_that_of_the_studys_recipe_of_its_name():
    _, folder = drawn_from()
    study = StudySummary.read(ROOT / "results" / folder / "summary.json")
    measured = {}
    for name, numbers in kept().items():
        recipe = study.recipe(name)
        if recipe is None:
            assert numbers["mIoU"] is None
            continue
        points = recipe.differences["mIoU"]
        expected = (np.mean(points.by_seed), points.low, points.high)
        assert numbers["mIoU"] == pytest.approx(expected, rel=1e-5)
        measured[name] = numbers
    assert measured.keys() == {"clip", "sam"}


def test_memory_is_the_peak_of_a_query_over_that_of_dual():
    folder, _ = drawn_from()
    peaks: dict[tuple[str, int], int] = defaultdict(int)
    for line in published.raw_records(folder).memory:
        if line["stage"] != "build":
            place = line["case"], line["process"]
            peaks[place] = max(peaks[place], line["peak_bytes"])
    processes = {process for _, process in peaks}
    for name, numbers in kept().items():
        ratios = [peaks[name, process] / peaks["dual", process] for process in processes]
        assert numbers["memory"][0] == pytest.approx(geometric_mean(ratios), rel=1e-4)


def test_a_picture_of_other_numbers_is_found_and_drawn_again(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    assert main(["--check"], root=tmp_path) == 1
    assert f"{PICTURE}: its numbers are not those" in capsys.readouterr().out
    assert main([], root=tmp_path) == 0
    assert main(["--check"], root=tmp_path) == 0
    (tmp_path / PICTURE).write_bytes(b"no picture")
    assert main(["--check"], root=tmp_path) == 1


def test_each_published_picture_is_shown_by_readme_and_results():
    for file in FIGURES:
        assert f"]({file})" in (ROOT / "README.md").read_text()
        results = (ROOT / "docs" / "results.md").read_text()
        assert f"]({file.removeprefix('docs/')})" in results
        assert "measured at different sizes" in results
