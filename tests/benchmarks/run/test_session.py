"""A session on fake models: real processes, simulated failures."""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from raw_runs import raw_run
from samples import write_sample
from sessions import QUICK, keys, run, session, suite

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run import memory_pass, worker_pool
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.session import Session
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.benchmarks.run.worker_pool import CaseProcess
from lisabench.datasets import reasonseg, samples
from lisabench.harness.contract import STAGES
from lisabench.harness.errors import DataError, NothingToCompare, UsageError
from lisabench.harness.records.journal import read_lines, writing
from lisabench.harness.records.run import MEMORY
from lisabench.models.adapters.fake import FakeCase
from lisabench.models.lisa import packaged
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A suite, and a complete run of it, to be read only."""
    folder = tmp_path_factory.mktemp("complete")
    for i in range(6):
        write_sample(folder / "data" / "val", f"q{i}", seed=i)
    s = suite(folder / "data")
    return s, run(s, folder / "out")


@pytest.fixture
def copied(complete, tmp_path):
    """The same suite, and a copy of the run's folder, to be changed or resumed."""
    s, result = complete
    return s, shutil.copytree(result.folder, tmp_path / "out")


def test_every_query_of_every_case_and_process_has_one_record(complete):
    _, result = complete
    queries = [f"q{i}" for i in range(6)]
    assert keys(result) == Counter(
        (case, process, q) for case in "ab" for process in (0, 1) for q in queries
    )
    scored = Counter((row["case"], row["sample_id"]) for row in result.quality)
    assert scored == Counter((case, q) for case in ("a", "b", "empty") for q in queries)
    assert result.run["status"] == "complete"
    assert {(row["case"], row["stage"]) for row in result.memory} == {
        (c, s) for c in "ab" for s in ("build", *STAGES)
    }


def test_without_a_memory_pass_a_run_is_complete_and_resumes_as_such(data_root, tmp_path):
    alone = suite_file.validate(
        suite(data_root).definition.model_dump()
        | {"cases": {"a": QUICK}, "plan": {"memory_processes": 0}}
    )
    result = run(alone, tmp_path / "out")
    session(alone, tmp_path / "out").resume()
    again = raw_run(tmp_path / "out")
    assert (again.run["status"], again.memory, again.samples) == ("complete", [], result.samples)
    assert "| a " in write_report(tmp_path / "out").read_text()


def test_cases_take_turns_and_the_next_process_starts_the_other_way_round(complete):
    _, result = complete
    for process, expected in ((0, "abbaab"), (1, "baabba")):
        rows = [
            row for row in result.samples if row["process"] == process and row["case"] != "empty"
        ]
        assert "".join(row["case"] for row in rows[::2]) == expected


def test_a_timed_process_reads_and_draws_each_query_once_and_none_between_queries(
    data_root, monkeypatch
):
    done = []
    parts = {
        "read_annotation": reasonseg,
        "read_image": samples,
        "image_hash": reasonseg,
        "draw_mask": samples,
    }
    for part, module in parts.items():
        whole = getattr(module, part)
        monkeypatch.setattr(
            module, part, lambda *of, part=part, whole=whole: done.append(part) or whole(*of)
        )
    worker = CaseWorker(
        WorkerSettings("fake", FakeCase(clock="virtual"), {"root": data_root, "split": "val"})
    )
    worker.build()
    assert Counter(done) == dict.fromkeys(parts, 6)
    worker.warm_up(8)
    rows = [row for block in (range(4), range(4, 6)) for row in worker.measure_block(block)]
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert len(done) == 4 * 6


def test_what_is_known_of_the_cases_and_the_machine_is_written_down(complete):
    page = complete[1].run
    a = next(case for case in page["cases"] if case["name"] == "a")
    assert a["settings"]["vision_ms"] == 4.0
    assert (a["has_quality"], a["clock"], a["error"]) == (True, "virtual", None)
    assert page["passport"]["cpu_count"] >= 1
    assert page["versions"]["torch"]
    assert page["gallery"] == ["q0", "q3"]


def test_masks_are_kept_for_the_gallery_or_all(complete, data_root, tmp_path):
    few = complete[1].samples
    assert {row["sample_id"] for row in few if "mask_rle" in row} == {"q0", "q3"}
    every = run(suite(data_root, plan={"save_masks": True}), tmp_path / "all").samples
    assert all("mask_rle" in row for row in every)


