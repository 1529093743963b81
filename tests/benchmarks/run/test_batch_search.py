"""`batch: auto`: batches are tried before everything else, and the best is taken."""

import json

import pytest
from sessions import QUICK, content_of, run, session, suite

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run import batch_search
from lisabench.benchmarks.run.batch_search import Choice, chosen
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.harness.errors import UsageError
from lisabench.harness.records.manifest import BatchTrial
from lisabench.harness.records.run import read_run
from lisabench.models.adapters.fake import FakeCase
from lisabench.models.lisa.config import LisaConfig
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

# The data of these tests have six queries: with blocks of 4, batches of 1, 2 and 4 are tried, and
# four queries are timed.
AUTO = {"processes": 1, "scenario": "throughput", "batch": "auto", "block": 4}


def entry_of(result, case):
    (entry,) = [entry for entry in result.run["cases"] if entry["name"] == case]
    return entry


def tried(result, case="a"):
    rows = entry_of(result, case)["batch_trials"]
    return [(row["batch"], row["status"], row["queries_per_second"]) for row in rows]


def test_the_batch_with_the_most_queries_per_second_is_timed(data_root, tmp_path):
    planned = suite(data_root, plan=AUTO, b=QUICK | {"batch": 1})
    result = run(planned, tmp_path / "out")
    assert result.run["status"] == "complete"
    assert tried(result) == [(1, "ok", 100.0), (2, "ok", 200.0), (4, "ok", 400.0)]
    assert entry_of(result, "a")["batch"] == entry_of(result, "a")["settings"]["batch"] == 4
    assert entry_of(result, "b")["batch_trials"] is None
    batches = {(line["case"], line.get("batch")) for line in result.samples}
    assert batches == {("a", 4), ("b", None)}
    of_stages = [line for line in result.memory if line["stage"] != "build"]
    assert {line["queries"] for line in of_stages if line["case"] == "a"} == {4}


def test_a_smaller_batch_is_taken_if_it_is_almost_as_fast(data_root, tmp_path):
    linear = QUICK | {"per_query": 1.0}
    nearly = QUICK | {"per_query": 0.95}
    result = run(suite(data_root, plan=AUTO, a=linear, b=nearly), tmp_path / "out")
    assert entry_of(result, "a")["batch"] == 1
    # 10, 9.75 and 9.625 ms for each query: the second is within 2 % of the third.
    assert [rate for _, _, rate in tried(result, "b")] == pytest.approx(
        [1000 / 10, 1000 / 9.75, 1000 / 9.625]
    )
    assert entry_of(result, "b")["batch"] == 2


@pytest.mark.parametrize(("fail", "status"), [("oom", "oom"), ("crash", "error")])
def test_a_batch_that_fails_ends_the_search_and_is_no_failure_of_the_run(
    data_root, tmp_path, fail, status
):
    # Batches of 1 are tried with 8 queries, batches of 2 with 8 more: the 20th is in a batch of 4.
    failing = QUICK | {"fail": fail, "fail_every": 20}
    result = run(suite(data_root, plan=AUTO, a=failing), tmp_path / "out")
    assert [(batch, status) for batch, status, _ in tried(result)] == [
        (1, "ok"),
        (2, "ok"),
        (4, status),
    ]
    assert entry_of(result, "a")["batch"] == 2
    assert result.run["status"] == "complete"
    page = write_report(tmp_path / "out").read_text()
    assert "<summary>Batches that were tried</summary>" in page
    assert f"| {status}: " in page and "| ok: chosen |" in page


def test_a_case_that_always_fails_is_measured_query_by_query(data_root, tmp_path):
    failing = QUICK | {"fail": "error", "fail_every": 1}
    result = run(suite(data_root, plan=AUTO, a=failing), tmp_path / "out")
    assert [row[:2] for row in tried(result)] == [(1, "error")]
    assert entry_of(result, "a")["batch"] == 1
    assert {line["status"] for line in result.samples if line["case"] == "a"} == {"error"}


def test_a_resumed_run_keeps_the_batch_and_does_not_search_again(data_root, tmp_path, monkeypatch):
    planned = suite(data_root, plan=AUTO)
    before = run(planned, tmp_path / "out")
    monkeypatch.setattr(batch_search, "_trials", None)
    session(planned, tmp_path / "out").resume()
    after = json.loads((tmp_path / "out" / "run.json").read_text())
    assert after["attempts"] == 1
    assert [entry["batch_trials"] for entry in after["cases"]] == [
        entry["batch_trials"] for entry in before.run["cases"]
    ]


