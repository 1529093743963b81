"""A run against a baseline: what holds, what has regressed, and what nothing can be said of."""

import json
import math

import numpy as np
import pytest
from run_factory import edit_lines, write_lines, write_run

from lisabench.harness import masks
from lisabench.harness.metrics import METRICS
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.power import smallest_found
from lisabench.harness.statistics.ratios import paired_ratio, unpaired_ratio
from lisabench.reports.gate.baseline import Baseline, PackedMask, reduced
from lisabench.reports.gate.checks import gate_checks
from lisabench.reports.gate.outcome import (
    changes,
    checked,
    outcome,
    to_remeasure,
    with_remeasurements,
)
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.gate.thresholds import Gate
from lisabench.reports.schema_base import AnswerSpread

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "cases": 2, "gallery": 2, "processes": 5}
MIB = 1 << 20
STEADY = [1.00, 1.01, 0.99, 1.005, 0.995]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Baseline:
    return reduced(read_run(write_run(tmp_path_factory.mktemp("runs") / "run", **SMALL)))


@pytest.fixture
def before(drawn):
    """Two cases whose processes differ by 1 %, at 100 ms and 500 MiB."""
    return changed(drawn, end_to_end_ns=ms(100), stages_ns={"vision": ms(40)}, **peaks(500))


def ms(time, spread=STEADY):
    return [round(time * 1e6 * factor) for factor in spread]


def peaks(mib):
    """On a CPU: whole processes, of which 100 MiB stood there before the build."""
    whole, grown = [round(mib * MIB)] * 3, [round((mib - 100) * MIB)] * 3
    return {
        "peak_bytes": whole,
        "query_peak_bytes": whole,
        "growth_bytes": grown,
        "query_growth_bytes": grown,
    }


def changed(baseline, case=None, **changes):
    """A copy with other figures, of one case or of all."""
    cases = [c.model_copy(update=changes) if case in (None, c.name) else c for c in baseline.cases]
    return baseline.model_copy(update={"cases": cases})


def of(before, after, metric, case="dual", **gate):
    found = [
        c for c in gate_checks(before, after, Gate(**gate)) if (c.case, c.metric) == (case, metric)
    ]
    assert len(found) == 1
    return found[0]


def test_a_run_against_itself_holds_in_every_figure_that_is_gated(before):
    checks = gate_checks(before, before, Gate(stages=["vision"]))
    assert {check.verdict for check in checks} == {"holds"}
    assert [check.metric for check in checks if check.case == "sam"] == [
        "failures",
        "time.end_to_end",
        "time.vision",
        "memory.peak",
        "memory.query_peak",
        "quality.gIoU",
        "quality.cIoU",
        "masks",
    ]
    assert outcome(checks) == "holds"


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.5, "holds"), (1.0, "holds"), (1.02, "holds"), (1.05, "inconclusive"), (1.1, "regression")],
)
def test_a_time_holds_or_has_regressed_only_where_its_whole_interval_says_so(
    before, factor, verdict
):
    assert (
        of(before, changed(before, end_to_end_ns=ms(100 * factor)), "time.end_to_end").verdict
        == verdict
    )


def test_the_interval_of_a_time_takes_in_what_sessions_differ_by(before):
    after = changed(before, end_to_end_ns=ms(103))
    logs = [np.log(case.end_to_end_ns) for case in (before.case("dual"), after.case("dual"))]
    found, welch = of(before, after, "time.end_to_end"), unpaired_ratio(*logs)
    exactly = of(before, after, "time.end_to_end", sessions=0)
    np.testing.assert_allclose(
        [exactly.low, exactly.high], [welch.low, welch.high], rtol=1e-9, atol=0
    )
    widened = math.log(found.high / found.low) / 2
    assert math.hypot(1.96 * 0.01, math.log(welch.high / welch.low) / 2) == pytest.approx(
        widened, rel=0.05, abs=0
    )


def test_where_two_versions_took_turns_a_time_has_the_interval_of_the_pairs_in_both_looks(before):
    after = changed(before, end_to_end_ns=ms(100, [0.5, 0.8, 1, 1.25, 2]))
    logs = [0.09, 0.10, 0.11, 0.10, 0.12]
    pairs = {("dual", "time.end_to_end"): logs}
    expected = paired_ratio(logs)
    for second in (False, True):
        checks = {(c.case, c.metric): c for c in gate_checks(before, after, Gate(), second, pairs)}
        found = checks["dual", "time.end_to_end"]
        assert (found.change, found.low, found.high) == (
            expected.value,
            expected.low,
            expected.high,
        )
        assert found.verdict == "regression"
        assert (
            checks["sam", "time.end_to_end"].verdict == "inconclusive"
        )  # of that there are no pairs