@pytest.mark.parametrize(
    ("settings", "status", "reason"),
    [
        ({"fail": "error", "fail_every": 6}, "error", "asked for"),
        ({"fail": "oom", "fail_every": 6}, "oom", "asked for"),
        ({"fail": "crash", "fail_every": 6}, "error", "SIGKILL"),
        ({"fail": "hang", "fail_every": 6}, "timeout", "no answer in 2 s"),
    ],
)
def test_a_failing_case_is_recorded_and_the_others_go_on(
    data_root, tmp_path, settings, status, reason
):
    plan = {"processes": 1, "time_limit_s": 2 if status == "timeout" else 60}
    result = run(suite(data_root, plan=plan, b=QUICK | settings), tmp_path / "out")
    last = next(row for row in result.samples if row["case"] == "b" and row["sample_id"] == "q5")
    assert (last["status"], last["latency_ns"]) == (status, None)
    assert reason in last["reason"]
    assert all(
        row["status"] == "ok" for row in (*result.samples, *result.quality) if row["case"] == "a"
    )
    assert (len(result.samples), len(result.quality)) == (12, 18)
    scored = [row for row in result.quality if row["case"] == "b"]
    assert [row["status"] for row in scored] == ["ok"] * 5 + [status]
    assert reason in scored[-1]["reason"] and {row["batch"] for row in scored} == {1}
    # That a case needs more memory than there is is a result.
    assert result.run["status"] == ("complete" if status == "oom" else "failed")


def test_answers_from_nan_are_counted_and_named_and_not_asked_for_again(data_root, tmp_path):
    failing = QUICK | {"fail": "nonfinite", "fail_every": 3}
    result = run(suite(data_root, plan={"processes": 1}, b=failing), tmp_path / "out")
    scored = [row for row in result.quality if row["case"] == "b"]
    statuses = Counter(row["status"] for row in scored)
    assert statuses == {"ok": 4, "nonfinite": 2} and {row["batch"] for row in scored} == {6}
    assert result.run["status"] == "failed"
    report = write_report(tmp_path / "out")
    quality = json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][1]["quality"]
    assert quality["status"]["nonfinite"] == 2 and quality["gIoU"] == pytest.approx(4 / 6)
    assert "b: 2 of 6 queries ended in nonfinite, most often: not finite" in report.read_text()


def test_resuming_measures_only_what_is_missing(copied):
    s, folder = copied
    before = raw_run(folder).samples
    lines = (folder / "samples.jsonl").read_text().splitlines()
    kept = [
        line
        for line in lines
        if json.loads(line)["process"] == 0 or json.loads(line)["case"] == "a"
    ]
    (folder / "samples.jsonl").write_text("\n".join(kept) + '\n{"case": "b", "proc')
    session(s, folder).resume()
    after = raw_run(folder).samples
    assert Counter(row["attempt"] for row in after if row["process"] == 0) == {0: 12}
    assert Counter(row["attempt"] for row in after if row["process"] == 1) == {1: 12}
    assert len(after) == len(before)
    for entry in raw_run(folder).run["cases"]:
        if entry["role"] == "model":
            assert [warm_up["process"] for warm_up in entry["warmups"]] == [0, 1]
    marked = [row for row in read_lines(folder / "samples.jsonl") if row.get("superseded")]
    assert {(row["case"], row["process"]) for row in marked} == {("a", 1)}


def test_a_run_stops_when_asked_to_and_goes_on_from_there(complete, tmp_path):
    s, whole = complete
    late = Session(s, Queries.of(s), tmp_path / "out", lambda *_: None, deadline_s=0.0)
    late.start()
    stopped = raw_run(tmp_path / "out")
    assert (stopped.run["status"], stopped.run["stopped"]) == ("running", "time")
    assert not stopped.samples
    session(s, tmp_path / "out").resume()
    resumed = raw_run(tmp_path / "out")
    assert keys(resumed) == keys(whole)
    assert (resumed.run["status"], resumed.run["stopped"]) == ("complete", None)


