"""`lisabench train` from the command line: what it leaves, and that it can be killed."""

import shlex
import signal
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import write_sample
from trainings import losses, run_here, train, train_in_fork, trained

from lisabench.benchmarks.training import checkpoints, command
from lisabench.benchmarks.training.checkpoints import Checkpoints
from lisabench.benchmarks.training.command import command_of
from lisabench.benchmarks.training.optimizer import implementation, make_optimizer
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.harness.errors import DataError, RunFailed, UsageError
from lisabench.harness.records.training import Training, read_training
from lisabench.models.lisa import weights_format
from lisabench.models.training.recipes import LossWeights

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

# Two steps an epoch.
QUICK = ("--recipe", "everything", "--max_train_samples", 4, "--batch_size", 2,
         "--max_val_samples", 2, "--lr", "1e-3")  # fmt: skip
# Step 3 is in the middle of the second epoch.
UNDISTURBED = (*QUICK, "--epochs", 3, "--save_steps", 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Training:
    """A training of 6 steps that nobody disturbs."""
    return trained(*UNDISTURBED, out=tmp_path_factory.mktemp("training") / "whole")


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


def test_a_killed_training_goes_on_exactly_as_if_nobody_had_disturbed_it(whole, tmp_path):
    out = tmp_path / "killed"
    process = train_in_fork(*UNDISTURBED, "--out", out, killed_after=4)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [step.step for step in read_training(out).steps] == [1, 2, 3, 4]
    resumed = trained(*UNDISTURBED, "--resume", out=out)
    assert [step.step for step in resumed.steps] == [1, 2, 3, 4, 5, 6]
    assert losses(resumed) == losses(whole)
    assert [epoch.gIoU for epoch in resumed.epochs] == [epoch.gIoU for epoch in whole.epochs]
    assert last_weights(out) == last_weights(whole.folder), "the same seed gives the same bytes"


def test_a_training_ends_with_its_outcome_the_next_command_and_the_report(tmp_path):
    out = tmp_path / "run"
    done = train(*QUICK, "--out", out)
    assert done.returncode == 0, done.stderr
    *outcome, next_command, report = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in outcome] == ["loss", "mIoU", "a step", "peak memory"]
    assert not any("n/a" in line for line in outcome)
    command, weights = next_command.split("weights=")
    assert command == "next: lisabench run tiny --set "
    assert weights_format.read(Path(weights)).trained
    assert report == str(out / "report.md")


def last_weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "checkpoint-6" / "model-00001.safetensors").read_bytes()


LEAN = ("--recipe", "lean", *QUICK[2:])


@pytest.fixture(scope="module")
def lean(tmp_path_factory) -> Training:
    """A training of 4 steps from random weights, of which few are trained."""
    return trained(*LEAN, "--epochs", 2, out=tmp_path_factory.mktemp("lean") / "whole")


def test_checkpoints_hold_what_was_learned_and_the_start_once(lean):
    checkpoints_folder = lean.folder / "checkpoints"
    start_bytes = bytes_in(checkpoints_folder / "start")
    for checkpoint in checkpoints_folder.glob("*_*"):
        assert bytes_in(checkpoint) < start_bytes / 10
    saved = weights_format.read(checkpoints_folder / "checkpoint-4")
    assert saved.trained and saved.start.weights == "../start"
    assert not weights_format.read(checkpoints_folder / "start").trained
    assert not (checkpoints_folder / "checkpoint-4" / "training" / "learned.safetensors").exists()


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "older",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["today", "as older releases wrote it"],
)
def test_a_killed_training_goes_on_from_what_it_had_learned(lean, tmp_path, older):
    out = tmp_path / "killed"
    words = (*LEAN, "--epochs", 2)
    merged = ("--save_merged",) if older else ()
    process = train_in_fork(*words, *merged, "--out", out, killed_after=3)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if older:
        assert (out / "checkpoints" / "checkpoint-2" / "training" / "learned.safetensors").is_file()
    resumed = trained(*words, "--resume", out=out)
    assert losses(resumed) == losses(lean)
    learned = [
        training.folder / "checkpoints" / "checkpoint-4" / "learned.safetensors"
        for training in (lean, resumed)
    ]
    assert learned[0].read_bytes() == learned[1].read_bytes()


