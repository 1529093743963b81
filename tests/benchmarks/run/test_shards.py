"""Shards: parts of the quality pass that are evaluated apart, and joined without a query twice."""

import json
from collections import Counter

import pytest
from command import lisabench
from raw_runs import raw_run
from sessions import QUICK, session, suite

from lisabench.benchmarks.run.schedule import Share
from lisabench.harness.errors import NothingToCompare, UsageError
from lisabench.harness.records.journal import current_lines, read_lines, writing
from lisabench.harness.records.run import read_run
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

CASES = {"a": QUICK | {"mask": "shifted", "shift_px": 3}, "b": QUICK | {"mask": "whole"}}


def planned(data_root, **plan):
    """Three cases and six queries; of each case three batches of two."""
    plan = {"processes": 1, "quality_batch": 2, "timed_queries": 2} | plan
    return suite(data_root, plan=plan, **CASES)


def evaluate(data_root, out, share, is_late=False, **plan):
    """Evaluate a share such as 1/3 into a run's folder; return whether all of it is evaluated."""
    begun = session(planned(data_root, **plan), out)
    begun._deadline_s = 0 if is_late else None
    return begun.evaluate_share(Share.parse(share))


def records(lines):
    """The lines of a quality pass without what says which start of the run wrote them, sorted."""
    lines = [{key: value for key, value in line.items() if key != "attempt"} for line in lines]
    return sorted(lines, key=lambda line: (line["case"], line["position"]))


def positions(out, share, case="a"):
    lines = current_lines(out / "shards" / share / "quality.jsonl")
    return [line["position"] for line in lines if line["case"] == case]


def edit_shard(out, share, **values):
    path = out / "shards" / share / "shard.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def two_of_three(data_root, tmp_path):
    """The folder of a run of which two of three shards are evaluated."""
    out = tmp_path / "out"
    for share in ("1/3", "3/3"):
        assert evaluate(data_root, out, share)
    return out


@pytest.mark.parametrize("processes", [1, 2])
def test_joined_shards_are_the_records_of_a_run_with_any_number_of_processes(
    two_of_three, data_root, tmp_path, processes
):
    assert positions(two_of_three, "1-of-3") == [0, 1]
    assert positions(two_of_three, "3-of-3") == [4, 5]
    session(planned(data_root), two_of_three).resume()
    joined = raw_run(two_of_three)
    session(planned(data_root, quality_processes=processes), tmp_path / "alone").start()
    alone = raw_run(tmp_path / "alone")
    assert records(joined.quality) == records(alone.quality)
    assert len(joined.quality) == 3 * 6
    assert joined.run["status"] == "complete"
    assert {line["case"] for line in joined.samples} == {"a", "b"}
    # The trivial baseline is built in no other pass than that of quality.
    for with_shards, without in zip(joined.run["cases"], alone.run["cases"], strict=True):
        assert with_shards["settings"] == without["settings"] is not None
        assert with_shards["has_quality"] == without["has_quality"]
    noted = [(shard["number"], shard["of"]) for shard in joined.run["shards"]]
    assert noted == [(1, 3), (3, 3)]
    shard = read_run(two_of_three).manifest.shards[0]
    assert shard.environment["cpu"] and shard.versions["torch"] and shard.finished
    assert "from 2 shards" in write_report(two_of_three).read_text()


def test_a_shard_leaves_out_what_shards_of_another_number_have(two_of_three, data_root):
    assert evaluate(data_root, two_of_three, "1/1")
    assert positions(two_of_three, "1-of-1") == [2, 3]
    session(planned(data_root), two_of_three).start()
    assert len(raw_run(two_of_three).quality) == 3 * 6
    assert evaluate(data_root, two_of_three, "2/3"), "the run has all of it"
    assert positions(two_of_three, "2-of-3") == []


def test_a_shard_that_was_cut_short_goes_on_with_whole_batches(two_of_three, data_root):
    journal = two_of_three / "shards" / "1-of-3" / "quality.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:3]) + '\n{"case": "b", "posi')  # one of b's two queries
    assert evaluate(data_root, two_of_three, "1/3")
    assert positions(two_of_three, "1-of-3", "b") == [0, 1]
    again = [(line["case"], line["attempt"]) for line in current_lines(journal)]
    assert Counter(again) == {("a", 0): 2, ("b", 1): 2, ("empty", 1): 2}


def test_a_shard_that_is_late_says_so_and_goes_on_later(data_root, tmp_path):
    out = tmp_path / "out"
    assert not evaluate(data_root, out, "1/3", is_late=True)
    assert positions(out, "1-of-3") == []
    assert evaluate(data_root, out, "1/3")
    assert positions(out, "1-of-3") == [0, 1]