def test_only_the_cases_of_a_group_take_turns(data_root, tmp_path):
    content = suite(data_root, c=QUICK).definition.model_dump() | {
        "groups": {"one": ["a", "b"], "two": ["c"]}
    }
    result = run(suite_file.validate(content), tmp_path / "out")
    order = "".join(
        row["case"] for row in result.samples if row["process"] == 0 and row["case"] != "empty"
    )
    assert order == "aabbbbaaaabb" + "c" * 6


def test_a_run_is_not_resumed_as_another(data_root, tmp_path):
    run(suite(data_root), tmp_path / "out")
    with pytest.raises(UsageError, match="another definition"):
        session(suite(data_root, plan={"processes": 3}), tmp_path / "out").resume()
    annotation = data_root / "val" / "q0.json"
    annotation.write_text(annotation.read_text().replace("the square", "the circle"))
    with pytest.raises(UsageError, match="another data"):
        session(suite(data_root), tmp_path / "out").resume()


def test_a_run_from_before_there_were_protocols_is_resumed(data_root, tmp_path):
    named = data_root.rename(tmp_path / "ReasonSeg")
    result = run(suite(named), tmp_path / "out")
    older = json.loads((tmp_path / "out" / "run.json").read_text())
    assert older["data"].pop("protocol") == "reasonseg"
    (tmp_path / "out" / "run.json").write_text(json.dumps(older))
    session(suite(named), tmp_path / "out").resume()
    resumed = raw_run(tmp_path / "out")
    assert keys(resumed) == keys(result)
    assert resumed.run["data"]["protocol"] == "reasonseg"


def test_a_run_is_not_resumed_on_another_machine(copied):
    s, folder = copied
    page = json.loads((folder / "run.json").read_text())
    page["passport"]["cpu"] = "abacus"
    (folder / "run.json").write_text(json.dumps(page))
    with pytest.raises(NothingToCompare, match="cpu was abacus"):
        session(s, folder).resume()


def test_a_folder_that_holds_a_run_is_not_overwritten(copied):
    s, folder = copied
    with pytest.raises(UsageError, match="--resume"):
        session(s, folder).start()


