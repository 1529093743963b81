"""`lisabench train` from the command line: its files, after a kill, and on several processes."""

import json
import shlex
import signal
import socket
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import original_factory
import pytest
import torch
from accelerate.state import AcceleratorState
from command import lisabench

from lisabench.benchmarks.training import checkpoints
from lisabench.benchmarks.training.checkpoints import Checkpoints
from lisabench.benchmarks.training.command import command_of
from lisabench.benchmarks.training.optimizer import implementation, make_optimizer
from lisabench.benchmarks.training.setup import setup
from lisabench.harness.errors import RunFailed, UsageError
from lisabench.harness.records.training import Training, read_training
from lisabench.models.lisa import weights_format
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.training.recipes import LossWeights

pytestmark = pytest.mark.no_clock

SHARED = ("--recipe", "described", "--use_vlm_vision")
QUICK = (
    "--recipe",
    "everything",
    "--max_train_samples",
    "16",
    "--max_val_samples",
    "4",
    "--lr",
    "1e-3",
)
BIN = Path(sys.executable).parent
LAUNCH = (
    str(BIN / "accelerate"),
    "launch",
    "--multi_gpu",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
)


def train(*words: object, launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    if not launch:
        AcceleratorState._reset_state(reset_partial_state=True)
        return lisabench("train", "--device", "cpu", *words)
    command = [*launch, "-m", "lisabench.cli", "train", "--device", "cpu", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def trained(*words: object, out: Path, launch: tuple[str, ...] = ()) -> Training:
    done = train(*words, "--out", out, launch=launch)
    assert done.returncode == 0, done.stderr
    return read_training(out)


def losses(training: Training) -> list[float]:
    return [step.loss for step in training.steps]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Training:
    """A training of 12 steps that nobody disturbs."""
    return trained(
        *QUICK, "--epochs", 3, "--save_steps", 3, out=tmp_path_factory.mktemp("training") / "whole"
    )


def test_the_quick_test_of_the_modified_lisas_document_runs_as_it_stands_there(tmp_path):
    words = [
        "--epochs",
        "2",
        "--batch_size",
        "1",
        "--max_train_samples",
        "5",
        "--max_val_samples",
        "3",
    ]
    training = trained("--recipe", "described", *words, out=tmp_path / "run")
    assert training.manifest.setup.case["vision"] == "sam"
    counts = training.manifest.model.trained_parameters
    learned = {name for name, count in counts.items() if count}
    assert learned == {"bridge", "seg_projection", "llm"}
    assert [step.step for step in training.steps] == list(range(1, 11))
    assert [epoch.queries for epoch in training.epochs] == [3, 3]
    assert training.manifest.status == "complete"
    history = json.loads((tmp_path / "run" / "outputs" / "training_history.json").read_text())
    assert [row["epoch"] for row in history["epochs"]] == [1, 2]
    for row in history["epochs"]:
        assert row["peak_memory_gb"] > 0.1
        assert row["avg_inference_time_s"] > 0.001
    assert (tmp_path / "run" / "outputs" / "metrics_epoch_2.json").is_file()
    best = [path.name for path in (tmp_path / "run" / "checkpoints").glob("best_model_epoch_*")]
    assert best == [f"best_model_epoch_{history['best_epoch']}"]


def test_a_few_steps_halve_the_loss(whole):
    assert sum(losses(whole)[-3:]) / 3 < losses(whole)[0] / 2


def test_a_step_says_what_it_took_and_where(whole):
    shares = [step.unattributed_ns / step.latency_ns for step in whole.steps]
    assert min(shares) >= 0 and statistics.median(shares) < 0.1
    parts = {"data", "vision", "llm", "decoder", "losses", "backward", "optimizer"}
    for step in whole.steps:
        assert parts <= step.regions.keys()
        weighted = step.losses["ce"] + 2 * step.losses["bce"] + 0.5 * step.losses["dice"]
        assert step.loss == pytest.approx(weighted, rel=1e-5)


KILLED = """
import os, signal, sys
from lisabench.benchmarks.training.journal import TrainingJournal
from lisabench.cli import main

add_step = TrainingJournal.add_step

def add_step_and_die(self, record):
    add_step(self, record)
    if record.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

TrainingJournal.add_step = add_step_and_die
sys.argv[0] = "lisabench"
main()
"""


def test_a_killed_training_goes_on_exactly_as_if_nobody_had_disturbed_it(whole, tmp_path):
    out, words = tmp_path / "killed", [*QUICK, "--epochs", "3", "--save_steps", "3"]
    command = [sys.executable, "-c", KILLED, "train", "--device", "cpu", *words, "--out", str(out)]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    assert [step.step for step in read_training(out).steps] == list(range(1, 9))
    resumed = trained(*words, "--resume", out=out)
    assert [step.step for step in resumed.steps] == list(range(1, 13))
    assert losses(resumed) == losses(whole)
    assert [epoch.gIoU for epoch in resumed.epochs] == [epoch.gIoU for epoch in whole.epochs]
    assert last_weights(out) == last_weights(whole.folder), "the same seed gives the same bytes"


def last_weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "checkpoint-12" / "model-00001.safetensors").read_bytes()


def test_another_configuration_is_not_resumed_and_nothing_is_overwritten(whole):
    before = (whole.folder / "training.jsonl").read_bytes()
    done = train(*QUICK, "--epochs", 3, "--lr", "2e-3", "--resume", "--out", whole.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "another configuration (lr was 0.001 and is 0.002)" in done.stderr
    done = train(*QUICK, "--out", whole.folder)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
    assert (whole.folder / "training.jsonl").read_bytes() == before


def test_two_processes_train_as_one_with_the_same_global_batch(tmp_path):
    words = (
        *SHARED,
        *["--max_train_samples", "10", "--max_val_samples", "5", "--epochs", "2", "--lr", "1e-3"],
    )
    one = trained(*words, "--batch_size", 4, out=tmp_path / "one")
    two = trained(
        *words,
        "--batch_size",
        2,
        out=tmp_path / "two",
        launch=(*LAUNCH, "--num_processes", "2", "--num_machines", "1"),
    )
    same_course(one, two)


def test_two_launchers_stand_in_for_two_machines(tmp_path):
    words = (*SHARED, *["--max_train_samples", "6", "--max_val_samples", "3", "--epochs", "1"])
    one = trained(*words, "--batch_size", 2, out=tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [
        *LAUNCH,
        "--num_machines",
        "2",
        "--num_processes",
        "2",
        "--main_process_ip",
        "127.0.0.1",
    ]
    launch += ["--main_process_port", port, "--no_python", "--machine_rank"]
    rest = [
        str(BIN / "lisabench"),
        "train",
        "--device",
        "cpu",
        *words,
        "--batch_size",
        "1",
        "--out",
        str(tmp_path / "two"),
    ]
    machines = [
        subprocess.Popen([*launch, str(rank), *rest], stderr=subprocess.DEVNULL) for rank in (0, 1)
    ]
    assert [machine.wait(timeout=600) for machine in machines] == [0, 0]
    same_course(one, read_training(tmp_path / "two"))


def same_course(one: Training, other: Training) -> None:
    assert [step.queries for step in one.steps] == [step.queries for step in other.steps]
    assert losses(one) == pytest.approx(losses(other), rel=1e-5, abs=1e-5)
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        assert mine.gIoU == pytest.approx(theirs.gIoU, abs=1e-5)
    ids = [record.sample_id for record in one.evaluations]
    assert ids == [record.sample_id for record in other.evaluations]
    assert len(set(ids)) * len(one.epochs) == len(ids)


def test_accumulated_batches_are_one_batch(tmp_path):
    words = (*SHARED, *["--max_train_samples", "6", "--max_val_samples", "2", "--epochs", "1"])
    one = trained(*words, "--batch_size", 4, out=tmp_path / "one")
    accumulated = (
        "--batch_size",
        1,
        "--gradient_accumulation_steps",
        4,
        "--gradient_checkpointing",
    )
    same_course(one, trained(*words, *accumulated, out=tmp_path / "accumulated"))


def test_trained_weights_are_found_by_a_run_and_get_a_score(whole, tmp_path):
    weights = next((whole.folder / "checkpoints").glob("best_model_epoch_*"))
    words = ["run", "tiny", "--limit", "2", "--set", f"weights={weights}", "--set", "device=cpu"]
    words += ["--set", "clip.weights=random", "--set", "sam.weights=random"]
    words += [
        "--set",
        "plan.processes=1",
        "--set",
        "plan.memory_processes=1",
        "--out",
        str(tmp_path / "run"),
    ]
    done = lisabench(*words)
    assert done.returncode == 0, done.stderr
    cases = {
        case["name"]: case
        for case in json.loads((tmp_path / "run" / "summary.json").read_text())["cases"]
    }
    assert cases["dual"]["quality"]["gIoU"] is not None
    assert cases["clip"]["quality"] is None or cases["clip"]["quality"]["gIoU"] is None
    assert "clip, sam: random weights, while other cases have trained ones" in done.stderr


def test_a_converted_checkpoint_is_evaluated_and_trained(tmp_path):
    """A tiny checkpoint, laid out as the original lays out its own, trained on a data folder."""
    tiny = PRESETS["tiny"]
    sizes = replace(tiny, llama=replace(tiny.llama, vocabulary=original_factory.ROWS))
    weights = original_factory.weights(sizes)
    src = original_factory.write_lisa(
        tmp_path / "LISA-7B-v1",
        original_factory.without(weights, original_factory.CLIP),
        sizes=sizes,
    )
    clip = original_factory.write_clip(tmp_path / "clip", weights, sizes=sizes)
    done("convert", src, tmp_path / "converted", "--vision-tower", clip)
    done("data", "make", tmp_path / "data", "--split", "train", "--count", 4)
    done("data", "make", tmp_path / "data", "--split", "test", "--count", 3)
    data = ("--data", tmp_path / "data")
    start = ("--weights", tmp_path / "converted", "--val_split", "test", *data)
    training = trained(
        *start, "--use_vlm_vision", "--recipe", "lean", "--epochs", 1, out=tmp_path / "run"
    )
    assert [epoch.queries for epoch in training.epochs] == [3]
    best = tmp_path / "run" / "checkpoints" / "best_model_epoch_1"
    assert weights_format.read(best).contaminated_splits == ("val",), (
        "as the weights that it was trained from"
    )
    for name, vision in (("converted", "dual"), (best, "clip")):
        axes = {"device": "cpu", "weights": tmp_path / name, "vision": vision}
        words = [word for axis, value in axes.items() for word in ("--set", f"{axis}={value}")]
        (tmp_path / "one.yaml").write_text(
            "name: one\ntitle: One\nreference: only\ncases:\n  only: {adapter: lisa}\n"
            "plan: {processes: 1, memory_processes: 1}\n"
        )
        out = tmp_path / f"evaluated-{vision}"
        done("run", tmp_path / "one.yaml", *data, "--split", "test", *words, "--out", out)
        (case,) = [
            c
            for c in json.loads((out / "summary.json").read_text())["cases"]
            if c["name"] == "only"
        ]
        assert case["quality"]["gIoU"] is not None


def done(*words: object) -> None:
    found = lisabench(*words)
    assert found.returncode == 0, found.stderr


def test_a_loss_that_is_no_number_ends_with_a_message_and_an_intact_checkpoint(tmp_path):
    done = train(
        *QUICK,
        "--lr",
        "1e30",
        "--max_grad_norm",
        0,
        "--save_steps",
        1,
        "--epochs",
        3,
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 5
    assert "the loss is not finite any more" in done.stderr.splitlines()[-1]
    last = Checkpoints(tmp_path / "run" / "checkpoints", lambda _: None).last()
    assert last is not None and str(last) in done.stderr
    assert weights_format.read(last).trained


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    keep = Checkpoints(tmp_path, lambda folder: (folder / "weights").write_text("whole"))
    keep.save_last(3, {}, {"step": 3})
    monkeypatch.setattr(checkpoints, "save_file", fill_the_disk)
    with pytest.raises(
        RunFailed,
        match=r"checkpoint-6 cannot be written .*No space left.*the last checkpoint is .*-3",
    ):
        keep.save_last(6, {}, {"step": 6})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    assert (tmp_path / "checkpoint-3" / "weights").read_text() == "whole"


def fill_the_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"recipe": "leen"}, r"unknown recipe 'leen' \(did you mean 'lean'\?\)"),
        ({"losses": "x"}, "unknown choice of losses 'x'"),
        ({"optim": "sgd"}, "unknown optimiser 'sgd'"),
        ({"vision": "both"}, "unknown vision 'both'"),
        ({"vision": "sam", "use_vlm_vision": True}, "--use_vlm_vision means --vision clip"),
        (
            {"recipe": "distilled", "vision": "sam"},
            "is not for --vision sam: it needs --vision clip",
        ),
        ({"recipe": "described", "vision": "dual"}, "needs --vision sam or --vision clip"),
        (
            {"recipe": "described", "vision": "dual", "preset": "lisa-7b"},
            "needs --vision sam or --vision clip",
        ),
        (
            {"recipe": "described", "changes": {"conditioning": "original"}},
            "described has conditioning=desc",
        ),
        (
            {"recipe": "described", "changes": {"seg_head": "text_hidden_fcs"}},
            "described has seg_head=seg_t",
        ),
        (
            {"recipe": "described", "use_vlm_vision": True, "changes": {"bridge": "upsampling"}},
            "has a linear bridge, not bridge=upsampling",
        ),
        (
            {"use_vlm_vision": True},
            "does not train the bridge of --vision clip, which is random: add --recipe",
        ),
        ({"set": 3}, "set: expected a table of settings"),
        (
            {"resume": True, "output_dir": Path("nowhere")},
            "--resume needs the folder of a training",
        ),
        ({"changes": {"answer": "generated"}}, "training forces the answer"),
        ({"preset": "lisa-7b"}, "random weights that are quantised cannot be saved"),
        ({"ce_weight": 0.0, "bce_weight": 0.0, "dice_weight": 0.0}, "one of them above 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(said, message):
    with pytest.raises(UsageError, match=message):
        setup(said)


def test_options_come_from_a_file_too_and_the_command_line_comes_first(tmp_path):
    text = (
        "recipe: described\nepochs: 7\nlr: 0.01\nuse_vlm_vision: true\n"
        "iou_weight: 3\nset: {frame: crop}\n"
    )
    (tmp_path / "options.yaml").write_text(text)
    found = setup({"config": tmp_path / "options.yaml", "lr": 0.5})
    assert (found.options.epochs, found.options.lr, found.case.vision) == (7, 0.5, "clip")
    assert (found.options.recipe, found.case.frame) == ("described", "crop")
    assert found.losses == LossWeights(bce=1, dice=1, iou=3)


def test_a_file_with_an_unknown_option_is_refused(tmp_path):
    (tmp_path / "options.yaml").write_text("epoch: 7\n")
    with pytest.raises(UsageError, match=r"unknown option 'epoch' \(did you mean 'epochs'\?\)"):
        setup({"config": tmp_path / "options.yaml"})


def test_full_size_is_quantised_unless_it_is_said_otherwise():
    full = {"preset": "lisa-7b-llava15", "save_strategy": "no"}
    assert (setup(full).case.quantization, setup(full).case.precision) == ("nf4", "bf16")
    assert setup(full | {"no_quantization": True}).case.quantization == "none"
    assert (setup({}).case.quantization, setup({}).case.precision) == ("none", "fp32")


def test_a_recipe_that_is_not_named_is_the_originals():
    assert (setup({}).options.recipe, setup({}).case.vision) == ("original", "dual")


@pytest.mark.parametrize(("words", "vision"), [({}, "sam"), ({"use_vlm_vision": True}, "clip")])
def test_the_described_model_is_the_documents_in_every_setting(words, vision):
    full = {"recipe": "described", "preset": "lisa-7b-llava15", "save_strategy": "no", **words}
    case = setup(full).case
    assert (case.vision, case.conditioning, case.seg_head) == (
        vision,
        "described",
        "seg_token_to_sam",
    )
    assert case.sizes.llama.vocabulary == 32001
    assert (case.quantization, case.quantized) == ("nf4", f"llm+{vision}"), (
        "the document loads all models in NF4"
    )
    control = setup(full | {"changes": {"quantized": "llm"}}).case
    assert control.quantized == "llm"
    assert setup(full | {"no_quantization": True}).case.quantization == "none"


def test_the_command_in_a_card_asks_for_the_same_training():
    options = {"recipe": "everything", "epochs": 1, "gradient_checkpointing": True}
    plan = setup({**options, "changes": {"template": "llava_llama_2"}})
    words = shlex.split(command_of(plan.options, plan.case))
    assert {"--recipe=everything", "--epochs=1", "--gradient_checkpointing"} <= set(words)
    assert words[-1] == "--set=template=llava_llama_2"
    assert not [word for word in words if word.startswith(("--output_dir", "--lr", "--resume"))]


def test_adamw_takes_no_second_copy_of_what_it_trains_on_a_gpu():
    assert [implementation(dtype, on_gpu=True) for dtype in ("bf16", "fp32")] == [
        {"fused": True}
    ] * 2
    assert implementation("fp16", on_gpu=True) == {"foreach": False}, (
        "Accelerate must see the steps that are skipped"
    )
    assert implementation("fp32", on_gpu=False) == {}
    learned = [torch.nn.Parameter(torch.ones(3))]
    assert make_optimizer(setup({}).options, learned).defaults["fused"] is None
