"""Training on several sources of data by their weights, in the layouts of the field."""

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from coco_factory import TRAIN_2014, instances, write_tree
from command import lisabench
from parquet_files import refcoco_of_lmms
from samples import write_sample
from trainings import losses, train, train_in_fork, trained

from lisabench.benchmarks.training.mixture import Source, sources_of
from lisabench.benchmarks.training.sampler import SamplingPlan
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.datasets.joined import Joined
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.harness.errors import UsageError
from lisabench.harness.records.training import Training

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

PLAN = SamplingPlan(
    samples=40,
    batch_size=2,
    accumulation=1,
    world=1,
    rank=0,
    epochs=2,
    distill_steps=0,
    max_steps=None,
    seed=0,
    sizes=(10, 30),
    weights=(9.0, 1.0),
    draws=1000,
)


def taken(plan: SamplingPlan, epoch: int) -> list[int]:
    queries = []
    for step in range(plan.steps):
        if plan.epoch(step) == epoch:
            queries += plan.queries(step)
    return queries


def test_sources_are_drawn_by_their_weights():
    drawn = taken(PLAN, 1)
    assert len(drawn) == 2000
    share_of_the_first = sum(position < 10 for position in drawn) / len(drawn)
    # The standard deviation of a share of 0.9 in 2000 draws is 0.0067.
    assert 0.87 < share_of_the_first < 0.93


def test_all_queries_of_a_source_are_taken_before_one_is_taken_again():
    for first, last in ((0, 10), (10, 40)):
        of_the_source = [query for query in taken(PLAN, 1) if first <= query < last]
        size = last - first
        assert sorted(of_the_source[:size]) == list(range(first, last))
        counts = Counter(of_the_source)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_draw_depends_on_seed_and_step_alone_whatever_the_number_of_processes():
    assert PLAN.queries(7) == replace(PLAN).queries(7)
    assert taken(PLAN, 1) != taken(PLAN, 2) != taken(replace(PLAN, seed=1), 1)
    of_two = [replace(PLAN, batch_size=1, world=2, rank=rank) for rank in range(2)]
    for step in (0, 7, 999, 1000):
        shares = [plan.share(step)[0][0] for plan in of_two]
        assert shares == PLAN.queries(step)


def test_an_epoch_of_a_given_length_goes_through_the_data_again_and_again():
    plan = replace(PLAN, sizes=(), weights=(), samples=5, draws=6)
    drawn = taken(plan, 1)
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(5))
    assert len(drawn) == 12 and plan.steps == 12


def test_weights_follow_a_colon_and_a_path_may_have_one_too(tmp_path):
    with_colon = tmp_path / "a:9"
    with_colon.mkdir()
    assert sources_of([str(with_colon)]) == (Source(str(with_colon)),)
    assert sources_of([f"{with_colon}:0.5"]) == (Source(str(with_colon), 0.5),)
    assert sources_of([f"{tmp_path}:9", "hf://owner/name@main:1"]) == (
        Source(str(tmp_path), 9),
        Source("hf://owner/name@main", 1),
    )
    assert sources_of(["hf://owner/name"]) == (Source("hf://owner/name"),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a:1", "b"], "--data b has no weight and other sources have one: give it one too"),
        (["a:0"], "--data a:0: the weight is 0"),
        ("a:0", "--data a:0: the weight is 0"),
    ],
)
def test_weights_that_say_nothing_are_refused(data, message):
    with pytest.raises(UsageError, match=message):
        resolve_setup({"data": data})


def write_split(folder: Path, count: int, wordings: int = 1) -> Path:
    for number in range(count):
        write_sample(folder / "train", f"q{number}", seed=number)
        annotation = folder / "train" / f"q{number}.json"
        content = json.loads(annotation.read_text())
        content["text"] = [f"the square, wording {wording}" for wording in range(wordings)]
        annotation.write_text(json.dumps(content))
    return folder