def test_a_join_that_was_killed_takes_over_the_rest_and_nothing_twice(two_of_three, data_root):
    session(planned(data_root), two_of_three).resume()
    whole = records(raw_run(two_of_three).quality)
    journal = two_of_three / "quality.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])
    session(planned(data_root), two_of_three).resume()
    assert records(raw_run(two_of_three).quality) == whole
    assert len(read_lines(journal)) == 3 * 6 + 1, "one line of a batch that was not whole"


@pytest.mark.parametrize("key", ["definition", "data"])
def test_shards_of_another_run_are_refused_before_anything_is_measured(
    two_of_three, data_root, key
):
    other = json.loads((two_of_three / "shards/1-of-3/shard.json").read_text())[key]
    edit_shard(two_of_three, "1-of-3", **{key: other | {"name": "another"}})
    with pytest.raises(UsageError, match=f"1-of-3 holds a run with another {key}"):
        session(planned(data_root), two_of_three).resume()
    assert not (two_of_three / "run.json").exists()
    with pytest.raises(UsageError, match=f"1-of-3 holds a run with another {key}"):
        evaluate(data_root, two_of_three, "2/3")
    assert not (two_of_three / "shards" / "2-of-3").exists()


def test_quality_of_machines_of_several_kinds_is_not_joined(two_of_three, data_root):
    facts = json.loads((two_of_three / "shards/1-of-3/shard.json").read_text())["passport"]
    same_kind = facts | {"kernel": "another", "memory_bytes": 1}
    edit_shard(two_of_three, "1-of-3", passport=same_kind)
    assert evaluate(data_root, two_of_three, "2/3")
    edit_shard(two_of_three, "1-of-3", passport=facts | {"cpu": "another"})
    with pytest.raises(NothingToCompare, match=r"another machine .cpu was another, is "):
        session(planned(data_root), two_of_three).resume()
    edit_shard(two_of_three, "1-of-3", passport=facts, versions={"torch": "0"})
    with pytest.raises(NothingToCompare, match=r"another software .*torch was 0"):
        session(planned(data_root), two_of_three).resume()


def test_shards_are_joined_only_when_all_have_ended(two_of_three, data_root):
    with writing(two_of_three / "shards" / "3-of-3"):
        with pytest.raises(UsageError, match="3-of-3 is just being evaluated"):
            session(planned(data_root), two_of_three).resume()
        with pytest.raises(UsageError, match="another lisabench is writing into"):
            evaluate(data_root, two_of_three, "3/3")


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/0", "a/b", "-1/2", "1/2/3", "01/2", " 1/2"])
def test_a_shard_is_a_number_of_so_many(text):
    with pytest.raises(UsageError, match="expected I/N with I from 1 to N, such as 2/4"):
        Share.parse(text)


def test_every_batch_is_in_one_share():
    batches = [range(start, start + 8) for start in range(0, 100, 8)]
    parts = [Share(number, 4).of_batches(batches) for number in range(1, 5)]
    in_parts = [batch for part in parts for batch in part]
    assert sorted(in_parts, key=lambda batch: batch.start) == batches
    assert {len(part) for part in parts} == {3, 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shard", "1/2"), "--shard needs --out DIR, the folder of the run"),
        (("--shard", "1/2", "--dry-run"), "leave out --dry-run and --against"),
        (("--shard", "2"), "shard '2': expected I/N"),
    ],
)
def test_a_shard_that_cannot_be_evaluated_is_refused_in_one_line(arguments, message):
    done = lisabench("run", "tiny", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_shard_says_how_many_queries_it_has(tmp_path):
    suite_file = tmp_path / "mine.yaml"
    case = "{adapter: fake, clock: virtual}"
    suite_file.write_text(
        f"title: one fake\nreference: a\ndata: {{count: 3}}\ncases: {{a: {case}}}"
    )
    expected = {
        "1/2": ["shard 1/2 is evaluated (3 of 3 queries); when all are, join them"],
        "2/2": [
            "shard 2/2 has none of the 3 queries: a batch has 8 (plan.quality_batch)",
            "shard 2/2 is evaluated (0 of 3 queries)",
        ],
    }
    for share, sentences in expected.items():
        done = lisabench("run", suite_file, "--shard", share, "--out", tmp_path / "out")
        assert done.returncode == 0
        assert all(sentence in done.stderr for sentence in sentences), done.stderr