# Dropout, so that the state of random numbers counts; step 3 is in the middle of the second epoch,
# and is evaluated.
INTERIM = ("--recipe", "original", *QUICK[2:], "--epochs", 2, "--save_steps", 3,
           "--eval_steps", 3)  # fmt: skip


@pytest.mark.slow  # three trainings
def test_a_training_killed_after_an_evaluation_between_epochs_loses_and_doubles_nothing(tmp_path):
    whole = trained(*INTERIM, out=tmp_path / "whole")
    out = tmp_path / "killed"
    process = train_in_fork(*INTERIM, "--out", out, killed_after=4)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resumed = trained(*INTERIM, "--resume", out=out)
    assert losses(resumed) == losses(whole)
    assert [evaluation.step for evaluation in resumed.interim] == [3]
    assert resumed.interim == whole.interim
    assert [epoch.val_losses for epoch in resumed.epochs] == [
        epoch.val_losses for epoch in whole.epochs
    ]


def test_the_evaluation_has_the_losses_that_are_minimised(whole):
    epoch = whole.epochs[-1]
    weighted = sum(
        weight * epoch.val_losses[name] for name, weight in (("ce", 1), ("bce", 2), ("dice", 0.5))
    )
    assert epoch.val_loss == pytest.approx(weighted, rel=1e-5)
    of_its_steps = [step.losses["bce"] for step in whole.steps if step.epoch == epoch.epoch]
    assert epoch.train_losses["bce"] == pytest.approx(statistics.fmean(of_its_steps))
    report = (whole.folder / "report.md").read_text()
    assert "| epoch | ce | bce | dice | val_loss | val ce | val bce | val dice |" in report


def test_a_training_that_becomes_no_better_stops_and_stays_so(tmp_path):
    words = (*QUICK, "--lr", 0, "--epochs", 5, "--early_stopping_patience", 1)
    done = train(*words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "where it stopped early" in done.stdout
    training = read_training(tmp_path / "run")
    assert (len(training.epochs), training.manifest.status) == (2, "complete")
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Stopped early, after epoch 2 of 5" in report
    resumed = trained(*words, "--resume", out=tmp_path / "run")
    assert losses(resumed) == losses(training)


def test_an_interrupted_training_says_the_command_that_goes_on_even_where_nothing_was_trained(
    tmp_path, monkeypatch
):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "Lisa", interrupted)
    done = train(*QUICK, "--set", "template=llava_llama_2", "--out", tmp_path / "run")
    said, _ = done.stderr.splitlines()[-2:]
    assert said.startswith("interrupted; go on with: lisabench train --")
    assert {path.name for path in (tmp_path / "run").glob("*.json*")} == {
        "training.jsonl",
        "evaluations.jsonl",
    }
    words = shlex.split(said.split("lisabench ")[1])
    assert words[-3:] == ["--out", str(tmp_path / "run"), "--resume"]
    again = run_here(*words)
    assert again.returncode == 130 and again.stderr.splitlines()[-2] == said


def test_only_what_is_no_training_is_not_resumed(tmp_path):
    (tmp_path / "photo.jpg").touch()
    done = train(*QUICK, "--resume", "--out", tmp_path)
    assert done.returncode == 2 and "is not a run's folder" in done.stderr


@pytest.mark.parametrize(
    ("options", "preset", "expected"),
    [
        ({}, "lisa-7b", "lisabench segment IMAGE QUERY --set weights={} --out mask.png"),
        ({"data": ["a b:2", "c:1"]}, "tiny", "lisabench run tiny --data 'a b' --split v --set w"),
        (
            {"data": ["a"], "val_data": "e"},
            "lisa-7b",
            "lisabench run SUITE.yaml --data e --split v",
        ),
    ],
)
def test_the_next_command_evaluates_on_the_data_of_the_training(
    tmp_path, options, preset, expected
):
    given = {"recipe": "everything", "val_split": "v", "output_dir": tmp_path, **options}
    setup = resolve_setup(given)
    setup = replace(setup, case=replace(setup.case, preset=preset))
    best = tmp_path / "checkpoints" / "best_model_epoch_2"
    best.mkdir(parents=True)
    said = command._next_command(setup, 2)
    assert said.startswith(expected.format(best))


