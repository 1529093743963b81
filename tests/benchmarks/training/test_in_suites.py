"""Trainings of a suite: what may be said of them, how they are carried out, and claims on them."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from markdown_rows import folded_section
from raw_runs import raw_run
from run_factory import EMPTY_CLAIM, edit_lines, edit_run, write_run
from sessions import QUICK, content_of
from training_factory import CLIP, DUAL, falling, write_training
from trainings import run_here

from lisabench.benchmarks import subprocesses, suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run import command as runs
from lisabench.benchmarks.run.session import Session
from lisabench.benchmarks.subprocesses import Done
from lisabench.benchmarks.training import in_suites
from lisabench.harness.errors import UsageError
from lisabench.harness.records.manifest import SuiteTraining
from lisabench.harness.records.run import read_run
from lisabench.harness.records.training import read_training
from lisabench.models.lisa import packaged, weights_format
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

GIB = 2**30
TWO_STEPS = {
    "recipe": "everything",
    "device": "cpu",
    "epochs": 1,
    "max_steps": 2,
    "max_train_samples": 4,
    "batch_size": 2,
    "max_val_samples": 2,
    "save_strategy": "no",
}
FASTER = {
    "claim": "a step is faster",
    "quantity": "training.step_time",
    "candidate": "clip",
    "at_most": 0.9,
}


def content(data_root, **changes):
    plan = {"processes": 1, "block": 8, "training_seeds": 1}
    suite = content_of(data_root, {"a": QUICK}, plan)
    suite["data"]["limit"] = 1
    suite["trainings"] = {"dual": TWO_STEPS, "clip": TWO_STEPS | {"vision": "clip"}}
    return suite | changes


def test_seeds_take_turns_and_every_other_time_back():
    trainings = in_suites.planned({"a": {}, "b": {}}, 3)
    assert [(training.name, training.seed) for training in trainings] == [
        ("a", 0),
        ("b", 0),
        ("b", 1),
        ("a", 1),
        ("a", 2),
        ("b", 2),
    ]
    assert trainings[2] == SuiteTraining("b", 1, "trainings/b-1", status=None, reason=None)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"trainings": {"a": {"recipee": "lean"}}},
            "training a: unknown option 'recipee' (did you mean 'recipe'?)",
        ),
        (
            {"trainings": {"a": {"recipe": "lean", "seed": 1}}},
            "training a: seed is set by the suite",
        ),
        ({"trainings": {"a": {"output_dir": "x"}}}, "training a: output_dir is set by the suite"),
        ({"trainings": {"a/b": {}}}, "its name is that of a folder"),
        (
            {"claims": [FASTER | {"candidate": "a"}]},
            "unknown training in a claim 'a'; known: clip, dual",
        ),
        ({"claims": [FASTER | {"candidate": "dual"}]}, "compares dual with itself"),
        ({"claims": [FASTER | {"at_most": None}]}, "exactly one bound"),
        (
            {"claims": [FASTER | {"quantity": "time.vision"}]},
            "unknown case in a claim 'clip'; known: a",
        ),
        (
            {
                "claims": [
                    {"claim": "c", "quantity": "training.fits", "candidate": "clip", "card": "8GB"}
                ],
                "trainings": {"dual": TWO_STEPS, "clip": TWO_STEPS | {"gpu_memory": "12GB"}},
            },
            "the training clip is capped to 12GB; give it gpu_memory: 8GB, or none",
        ),
        ({"plan": {"training_seeds": 0}}, "training_seeds"),
    ],
)
def test_what_a_training_of_a_suite_cannot_be_is_refused_in_one_line(data_root, wrong, expected):
    with pytest.raises(UsageError) as caught:
        suite_file.validate(content(data_root, **wrong))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_trainings_may_share_their_options_in_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    shared = (
        "trainings:\n  dual: &all {recipe: everything, epochs: 2}\n"
        "  clip: {<<: *all, vision: clip, epochs: 1}\n"
    )
    path.write_text(f"title: t\nreference: a\ncases: {{a: {{adapter: fake}}}}\n{shared}")
    assert suite_file.load(str(path)).trainings["clip"] == {
        "recipe": "everything",
        "epochs": 1,
        "vision": "clip",
    }
    path.write_text(path.read_text().replace("epochs: 1}", "epochs: 1, epochs: 3}"))
    with pytest.raises(UsageError, match="'epochs' stands twice"):
        suite_file.load(str(path))


TRAINING = SuiteTraining("t", 3, "trainings/t-3")


def ends(monkeypatch, returncode=0, stderr=""):
    """Lets every process that is started end so; the commands that were given."""
    commands = []

    def run(command):
        commands.append(command.line)
        return [Done(returncode, "", stderr)]

    monkeypatch.setattr(subprocesses, "run", run)
    return commands


def test_a_training_is_begun_with_its_options_and_seed(tmp_path, monkeypatch):
    commands = ends(monkeypatch)
    ended = in_suites.carry_out(tmp_path, TRAINING, TWO_STEPS, has_gpu=False)
    assert ended == replace(TRAINING, status="complete", reason=None)
    ((*start, config, seed, number, out, folder),) = commands
    assert start == [sys.executable, "-m", "lisabench", "train", "--config"]
    assert (seed, number, out, folder) == (
        "--seed",
        "3",
        "--output_dir",
        str(tmp_path / "trainings" / "t-3"),
    )
    assert yaml.safe_load(Path(config).read_text()) == TWO_STEPS


def test_a_complete_training_is_skipped_and_one_that_was_begun_resumed(tmp_path, monkeypatch):
    folder = write_training(tmp_path / "trainings" / "t-3", losses=falling(4), mious=[0.1])
    commands = ends(monkeypatch)
    assert in_suites.carry_out(tmp_path, TRAINING, TWO_STEPS, has_gpu=False).status == "complete"
    assert commands == []
    edit_run(folder, status="running")
    in_suites.carry_out(tmp_path, TRAINING, TWO_STEPS, has_gpu=False)
    assert commands[0][-1] == "--resume"


@pytest.mark.parametrize(
    ("returncode", "stderr", "status", "reason"),
    [
        (
            5,
            "bar\nlisabench: the loss is not finite any more\n",
            "failed",
            "the loss is not finite any more",
        ),
        (
            1,
            "  File x\ntorch.OutOfMemoryError: CUDA out of memory. 1 GiB\nbye\n",
            "oom",
            "torch.OutOfMemoryError",
        ),
        (-9, "bar 3/4\n", "failed", "ended by SIGKILL"),
        (3, "", "failed", "it ended with 3"),
    ],
)
def test_how_a_training_failed_is_its_status_and_reason(
    tmp_path, monkeypatch, returncode, stderr, status, reason
):
    ends(monkeypatch, returncode, stderr)
    found = in_suites.carry_out(tmp_path, TRAINING, TWO_STEPS, has_gpu=True)
    assert found.status == status
    assert reason in found.reason and "\n" not in found.reason


def test_a_capped_training_is_skipped_without_a_gpu(tmp_path, monkeypatch):
    commands = ends(monkeypatch)
    found = [
        in_suites.carry_out(tmp_path, TRAINING, TWO_STEPS | {"gpu_memory": "8GB"}, gpu)
        for gpu in (False, True)
    ]
    assert [one.status for one in found] == ["skipped", "complete"]
    assert len(commands) == 1


def trained_on_a_gpu(folder, reserved_gib):
    """Write a training that took so much of its GPU, and half a GiB outside of the allocator."""
    write_training(folder, losses=falling(4), mious=[0.1], memory={"beside_bytes": GIB // 2})
    edit_lines(
        folder / "training.jsonl",
        lambda line: (
            line
            | ({"peak_reserved_bytes": int(reserved_gib * GIB)} if line["kind"] == "epoch" else {})
        ),
    )


@pytest.mark.parametrize(
    ("reserved_gib", "status", "capped"),
    [(6.0, "by peak", False), (7.0, "complete", True), (8.9, "by peak", False)],
)
def test_a_training_is_tried_on_a_card_only_where_its_peak_is_near_the_size(
    tmp_path, monkeypatch, reserved_gib, status, capped
):
    whole, on_card = in_suites.planned({"t": TWO_STEPS}, 1, [("t", "8GB")])
    trained_on_a_gpu(tmp_path / whole.folder, reserved_gib)
    commands = ends(monkeypatch)
    trainings = [replace(whole, status="complete"), on_card]
    gpu = {"has_gpu": True, "gpu_bytes": 139 * GIB}
    found = in_suites.carry_out(tmp_path, on_card, TWO_STEPS, trainings=trainings, **gpu)
    assert (found.status, len(commands)) == (status, int(capped))
    if capped:
        (command,) = commands
        assert command[-1] == str(tmp_path / "trainings" / "t-0-8GB")
        options = yaml.safe_load(Path(command[command.index("--config") + 1]).read_text())
        assert options == TWO_STEPS | {"gpu_memory": "8GB"}


def test_a_training_on_a_card_waits_for_the_one_without_a_limit(tmp_path, monkeypatch):
    whole, on_card = in_suites.planned({"t": TWO_STEPS}, 1, [("t", "8GB")])
    commands = ends(monkeypatch)
    gpu = {"has_gpu": True, "gpu_bytes": 12 * GIB}
    failed = [replace(whole, status="failed", reason="why"), on_card]
    found = in_suites.carry_out(tmp_path, on_card, TWO_STEPS, trainings=failed, **gpu)
    assert found.status is None
    # It ran out of memory on a card that is larger, so on this one it would, too.
    too_large = [replace(whole, status="oom", reason="no more"), on_card]
    found = in_suites.carry_out(tmp_path, on_card, TWO_STEPS, trainings=too_large, **gpu)
    assert found.status == "by peak"
    larger = replace(on_card, card="24GB")
    found = in_suites.carry_out(tmp_path, larger, TWO_STEPS, trainings=too_large, **gpu)
    assert (found.status, commands) == ("skipped", [])
    assert "at least the memory of a card of 24GB" in found.reason


def test_the_cards_of_a_suite_are_planned_for_trainings_without_a_card_of_their_own(data_root):
    trainings = {"a": TWO_STEPS, "b": TWO_STEPS | {"gpu_memory": "8GB"}}
    claim = {"claim": "c", "quantity": "training.fits", "candidate": "a", "card": "24GB"}
    mine = content(data_root, trainings=trainings, claims=[claim]) | {"cards": ["8GB", "12GB"]}
    suite = suite_file.validate(mine)
    assert suite.training_fits == [("a", "8GB"), ("a", "12GB"), ("a", "24GB")]
    assert suite.fits == [("a", "8GB"), ("a", "12GB")]
    assert [one.folder for one in in_suites.planned(suite.trainings, 1, suite.training_fits)] == [
        "trainings/a-0",
        "trainings/b-0",
        "trainings/a-0-8GB",
        "trainings/a-0-12GB",
        "trainings/a-0-24GB",
    ]


def carried_out_here(monkeypatch, but):
    """Have the trainings of a suite run in this process, and that of one name in its own, as ever.

    A new process imports torch and transformers for seconds.
    """
    run = subprocesses.run

    def run_or_call(command):
        is_training = command.line[:4] == [sys.executable, "-m", "lisabench", "train"]
        if is_training and not Path(command.line[-1]).name.startswith(f"{but}-"):
            done = run_here(*command.line[3:])
            return [Done(done.returncode, done.stdout, done.stderr)]
        return run(command)

    monkeypatch.setattr(subprocesses, "run", run_or_call)


def test_a_suite_trains_goes_on_after_a_failure_and_resumes(
    data_root, tmp_path, capsys, monkeypatch
):
    """Two trainings of two steps, one that cannot begin, and one that takes a GPU."""
    carried_out_here(monkeypatch, but="dual")
    stated = [
        FASTER,
        {
            "claim": "converges",
            "quantity": "training.steps_to_mIoU",
            "candidate": "clip",
            "at_most": 1,
        },
        {"claim": "fits", "quantity": "training.fits", "candidate": "capped", "card": "8GB"},
        FASTER | {"claim": "broken", "candidate": "broken"},
    ]
    mine = content(data_root, claims=stated)
    # What they say of themselves is there, as a check of the suite needs it; the weights are gone.
    (tmp_path / "gone").mkdir()
    shutil.copy(packaged.FAMILY / "dual" / weights_format.CONFIG, tmp_path / "gone")
    mine["trainings"] |= {"broken": TWO_STEPS | {"weights": str(tmp_path / "gone")}}
    mine["trainings"] |= {"capped": TWO_STEPS | {"gpu_memory": "8GB", "device": "auto"}}
    suite, out = suite_file.validate(mine), tmp_path / "out"
    Session(suite, Queries.of(suite), out, lambda *_: None).start()
    page = raw_run(out).run
    statuses = {row["name"]: row["status"] for row in page["trainings"]}
    assert statuses == {
        "dual": "complete",
        "clip": "complete",
        "broken": "failed",
        "capped": "skipped",
    }
    assert len(read_training(out / "trainings" / "clip-0").steps) == 2
    assert (page["status"], runs.conclude(out)) == ("failed", 5)
    found = {claim.claim: claim for claim in summarise(read_run(out)).claims}
    assert found["a step is faster"].verdict == "inconclusive"
    assert found["a step is faster"].measured > 0
    assert found["a step is faster"].reason == "of one seed; this run gives no interval for it"
    assert found["fits"].verdict == found["broken"].verdict == "not measured"
    assert "NVIDIA GPU" in found["fits"].reason and "gone" in found["broken"].reason
    before = (out / "trainings" / "dual-0" / "training.jsonl").stat().st_mtime_ns
    Session(suite, Queries.of(suite), out, lambda *_: None).resume()
    assert (out / "trainings" / "dual-0" / "training.jsonl").stat().st_mtime_ns == before
    text = (out / "report.md").read_text()
    assert "| dual | 0 | complete | [trainings/dual-0](trainings/dual-0/report.md) |  |" in text
    assert "### clip against dual" in text and "the training broken with seed 0 is failed" in text
    capsys.readouterr()


def with_trainings(folder, seeds=3, claims=(), **clip):
    """Write a run that has trained `dual` and `clip`.

    The steps of `clip` take 50, 51 and 52 % of those of `dual`; it hits 10 points less.
    """
    write_run(folder, queries=2, size=(24, 32), gallery=0, controls=False)
    rows = [asdict(planned) for planned in in_suites.planned({"dual": {}, "clip": {}}, seeds)]
    for row in rows:
        mious, peak_mib = (
            ([0.1, 0.2, 0.3, 0.4], 1000) if row["name"] == "dual" else ([0.0, 0.1, 0.2, 0.3], 600)
        )
        step_ms = 100.0 if row["name"] == "dual" else 50.0 + row["seed"]
        known = {"losses": falling(20), "mious": mious, "peak_mib": peak_mib, "step_ms": step_ms}
        known |= {"options": DUAL} if row["name"] == "dual" else {"options": CLIP, **clip}
        write_training(folder / row["folder"], seed=row["seed"], **known)
    stated = [
        EMPTY_CLAIM | {"reference": "dual", "candidate": "clip", "claim": "c"} | claim
        for claim in claims
    ]
    edit_run(folder, trainings=[row | {"status": "complete"} for row in rows], claims=stated)
    return folder


def judged(folder):
    return summarise(read_run(folder)).claims


def test_claims_on_trainings_get_their_verdicts_from_the_seeds(tmp_path):
    folder = with_trainings(
        tmp_path,
        claims=[
            {"quantity": "training.step_time", "at_most": 0.6},
            {"quantity": "training.step_time", "at_most": 0.4},
            {"quantity": "training.steps_to_mIoU", "at_most": 1.2},
            {"quantity": "training.seconds_to_mIoU", "at_most": 1},
            {"quantity": "training.steps_to_loss", "at_most": 1},
            {"quantity": "training.mIoU", "at_most": -5},
            {"quantity": "training.mIoU", "at_least": -5},
            {"quantity": "training.steps_to_mIoU", "at_most": 1},
        ],
    )
    found = judged(folder)
    verdicts = [
        "confirmed",
        "refuted",
        "inconclusive",
        "confirmed",
        "confirmed",
        "confirmed",
        "refuted",
        "refuted",
    ]
    assert [claim.verdict for claim in found] == verdicts
    assert found[2].measured == pytest.approx(20 / 15, rel=1e-9, abs=0)
    assert found[2].interval == pytest.approx(
        (16 / 15, 20 / 11), rel=1e-9, abs=0
    )  # seen by an evaluation each
    assert "to mIoU 0.3, over 3 seeds" in found[2].reason
    assert found[5].measured == pytest.approx(-10, rel=0, abs=0.01)
    assert found[5].unit == "points"


def test_of_one_seed_there_is_a_figure_and_no_verdict(tmp_path):
    claims = [
        {"quantity": "training.step_time", "at_most": 0.6},
        {"quantity": "training.mIoU", "at_most": -5},
        {"quantity": "training.steps_to_mIoU", "at_most": 1},
    ]
    for claim in judged(with_trainings(tmp_path, seeds=1, claims=claims)):
        assert claim.measured is not None and (claim.interval, claim.verdict) == (
            None,
            "inconclusive",
        )


def test_a_claim_on_the_memory_of_training_is_not_measured_on_a_cpu(tmp_path):
    (found,) = judged(
        with_trainings(tmp_path, claims=[{"quantity": "training.peak_memory", "at_most": 0.65}])
    )
    assert (found.verdict, found.measured) == ("not measured", None)
    assert "this run was on a CPU" in found.reason


@pytest.mark.parametrize(
    ("clip", "quantity", "expected"),
    [
        ({"mious": [0.0, -0.1]}, "training.steps_to_mIoU", "hits its target"),
        (
            {"weights": {"ce": 1.0, "bce": 1.0, "dice": 0, "iou": 0}},
            "training.steps_to_loss",
            "different losses",
        ),
        ({"passport": {"cpu": "other"}}, "training.step_time", "different machines"),
        ({"passport": {"cpu": "other"}}, "training.seconds_to_mIoU", "different machines"),
        (
            {
                "data": {
                    "train": {"fingerprint": "t", "count": 1},
                    "val": {"fingerprint": "w", "count": 1},
                }
            },
            "training.mIoU",
            "different data",
        ),
    ],
)
def test_what_cannot_be_compared_of_trainings_is_not_measured(tmp_path, clip, quantity, expected):
    (found,) = judged(
        with_trainings(tmp_path, claims=[{"quantity": quantity, "at_most": 0.9}], **clip)
    )
    assert (found.verdict, found.measured) == ("not measured", None)
    assert expected in found.reason


def test_a_training_that_is_not_complete_measures_nothing(tmp_path):
    folder = with_trainings(tmp_path, claims=[{"quantity": "training.step_time", "at_most": 0.9}])
    rows = json.loads((folder / "run.json").read_text())["trainings"]
    edit_run(
        folder, trainings=[row | {"status": None} if row["name"] == "clip" else row for row in rows]
    )
    assert judged(folder)[0].reason == "the training clip with seed 0 has not been begun"
    edit_run(folder, trainings=[row for row in rows if row["name"] == "dual"])
    assert judged(folder)[0].reason == "clip is not among the trainings of this run"


@pytest.mark.parametrize(
    ("status", "reserved", "verdict", "expected"),
    [
        ("complete", 6 * GIB, "confirmed", "steps under the cap"),
        ("complete", None, "not measured", "not trained on a GPU"),
        ("oom", None, "refuted", "ran out of memory: no more"),
        ("skipped", None, "not measured", "skipped: no more"),
        ("failed", None, "not measured", "failed: no more"),
    ],
)
def test_a_training_fits_a_card_where_a_capped_process_made_all_of_it(
    tmp_path, status, reserved, verdict, expected
):
    fits = {"quantity": "training.fits", "reference": None, "at_most": 8 * GIB, "card": "8GB"}
    folder = with_trainings(tmp_path, seeds=1, claims=[fits])
    rows = json.loads((folder / "run.json").read_text())["trainings"]
    reason = None if status == "complete" else "no more"
    edit_run(folder, trainings=[row | {"status": status, "reason": reason} for row in rows])
    edit_run(folder, definition={"trainings": {"clip": {"gpu_memory": "8GB"}}})
    journal = folder / "trainings" / "clip-0" / "training.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if "peak_reserved_bytes" in line:  # of an epoch
            line["peak_reserved_bytes"] = reserved
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = judged(folder)
    assert (found.verdict, found.measured) == (
        verdict,
        reserved if verdict == "confirmed" else None,
    )
    assert expected in found.reason


def test_the_report_shows_the_pairs_that_claims_are_about(tmp_path):
    folder = with_trainings(tmp_path, claims=[{"quantity": "training.step_time", "at_most": 0.6}])
    section = folded_section(write_report(folder).read_text(), "Trainings")
    assert section.count("### clip against dual") == 1
    assert "Paired by seed, over 3 seeds" in section
    assert "[trainings/clip-2](trainings/clip-2/report.md)" in section
    edit_run(folder, claims=[])
    assert "### clip against dual" in write_report(folder).read_text()


def test_the_shipped_suite_of_trainings_measures_each_of_its_claims():
    suite = suite_file.load("training-tiny")
    assert suite.plan.training_seeds == 3
    assert all(claim.of_trainings and not claim.needs for claim in suite.claims)
    assert {options["device"] for options in suite.trainings.values()} == {"cpu"}
    ablated = [set(map(str, options.items())) for options in suite.trainings.values()]
    assert [len(other - ablated[1]) for other in ablated[2:]] == [
        1,
        1,
        1,
    ]  # each leaves out one loss, and no more