def test_a_temporary_folder_that_no_socket_fits_below_is_refused_before_anything_is_written(
    data_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 75)
    with pytest.raises(UsageError, match="name one with 75 or fewer in TMPDIR"):
        session(suite(data_root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("files", [10, 14, 16, 20])
def test_too_few_open_files_are_refused_in_one_line(data_root, tmp_path, monkeypatch, files):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    with pytest.raises(UsageError, match=f"a process may have {files} files open here, and 64"):
        session(suite(data_root), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limits", "set_to"),
    [
        ((10, 4096), (64, 4096)),
        ((10, resource.RLIM_INFINITY), (64, resource.RLIM_INFINITY)),
        ((1024, 4096), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_a_limit_of_open_files_that_the_process_may_raise_is_raised(monkeypatch, limits, set_to):
    setrlimit = mock.Mock()
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    worker_pool.allow_open_files(64)
    expected = [] if set_to is None else [mock.call(resource.RLIMIT_NOFILE, set_to)]
    assert setrlimit.mock_calls == expected


@pytest.mark.parametrize("files", [8, 10, 16])
def test_a_run_of_which_the_system_allows_too_few_open_files_says_so_alone(tmp_path, files):
    line = f"ulimit -n {files}; exec {sys.executable} -m lisabench run tiny --out {tmp_path / 'o'}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lisabench: a process may have {files} files open here")
    assert done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_fails_before_anything_is_loaded(data_root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        session(suite(data_root), tmp_path / "file" / "out").start()


def test_records_whose_run_is_gone_are_not_taken_for_a_new_runs(copied):
    s, folder = copied
    (folder / "run.json").unlink()
    with pytest.raises(UsageError, match=r"records of a run whose run\.json is gone"):
        session(s, folder).resume()


def test_two_sessions_do_not_measure_into_one_folder(copied):
    s, folder = copied
    with (
        writing(folder),
        pytest.raises(UsageError, match="another lisabench is writing"),
    ):
        session(s, folder).resume()
    session(s, folder).resume()


def test_a_run_is_not_resumed_over_other_targets(data_root, tmp_path):
    run(suite(data_root), tmp_path / "out")
    annotation = data_root / "val" / "q0.json"
    annotation.write_text(annotation.read_text().replace("[15, 15]", "[15, 9]"))
    with pytest.raises(UsageError, match="another data"):
        session(suite(data_root), tmp_path / "out").resume()


@pytest.mark.parametrize(
    ("page", "key"), [("versions", "torch"), ("passport", "threads"), ("passport", "device")]
)
def test_a_run_is_not_resumed_with_other_software_threads_or_device(copied, page, key):
    s, folder = copied
    begun = json.loads((folder / "run.json").read_text())
    begun[page][key] = "another"
    (folder / "run.json").write_text(json.dumps(begun))
    with pytest.raises(NothingToCompare, match=f"{key} was another"):
        session(s, folder).resume()


def test_a_device_that_is_not_there_is_said_before_anything_is_measured(data_root, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="sees no GPU"):
        run(suite(data_root, b={"adapter": "lisa", "device": "cuda"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_of_the_memory_pass_keeps_what_was_read_and_is_no_failure_of_the_case(
    data_root, tmp_path
):
    result = run(
        suite(data_root, b=QUICK | {"fail": "oom", "fail_every": 2}, plan={"memory_queries": 4}),
        tmp_path / "out",
    )
    b = next(case for case in result.run["cases"] if case["name"] == "b")
    assert b["error"] is None
    assert "asked for" in b["memory_error"]
    assert {"build", "vision"} <= {row["stage"] for row in result.memory if row["case"] == "b"}


@pytest.mark.parametrize("at_once", [True, False])
def test_the_later_processes_of_the_memory_pass_run_at_the_same_time_where_they_may(
    data_root, tmp_path, monkeypatch, at_once
):
    calls = []
    for name in ("begin_memory", "finish_memory"):
        method = getattr(CaseProcess, name)

        def noting(worker, *arguments, method=method, name=name):
            calls.append(name.removesuffix("_memory"))
            return method(worker, *arguments)

        monkeypatch.setattr(CaseProcess, name, noting)
    monkeypatch.setattr(memory_pass, "may_run_at_once", lambda *_: at_once)
    plan = {"memory_processes": 3, "memory_queries": 1}
    result = run(suite(data_root, plan=plan), tmp_path / "out")
    one_by_one, at_the_same_time = ["begin", "finish"] * 2, ["begin"] * 2 + ["finish"] * 2
    assert calls == one_by_one + (at_the_same_time if at_once else one_by_one) * 2
    read = Counter((row["case"], row["process"]) for row in result.memory)
    assert read == {(case, process): 6 for case in "ab" for process in range(3)}


def test_a_process_that_breaks_beside_others_costs_them_nothing(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_pass, "may_run_at_once", lambda *_: True)
    broken = QUICK | {"fail": "crash", "fail_every": 1}
    plan = {"memory_processes": 2, "memory_queries": 1}
    result = run(suite(data_root, b=broken, plan=plan), tmp_path / "out")
    assert {row["process"] for row in result.memory if row["case"] == "a"} == {0, 1}
    b = next(case for case in result.run["cases"] if case["name"] == "b")
    assert b["memory_error"]


@pytest.mark.parametrize(
    ("by_driver", "side_by_side", "expected"),
    [(5, None, True), (None, None, False), (5, "do not fit", False)],
)
def test_memory_is_measured_at_the_same_time_only_if_the_driver_tells_processes_apart(
    monkeypatch, by_driver, side_by_side, expected
):
    monkeypatch.setattr(memory_pass, "why_not_side_by_side", lambda *_: side_by_side)
    record = SimpleNamespace(device_process_bytes=by_driver)
    run = SimpleNamespace(journal=SimpleNamespace(memory_of=lambda _: [record]))
    assert memory_pass.may_run_at_once(run, ["a", "b"]) is expected
    assert not memory_pass.may_run_at_once(run, ["a"])


def test_a_failure_that_was_mended_is_forgotten_when_the_run_goes_on(copied):
    s, folder = copied
    page = json.loads((folder / "run.json").read_text())
    page["cases"][1]["memory_error"] = "killed"
    (folder / "run.json").write_text(json.dumps(page))
    lines = (folder / "memory.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"case": "a"' in line]
    (folder / "memory.jsonl").write_text("\n".join(kept) + '\n{"case": "b", "st')
    session(s, folder).resume()
    page = raw_run(folder).run
    assert (page["status"], page["cases"][1]["memory_error"]) == ("complete", None)
    assert any("memory.jsonl was cut short" in warning for warning in page["warnings"])


def test_the_warm_up_of_every_process_is_kept(data_root, tmp_path):
    result = run(suite(data_root, plan={"warmup": 7}), tmp_path / "out")
    a = next(case for case in result.run["cases"] if case["name"] == "a")
    assert [(w["process"], w["warmup_queries"], w["warmup_stable"]) for w in a["warmups"]] == [
        (0, 6, True),
        (1, 6, True),
    ]
    for warm_up in a["warmups"]:
        assert warm_up["warmup_s"] > 0
        prepared = [warm_up[key] for key in ("graphs", "capture_s", "compile_s")]
        assert prepared == [None, None, None]  # the fake neither captures nor compiles


def test_a_broken_annotation_or_image_names_file_and_reason(data_root, tmp_path):
    (data_root / "val" / "q2.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"q2\.jpg.*decoded"):
        session(suite(data_root), tmp_path / "out").start()
    (data_root / "val" / "q1.json").write_text("{")
    with pytest.raises(DataError, match=r"q1\.json"):
        session(suite(data_root), tmp_path / "out2")


def test_a_query_that_a_model_refuses_fails_alone(data_root, tmp_path):
    annotation = data_root / "val" / "q1.json"
    annotation.write_text(annotation.read_text().replace("the square", "cup " * 3000))
    result = run(
        suite(data_root, b={"adapter": "lisa", "device": "cpu"}, plan={"processes": 1}),
        tmp_path / "out",
    )
    assert result.run["cases"][1]["has_quality"] is False
    assert {row["case"] for row in result.quality} == {"a", "empty"}
    status = {row["sample_id"]: row["status"] for row in result.samples if row["case"] == "b"}
    assert status == {f"q{i}": "error" if i == 1 else "ok" for i in range(6)}
    refused = next(row for row in result.samples if row["case"] == "b" and row["sample_id"] == "q1")
    assert "exceeds the context of 2048" in refused["reason"]


def test_a_query_that_fails_is_left_out_of_the_synchronised_pass(data_root):
    failing = FakeCase(clock="virtual", fail_every=2)
    worker = CaseWorker(WorkerSettings("fake", failing, {"root": data_root, "split": "val"}))
    worker.build()
    worker.device = "cuda"  # on a CPU there is no such pass
    lines = worker.measure_synchronised(range(4))
    assert [line["sample_id"] for line in lines] == ["q0", "q2"]


def test_a_run_of_weights_with_flipped_bits_is_refused_before_anything_is_measured(
    data_root, tmp_path
):
    shutil.copytree(packaged.FAMILY, tmp_path / "tiny")
    file = tmp_path / "tiny" / "weights" / "dual.safetensors"
    content = np.fromfile(file, np.uint8)
    content[len(content) // 2 :: 2000] ^= 1 << 6
    content.tofile(file)
    damaged = suite(data_root, a={"adapter": "lisa", "weights": str(tmp_path / "tiny" / "dual")})
    with pytest.raises(DataError, match="are not those that it was written with"):
        session(damaged, tmp_path / "out").start()
    assert read_lines(tmp_path / "out" / MEMORY) == []


def test_each_worker_of_a_run_is_told_of_the_weights_that_were_hashed(
    data_root, tmp_path, monkeypatch
):
    of_packaged = suite(data_root, a={"adapter": "lisa", "weights": "packaged"}, b=QUICK)
    begun = session(of_packaged, tmp_path / "out")
    started = []
    monkeypatch.setattr(begun.run.pool, "start_case", lambda settings, _: started.append(settings))
    (tmp_path / "out").mkdir()
    with begun.run.pool.start_data(begun.run.queries.reader) as data:
        begun._prepare(data)
    begun.run.start_case("a")
    (hashed,) = started[0].hashed_weights
    assert hashed.folder == packaged.folders()["dual"]
    assert hashed.weights_hash == packaged.read(hashed.folder).weights_hash
    assert all(identity.size > 0 for identity in hashed.files.values())