def test_joined_data_are_those_of_the_sources_one_after_the_other(tmp_path):
    sources = [
        ReasonSeg(write_split(tmp_path / name, count), "train")
        for name, count in (("a", 2), ("b", 3))
    ]
    joined = Joined(sources)
    expected = [sample.source for source in sources for sample in source]
    assert [sample.source for sample in joined] == expected and len(joined) == 5
    assert joined.fingerprint() != Joined(sources[::-1]).fingerprint()
    annotation = tmp_path / "b" / "train" / "q2.json"
    before = joined.fingerprint()
    annotation.write_text(annotation.read_text().replace("wording 0", "again"))
    assert joined.fingerprint() != before


def test_all_wordings_of_a_query_may_be_trained_on_and_the_first_is_evaluated(tmp_path):
    folder = write_split(tmp_path, count=2, wordings=3)
    options = {"data": str(folder), "val_split": "train"}
    setup = resolve_setup(options | {"texts": "all"})
    queries = [sample.query for sample in setup.train_samples()]
    assert queries == [f"the square, wording {wording}" for wording in range(3)] * 2
    assert len(setup.val_samples()) == 2
    assert len(resolve_setup(options).train_samples()) == 2
    with pytest.raises(UsageError, match="unknown choice of texts 'both'"):
        resolve_setup(options | {"texts": "both"})


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> tuple[str, ...]:
    """Sources in five layouts: pairs, a tree of references, categories, a listing, parquet."""
    folder = tmp_path_factory.mktemp("data")
    tree = write_tree(folder)
    (tree / TRAIN_2014 / "val.json").write_text(json.dumps(instances()))
    write_split(folder / "pairs", count=3)
    (folder / "pairs" / "train").rename(folder / "pairs" / "val")
    done = lisabench("data", "import", tree / "grefcoco", folder / "listing")
    assert done.returncode == 0, done.stderr
    refcoco_of_lmms(folder / "tables")
    return (
        f"{folder / 'pairs'}:1",
        f"{tree / 'refcoco'}:1",
        f"{tree / TRAIN_2014 / 'val.json'}:1",
        f"{folder / 'listing'}:1",
        f"{folder / 'tables'}:3",
    )


def options_of(layouts: tuple[str, ...]) -> tuple[object, ...]:
    words: list[object] = ["--recipe", "everything", "--split", "val", "--max_val_samples", 2]
    for source in layouts:
        words += ["--data", source]
    return (*words, "--batch_size", 2, "--steps_per_epoch", 3, "--epochs", 2)


@pytest.fixture(scope="module")
def whole(layouts, tmp_path_factory) -> Training:
    return trained(*options_of(layouts), out=tmp_path_factory.mktemp("training") / "whole")


def test_sources_in_every_layout_are_trained_on_together(layouts, whole):
    data = whole.manifest.data["train"]
    assert [source.layout for source in data.sources] == [
        None,
        "refcoco",
        "coco",
        "grefcoco",
        "parquet",
    ]
    assert [source.weight for source in data.sources] == [1, 1, 1, 1, 3]
    assert data.count == sum(source.count for source in data.sources)
    assert [step.queries for step in whole.steps] == [2] * 6
    assert [epoch.queries for epoch in whole.epochs] == [2, 2]
    report = (whole.folder / "report.md").read_text()
    assert "tables: 3 queries, weight 3. Imported from" in report
    assert whole.manifest.setup.options["data"] == list(layouts)


@pytest.mark.slow  # two trainings
def test_a_killed_training_of_a_mixture_draws_the_same_again(layouts, whole, tmp_path):
    out = tmp_path / "killed"
    process = train_in_fork(*options_of(layouts), "--out", out, killed_after=4)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert losses(trained(*options_of(layouts), "--resume", out=out)) == losses(whole)
    done = train(*options_of(layouts[:-1]), "--resume", "--out", out)
    assert done.returncode == 2 and "another configuration" in done.stderr


def test_other_data_may_be_evaluated(tmp_path):
    write_split(tmp_path / "a", count=1)
    write_split(tmp_path / "b", count=2)
    setup = resolve_setup(
        {"data": [str(tmp_path / "a")], "val_data": str(tmp_path / "b"), "val_split": "train"}
    )
    assert (len(setup.train_samples()), len(setup.val_samples())) == (1, 2)