def test_a_run_that_ended_before_the_search_searches_when_it_is_resumed(data_root, tmp_path):
    planned = suite(data_root, plan=AUTO)
    late = session(planned, tmp_path / "out")
    late._deadline_s = 0.0
    late.start()
    assert read_run(tmp_path / "out").manifest.case("a").batch_trials == ()
    session(planned, tmp_path / "out").resume()
    entry = read_run(tmp_path / "out").manifest.case("a")
    assert [trial.batch for trial in entry.batch_trials] == [1, 2, 4]
    assert entry.batch == 4


# What is tried


def test_batches_of_which_a_block_is_no_multiple_are_not_tried(data_root):
    resolved = suite(data_root, plan=AUTO | {"block": 12})
    assert resolved.batches_to_try(queries=48) == (1, 2, 4)
    assert suite(data_root, plan=AUTO | {"block": 48}).batches_to_try(48) == (1, 2, 4, 8, 16)
    assert suite(data_root, plan=AUTO | {"block": 48}).batches_to_try(6) == (1, 2, 4)


def test_the_timed_queries_are_whole_batches_whatever_is_chosen(data_root):
    assert Queries.of(suite(data_root, plan=AUTO)).timed == 4
    assert Queries.of(suite(data_root, plan=AUTO | {"block": 3})).timed == 6
    with_three = suite(data_root, plan=AUTO | {"block": 6}, b=QUICK | {"batch": 3})
    assert Queries.of(with_three).timed == 6


def test_auto_is_for_throughput(data_root):
    content = content_of(data_root, {"a": QUICK | {"batch": "auto"}, "b": QUICK}, {})
    with pytest.raises(UsageError, match=r"a has batch auto.*set plan.scenario to throughput"):
        suite_file.validate(content)


def test_each_batch_is_warmed_up_and_tried_with_three_batches_and_eight_queries(data_root):
    data = {"root": data_root, "split": "val"}
    worker = CaseWorker(WorkerSettings("fake", FakeCase(clock="virtual"), data, timed=4))
    worker.build()
    sizes = []
    preprocess = worker.adapter.preprocess
    worker.adapter.preprocess = lambda samples: sizes.append(len(samples)) or preprocess(samples)
    for batch, batches in ((1, 8), (2, 4), (4, 3)):
        sizes.clear()
        trial = worker.try_batch(batch, 2)
        assert sizes == [batch] * (2 + batches)
        assert trial.queries_per_second == pytest.approx(100.0 * batch)
        assert trial.vision_ms == pytest.approx(4 / batch)
        assert trial.rest_ms == pytest.approx(6 / batch)


TOO_LONG = "the prompt has 600 tokens"


def failing_worker(data_root, *queries, error):
    """Return a worker whose adapter refuses every batch with one of the named queries."""
    data = {"root": data_root, "split": "val"}
    worker = CaseWorker(WorkerSettings("fake", FakeCase(clock="virtual"), data, timed=6))
    worker.build()
    preprocess = worker.adapter.preprocess

    def refusing(samples):
        if any(sample.id in queries for sample in samples):
            raise error
        return preprocess(samples)

    worker.adapter.preprocess = refusing
    return worker


@pytest.mark.parametrize("query", ["q0", "q1", "q5"])
def test_a_query_that_is_too_long_spoils_neither_a_trial_nor_the_search(data_root, query):
    worker = failing_worker(data_root, query, error=ValueError(TOO_LONG))
    for batch in (1, 2, 3):
        trial = worker.try_batch(batch, 2)
        assert (trial.status, trial.reason) == ("ok", None)
        assert trial.queries_per_second == pytest.approx(100.0 * batch)


def test_a_size_of_which_all_or_three_batches_fail_has_failed(data_root):
    worker = failing_worker(data_root, "q0", "q2", "q4", error=ValueError(TOO_LONG))
    for batch in (1, 2, 3):
        trial = worker.try_batch(batch, 2)
        assert (trial.status, trial.reason) == ("error", f"ValueError: {TOO_LONG}")
    worker = failing_worker(data_root, "q0", "q3", error=ValueError(TOO_LONG))
    assert [worker.try_batch(batch, 2).status for batch in (1, 2, 3)] == ["ok", "ok", "error"]