def test_pairs_are_of_the_same_query_in_the_same_process_of_either_run(tmp_path):
    run = read_run(write_run(tmp_path / "run", **SMALL))
    twice = write_run(tmp_path / "twice", **SMALL)
    edit_lines(twice / "samples.jsonl", lambda line: line | {"latency_ns": 2 * line["latency_ns"]})
    journal = twice / "samples.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[::-1]))
    slower = read_run(twice)
    found = time_pairs(run, slower)
    np.testing.assert_allclose(
        found["dual", "time.end_to_end"], [math.log(2)] * 5, rtol=1e-9, atol=0
    )
    np.testing.assert_allclose(found["dual", "time.vision"], [0.0] * 5, rtol=0, atol=1e-12)


def test_pairs_of_stages_are_of_the_pass_that_waits_where_both_runs_have_it(tmp_path):
    folders = [write_run(tmp_path / name, **SMALL) for name in ("run", "before", "after")]
    waited = [
        {
            "case": "dual",
            "pass": "synchronised",
            "process": process,
            "sample_id": "q",
            "stages_ns": {"vision": 10 * more},
        }
        for more in (1, 3)
        for process in range(5)
    ]
    write_lines(folders[1] / "passes.jsonl", waited[:5])
    write_lines(folders[2] / "passes.jsonl", waited[5:])
    run, before, after = [read_run(folder) for folder in folders]
    found = time_pairs(before, after)
    np.testing.assert_allclose(found["dual", "time.vision"], [math.log(3)] * 5, rtol=1e-9, atol=0)
    assert found["dual", "time.llm"] == []
    np.testing.assert_allclose(
        time_pairs(before, run)["dual", "time.vision"], [0.0] * 5, rtol=0, atol=1e-12
    )


def test_a_second_look_needs_the_interval_of_its_processes_to_convict_and_the_whole_one_to_acquit(
    before,
):
    def verdicts(time):
        after = changed(before, end_to_end_ns=ms(time))
        looks = (gate_checks(before, after, Gate(), remeasured=second) for second in (False, True))
        return [next(c.verdict for c in look if c.metric == "time.end_to_end") for look in looks]

    assert verdicts(107) == [
        "inconclusive",
        "regression",
    ]  # 1.06 to 1.08 by its processes, 1.05 to 1.09 with sessions
    assert verdicts(103.5) == ["inconclusive", "inconclusive"]
    assert verdicts(102) == ["holds", "holds"]


def test_a_stage_is_shown_and_gated_only_where_the_suite_says_so(before):
    after = changed(before, stages_ns={"vision": ms(44)})
    shown = of(before, after, "time.vision")
    assert (shown.verdict, shown.limit) == ("not gated", None)
    assert shown.change == pytest.approx(1.1, rel=1e-6, abs=0)
    assert of(before, after, "time.vision", stages={"vision": 0.05}).verdict == "regression"
    assert (
        of(before, after, "time.vision", cases={"dual": {"stages": {"vision": 0.05}}}).verdict
        == "regression"
    )
    assert (
        of(before, after, "time.vision", cases={"sam": {"stages": {"vision": 0.05}}}).verdict
        == "not gated"
    )
    assert of(before, after, "time.vision", stages=["vision"]).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("mib", "more", "verdict"),
    [
        (500, 4, "holds"),
        (500, 6, "regression"),
        (10_000, 31, "holds"),
        (10_000, 33, "regression"),
        (500, -300, "holds"),
    ],
)
def test_a_peak_may_grow_by_1_percent_or_32_mib_whichever_is_less(before, mib, more, verdict):
    found = of(changed(before, **peaks(mib)), changed(before, **peaks(mib + more)), "memory.peak")
    assert found.verdict == verdict
    grown = mib - 100  # of it: as many bytes are allowed, and shown over the growth
    assert found.limit == pytest.approx(1 + min(0.01 * mib, 32) / grown, rel=1e-9, abs=0)
    assert found.change == pytest.approx(1 + more / grown, rel=1e-9, abs=0)


