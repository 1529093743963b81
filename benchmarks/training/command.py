"""``lisabench train``, from what was asked to an exit code."""

import logging
import shlex
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from ...datasets.reasonseg import ReasonSeg
from ...harness import environment
from ...harness.errors import UsageError
from ...harness.memory import cap_gpu, card_bytes, meter_for
from ...harness.probe import NullProbe
from ...harness.records.journal import create, now, writing
from ...harness.records.training import EVALUATIONS, TRAINING, TRAINING_SCHEMA, read_training
from ...models.adapters.lisa_stages import Lisa
from ...models.lisa.config import LisaConfig
from ...models.training.save import Origin, save
from ...models.training.trainable import make_trainable, trained_by_part
from ...reports.training.page import write_training_report
from ..progress import Progress, shown
from .checkpoints import Checkpoints
from .journal import TrainingJournal
from .options import TrainingOptions
from .setup import Setup, check_targets, refuse_random_bridge, setup
from .trainer import Trainer

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
Samples = tuple[ReasonSeg, ReasonSeg]  # to train on, and to evaluate on
EVALUATION_SPLITS = ("val", "test")
BY_OPTIONS = {
    "preset",
    "weights",
    "vision",
    "device",
    "precision",
    "quantization",
    "seed",
}  # axes; others are `--set`


def carry_out(said: Mapping[str, Any]) -> None:
    """Trains what was asked, prints what came of it.

    Raises:
        LisabenchError: nothing could be begun, or the training cannot go on.
    """
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # on a CPU it warns of kernels that nothing here uses
    wanted = setup(said)
    device = environment.resolve_device(wanted.case.device)
    memory = _memory(wanted.options.gpu_memory, device)
    accelerator = _accelerator(wanted, device)
    (folder,) = broadcast_object_list([wanted.folder])  # the time of day may differ among processes
    wanted = replace(wanted, options=replace(wanted.options, output_dir=folder))
    main = accelerator.is_main_process
    samples = wanted.train_samples(), wanted.val_samples()
    check_targets(samples[0])
    page = _page(wanted, accelerator, samples) | {"memory": memory}
    if main:
        _open(wanted, page)
    accelerator.wait_for_everyone()
    with (
        writing(wanted.folder) if main else nullcontext(),
        shown() if main else nullcontext(_silent) as progress,
    ):
        _train(wanted, accelerator, samples, TrainingJournal(wanted.folder, page), progress)
    if main:
        print(write_training_report(wanted.folder))


def _memory(card: str | None, device: str) -> dict[str, int | None]:
    """Cap the GPU where a card is to be imitated, and return what there is to know before the model is built.

    Returns:
        `beside_bytes`, what of the card lies beside PyTorch's allocator (None without a cap), and `start_bytes`, the
        resident set before the build (None on a GPU).
    """
    if device != "cuda":
        return {"beside_bytes": None, "start_bytes": meter_for(device).reset()}
    beside_bytes = card_bytes(card) - cap_gpu(card_bytes(card)) if card else None
    return {"beside_bytes": beside_bytes, "start_bytes": None}


def _silent(done: int, total: int, what: str) -> None:
    """Of several processes, one speaks."""


def _accelerator(wanted: Setup, device: str) -> Accelerator:
    if wanted.options.dtype == "fp16" and device == "cpu":
        raise UsageError("training in fp16 needs a GPU: take --dtype fp32 or bf16 here")
    # Some of what a recipe trains may get no gradient, such as a head without a loss on the answer.
    apart = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision=PRECISIONS[wanted.case.precision],
        kwargs_handlers=[apart],
    )


def _page(wanted: Setup, accelerator: Accelerator, samples: Samples) -> dict[str, Any]:
    """``run.json`` as it stands before anything is trained."""
    data = {"train": _described(samples[0]), "val": _described(samples[1])}
    fingerprints = {f"{use} data": each["fingerprint"] for use, each in data.items()}
    return {
        "schema": TRAINING_SCHEMA,
        "status": "running",
        "started": now(),
        "finished": None,
        "setup": wanted.recorded(),
        "configuration": {
            **wanted.configuration(),
            **fingerprints,
            "processes": accelerator.num_processes,
        },
        "data": data,
        "training": {
            "recipe": wanted.options.recipe,
            "preset": wanted.case.preset,
            "vision": wanted.case.vision,
        },
        "passport": environment.describe_machine() | environment.conditions(),
        "versions": environment.versions(),
        "warnings": [],
    }