def test_a_single_batch_that_runs_out_of_memory_ends_the_trial(data_root):
    worker = failing_worker(data_root, "q5", error=MemoryError())
    assert [worker.try_batch(batch, 2).status for batch in (1, 2, 3)] == ["oom"] * 3


def test_the_stages_of_a_lisa_add_up_in_a_trial(data_root):
    data = {"root": data_root, "split": "val"}
    worker = CaseWorker(WorkerSettings("lisa", LisaConfig(device="cpu"), data, timed=4))
    trial = worker.try_batch(2, 0)
    assert trial.status == "ok"
    assert trial.vision_ms > 0 and trial.rest_ms > 0
    whole_ms = trial.vision_ms + trial.rest_ms
    assert trial.queries_per_second == pytest.approx(1000 / whole_ms)


# What is chosen


def trials(*times_ms):
    """Trials of 1, 2, 4, ... queries by their times: of `vision`, and of the rest."""
    made = []
    for place, (vision_ms, rest_ms) in enumerate(times_ms):
        rate = 1000 / (vision_ms + rest_ms)
        made.append(BatchTrial(2**place, "ok", rate, vision_ms, rest_ms))
    return made


def test_encoders_and_language_model_have_batches_of_their_own():
    # The encoders are fastest alone and then slower; the rest is fastest at 8.
    times = trials((10.0, 20.0), (10.1, 15.0), (12.0, 10.0), (14.0, 7.0))
    assert chosen(times, splits_images=True) == Choice(8, 1)
    # All at once, 4 takes 22.0 ms and 8 takes 21.0.
    assert chosen(times, splits_images=False) == Choice(8, None)


def test_where_all_images_at_once_are_fastest_they_are_not_split():
    times = trials((10.0, 20.0), (8.0, 15.0), (7.0, 10.0))
    assert chosen(times, splits_images=True) == Choice(4, 0)


def test_a_larger_chunk_must_be_faster_by_more_than_two_per_cent():
    times = trials((10.0, 20.0), (9.0, 15.0), (8.9, 10.0))
    assert chosen(times, splits_images=True) == Choice(4, 2)


def test_images_are_never_encoded_in_larger_batches_than_there_are_queries():
    times = trials((10.0, 5.0), (8.0, 9.0), (6.0, 20.0))
    assert chosen(times, splits_images=True) == Choice(1, 0)


@pytest.mark.parametrize(
    ("config", "splits"),
    [
        (LisaConfig(), True),
        (LisaConfig(encoder_batch=2), False),
        (LisaConfig(reuse="on"), False),
        (FakeCase(), False),
    ],
)
def test_images_are_split_only_where_the_suite_leaves_that_open(config, splits):
    assert batch_search._splits_images(config) is splits


def test_a_failed_batch_is_not_chosen():
    failed = BatchTrial(4, "oom", reason="out of memory")
    assert chosen([*trials((4.0, 6.0), (2.0, 3.0)), failed], splits_images=False) == Choice(2, None)
    assert chosen([failed], splits_images=True) == Choice(1, 0)


def test_the_chosen_encoder_batch_is_among_the_settings_that_are_timed(
    data_root, tmp_path, monkeypatch
):
    def times_of_a_lisa(*_):
        yield from trials((1.0, 9.0), (2.0, 4.0))

    monkeypatch.setattr(batch_search, "_trials", times_of_a_lisa)
    cases = {"a": {"adapter": "lisa", "device": "cpu"}}
    plan = AUTO | {"block": 2, "timed_queries": 2, "quality_queries": 0, "decode_workers": 0}
    planned = suite_file.validate(content_of(data_root, cases, plan))
    result = run(planned, tmp_path / "out")
    entry = entry_of(result, "a")
    assert (entry["batch"], entry["encoder_batch"]) == (2, 1)
    assert (entry["settings"]["batch"], entry["settings"]["encoder_batch"]) == (2, 1)
    assert "encoder_batch" not in entry["given"]
    assert {line["status"] for line in result.samples} == {"ok"}
    page = write_report(tmp_path / "out").read_text()
    assert "chosen, images encoded 1 at a time" in page