@pytest.mark.parametrize(("more", "verdict"), [(4, "holds"), (6, "regression"), (-300, "holds")])
def test_whole_peaks_of_an_older_baseline_are_compared_as_such(before, more, verdict):
    older = changed(before, growth_bytes=[], query_growth_bytes=[])
    found = of(older, changed(before, **peaks(500 + more)), "memory.peak")
    assert found.verdict == verdict
    assert (found.before, found.limit) == (pytest.approx(500 * MIB), pytest.approx(1.01))
    assert (
        found.why == "by the peak of the whole process: "
        "the baseline or the run lacks what stood there before the build"
    )


def test_a_growth_that_is_small_is_held_to_bytes_and_not_to_a_share_of_itself(before):
    """As a fake's: half a MiB more or less is 1 % of no process."""
    small = [round(mib * MIB) for mib in (0.3, 0.5, 0.4)]
    larger = [round(mib * MIB) for mib in (0.8, 0.6, 0.7)]
    base = changed(before, growth_bytes=small, query_growth_bytes=small)
    found = of(base, changed(base, growth_bytes=larger), "memory.peak")
    assert (found.verdict, round(found.change, 2)) == ("holds", 1.75)
    grown = [round((mib + 64) * MIB) for mib in (0.3, 0.5, 0.4)]
    assert of(base, changed(base, growth_bytes=grown), "memory.peak").verdict == "regression"


JOULES = [
    40_000.0,
    41_000.0,
    39_500.0,
    40_500.0,
    40_200.0,
]  # millijoules a query, of five processes


@pytest.mark.parametrize(
    ("factor", "limit", "verdict"),
    [(1.0, 0.05, "holds"), (1.2, 0.05, "regression"), (1.2, None, "not gated"),
     (1.05, 0.05, "inconclusive"),
     (1.2, 0.5, "holds")],
)  # fmt: skip
def test_energy_is_held_to_its_limit(before, factor, limit, verdict):
    base = changed(before, energy_mj=JOULES)
    found = of(
        base,
        changed(base, energy_mj=[factor * value for value in JOULES]),
        "energy.query",
        energy=limit,
    )
    assert (found.verdict, found.unit) == (verdict, "mJ")
    assert found.change == pytest.approx(factor, rel=1e-9, abs=0)


def test_energy_that_one_side_lacks_is_not_checked_and_that_both_lack_is_not_shown(before):
    base = changed(before, energy_mj=JOULES)
    for sides, lacking in (((before, base), "the baseline"), ((base, before), "the run")):
        checks = gate_checks(*sides, Gate())
        found = next(check for check in checks if check.metric == "energy.query")
        assert found.verdict == "not checked" and found.why.startswith(f"{lacking} has no energy")

        assert outcome(checks) == "holds"
    assert "energy.query" not in {check.metric for check in gate_checks(before, before, Gate())}


def test_energy_of_blocks_is_not_compared_with_that_of_a_pass_of_its_own(before):
    of_blocks = changed(before, energy_mj=JOULES)
    of_pass = changed(before, energy_mj=JOULES, energy_by="pass")
    sides = {"the baseline": (of_blocks, of_pass), "the run": (of_pass, of_blocks)}
    for older, (base, head) in sides.items():
        found = of(base, head, "energy.query")
        assert found.verdict == "not checked" and found.why.startswith(f"{older} has the energy of")
    assert of(of_pass, of_pass, "energy.query").verdict == "holds"
    named = changed(before, energy_mj=JOULES, energy_by="blocks")
    assert of(of_blocks, named, "energy.query").verdict == "holds"


def test_energy_of_other_queries_decides_nothing_and_another_machine_refuses_it(before):
    base = changed(before, energy_mj=JOULES)
    found = of(base, changed(base, without_energy=["scene-0000"]), "energy.query")
    assert (found.verdict, found.why) == (
        "inconclusive",
        "not the same queries have an energy in every process",
    )
    elsewhere = base.model_copy(update={"environment": dict(base.environment) | {"cpu": "another"}})
    assert of(base, elsewhere, "energy.query").verdict == "refused"


QUERIES_PER_SECOND = "throughput.queries_per_second"
SECONDS = [0.1 * factor for factor in STEADY]  # 10 queries a second


