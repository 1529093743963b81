"""The quality pass: every query once for each case, in batches, untimed, resumed batch by batch."""

import json
from collections import Counter
from dataclasses import replace
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest
from outside_adapter import CORNER
from raw_runs import raw_run
from run_factory import edit_lines
from samples import sample_of
from sessions import QUICK, keys, run, session, suite

from lisabench.benchmarks import suite as suites
from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run import quality_pass
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.data_worker import DataWorker
from lisabench.benchmarks.run.quality_pass import (
    MOST_LOST,
    Evaluator,
    gpus_of_processes,
    side_by_side,
)
from lisabench.benchmarks.run.worker_messages import BuiltCase, WorkerSettings
from lisabench.benchmarks.run.worker_pool import WorkerLost
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness import masks, measure
from lisabench.harness.contract import Prediction
from lisabench.harness.probe import NullProbe
from lisabench.harness.records.gallery import read_gallery
from lisabench.harness.records.journal import read_lines
from lisabench.models import registry
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa.config import LisaConfig
from lisabench.reports.load import load
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

TIMES = {"latency_ns", "host_ns", "regions", "unattributed_ns"}


def planned(data_root, **plan):
    return suite(data_root, plan={"processes": 1, "memory_processes": 1} | plan)


def scored(result) -> Counter:
    return Counter((line["case"], line["sample_id"]) for line in result.quality)


def test_time_and_quality_have_queries_of_their_own(data_root, tmp_path):
    result = run(
        planned(data_root, timed_queries=2, quality_queries=5, quality_batch=3), tmp_path / "out"
    )
    assert set(keys(result)) == {(case, 0, f"q{i}") for case in "ab" for i in range(2)}
    assert scored(result) == Counter(
        (case, f"q{i}") for case in ("a", "b", "empty") for i in range(5)
    )
    sizes = {line["position"]: line["batch"] for line in result.quality if line["case"] == "a"}
    assert sizes == {0: 3, 1: 3, 2: 3, 3: 2, 4: 2}
    assert result.run["quality_pass"] == {"queries": 5, "batch": 3}
    summary = summarise(result.typed)
    assert {case.quality.n for case in (*summary.cases, *summary.trivial_baselines)} == {5}
    assert {case.time.queries for case in summary.cases} == {2}
    assert not [warning for warning in summary.warnings if "records" in warning], (
        "nothing is missing"
    )
    assert vars(summary.quality_pass) == {"queries": 5, "batch": 3, "shards": 0}


@pytest.mark.parametrize(("limit", "timed", "of_quality"), [(None, 4, 6), (5, 4, 5), (3, 3, 3)])
def test_a_limit_limits_both(data_root, limit, timed, of_quality):
    content = planned(data_root, timed_queries=4).definition.model_dump()
    queries = Queries.of(
        suite_file.validate(content | {"data": content["data"] | {"limit": limit}})
    )
    assert (queries.timed, queries.scored) == (timed, of_quality)


def test_by_default_quality_is_of_all_queries_and_times_of_48():
    plan = suite_file.load("tiny", {"timed_queries": 48}).plan
    assert (suites.Plan().timed_queries, suites.Plan().quality_queries, plan.timed_queries) == (
        48,
        None,
        48,
    )


@pytest.mark.parametrize("name", [name for name in suite_file.shipped_names() if name != "tiny"])
def test_shipped_suites_with_random_weights_are_timed_with_all_of_their_queries(name):
    shipped = suite_file.load(name)
    assert shipped.data.count <= shipped.plan.timed_queries


def test_a_line_has_the_fields_of_a_timed_one_without_times(data_root, tmp_path):
    result = run(planned(data_root), tmp_path / "out")
    timed, of_quality = (set(lines[0]) - {"mask_rle"} for lines in (result.samples, result.quality))
    assert of_quality & TIMES == set()
    boundaries = {"boundary_intersection_px", "boundary_union_px"}
    assert timed - of_quality >= TIMES and of_quality - timed == {"batch", *boundaries}
    assert not of_quality & {"warnings", "block"}


def hit(line: dict, pixels: int) -> dict:
    """Return a line whose mask is so many pixels of the target, and no others."""
    counts = {"intersection_px": pixels, "predicted_px": pixels, "union_px": line["target_px"]}
    # No boundary is known of such a mask.
    return {name: value for name, value in line.items() if "boundary" not in name} | counts


