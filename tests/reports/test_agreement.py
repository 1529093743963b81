"""Answers of one case that differ between its processes: counted, shown, allowed for."""

import numpy as np
import pytest
from places import RESULTS
from query_records import counted_record
from run_factory import counted, edit_lines, edit_run, rle, write_run

from lisabench.harness import masks
from lisabench.harness.records.run import read_run
from lisabench.reports.agreement import answer_spread
from lisabench.reports.gate.baseline import reduced
from lisabench.reports.gate.checks import gate_checks
from lisabench.reports.gate.outcome import outcome
from lisabench.reports.gate.thresholds import Gate
from lisabench.reports.page.tables import comparison_table
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "cases": 2, "gallery": 0, "processes": 3}


def test_of_the_published_records_compiled_and_cached_answers_differ_and_eager_ones_do_not():
    run = read_run(RESULTS / "h200")
    names = [entry.name for entry in run.manifest.models]
    found = {name: answer_spread(run.case(name).queries, has_quality=False) for name in names}
    differing = {name: spread.differing for name, spread in found.items()}
    assert {spread.queries for spread in found.values()} == {8}
    compiled = [name for name in names if name.endswith("-compiled")]
    cached = [name for name in names if name.endswith("-cached")]
    assert len(compiled) == 4 and {differing[name] for name in compiled} == {8}
    assert len(cached) == 6 and {differing[name] for name in cached} == {6, 7, 8}
    assert all(not differing[name] for name in names if name not in (*compiled, *cached))
    assert max(spread.iou for spread in found.values()) < 0.0005
    assert max(spread.pixels for spread in found.values()) > 300


def test_the_report_of_the_published_run_counts_them_in_the_table_and_in_one_warning():
    summary = summarise(read_run(RESULTS / "h200"))
    (warning,) = [text for text in summary.warnings if "differ between its processes" in text]
    assert (
        "dual-compiled 8 of 8" in warning
        and "sam-cached 6 of 8" in warning
        and "dual-nf4 " not in warning
    )
    assert "| answers that differ between processes | 0 of 8 | 8 of 8 (up to" in comparison_table(
        summary
    )


def test_processes_that_answer_alike_differ_in_nothing_and_one_process_cannot(tmp_path):
    write_run(tmp_path / "three", **SMALL)
    spread = summarise(read_run(tmp_path / "three")).cases[0].answer_spread
    assert (spread.processes, spread.queries, spread.differing, spread.pixels, spread.iou) == (
        3,
        8,
        0,
        0,
        0,
    )
    assert spread.mask_distance == 0 and spread.points == {"gIoU": 0, "cIoU": 0}
    assert "answers that differ" not in comparison_table(summarise(read_run(tmp_path / "three")))
    write_run(tmp_path / "one", **SMALL | {"processes": 1})
    assert summarise(read_run(tmp_path / "one")).cases[0].answer_spread is None


def answered(masks_by_process, target_HW, kept):
    rows = []
    for process, mask_HW in enumerate(masks_by_process):
        mask_rle = rle(mask_HW) if kept else None
        counts = counted(mask_HW, target_HW)
        rows.append(counted_record(counts, process=process, mask_rle=mask_rle))
    return rows


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_distance_of_masks_is_exact_where_they_are_kept_and_a_lower_bound_where_not(seed, kept):
    rng = np.random.default_rng(seed)
    target_HW = (rng.random((20, 30)) < 0.4).astype(np.uint8)
    first_HW = rng.random((20, 30)) < 0.5
    second_HW = first_HW ^ (rng.random((20, 30)) < 0.05)
    spread = answer_spread(answered([first_HW, second_HW], target_HW, kept), has_quality=True)
    exact = 1 - masks.overlap(first_HW, second_HW)
    assert spread.pixels <= np.count_nonzero(first_HW ^ second_HW)
    assert spread.differing == 1
    if kept:
        assert spread.mask_distance == pytest.approx(exact, rel=1e-12, abs=0)
    else:
        assert 0 < spread.mask_distance <= exact


def test_pixels_that_are_lost_alone_are_all_counted():
    mask_HW = np.zeros((10, 10), bool)
    mask_HW[:5] = True
    fewer_HW = mask_HW.copy()
    fewer_HW[0] = False
    target_HW = np.zeros((10, 10), np.uint8)
    target_HW[:, :4] = 1
    spread = answer_spread(
        answered([mask_HW, fewer_HW, mask_HW], target_HW, kept=False), has_quality=True
    )
    assert (spread.processes, spread.pixels, spread.mask_distance) == (3, 10, pytest.approx(0.2))


# Gates: a version whose processes flip pixels at random, as compiled arithmetic does


def flipping(folder, share, seed, shift=0):
    """A run that keeps all masks, of which each process has flipped a share of the pixels, and
    moved all by `shift`.
    """
    write_run(folder, **SMALL, seed=0, controls=False)
    rng = np.random.default_rng(seed)
    run = read_run(folder)
    shapes = {query.sample_id: (query.height, query.width) for query in run.case("dual").queries}
    drawn = np.random.default_rng(7)
    targets = {name: (drawn.random(shape) < 0.3).astype(np.uint8) for name, shape in shapes.items()}

    def answer(row):
        target_HW = targets[row["sample_id"]]
        mask_HW = np.roll(target_HW == 1, shift, axis=1) ^ (rng.random(target_HW.shape) < share)
        return row | counted(mask_HW, target_HW) | {"mask_rle": rle(mask_HW)}

    edit_lines(folder / "samples.jsonl", answer)
    edit_run(folder, title="flips")
    return reduced(read_run(folder))


def of_masks(before, after):
    return [check for check in gate_checks(before, after, Gate()) if check.metric == "masks"]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_a_gate_is_not_red_by_the_spread_of_an_unchanged_version(tmp_path, share):
    """Ten gates of small masks, in which a few pixels matter; the limit of 0.99 alone makes all of
    them red.
    """
    before = flipping(tmp_path / "base", share, seed=100)
    alone = before.model_copy(
        update={"cases": [case.model_copy(update={"answer_spread": None}) for case in before.cases]}
    )
    red = {"with": 0, "without": 0}
    for seed in range(10):
        after = flipping(tmp_path / f"head-{seed}", share, seed)
        checks = gate_checks(before, after, Gate())
        red["with"] += outcome(checks) == "regression"
        red["without"] += "regression" in {check.verdict for check in of_masks(alone, after)}
    assert red["with"] == 0
    assert red["without"] == 10


def test_a_mask_that_moved_is_found_beside_that_spread(tmp_path):
    before = flipping(tmp_path / "base", 0.01, seed=100)
    after = flipping(tmp_path / "head", 0.01, seed=1, shift=3)
    assert {check.verdict for check in of_masks(before, after)} == {"regression"}