@pytest.mark.parametrize(
    ("factor", "limit", "verdict"),
    [(1.0, 0.05, "holds"), (0.8, 0.05, "regression"), (0.8, None, "not gated"),
     (0.95, 0.05, "inconclusive"), (1.3, 0.05, "holds"), (0.8, 0.5, "holds")],
)  # fmt: skip
def test_queries_per_second_are_held_to_how_many_fewer_there_may_be(before, factor, limit, verdict):
    base = changed(before, seconds_per_query=SECONDS)
    after = changed(base, seconds_per_query=[seconds / factor for seconds in SECONDS])
    found = of(base, after, QUERIES_PER_SECOND, throughput=limit)
    assert (found.verdict, found.unit) == (verdict, "1/s")
    assert found.before == pytest.approx(10, rel=1e-2)
    assert found.change == pytest.approx(factor, rel=1e-9, abs=0)
    assert found.low < found.change < found.high
    assert found.limit == (None if limit is None else pytest.approx(1 - limit, rel=1e-12))


def test_queries_per_second_have_the_interval_of_the_pairs(before):
    logs = [0.09, 0.10, 0.11, 0.10, 0.12]  # of seconds
    base = changed(before, seconds_per_query=SECONDS)
    pairs = {("dual", QUERIES_PER_SECOND): logs}
    checks = gate_checks(base, base, Gate(throughput=0.05), pairs=pairs)
    (found,) = [c for c in checks if (c.case, c.metric) == ("dual", QUERIES_PER_SECOND)]
    expected = paired_ratio([-log for log in logs])
    assert found.verdict == "regression"
    np.testing.assert_allclose(
        [found.change, found.low, found.high],
        [expected.value, expected.low, expected.high],
        rtol=1e-12,
    )
    # Fewer queries per second are found, by the same factor as more seconds.
    more_seconds = smallest_found(1 / 0.95 - 1, float(np.std(logs, ddof=1)), len(logs))
    assert found.finds < -0.05
    assert (1 + found.finds) * (1 + more_seconds) == pytest.approx(1, rel=1e-12, abs=0)


def test_queries_per_second_that_one_side_lacks_are_no_pass_and_latency_has_none(before):
    base = changed(before, seconds_per_query=SECONDS)
    gate = {"throughput": 0.05}
    assert of(base, before, QUERIES_PER_SECOND, **gate).verdict == "missing"
    found = of(before, base, QUERIES_PER_SECOND, **gate)
    assert (found.verdict, found.why) == ("n/a", "not in the baseline")
    assert QUERIES_PER_SECOND not in {c.metric for c in gate_checks(before, before, Gate(**gate))}


def test_queries_per_second_of_another_machine_are_refused(before):
    base = changed(before, seconds_per_query=SECONDS)
    elsewhere = base.model_copy(update={"environment": dict(base.environment) | {"cpu": "another"}})
    assert of(base, elsewhere, QUERIES_PER_SECOND, throughput=0.05).verdict == "refused"


def test_a_run_of_throughput_is_reduced_to_the_seconds_of_its_queries_and_waits(tmp_path):
    folder = write_run(tmp_path / "run", **SMALL)
    waits = {"data_wait_ns": 50_000_000}
    edit_lines(folder / "samples.jsonl", lambda line: line | {"latency_ns": 150_000_000} | waits)
    run = read_run(folder)
    assert reduced(run).case("dual").seconds_per_query == pytest.approx([0.2] * 5, rel=1e-12)
    pairs = time_pairs(run, run)
    assert pairs["dual", QUERIES_PER_SECOND] == [0.0] * 5


def spread(baseline, distance, gIoU=0.0):
    """A baseline whose own processes answer differently."""
    known = {"processes": 3, "queries": 8, "differing": 8, "pixels": 9, "iou": 0.1}
    found = AnswerSpread(**known, mask_distance=distance, points={"gIoU": gIoU, "cIoU": gIoU})
    return changed(baseline, answer_spread=found)


def test_masks_may_differ_by_what_they_differ_among_the_baselines_own_processes(before):
    after = smaller(before, "scene-0000")
    found = of(before, after, "masks")
    distance = 1 - found.after
    assert found.verdict == "regression" and distance > 0.02
    assert of(spread(before, distance / 2), after, "masks").verdict == "holds"
    assert (
        "spread among the baseline's own processes"
        in of(spread(before, distance / 2), after, "masks").why
    )
    assert of(spread(before, distance / 2 - 0.01), after, "masks").verdict == "regression"
    assert (
        of(before, spread(after, 1.0), "masks").verdict == "regression"
    )  # the new side's spread excuses nothing


