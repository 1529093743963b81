"""`lisabench run --profile`: traces for Perfetto, beside a run that is as it would be without."""

import gzip
import json

import pytest
import yaml
from command import lisabench

from lisabench.harness.contract import STAGES
from lisabench.harness.records.run import PROFILE, profile_file

pytestmark = pytest.mark.no_clock

PLAN = {"processes": 1, "memory_processes": 1, "memory_queries": 1, "warmup": 1, "gallery": 0}
PLAN |= {"quality_queries": 0, "timed_queries": 2, "block": 2}
LISA = {"adapter": "lisa", "device": "cpu", "answer": "generated", "max_new_tokens": 3}
FAKE = {"adapter": "fake", "clock": "virtual"}


def run(data_root, tmp_path, cases, *options, plan=None):
    content = {
        "title": "profiles",
        "reference": next(iter(cases)),
        "data": {"root": str(data_root)},
        "plan": PLAN | (plan or {}),
        "cases": cases,
    }
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump(content))
    return lisabench("run", suite, "--out", tmp_path / "out", *options)


def spans(folder, case):
    """How often each name stands for a span of the user's in a trace."""
    with gzip.open(profile_file(folder, case, "trace"), "rt") as file:
        trace = json.load(file)
    counts = {}
    for event in trace["traceEvents"]:
        if event.get("cat") == "user_annotation" and event["ph"] == "X":
            counts[event["name"]] = counts.get(event["name"], 0) + 1
    return counts


@pytest.mark.usefixtures("shallow")
def test_the_trace_of_a_lisa_has_its_stages_and_regions_as_spans(data_root, tmp_path):
    done = run(data_root, tmp_path, {"tiny": LISA}, "--profile")
    assert done.returncode == 0, done.stderr
    found = spans(tmp_path / "out", "tiny")
    assert {stage: found.get(stage) for stage in STAGES} == dict.fromkeys(STAGES, 1)
    assert found["vision.clip"] == 1 and found["llm.prefill"] == 1
    assert found["llm.decode"] == 2  # three tokens, the first of which is the prefill's
    names = [path.name for path in (tmp_path / "out" / PROFILE).iterdir()]
    assert names == ["tiny.json.gz"]  # a CPU has no snapshot
    report = (tmp_path / "out" / "report.md").read_text()
    assert "- `tiny`: [trace](profile/tiny.json.gz)\n" in report
    # Nothing of it is among the records.
    samples = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 2


def test_without_the_option_nothing_is_written(data_root, tmp_path):
    assert run(data_root, tmp_path, {"fake": FAKE}).returncode == 0
    assert not (tmp_path / "out" / PROFILE).exists()
    assert "Profiles" not in (tmp_path / "out" / "report.md").read_text()


def test_a_batch_is_traced_as_one(data_root, tmp_path):
    plan = {"scenario": "throughput", "batch": 2}
    done = run(data_root, tmp_path, {"fake": FAKE}, "--profile", plan=plan)
    assert done.returncode == 0, done.stderr
    assert spans(tmp_path / "out", "fake") == dict.fromkeys(STAGES, 1)


def test_a_resumed_run_traces_only_what_is_missing(data_root, tmp_path):
    cases = {"a": FAKE, "b": FAKE}
    assert run(data_root, tmp_path, cases, "--profile").returncode == 0
    kept = profile_file(tmp_path / "out", "a", "trace")
    before = kept.read_bytes()
    profile_file(tmp_path / "out", "b", "trace").unlink()
    resumed = lisabench("run", "--resume", "--out", tmp_path / "out")
    assert resumed.returncode == 0, resumed.stderr
    assert kept.read_bytes() == before
    assert spans(tmp_path / "out", "b")["vision"] == 1


@pytest.mark.parametrize("fail", ["error", "oom", "crash"])
def test_a_case_that_cannot_be_traced_is_a_warning_and_the_others_are(data_root, tmp_path, fail):
    # The first query is the warm-up, and the second is traced. Timed rounds have two queries, and
    # end before the third.
    fails = FAKE | {"fail": fail, "fail_every": 2}
    done = run(
        data_root,
        tmp_path,
        {"works": FAKE, "fails": fails},
        "--profile",
        plan={"timed_queries": 1, "block": 1, "warmup": 0},
    )
    assert done.returncode == 0, done.stderr
    assert spans(tmp_path / "out", "works")["vision"] == 1
    assert not profile_file(tmp_path / "out", "fails", "trace").exists()
    (warning,) = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert warning.startswith("fails: there is no profile of it: ")
    assert "[trace](profile/works.json.gz)" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("name", ["../../x", "a b", "x" * 300])
def test_the_file_of_any_name_lies_in_its_folder_and_is_no_others(tmp_path, name):
    path = profile_file(tmp_path, name, "trace")
    assert path.resolve().parent == tmp_path / PROFILE
    assert len(path.name) < 150
    assert path != profile_file(tmp_path, name.replace(" ", "_").replace("/", "_")[:100], "trace")
