"""The frontier picture from records: whose costs, whose quality, and what does not match."""

import json

import numpy as np
import pytest
from run_factory import edit_lines, edit_run, write_run
from scipy import stats
from study_factory import TRUTH, write_study

from lisabench.harness.errors import NothingToCompare, UsageError
from lisabench.harness.records.run import read_run
from lisabench.harness.records.study import read_study
from lisabench.reports.frontier import MEMORY, TIME
from lisabench.reports.study.frontier import frontier_of, not_drawn, read_costs, read_quality
from lisabench.reports.study.summary import summarise_study

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0, "controls": False}


@pytest.fixture(scope="module")
def costs_folder(tmp_path_factory):
    """A run of dual, sam, clip, dual-nf4 at the sizes of 7B, with random weights."""
    folder = write_run(
        tmp_path_factory.mktemp("costs") / "run",
        cases=4,
        quality=False,
        clock="cuda events",
        **SMALL,
    )
    with_settings(folder, preset="lisa-7b")
    return folder


def with_settings(folder, case=None, **changes):
    """Change settings of all cases of a run, or of one."""
    content = json.loads((folder / "run.json").read_text())
    for entry in content["cases"]:
        if case in (None, entry["name"]):
            entry["settings"] |= changes
    edit_run(folder, cases=content["cases"])


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    truth = TRUTH | {"clip-decoder": 0.55}
    return write_study(tmp_path_factory.mktemp("study") / "s", truth=truth, images=12)


@pytest.fixture(scope="module")
def frontier(costs_folder, study_folder):
    return frontier_of(read_costs(costs_folder), read_quality(study_folder))


def renamed(folder, names):
    """Rename cases of a run in all of its records."""
    text = (folder / "run.json").read_text()
    for old, new in names.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    (folder / "run.json").write_text(text)

    def changed(line):
        return line | {"case": names.get(line["case"], line["case"])}

    for journal in ("samples.jsonl", "memory.jsonl"):
        edit_lines(folder / journal, changed)
    return folder


def test_a_case_has_the_quality_of_its_name_and_one_without_has_none(frontier):
    quality = {variant.name: variant.points is not None for variant in frontier.variants}
    assert quality == {"sam": True, "clip": True, "dual-nf4": False}


def test_ratios_of_time_come_out_by_numpy_alone(frontier, costs_folder):
    times = {}
    for case in read_run(costs_folder).cases:
        for query in case.queries:
            times[case.name, query.process, query.sample_id] = query.latency_ns
    processes = sorted({process for _, process, _ in times})
    logs = []
    for process in processes:
        samples = [sample for case, p, sample in times if (case, p) == ("clip", process)]
        before = [times["dual", process, sample] for sample in samples]
        after = [times["clip", process, sample] for sample in samples]
        logs.append(np.median(np.log(after) - np.log(before)))
    arm = stats.t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / np.sqrt(len(logs))
    expected = np.exp([np.mean(logs), np.mean(logs) - arm, np.mean(logs) + arm])
    (clip,) = [variant for variant in frontier.variants if variant.name == "clip"]
    time = clip.costs[TIME]
    assert (time.value, time.low, time.high) == pytest.approx(tuple(expected))


def test_memory_and_quality_are_those_of_the_summaries(frontier, costs_folder, study_folder):
    comparisons = {c.candidate: c for c in read_costs(costs_folder).summary.comparisons}
    study = summarise_study(read_study(study_folder))
    for variant in frontier.variants:
        memory = comparisons[variant.name].query_peak_memory
        assert variant.costs[MEMORY] == memory.estimate
        recipe = study.recipe(variant.name)
        if recipe is None:
            assert variant.points is None
        else:
            difference = recipe.differences["mIoU"]
            points = variant.points
            assert (points.value, points.low, points.high) == (
                difference.difference,
                difference.low,
                difference.high,
            )