def test_scores_may_differ_by_what_they_differ_among_the_baselines_own_processes(before):
    worse = changed(before, answers=missing_all(before.case("dual").answers))
    lost = -of(before, worse, "quality.gIoU").high
    assert lost > 1 and of(before, worse, "quality.gIoU").verdict == "regression"
    found = of(spread(before, 0.0, gIoU=lost / 2), worse, "quality.gIoU")
    assert found.verdict != "regression"
    assert found.limit == pytest.approx(-(0.5 + lost), rel=1e-9, abs=0)
    assert of(spread(before, 0.0, gIoU=lost / 4), worse, "quality.gIoU").verdict == "regression"


def missing_all(answers):
    """The same queries, those with a target answered with an empty mask each."""
    nothing = [0] * len(answers.sample_id)
    either = [
        target or union for target, union in zip(answers.target_px, answers.union_px, strict=True)
    ]
    return answers.model_copy(
        update={"intersection_px": nothing, "predicted_px": nothing, "union_px": either}
    )


def smaller(baseline, query):
    """A baseline of which each case's mask of one query has lost half of its rows."""
    cases = []
    for case in baseline.cases:
        mask_HW = masks.unpack(case.masks[query].model_dump()).copy()
        rows = np.flatnonzero(mask_HW.any(axis=1))
        mask_HW[rows[: len(rows) // 2]] = False
        packed = PackedMask(**masks.pack(mask_HW))
        cases.append(case.model_copy(update={"masks": case.masks | {query: packed}}))
    return baseline.model_copy(update={"cases": cases})


def test_peaks_by_other_instruments_or_of_other_figures_are_refused(before):
    for other in ({"instrument": "cuda allocator"}, {"peak_figure": "peak_reserved_bytes"}):
        found = of(before, changed(before, **other), "memory.peak")
        assert found.verdict == "refused" and "different instruments" in found.why


def worse_by(baseline, pixels):
    """Each answer loses so many of its pixels, all of them hits."""
    cases = []
    for case in baseline.cases:
        lost = [min(pixels, hit) for hit in case.answers.intersection_px]
        update = {
            name: [
                value - fewer
                for value, fewer in zip(getattr(case.answers, name), lost, strict=True)
            ]
            for name in ("intersection_px", "predicted_px")
        }
        cases.append(case.model_copy(update={"answers": case.answers.model_copy(update=update)}))
    return baseline.model_copy(update={"cases": cases})


def test_scores_are_paired_by_query_and_a_loss_is_found(before):
    worse = worse_by(before, 5)
    found = of(before, worse, "quality.gIoU")
    scores = [
        METRICS["gIoU"].compute([query.counts for query in side.case("dual").answers.scored()])
        for side in (before, worse)
    ]
    assert found.verdict == "regression" and found.high < -0.5
    assert found.change == pytest.approx(100 * (scores[1] - scores[0]), rel=1e-9, abs=0)
    assert of(worse, before, "quality.gIoU").verdict == "holds"
    assert of(before, worse, "quality.cIoU", cIoU=99).verdict == "holds"
    assert of(before, worse, "quality.cIoU", cIoU=None).verdict == "not gated"


def test_the_order_of_the_queries_does_not_matter(before):
    answers = before.case("dual").answers
    turned = {name: column[::-1] for name, column in vars(answers).items()}
    assert (
        of(
            before,
            changed(before, "dual", answers=answers.model_copy(update=turned)),
            "quality.gIoU",
        ).change
        == 0
    )


def test_random_weights_have_no_quality_to_hold_but_masks(before):
    random = changed(before, has_quality=False)
    assert of(random, random, "quality.gIoU").verdict == "n/a"
    assert of(random, random, "masks").verdict == "holds"
    assert of(before, random, "quality.gIoU").verdict == "missing"


def with_mask(baseline, change):
    case = baseline.case("dual")
    name = min(case.masks)
    mask_HW = change(masks.unpack(case.masks[name].model_dump()))
    return changed(baseline, "dual", masks=case.masks | {name: PackedMask(**masks.pack(mask_HW))})


def test_one_mask_that_has_moved_is_found_among_the_others(before):
    found = of(before, with_mask(before, lambda mask_HW: np.roll(mask_HW, 1, axis=1)), "masks")
    assert found.verdict == "regression" and "1 of 2" in found.why and found.after < 0.99
    assert of(before, with_mask(before, np.copy), "masks").after == 1.0


def test_masks_that_the_run_did_not_keep_leave_the_gate_in_doubt(before):
    case = before.case("dual")
    fewer = changed(before, "dual", masks=dict([min(case.masks.items())]))
    found = of(before, fewer, "masks")
    assert found.verdict == "inconclusive" and "1 of 2" in found.why
    assert of(fewer, before, "masks").verdict == "holds"
    assert of(changed(before, masks={}), before, "masks").verdict == "n/a"


def test_a_case_that_the_run_does_not_have_fails_the_gate_and_a_new_one_does_not(before):
    alone = before.model_copy(update={"cases": before.cases[:1]})
    checks = gate_checks(before, alone, Gate())
    assert [(c.case, c.metric) for c in checks if c.verdict == "missing"] == [("sam", "case")]
    assert outcome(checks) == "regression" and to_remeasure(checks) == []
    assert outcome(gate_checks(alone, before, Gate())) == "holds"
    assert checked("RUN", "FILE", alone, before, gate_checks(alone, before, Gate())).new == ["sam"]


@pytest.mark.parametrize(
    ("gone", "metric"),
    [
        ({"end_to_end_ns": []}, "time.end_to_end"),
        ({"peak_bytes": [], "growth_bytes": [], "instrument": None}, "memory.peak"),
    ],
)
def test_a_figure_that_the_run_has_not_measured_fails_the_gate(before, gone, metric):
    assert of(before, changed(before, **gone), metric).verdict == "missing"
    assert of(changed(before, **gone), before, metric).verdict == "n/a"


def test_a_case_that_could_not_be_built_has_regressed_without_a_second_measurement(before):
    never_built = {
        "settings": None,
        "has_quality": None,
        "clock": None,
        "end_to_end_ns": [],
        "stages_ns": {},
        "stages_synchronised": False,
        "instrument": None,
        "peak_bytes": [],
        "query_peak_bytes": [],
        "growth_bytes": [],
        "query_growth_bytes": [],
        "failed": before.case("sam").records,
    }
    on_gpu = changed(before, "sam", clock="cuda events", stages_synchronised=True)
    checks = gate_checks(on_gpu, changed(on_gpu, "sam", **never_built), Gate(stages=["vision"]))
    verdicts = {check.metric: check.verdict for check in checks if check.case == "sam"}
    assert verdicts["failures"] == "regression"
    for metric in ("time.end_to_end", "time.vision", "memory.peak", "quality.gIoU"):
        assert verdicts[metric] == "missing", metric
    assert outcome(checks) == "regression" and to_remeasure(checks) == []
    # One that has failed in part may have met a fluke.
    in_part = gate_checks(before, changed(before, "sam", failed=1), Gate())
    assert to_remeasure(in_part) == ["sam"]


def test_more_failures_than_before_fail_the_gate(before):
    assert of(before, changed(before, failed=1), "failures").verdict == "regression"
    assert of(changed(before, failed=1), changed(before, failed=1), "failures").verdict == "holds"


def test_where_other_queries_have_times_their_medians_are_not_judged(before):
    after = changed(before, untimed=["scene-0003"])
    found = of(before, after, "time.end_to_end")
    assert found.verdict == "inconclusive" and "not the same queries" in found.why


@pytest.mark.parametrize(
    "facts",
    [
        {"gpu": "H200"},
        {"gpu_count": 4},
        {"driver": "999.1"},
        {"power_limit_w": 300},
        {"ecc": True},
        {"cpu": "Abacus"},
    ],
)
def test_another_machine_is_refused_for_time_and_memory_and_not_for_quality(before, facts):
    after = before.model_copy(update={"environment": before.environment | facts})
    verdicts = {c.metric: c.verdict for c in gate_checks(before, after, Gate()) if c.case == "dual"}
    assert {verdicts[m] for m in ("time.end_to_end", "memory.peak", "memory.query_peak")} == {
        "refused"
    }
    assert {verdicts[m] for m in ("quality.gIoU", "quality.cIoU", "masks", "failures")} == {"holds"}
    assert outcome(gate_checks(before, after, Gate())) == "nothing comparable"
    assert outcome(gate_checks(before, worse_by(after, 5), Gate())) == "regression"
    assert outcome(gate_checks(before, after, Gate(end_to_end=None, peak=None))) == "holds"


def test_versions_settings_and_the_plan_are_listed_and_never_refused(before):
    settings = before.case("dual").settings
    before = changed(before, "dual", settings=settings | {"adapter_sha256": "0a"})
    # The adapter's file is what is compared, and nothing beside it.
    after = changed(before, "dual", settings=settings | {"adapter_sha256": "1b", "sam": "vit_b"})
    after = after.model_copy(update={"versions": before.versions | {"torch": "3"}})
    assert outcome(gate_checks(before, after, Gate())) == "holds"
    assert changes(before, after) == {
        "dual: sam": ("tiny", "vit_b"),
        "version: torch": ("2.13.0", "3"),
    }


@pytest.mark.parametrize("what", ["fingerprint", "targets"])
def test_other_data_are_refused_for_everything(before, what):
    if what == "fingerprint":
        after = before.model_copy(update={"data": before.data | {"fingerprint": "b"}})
    else:
        answers = before.case("dual").answers
        after = changed(
            before,
            answers=answers.model_copy(update={"target_px": [px + 1 for px in answers.target_px]}),
        )
    verdicts = {
        c.metric: c.verdict
        for c in gate_checks(before, after, Gate(stages=["vision"]))
        if c.metric != "failures"
    }
    assert set(verdicts.values()) == {"refused"}
    assert outcome(gate_checks(before, after, Gate())) == "nothing comparable"


def test_one_process_gives_no_interval_and_is_no_pass(before):
    one = changed(before, end_to_end_ns=ms(100)[:1])
    found = of(before, one, "time.end_to_end")
    assert found.verdict == "inconclusive" and "one process" in found.why


def test_a_gate_that_gates_nothing_is_no_pass(before):
    nothing = Gate(end_to_end=None, peak=None, gIoU=None, cIoU=None, mask_iou=None)
    assert outcome(gate_checks(before, before, nothing)) == "nothing comparable"


def test_a_refusal_is_not_hidden_by_a_doubt(before):
    after = with_mask(before, np.copy).model_copy(
        update={"environment": before.environment | {"cpu": "Abacus"}}
    )
    after = changed(after, "dual", masks={})
    assert {"refused", "inconclusive"} <= {
        check.verdict for check in gate_checks(before, after, Gate())
    }
    assert outcome(gate_checks(before, after, Gate())) == "nothing comparable"


def test_a_second_measurement_stands_in_the_place_of_each_regression(before):
    slow = gate_checks(before, changed(before, "sam", end_to_end_ns=ms(110)), Gate())
    assert to_remeasure(slow) == ["sam"]
    confirmed = with_remeasurements(slow, {"sam": slow})
    assert outcome(confirmed) == "regression"
    quick = with_remeasurements(
        slow, {"sam": [c for c in gate_checks(before, before, Gate()) if c.case == "sam"]}
    )
    assert outcome(quick) == "holds"
    again = next(check for check in quick if check.first)
    assert (again.case, again.metric, again.first.verdict) == (
        "sam",
        "time.end_to_end",
        "regression",
    )
    assert [c for c in quick if not c.first] == [
        c for c in slow if c.verdict == "holds" or c.verdict == "not gated"
    ]


def test_a_regression_that_cannot_be_measured_again_is_unconfirmed(before):
    slow = gate_checks(before, changed(before, "sam", end_to_end_ns=ms(110)), Gate())
    found = with_remeasurements(slow, {"sam": "another machine"})
    assert outcome(found) == "inconclusive"
    assert [(c.verdict, c.why) for c in found if c.verdict == "unconfirmed"] == [
        ("unconfirmed", "another machine")
    ]


def test_what_is_judged_is_json_without_nan(before):
    found = checked("RUN", "FILE", before, before, gate_checks(before, before, Gate()))
    page = json.loads(found.model_dump_json(by_alias=True), parse_constant=pytest.fail)
    assert (page["schema"], page["exit_code"], page["outcome"]) == ("lisabench.check/1", 0, "holds")


def test_one_answer_a_query_is_that_of_the_lowest_process(tmp_path):
    run = read_run(write_run(tmp_path / "run", **SMALL))
    chosen = [query.sample_id for query in run.case("dual").queries if query.process == 0]
    assert reduced(run).case("dual").answers.sample_id == chosen