def test_scores_come_from_the_pass_where_a_run_has_it_and_from_the_timed_lines_in_older_runs(
    data_root, tmp_path
):
    """Half of each target is hit in the timed lines, all of it in the quality pass."""
    result = run(planned(data_root), tmp_path / "out")
    worse = [hit(line, line["target_px"] // 2) for line in result.samples]
    newer = replace(result, samples=worse)
    older = replace(
        newer, run={k: v for k, v in newer.run.items() if k != "quality_pass"}, quality=[]
    )
    assert summarise(newer.typed).cases[0].quality.gIoU == 1.0
    assert summarise(older.typed).cases[0].quality.gIoU == pytest.approx(0.5, abs=0.01)


def test_without_a_pass_scores_and_controls_are_of_the_timed_queries(data_root, tmp_path):
    result = run(planned(data_root, quality_queries=0), tmp_path / "out")
    assert result.run["quality_pass"] is None and result.quality == []
    assert Counter(line["case"] for line in result.samples) == {"a": 6, "b": 6, "empty": 6}
    assert {case.quality.n for case in summarise(result.typed).cases} == {6}


def test_random_weights_get_no_pass_and_their_case_is_not_built_for_it(data_root, tmp_path):
    content = planned(data_root).definition.model_dump()
    lisa = {"adapter": "lisa", "device": "cpu"}
    result = run(
        suite_file.validate(content | {"reference": "r", "cases": {"r": lisa}}), tmp_path / "out"
    )
    assert result.run["status"] == "complete" and {line["case"] for line in result.quality} == {
        "empty"
    }
    summary = summarise(result.typed)
    assert (summary.cases[0].quality.n, summary.cases[0].quality.gIoU) == (6, None)
    assert not [warning for warning in summary.warnings if "quality pass" in warning]


def test_masks_are_kept_for_the_gallery_or_all(data_root, tmp_path):
    few = run(planned(data_root, timed_queries=3), tmp_path / "few")
    shown = {line["sample_id"] for line in few.quality if line.get("mask_rle")}
    assert shown == set(few.run["gallery"]) == {"q0", "q1"}, (
        "of these every case has an answer, timed or scored"
    )
    every = run(planned(data_root, save_masks=True), tmp_path / "all")
    assert all(line.get("mask_rle") for line in every.quality)


def test_every_mask_of_the_pass_and_every_image_are_kept_for_the_report(data_root, tmp_path):
    kept = run(planned(data_root, gallery="all"), tmp_path / "all")
    assert all(line.get("mask_rle") for line in kept.quality)
    ids = kept.run["gallery"]
    assert ids == [f"q{number}" for number in range(6)]
    pictures = read_gallery(tmp_path / "all" / "gallery.npz", ids)
    assert list(pictures) == ids
    none = run(planned(data_root, gallery="none"), tmp_path / "none")
    assert none.run["gallery"] == [] and not any("mask_rle" in line for line in none.quality)


def test_of_too_many_images_those_are_kept_that_models_answer_differently(data_root, tmp_path):
    s = planned(data_root, gallery="all")
    run(s, tmp_path / "out")

    def apart(line):  # of q4 the models' answers have nothing in common, of q1 half of it
        if line["case"] != "b" or line["sample_id"] not in ("q1", "q4"):
            return line
        common = line["target_px"] // 2 if line["sample_id"] == "q1" else 0
        return hit(line, common)

    edit_lines(tmp_path / "out" / "quality.jsonl", apart)
    after = session(s, tmp_path / "out")
    asked = []

    def save_gallery(positions, _path):
        asked.append(list(positions))
        return ["q4"]

    data = SimpleNamespace(save_gallery=save_gallery)
    after.manifest.note_gallery(["q0", "q1"])
    after._keep_what_differs_most(data)
    assert asked == [[4, 1, 0, 2, 3, 5]] and after.manifest.gallery == ("q4",)
    after.manifest.note_gallery([f"q{number}" for number in range(6)])
    after._keep_what_differs_most(data)
    assert len(asked) == 1, "all of them are kept already"


def test_an_image_is_kept_once_and_only_so_many_are(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("lisabench.benchmarks.run.data_worker.MOST_IMAGES", 2)
    worker = DataWorker({"root": data_root, "split": "val", "texts": "first", "limit": None})
    path = tmp_path / "gallery.npz"
    ids = worker.save_gallery([4, 1, 0], str(path))
    assert ids == ["q1", "q4"], "the first two of what was asked for, in the order of the data"
    kept = read_gallery(path, ids)
    for sample_id, position in (("q1", 1), ("q4", 4)):
        sample = worker.samples[position]
        assert np.array_equal(kept[sample_id].target_HW, sample.target_HW)
        height, width = sample.image.shape[:2]
        assert kept[sample_id].image.size_hw == (height, width), "it is small enough as it is"
        off = kept[sample_id].image.pixels.astype(float) - sample.image
        assert np.abs(off).mean() < 12  # WebP is lossy


def test_resuming_evaluates_whole_batches_that_are_missing_and_nothing_else(data_root, tmp_path):
    s = planned(data_root, quality_batch=2)
    before = run(s, tmp_path / "out")
    journal = tmp_path / "out" / "quality.jsonl"
    lines = journal.read_text().splitlines()
    kept = [
        line
        for line in lines
        if (json.loads(line)["case"], json.loads(line)["position"]) not in (("b", 3), ("b", 4))
    ]
    journal.write_text("\n".join(kept) + '\n{"case": "empty", "posi')
    session(s, tmp_path / "out").resume()
    after = raw_run(tmp_path / "out")
    assert scored(after) == scored(before) and after.run["status"] == "complete"
    again = {(line["case"], line["position"]) for line in after.quality if line["attempt"] == 1}
    assert again == {("b", 2), ("b", 3), ("b", 4), ("b", 5)}, (
        "of a batch that was not whole, every query"
    )
    gone = {
        (line["case"], line["position"]) for line in read_lines(journal) if line.get("superseded")
    }
    assert gone == {("b", 2), ("b", 5)}
    assert any("quality.jsonl was cut short" in warning for warning in after.run["warnings"])


def test_failures_of_the_pass_fail_the_run_and_are_named(data_root, tmp_path):
    content = planned(data_root, quality_batch=3).definition.model_dump()
    failing = content["cases"] | {
        "b": QUICK | {"fail": "oom", "fail_every": 7}
    }  # never in six timed queries
    result = run(suite_file.validate(content | {"cases": failing}), tmp_path / "out")
    assert {line["status"] for line in result.samples} == {"ok"} and result.run[
        "status"
    ] == "complete"
    failing = content["cases"] | {
        "b": QUICK | {"fail": "error", "fail_every": 3}
    }  # once in each of two batches
    result = run(suite_file.validate(content | {"cases": failing}), tmp_path / "again")
    assert result.run["status"] == "failed"
    assert any(
        w.startswith("b: 2 of 6 queries of the quality pass ended in error")
        for w in summarise(result.typed).warnings
    )


def test_a_report_and_load_work_with_it(data_root, tmp_path):
    run(planned(data_root, timed_queries=4), tmp_path / "out")
    text = write_report(tmp_path / "out").read_text()
    assert "each case evaluates 6 queries once, in batches of 8" in text
    table = load(tmp_path / "out")
    assert table.groupby("pass").size().to_dict() == {"quality": 18, "timed": 8}
    of_quality = table[table["pass"] == "quality"]
    assert (
        of_quality.latency_ns.isna().all()
        and table[table["pass"] == "timed"].latency_ns.notna().all()
    )
    assert set(of_quality[of_quality.role == "control"].case) == {"empty"}


class Shy:
    """Answers anything but the query `bad`; counts how many were given at once."""

    settings, has_quality = {}, True

    def __init__(self, bad="", short=False):
        self.bad, self.short, self.sizes = bad, short, []

    def preprocess(self, samples):
        self.sizes.append(len(samples))
        if any(sample.id == self.bad for sample in samples):
            raise MemoryError("too much")
        return samples

    def vision(self, inputs): ...
    def llm(self, inputs, features): ...
    def decoder(self, inputs, features, answers): ...

    def postprocess(self, inputs, answers, decoded):  # noqa: ARG002
        found = [Prediction(sample.target_HW == 1) for sample in inputs]
        return found[:1] if self.short else found


def test_of_a_batch_that_fails_each_query_is_evaluated_alone():
    samples = [sample_of(np.eye(4, dtype=np.uint8), f"q{i}") for i in range(4)]
    adapter = Shy(bad="q2")
    rows = measure.evaluate(adapter, samples)
    assert [row["status"] for row in rows] == ["ok", "ok", "oom", "ok"]
    assert adapter.sizes == [4, 1, 1, 1, 1] and {row["batch"] for row in rows} == {1}
    assert "too much" in rows[2]["reason"] and rows[2]["union_px"] == 4


def test_an_adapter_that_takes_one_query_at_a_time_is_evaluated_so():
    samples = [sample_of(np.eye(4, dtype=np.uint8), f"q{i}") for i in range(3)]
    rows = measure.evaluate(Shy(short=True), samples)
    assert [(row["status"], row["batch"]) for row in rows] == [("ok", 1)] * 3


class Process:
    """Stands in for a case's process that is lost at some queries, or cannot be built."""

    def __init__(self, bad, log, builds=True):
        self.bad, self.log, self.builds = bad, log, builds

    def begin_untimed_build(self, threads):
        self.log.append(("build_untimed", threads))

    def finish_build(self):
        if not self.builds:
            raise WorkerLost("oom", "no room")
        return BuiltCase({}, has_quality=True)

    def evaluate(self, positions):
        self.log.append(("evaluate", positions))
        if self.bad.intersection(positions):
            raise WorkerLost("timeout", "no answer")
        return [{"status": "ok", "position": position} for position in positions]

    def begin_evaluation(self, positions):
        self.begun = positions

    def finish_evaluation(self):
        return self.evaluate(self.begun)

    def __enter__(self):
        return self

    def __exit__(self, *_): ...


class DataProcess:
    def unanswered_scored(self, positions, lost):
        failure = lost.failure._asdict()
        return [failure | {"position": position} for position in positions]


class Notes:
    def __init__(self):
        self.error = None

    def built(self, case): ...

    def failed(self, reason, out_of_memory):
        self.error, self.out_of_memory = reason, out_of_memory


def evaluated(batches, bad=frozenset(), builds=True):
    log, notes = [], Notes()
    with Evaluator(lambda: Process(bad, log, builds), DataProcess(), notes) as evaluator:
        evaluator.build()
        rows = [row for batch in batches for row in evaluator.evaluate(batch)]
    return rows, log, notes


def test_a_lost_process_costs_only_the_query_that_it_was_lost_at():
    rows, log, _ = evaluated([range(4), range(4, 8)], bad={2})
    assert {row["position"]: row["status"] for row in rows if row["status"] != "ok"} == {
        2: "timeout"
    }
    assert [row["position"] for row in rows] == list(range(8))
    assert [entry[0] for entry in log].count("build_untimed") == 3


def test_two_processes_work_side_by_side_and_each_retries_its_own_lost_batch():
    logs, rows = ([], []), []
    sides = [
        Evaluator(lambda log=log: Process({2}, log), DataProcess(), Notes(), threads=1)
        for log in logs
    ]
    for side in sides:
        side.build()
    batches = [range(4), range(4, 8)]
    for side, batch in zip(sides, batches, strict=True):
        side.begin(batch)
    assert [[entry[0] for entry in log] for log in logs] == [["build_untimed"]] * 2, (
        "nothing is waited for yet"
    )
    for side, batch in zip(sides, batches, strict=True):
        rows += side.finish(batch)
    assert [row["position"] for row in rows] == list(range(8))
    assert {row["position"]: row["status"] for row in rows if row["status"] != "ok"} == {
        2: "timeout"
    }
    assert [[entry[0] for entry in log].count("evaluate") for log in logs] == [1 + 4, 1]
    assert logs[1][0] == ("build_untimed", 1), "two processes share the cores"


class Waited(Process):
    """A process whose answer is there as soon as `ready` says so."""

    def __init__(self, log):
        super().__init__(set(), log)
        self.answers, self._written = Pipe(duplex=False)
        self.time_limit_s = 60

    def ready(self):
        self._written.send("an answer")

    def finish_evaluation(self):
        self.answers.recv()
        return super().finish_evaluation()


def test_a_process_that_is_done_takes_the_next_batch_and_waits_for_no_slower_one():
    slow, fast = Waited([]), Waited([])
    evaluators = []
    for process in (slow, fast):
        evaluators.append(Evaluator(lambda process=process: process, DataProcess(), Notes()))
        evaluators[-1].build()
    batches = [range(start, start + 4) for start in range(0, 20, 4)]
    done = []
    fast.ready()
    for batch, lines in side_by_side(evaluators, batches):
        assert [line["position"] for line in lines] == list(batch)
        done.append(batch)
        (slow if len(done) == 4 else fast).ready()
    assert done == [*batches[1:], batches[0]]
    assert [entry[1] for entry in slow.log if entry[0] == "evaluate"] == batches[:1]


def planned_on(
    device,
    asked="auto",
    of_gpu=False,
    own_gpu=None,
    needed_bytes=1,
    threads="auto",
    in_place=None,
    role="model",
):
    """What `gpus_of_processes` reads of a run whose one case is on a device."""
    plan = SimpleNamespace(quality_processes=asked, quality_threads=threads)
    return SimpleNamespace(
        suite=SimpleNamespace(
            plan=plan,
            case=lambda _: SimpleNamespace(device=device, role=role),
        ),
        manifest=SimpleNamespace(environment={"device": "cuda", "memory_bytes": 1000}),
        journal=SimpleNamespace(memory_needed=lambda _: (needed_bytes, of_gpu)),
        pool=SimpleNamespace(gpu=own_gpu),
        quality_processes=in_place,
    )


THREE = [("cuda:0", "GPU-a"), ("cuda:1", "7"), ("cuda:2", "MIG-c")]


@pytest.mark.parametrize(
    ("run", "gpus"),
    [
        (planned_on("cuda"), THREE),
        (planned_on("auto"), THREE),
        (planned_on("cpu", of_gpu=True), THREE),  # an adapter that names no device
        (planned_on("cuda", asked=2), THREE[:2]),
        (planned_on("cuda", asked=5), [*THREE, *THREE[:2]]),
        (planned_on("cuda:1", own_gpu=THREE[1]), [None]),
        (planned_on("cuda:1", asked=2, own_gpu=THREE[1]), [None, None]),
        (planned_on("cpu"), [None, None]),
        (planned_on("cpu", needed_bytes=600), [None]),
        (planned_on("cpu", needed_bytes=0), [None]),  # a shard: it has no memory pass
        (planned_on("cpu", needed_bytes=0, role="control"), [None, None]),
        (planned_on("cpu", asked=3, needed_bytes=600), [None, None, None]),
        (planned_on("cpu", asked=3, in_place=1), [None]),
        (planned_on("cuda", asked=3, in_place=1), THREE[:1]),
    ],
)
def test_a_case_has_a_process_on_each_visible_gpu_and_two_on_a_cpu(run, gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, 7,MIG-c")
    monkeypatch.setattr(quality_pass, "usable_cores", lambda: range(4))
    assert gpus_of_processes(run, "a") == gpus


def test_gpus_of_several_kinds_are_not_mixed(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(quality_pass.nvml, "names", lambda: {"NVIDIA H200", "NVIDIA T400"})
    assert gpus_of_processes(planned_on("cuda"), "a") == [None]


def test_a_case_that_loses_many_processes_is_given_up():
    rows, log, _ = evaluated([range(40), range(40, 80)], bad=set(range(80)))
    assert {row["status"] for row in rows} == {"timeout"} and len(rows) == 80
    assert [entry[0] for entry in log].count("evaluate") == MOST_LOST + 1


def test_a_case_that_cannot_be_built_says_why_for_every_query():
    rows, log, notes = evaluated([range(3), range(3, 5)], builds=False)
    assert [(row["status"], row["reason"]) for row in rows] == [("oom", "no room")] * 5
    assert notes.error == "build: no room" and len(log) == 1


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_a_batch_of_eight_gives_the_masks_of_single_queries_but_for_single_pixels(vision):
    """On a CPU in fp32. Sums are taken in another order, so a logit near 0 may change its sign.

    Over the 300 queries of the demo one mask of `dual` and one of `sam` differed, by one pixel
    each.
    """
    samples = list(ReasonSeg(embedded("val", 300, 1), "val", limit=16))
    given = {"preset": "tiny", "weights": "packaged", "vision": vision, "device": "cpu"}
    lisa = Lisa(registry.make_case("lisa", given), NullProbe())
    alone, batched = ([], [])
    for sample in samples:
        alone += measure.evaluate(lisa, [sample], masks.ALL_MASKS)
    for start in (0, 8):
        batched += measure.evaluate(lisa, samples[start : start + 8], masks.ALL_MASKS)
    assert {row["status"] for row in (*alone, *batched)} == {"ok"} and {
        row["batch"] for row in batched
    } == {8}
    pairs = [
        [masks.decode(row["mask_rle"]) for row in rows] for rows in zip(alone, batched, strict=True)
    ]
    differing_px = [int(np.count_nonzero(one_HW != other_HW)) for one_HW, other_HW in pairs]
    assert max(differing_px) <= 1 and sum(differing_px) <= 2, differing_px


@pytest.mark.usefixtures("shallow")
def test_quality_is_evaluated_eagerly_and_recorded_with_the_settings_that_are_timed(data_root):
    config = LisaConfig(device="cpu", execution="graphed")
    settings = WorkerSettings("lisa", config, {"root": data_root, "split": "val"})
    timed, evaluated = CaseWorker(settings), CaseWorker(settings)
    built, untimed = timed.build(), evaluated.build_untimed()
    assert timed.adapter.case.execution == "graphed"
    assert evaluated.adapter.case.execution == "eager"
    # Otherwise the run would warn that a case was built in two ways.
    assert built.settings == untimed.settings
    assert built.settings["execution"] == "graphed"


def test_queries_share_an_encoding_unless_the_plan_says_otherwise_with_equal_records():
    """Twelve queries about four images, on a CPU in fp32: not a bit of a record differs."""
    data = {"root": embedded("val", 300, 1), "split": "val", "limit": 12}
    config = LisaConfig(preset="tiny", weights="packaged", device="cpu", reuse="off")
    records, settings = {}, {}
    for reuse in (True, False):
        worker = CaseWorker(
            WorkerSettings("lisa", config, data, quality_reuse=reuse, kept_masks=masks.ALL_MASKS)
        )
        settings[reuse] = worker.build_untimed(1).settings
        assert worker.adapter.case.reuse == ("on" if reuse else "off")
        records[reuse] = [*worker.evaluate(range(8)), *worker.evaluate(range(8, 12))]
    assert records[True] == records[False]
    assert settings[True] == settings[False], "the case is the same one"
    assert len({record["image_id"] for record in records[True]}) < len(records[True])


@pytest.mark.parametrize(
    ("run", "processes", "threads"),
    [
        (planned_on("cpu"), 1, 4),
        (planned_on("cpu"), 2, 4),
        (planned_on("cpu", asked=8), 8, 4),
        (planned_on("cpu", threads=3), 8, 3),
        (planned_on("cuda"), 1, None),
        (planned_on("cuda"), 4, 2),
    ],
)
def test_on_a_cpu_threads_do_not_depend_on_the_number_of_processes(
    run, processes, threads, monkeypatch
):
    monkeypatch.setattr(quality_pass, "usable_cores", lambda: range(8))
    assert quality_pass.threads_of_process(run, "a", processes) == threads


def test_each_gpu_has_a_process_of_the_case_that_sees_it_alone(data_root, tmp_path, monkeypatch):
    """The GPUs are named; none is there. The adapter writes down what its process sees."""
    log = tmp_path / "seen"
    answering = "def postprocess(self, inputs, answers, decoded):\n"
    writes = f'        with open({str(log)!r}, "a") as log: print(SEEN, len(inputs), file=log)\n'
    source = CORNER.replace(answering, answering + writes)
    adapter = tmp_path / "corner.py"
    adapter.write_text('import os\nSEEN = os.environ.get("CUDA_VISIBLE_DEVICES")\n' + source)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr(quality_pass, "_is_on_gpu", lambda *_: True)

    content = planned(data_root, quality_batch=1, timed_queries=1).definition.model_dump()
    plan = content["plan"] | {"memory_processes": 0}
    cases = {"corner": {"adapter": str(adapter)}}
    one = content | {"reference": "corner", "cases": cases, "controls": {}, "plan": plan}
    result = run(suite_file.validate(one), tmp_path / "out")
    assert Counter(line["position"] for line in result.quality) == Counter(range(6))
    seen = Counter(log.read_text().splitlines())
    assert seen["GPU-a 1"] + seen["GPU-b 1"] == 6 and min(seen["GPU-a 1"], seen["GPU-b 1"]) > 0
    # The process of the timed round has what the server of workers was started with.
    assert sum(seen.values()) == 6 + 1