def test_both_sources_are_named_and_a_note_says_that_the_sizes_differ(frontier):
    assert frontier.costs_of == "lisa-7b on NVIDIA H200"
    assert frontier.quality_of == "tiny models, 1,500 steps, synthetic scenes"
    assert "Costs and mIoU were measured at different sizes: see the axes." in frontier.notes


def test_recipes_that_are_no_case_of_the_costs_are_named(costs_folder, study_folder):
    names = not_drawn(read_costs(costs_folder), read_quality(study_folder))
    assert names == ["clip-decoder", "dual-small"]


def test_only_the_cases_that_are_asked_for_are_drawn_and_an_unknown_one_is_refused(
    costs_folder, study_folder
):
    costs, quality = read_costs(costs_folder), read_quality(study_folder)
    drawn = frontier_of(costs, quality, ["dual-nf4", "clip"])
    assert [variant.name for variant in drawn.variants] == ["clip", "dual-nf4"]
    with pytest.raises(UsageError, match=r"unknown case 'clib' .did you mean 'clip'"):
        frontier_of(costs, quality, ["clip", "clib"])


def test_a_run_may_have_the_quality_and_without_a_difference_of_size_there_is_no_note(tmp_path):
    folder = write_run(tmp_path / "run", cases=3, **SMALL)
    with_settings(folder, preset="tiny")
    drawn = frontier_of(read_costs(folder), read_quality(folder))
    comparisons = {c.candidate: c for c in read_costs(folder).summary.comparisons}
    for variant in drawn.variants:
        assert variant.points == comparisons[variant.name].mIoU_points.estimate
    assert drawn.quality_of == "tiny, 8 queries of 8 drawn scenes"
    assert not drawn.notes


def test_a_note_names_settings_in_which_costs_and_quality_differ(tmp_path, study_folder):
    folder = write_run(tmp_path / "run", cases=3, quality=False, **SMALL)
    with_settings(folder, preset="tiny", conditioning="original")
    with_settings(folder, case="clip", conditioning="described")
    drawn = frontier_of(read_costs(folder), read_quality(study_folder))
    assert list(drawn.notes) == [
        "The clip of the costs and of the mIoU also differ in conditioning."
    ]


def test_a_case_that_measures_the_reference_again_is_no_variant(tmp_path, study_folder):
    folder = renamed(
        write_run(tmp_path / "run", cases=3, quality=False, **SMALL), {"sam": "dual-again"}
    )
    with_settings(folder, case="dual-again", vision="dual")
    drawn = frontier_of(read_costs(folder), read_quality(study_folder))
    assert [variant.name for variant in drawn.variants] == ["clip"]


def test_names_that_do_not_match_are_an_error_that_lists_both(tmp_path, study_folder):
    folder = renamed(
        write_run(tmp_path / "run", cases=3, quality=False, **SMALL), {"clip": "a", "sam": "b"}
    )
    with pytest.raises(NothingToCompare, match=r"it has a and b, and .* has clip, .* same names"):
        frontier_of(read_costs(folder), read_quality(study_folder))


def test_another_reference_is_an_error_that_names_both(tmp_path, study_folder):
    folder = write_run(tmp_path / "run", cases=3, quality=False, **SMALL)
    edit_run(folder, reference="sam")
    with pytest.raises(NothingToCompare, match=r"compared with 'sam', .* with 'dual'"):
        frontier_of(read_costs(folder), read_quality(study_folder))


def test_random_weights_have_no_quality_and_a_study_has_no_costs_to_draw(
    costs_folder, study_folder
):
    with pytest.raises(NothingToCompare, match="weights at random have none"):
        read_quality(costs_folder)
    with pytest.raises(UsageError, match=r"is a study: .* goes after --quality"):
        read_costs(study_folder)


def test_with_one_seed_a_note_says_what_the_intervals_leave_out(tmp_path, costs_folder):
    study = write_study(tmp_path / "study", seeds=1, images=12)
    drawn = frontier_of(read_costs(costs_folder), read_quality(study))
    assert any("trained once" in note for note in drawn.notes)