def _open(wanted: Setup, page: dict[str, Any]) -> None:
    """
    Raises:
        UsageError: the folder holds a run already, or one of another configuration is to be resumed.
    """
    if not wanted.options.resume:
        create(wanted.folder, (TRAINING, EVALUATIONS))
        return
    before = read_training(wanted.folder).manifest.configuration
    as_usual = asdict(LisaConfig())  # what axes had that an older release did not know
    differing = sorted(
        _differing({**before, "case": as_usual | before["case"]}, page["configuration"])
    )
    if differing:
        raise UsageError(
            f"{wanted.folder} holds a training of another configuration ({', '.join(differing)}): "
            "ask for the same, or name a new --output_dir"
        )


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    one, other = _flat(before), _flat(after)
    return [
        f"{key} was {one.get(key)} and is {other.get(key)}"
        for key in one | other
        if one.get(key) != other.get(key)
    ]


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def _train(
    wanted: Setup,
    accelerator: Accelerator,
    samples: Samples,
    journal: TrainingJournal,
    progress: Progress,
) -> None:
    lisa = Lisa(wanted.case, NullProbe(), starting=True)
    if "bridge" in lisa.new_parts:
        refuse_random_bridge(wanted.options, wanted.case, wanted.recipe)
    make_trainable(lisa.model, wanted.case, wanted.recipe.trains, lisa.tokenizer)
    if wanted.options.gradient_checkpointing:
        lisa.model.llm.gradient_checkpointing_enable({"use_reentrant": False})
    counts = trained_by_part(lisa.model)
    journal.page["training"] |= {"trained_parameters": counts, "settings": dict(lisa.settings)}
    if accelerator.is_main_process:
        journal.begin()
        sys.stderr.writelines(f"{line}\n" for line in (*_trains(counts), *_doubts(wanted, lisa)))
    keep = Checkpoints(wanted.checkpoints, lambda folder: save(lisa, folder, _origin(wanted)))
    Trainer(wanted, accelerator, lisa, samples, journal, keep, progress).run(_teacher(wanted))
    if accelerator.is_main_process:
        journal.conclude("complete")


def _described(samples: ReasonSeg) -> dict[str, Any]:
    return {"count": len(samples), "fingerprint": samples.fingerprint()}


def _trains(counts: Mapping[str, int]) -> list[str]:
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return [f"training {sum(counts.values()):,} parameters: {parts}"]


def _doubts(wanted: Setup, lisa: Lisa) -> list[str]:
    head = {"embeddings", "token_rows"} & set(wanted.recipe.trains) and not wanted.losses.ce
    idle = "the head is trained and learns nothing: no loss looks at the answer (--ce_weight is 0)"
    return [f"warning: {doubt}" for doubt in (*lisa.warnings, *([idle] if head else []))]


def _teacher(wanted: Setup) -> Any:
    """SAM's encoder with the weights of a dual, where it is to be distilled."""
    if not wanted.recipe.distils:
        return None
    source = wanted.options.teacher or wanted.case.weights
    plain = {
        "vision": "dual",
        "frame": "whole",
        "bridge": "linear",
        "quantization": "none",
        "quantized": "llm",
    }
    dual = Lisa(replace(wanted.case, weights=source, **plain), NullProbe(), starting=True)
    if "sam_encoder" in dual.new_parts:
        raise UsageError(
            f"the teacher ({source}) has another SAM than sam={wanted.case.sam}: set the one that it has"
        )
    return dual.model.get_submodule("encoder.sam_encoder")


def _origin(wanted: Setup) -> Origin:
    options = wanted.options
    data = (
        f"{options.data.name}/{options.split}"
        if options.data
        else f"generated scenes, split {options.split}"
    )
    start = "random weights" if wanted.case.weights == "random" else wanted.case.weights
    described = (
        f"trained by the recipe {options.recipe} from {start} on {data}, seed {options.seed}"
    )
    splits = (options.split,) if options.data and options.split in EVALUATION_SPLITS else ()
    return Origin(described, splits, command_of(options, wanted.case))


def command_of(options: TrainingOptions, case: LisaConfig) -> str:
    """The command line that asks for the same training in a new folder."""
    said = {field.name: getattr(options, field.name) for field in fields(options)}
    usual = {field.name: field.default for field in fields(options)} | {
        "output_dir": said["output_dir"],
        "resume": True,
    }
    words = [
        f"--{name}={value}"
        for name, value in said.items()
        if value != usual[name] and value not in (True, False)
    ]
    switches = [f"--{name}" for name, value in said.items() if value is True and name != "resume"]
    axes = (axis for axis in fields(case) if axis.name not in BY_OPTIONS)
    changed = [axis.name for axis in axes if getattr(case, axis.name) != axis.default]
    changes = [f"--set={name}={getattr(case, name)}" for name in changed]
    return shlex.join(["lisabench", "train", *words, *switches, *changes])
