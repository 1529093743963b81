"""Runs that measure memory alone, cases that do not fit the machine, and cards that are tried."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from raw_runs import raw_run
from sessions import QUICK, content_of, run, session

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.gate.check import Outputs, check, keep_baseline
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run import case_worker, memory_pass
from lisabench.benchmarks.run import command as runs
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.benchmarks.run.workload import announcement, workload_of
from lisabench.harness.errors import UsageError
from lisabench.harness.memory import Reading
from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.run import MemoryRecord, read_run
from lisabench.models.adapters.fake import FakeCase
from lisabench.reports.cards import Unlimited
from lisabench.reports.peaks import OnCard, taken_by_case
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.verdicts import in_a_sentence
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

GIB, MIB = 2**30, 2**20
TWO = {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}}
MEMORY_ONLY = {"processes": 0, "memory_queries": "all", "quality_queries": 0}
FASTER = {"claim": "faster", "quantity": "time.end_to_end", "candidate": "b", "at_most": 0.9}


def suite_of(data_root, plan, cases=TWO, **keys):
    return suite_file.validate(content_of(data_root, cases, plan, **keys))


def memory_only(data_root, **keys):
    return suite_of(data_root, MEMORY_ONLY, controls={"empty": {"adapter": "empty"}}, **keys)


def test_a_run_without_timed_processes_measures_memory_alone_over_all_queries(data_root, tmp_path):
    result = run(memory_only(data_root, claims=[FASTER]), tmp_path / "out")
    assert (result.run["status"], result.samples, result.quality) == ("complete", [], [])
    queries = {row["stage"]: row.get("queries") for row in result.memory if row["case"] == "a"}
    assert queries.pop("build") == 1 and set(queries.values()) == {6}
    (entry,) = [entry for entry in result.run["cases"] if entry["name"] == "b"]
    assert entry["settings"]["vision_ms"] == 9.0  # although no timed round has built it
    summary = summarise(read_run(tmp_path / "out"))
    (claim,) = summary.claims
    assert claim.verdict == "not measured"
    assert claim.reason.startswith("the run measures no time: its plan.processes is 0")
    assert not summary.measures_time and "No time is measured" in (
        write_report(tmp_path / "out").read_text()
    )
    assert not any("records" in warning for warning in summary.warnings)


def test_the_headline_of_such_a_run_is_about_memory_and_about_masks(data_root, tmp_path):
    plan = {"processes": 0, "memory_processes": 1}
    larger = {"a": {"adapter": "fake"}, "b": {"adapter": "fake", "allocate_mib": 64}}
    run(suite_of(data_root, plan, cases=larger), tmp_path / "out")
    sentence = in_a_sentence(summarise(read_run(tmp_path / "out")))
    assert sentence.startswith("No time was measured. b ")
    assert " memory " in sentence
    assert sentence.endswith("masks are as good.")


def test_a_run_without_timed_processes_is_announced_without_them_and_resumed(data_root, tmp_path):
    suite = memory_only(data_root)
    queries = Queries.of(suite)
    workload = workload_of(suite, queries)
    assert [one.name for one in workload.passes] == ["memory"]
    assert "timed" not in announcement(suite, queries, workload)
    result = run(suite, tmp_path / "out")
    session(suite, tmp_path / "out").resume()
    again = raw_run(tmp_path / "out")
    assert (again.run["status"], again.memory) == ("complete", result.memory)
    assert runs.conclude(tmp_path / "out") == 0


def test_a_gate_asks_for_a_run_that_measures_time(data_root, tmp_path):
    run(memory_only(data_root), tmp_path / "out")
    with pytest.raises(UsageError, match=r"measures no time \(plan.processes is 0\)"):
        keep_baseline(tmp_path / "out", tmp_path / "base.json")
    timed = suite_of(data_root, {"processes": 1})
    run(timed, tmp_path / "timed")
    keep_baseline(tmp_path / "timed", tmp_path / "base.json")
    with pytest.raises(UsageError, match="measures no time"):
        check(tmp_path / "out", tmp_path / "base.json", Outputs())


# Cases that do not fit the machine

TOO_LARGE = {"big": QUICK | {"fail": "oom", "fail_every": 1}, "a": QUICK, "b": TWO["b"]}


def test_a_case_that_runs_out_of_memory_is_a_result_and_the_others_are_measured(
    data_root, tmp_path, capsys
):
    stated = [FASTER | {"reference": "a"}, FASTER | {"claim": "faster than big"}]
    suite = suite_of(data_root, {"memory_processes": 2}, cases=TOO_LARGE, claims=stated)
    result = run(suite, tmp_path / "out")
    assert result.run["status"] == "complete"
    of_big = [row for row in result.samples if row["case"] == "big"]
    assert {row["status"] for row in of_big} == {"oom"} and len(of_big) == 12
    assert "MemoryError" in of_big[0]["reason"]
    assert {row["case"] for row in result.quality} == {"a", "b"}
    # The second process of the memory pass does not try it again.
    assert {row["process"] for row in result.memory if row["case"] == "big"} == {0}
    assert {row["process"] for row in result.memory if row["case"] == "a"} == {0, 1}

    assert runs.conclude(tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "big does not fit the memory of this machine." in out
    found = {claim.claim: claim for claim in summarise(read_run(tmp_path / "out")).claims}
    assert found["faster"].measured == pytest.approx(1.5, rel=1e-9, abs=0)
    assert found["faster than big"].reason == "big does not fit the memory of this machine"
    with pytest.raises(UsageError, match="has cases that do not fit its machine"):
        keep_baseline(tmp_path / "out", tmp_path / "base.json")


def test_a_case_that_ran_out_of_memory_is_not_tried_again_by_a_resumed_run(data_root, tmp_path):
    suite = suite_of(data_root, {}, cases=TOO_LARGE)
    result = run(suite, tmp_path / "out")
    session(suite, tmp_path / "out").resume()
    again = raw_run(tmp_path / "out")
    assert again.run["status"] == "complete"
    assert again.memory == result.memory and again.samples == result.samples


def test_a_run_that_an_older_version_began_is_resumed(data_root, tmp_path):
    """It did not note whether a case runs out of memory."""
    suite = suite_of(data_root, {})
    run(suite, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    for entry in content["cases"]:
        del entry["out_of_memory"]
    (tmp_path / "out" / "run.json").write_text(json.dumps(content))
    (tmp_path / "out" / "samples.jsonl").unlink()
    session(suite, tmp_path / "out").resume()
    again = raw_run(tmp_path / "out")
    assert again.run["status"] == "complete" and again.samples


def test_out_of_memory_in_a_timed_round_alone_is_a_result_too(data_root, tmp_path):
    """The memory pass evaluates one query, and every third runs out of memory."""
    cases = {"a": QUICK, "late": QUICK | {"fail": "oom", "fail_every": 3}}
    result = run(suite_of(data_root, {"quality_queries": 0}, cases=cases), tmp_path / "out")
    assert result.run["status"] == "complete"
    summary = summarise(read_run(tmp_path / "out"))
    assert [case.out_of_memory for case in summary.cases] == [False, True]


# Cards


def test_a_case_is_tried_on_the_cards_that_its_peak_is_near_to_and_on_no_other(
    data_root, tmp_path, monkeypatch
):
    suite = memory_only(data_root, cards=["8GB", "12GB", "16GB", "24GB"])
    peaks = {"a": Unlimited(OnCard(7 * GIB)), "b": Unlimited(OnCard(14 * GIB), gpu_bytes=8 * GIB)}
    monkeypatch.setattr(memory_pass, "_without_limit", lambda _, case: peaks[case])
    mine = session(suite, tmp_path / "out")
    start, tried = mine.run.pool.start_case, []
    answer = {"status": "ok", "reason": None, "beside_bytes": GIB, "asked": 6, "answered": 6}
    answer |= {"peak_reserved_bytes": 6 * GIB, "device_process_bytes": None}

    def instead(order, gpu=None):
        if order.gpu_memory is None:
            return start(order, gpu)
        tried.append((order.config.vision_ms, order.gpu_memory))
        return nullcontext(SimpleNamespace(try_fit=lambda *_: answer))

    monkeypatch.setattr(mine.run.pool, "start_case", instead)
    mine.start()
    assert tried == [(4.0, "8GB")]
    # A card that is larger than this GPU cannot be imitated on it.
    assert [
        (row["case"], row["card"], row["status"]) for row in read_lines(tmp_path / "out/fits.jsonl")
    ] == [("a", "8GB", "ok"), ("b", "16GB", "skipped")]


@dataclass(frozen=True)
class FakeOnGpu(FakeCase):
    device: str = "cuda"


class Meter:
    """Reads a peak of 5 GiB of every stage."""

    instrument = "cuda allocator"

    def reset(self):
        return 0

    def read(self, start_bytes):
        return Reading(start_bytes, 4 * GIB, 5 * GIB, None)

    def requested_bytes(self):
        return 0


def test_the_memory_pass_and_a_limited_process_measure_what_lies_outside_of_the_allocator(
    data_root, monkeypatch
):
    """The limited process leaves to the rest of the card what the memory pass has found."""
    capped = []
    monkeypatch.setattr(case_worker.environment, "resolve_device", lambda device: device)
    monkeypatch.setattr(case_worker, "meter_for", lambda _: Meter())
    outside = SimpleNamespace(read=lambda: 3 * MIB)
    monkeypatch.setattr(case_worker, "OutsideAllocator", lambda: outside)
    monkeypatch.setattr(
        case_worker, "cap_gpu", lambda *sizes: capped.append(sizes) or sizes[0] - max(sizes[1], MIB)
    )
    data = {"root": data_root, "split": "val"}
    settings = WorkerSettings("fake", FakeOnGpu(clock="virtual"), data)
    memory = case_worker.CaseWorker(settings).measure_memory(6)
    (build, *_, last) = memory.lines
    assert (build["beside_bytes"], last["queries"]) == (3 * MIB, 6)
    records = [MemoryRecord.from_json({"case": "a", "process": 0} | line) for line in memory.lines]
    assert taken_by_case(records) == OnCard(5 * GIB + 3 * MIB)
    limited = case_worker.CaseWorker(replace(settings, gpu_memory="8GB"))
    fit = limited.try_fit(6, outside_bytes=2 * MIB)
    assert capped == [(8 * GIB, 2 * MIB)]
    assert (fit["status"], fit["asked"], fit["answered"]) == ("ok", 6, 6)
    assert fit["beside_bytes"] == 3 * MIB