def test_fingerprints_of_data_are_compared_but_not_shown_where_an_option_explains_them():
    before = {"options": {"data": "a", "lr": 1}, "train data": "123", "val data": "5"}
    after = {"options": {"data": None, "lr": 1}, "train data": "789", "val data": "5"}
    assert command._differing(before, after) == ["data was a and is None"]
    after["options"]["data"] = "a"
    assert command._differing(before, after) == ["train data was 123 and is 789"]


def test_another_configuration_is_not_resumed_and_nothing_is_overwritten(whole):
    before = (whole.folder / "training.jsonl").read_bytes()
    done = train(*QUICK, "--epochs", 3, "--lr", "2e-3", "--resume", "--out", whole.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "another configuration (lr was 0.001 and is 0.002)" in done.stderr
    done = train(*QUICK, "--out", whole.folder)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
    assert (whole.folder / "training.jsonl").read_bytes() == before


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


@pytest.mark.parametrize(
    ("split", "place"), [("train", 0), ("train", 3), ("val", 1)], ids=["first", "last", "val"]
)
def test_a_query_that_is_too_long_is_found_before_anything_is_built(
    tmp_path, monkeypatch, split, place
):
    for name, count in (("train", 4), ("val", 2)):
        for number in range(count):
            write_sample(tmp_path / "data" / name, f"q{number}", seed=number)
    annotation = tmp_path / "data" / split / f"q{place}.json"
    annotation.write_text(annotation.read_text().replace("the square", "cup " * 3000))
    monkeypatch.setattr(command, "Lisa", lambda *_, **__: pytest.fail("a model was built"))
    out = tmp_path / "out"
    done = train("--data", tmp_path / "data", "--recipe", "everything", "--out", out)
    assert (done.returncode, done.stdout, out.exists()) == (2, "", False)
    message = done.stderr.splitlines()[-1]
    assert f"{split}/q{place}.jpg: prompt and answer have" in message
    assert "shorten the query, or remove it" in message


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    keep = Checkpoints(tmp_path, lambda folder: (folder / "weights").write_text("whole"))
    keep.save_last(3, {}, {"step": 3})
    monkeypatch.setattr(checkpoints, "write_tensors", fill_the_disk)
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
        ({"lora_r": 4, "recipe": "lean"}, "--lora_r is for a recipe with LoRA, and lean has none"),
        (
            {"lora_target_modules": "q_proj,w_proj"},
            r"unknown layer for LoRA 'w_proj' \(did you mean",
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
        resolve_setup(said)


def test_options_come_from_a_file_too_and_the_command_line_comes_first(tmp_path):
    text = (
        "recipe: described\nepochs: 7\nlr: 0.01\nuse_vlm_vision: true\n"
        "iou_weight: 3\nset: {frame: crop}\n"
    )
    (tmp_path / "options.yaml").write_text(text)
    found = resolve_setup({"config": tmp_path / "options.yaml", "lr": 0.5})
    assert (found.options.epochs, found.options.lr, found.case.vision) == (7, 0.5, "clip")
    assert (found.options.recipe, found.case.frame) == ("described", "crop")
    assert found.losses == LossWeights(bce=1, dice=1, iou=3)


def test_a_file_may_spell_options_as_other_tools_do(tmp_path):
    text = "learning-rate: 0.5\nnum_train_epochs: 7\ngrad_clip: 2\nbce_loss_weight: 3\nlr: 0.5\n"
    (tmp_path / "options.yaml").write_text(text.replace("lr: 0.5\n", ""))
    setup = resolve_setup({"config": tmp_path / "options.yaml"})
    assert (setup.options.lr, setup.options.epochs, setup.options.max_grad_norm) == (0.5, 7, 2)
    assert setup.losses.bce == 3
    (tmp_path / "options.yaml").write_text(text)
    with pytest.raises(UsageError, match="learning-rate and lr are the same option"):
        resolve_setup({"config": tmp_path / "options.yaml"})


def test_models_that_are_named_apart_end_with_the_command_that_joins_them():
    done = train("--vlm-name", "llava-hf/llava-1.5-7b-hf", "--sam_name", "facebook/sam-vit-base")
    assert done.returncode == 2
    command_line = (
        "lisabench convert llava-hf/llava-1.5-7b-hf START --sam facebook/sam-vit-base "
        "--conditioning described"
    )
    assert f"`{command_line}`" in done.stderr and done.stderr.count("\n") == 1


def test_the_described_recipe_has_the_documents_defaults():
    chosen = {"recipe": "described"}
    options = resolve_setup(chosen).options
    assert (options.epochs, options.batch_size, options.weight_decay) == (20, 1, 0.01)
    assert options.lr == 3e-4
    options = resolve_setup(chosen | {"epochs": 2, "weight_decay": 0.0}).options
    assert (options.epochs, options.batch_size, options.weight_decay) == (2, 1, 0)
    options = resolve_setup({}).options
    assert (options.epochs, options.batch_size, options.weight_decay) == (3, 4, 0)


def test_a_file_with_an_unknown_option_is_refused(tmp_path):
    (tmp_path / "options.yaml").write_text("epoch: 7\n")
    with pytest.raises(UsageError, match=r"unknown option 'epoch' \(did you mean 'epochs'\?\)"):
        resolve_setup({"config": tmp_path / "options.yaml"})


def test_full_size_is_quantised_unless_it_is_said_otherwise():
    full = {"preset": "lisa-7b-llava15", "save_strategy": "no"}
    assert (resolve_setup(full).case.quantization, resolve_setup(full).case.precision) == (
        "nf4",
        "bf16",
    )
    assert resolve_setup(full | {"no_quantization": True}).case.quantization == "none"
    assert (resolve_setup({}).case.quantization, resolve_setup({}).case.precision) == (
        "none",
        "fp32",
    )


def test_a_recipe_that_is_not_named_is_the_originals():
    assert (resolve_setup({}).options.recipe, resolve_setup({}).case.vision) == ("original", "dual")


@pytest.mark.parametrize(("words", "vision"), [({}, "sam"), ({"use_vlm_vision": True}, "clip")])
def test_the_described_model_is_the_documents_in_every_setting(words, vision):
    full = {"recipe": "described", "preset": "lisa-7b-llava15", "save_strategy": "no", **words}
    case = resolve_setup(full).case
    assert (case.vision, case.conditioning, case.seg_head) == (
        vision,
        "described",
        "seg_token_to_sam",
    )
    assert case.sizes.llama.vocabulary == 32001
    assert (case.quantization, case.quantized) == ("nf4", f"llm+{vision}"), (
        "the document loads all models in NF4"
    )
    control = resolve_setup(full | {"changes": {"quantized": "llm"}}).case
    assert control.quantized == "llm"
    assert resolve_setup(full | {"no_quantization": True}).case.quantization == "none"


def test_the_command_in_a_card_asks_for_the_same_training():
    options = {"recipe": "everything", "epochs": 1, "gradient_checkpointing": True}
    setup = resolve_setup({**options, "changes": {"template": "llava_llama_2"}})
    words = shlex.split(command_of(setup.options, setup.case))
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
    assert make_optimizer(resolve_setup({}).options, learned).defaults["fused"] is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"lr: .inf", "no finite number"),
        (b"lr: inf", "lr"),
        (b"epochs: &a [*a]", "contains itself"),
        (b"[" * 3000, "deeper than 32"),
        (b"# caf\xe9\nlr: 1", "was read as UTF-8"),
        (b"lr: !!bool maybe", "not YAML"),
        (b'val_split: "\\x1b[2J"', "character"),
    ],
)
def test_a_file_of_options_is_bounded_and_its_numbers_are_finite(tmp_path, content, expected):
    (tmp_path / "options.yaml").write_bytes(content)
    with pytest.raises((UsageError, DataError), match=expected) as error:
        resolve_setup({"config": tmp_path / "options.yaml"})
    assert str(error.value).isprintable()


def test_a_file_of_options_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "options.yaml").write_bytes(b"\xef\xbb\xbflr: 0.25")
    assert resolve_setup({"config": tmp_path / "options.yaml"}).options.lr == 0.25
