"""``lisabench train``: from options to a trained model, its records and its report."""

import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from transformers import PreTrainedModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...datasets.joined import Joined
from ...datasets.samples import Samples
from ...harness import environment, terminal
from ...harness.errors import UsageError
from ...harness.memory import OutsideAllocator, cap_gpu, card_bytes, meter_for
from ...harness.probe import NullProbe
from ...harness.records.folder import before_writing, undone_if_refused
from ...harness.records.journal import create, holds_run, now, writing
from ...harness.records.training import (
    EVALUATIONS,
    TRAINING,
    TRAINING_SCHEMA,
    MemoryBeforeBuild,
    TrainedModel,
    TrainingData,
    TrainingManifest,
    TrainingSource,
    read_training,
)
from ...models.adapters.lisa_stages import Lisa
from ...models.checkpoints.source import open_source
from ...models.lisa import weights_format
from ...models.lisa.config import LisaConfig
from ...models.lisa.weights_format import PACKAGED, RANDOM, stated
from ...models.training.examples import ExampleReader
from ...models.training.save import Origin
from ...models.training.trainable import make_trainable, trained_by_part
from ...reports.training.page import write_training_report
from ...reports.training.summary import summarise_training
from ...reports.training.terminal import outcome
from ..progress import Progress, no_progress, shown
from .checkpoints import BEST, Checkpoints
from .journal import TrainingJournal
from .options import TrainingOptions
from .setup import (
    Setup,
    check_targets,
    default_configuration,
    refuse_random_bridge,
)
from .trackers import accelerator_settings, trackers_named
from .trainer import Trainer
from .weights import make_writer

# What Accelerate calls our precisions.
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
Splits = tuple[Samples, Samples]  # the training split and the validation split
EVALUATION_SPLITS = (
    "val",
    "test",
)  # of ReasonSeg; weights that are trained on one of them carry a warning
# Options that say which queries there are. Where one differs, the fingerprints of the data do, too.
DATA_OPTIONS = {
    "data",
    "val_data",
    "texts",
    "split",
    "val_split",
    "max_train_samples",
    "max_val_samples",
}
FINGERPRINTS = {"train": "train data", "val": "val data"}  # how a configuration names them
# Settings of the model that have an option of their own. The others are changed by `--set`.
SETTINGS_WITH_OPTION = {
    "preset",
    "weights",
    "vision",
    "device",
    "precision",
    "quantization",
    "seed",
}


def carry_out(setup: Setup) -> None:
    """Train a model, and print what came of it, the next command and the path of the report.

    Args:
        setup: what is to be done.

    Raises:
        LisabenchError: nothing could be begun, or the training cannot continue.
    """
    asked_device = setup.case.device
    if environment.is_numbered(asked_device):
        _refuse_several_processes(asked_device)
    device = environment.resolve_device(asked_device)
    if environment.is_numbered(asked_device):
        # Afterwards it is the only GPU. A training may be resumed on another one of the same kind.
        options = replace(setup.options, device=device)
        setup = replace(setup, options=options, case=replace(setup.case, device=device))
    # First of all that uses the GPU: both measure what is not the allocator's.
    outside = _outside_allocator(device)
    memory = _memory_before_build(setup.options.gpu_memory, device)
    accelerator = _accelerator(setup, device)
    # The default folder is named by the time of day, which may differ among the processes: the main
    # process's counts.
    (folder,) = broadcast_object_list([setup.folder])
    setup = replace(setup, options=replace(setup.options, output_dir=folder))

    samples = setup.train_samples(), setup.val_samples()
    check_targets(samples[0])
    _check_lengths(setup, samples, device)
    manifest = _manifest(setup, accelerator, samples, memory)
    before = before_writing(folder)
    if accelerator.is_main_process:
        _open_folder(setup, manifest)
    accelerator.wait_for_everyone()
    journal = TrainingJournal(folder, manifest)
    if accelerator.is_main_process:
        explained = _interrupts_explained(setup, accelerator.num_processes)
        with writing(folder), undone_if_refused(folder, before), explained, shown() as progress:
            _train(setup, accelerator, samples, journal, progress)
            journal.conclude("complete", None if outside is None else outside.read())
        report = write_training_report(folder)
        summary = summarise_training(read_training(folder))
        terminal.say(outcome(summary))
        terminal.say(f"next: {_next_command(setup, summary.best_epoch)}")
        terminal.say(report)
    else:
        _train(setup, accelerator, samples, journal, no_progress)


def _refuse_several_processes(device: str) -> None:
    """Check that this is the only process of the training: each needs a GPU of its own.

    Raises:
        UsageError: it is not.
    """
    processes = os.environ.get("WORLD_SIZE", "1")  # as `accelerate launch` and torchrun set it
    if processes != "1":
        raise UsageError(
            f"device {device!r} is one GPU, and the training has {processes} processes: take "
            "--device cuda, and name the GPUs with `accelerate launch --gpu_ids`"
        )


def _next_command(setup: Setup, best_epoch: int | None) -> str:
    """Return a command that uses the weights, or where none are kept, the records."""
    best = setup.checkpoints / f"{BEST}{best_epoch}"
    if not best.is_dir():
        return shlex.join(["lisabench", "compare", str(setup.folder), "ANOTHER_TRAINING"])
    weights = shlex.quote(f"weights={best}")
    data = setup.evaluation_data
    if data is not None:
        suite = "tiny" if setup.case.preset == "tiny" else "SUITE.yaml"
        of_the_split = shlex.join(["--data", data, "--split", setup.options.val_split])
        return f"lisabench run {suite} {of_the_split} --set {weights}"
    if setup.case.preset == "tiny":
        return f"lisabench run tiny --set {weights}"
    return f"lisabench segment IMAGE QUERY --set {weights} --out mask.png"


@contextmanager
def _interrupts_explained(setup: Setup, processes: int) -> Iterator[None]:
    """Print the whole command that goes on with a training, if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        words = command_of(setup.options, setup.case)
        launcher = "" if processes == 1 else "accelerate launch ... -m "
        out = shlex.quote(str(setup.folder))
        terminal.note(f"interrupted; go on with: {launcher}{words} --out {out} --resume")
        raise


def _check_lengths(setup: Setup, samples: Splits, device: str) -> None:
    """Check that every query fits the model's context, before anything is built or written.

    Raises:
        UsageError: one does not; names its image.
    """
    source = open_source(setup.case, device, for_training=True)
    reader = ExampleReader(setup.case, source.preset, (), source.tokenizer)
    train, val = samples
    for sample in train:
        reader.tokens(sample)
    for sample in val:
        reader.tokens(sample)


def _outside_allocator(device: str) -> OutsideAllocator | None:
    """Return what measures the GPU's memory outside of PyTorch's allocator.

    It is None without a GPU, and where several processes train: each has another GPU, which is
    known later.
    """
    if device != "cuda" or os.environ.get("WORLD_SIZE", "1") != "1":
        return None
    return OutsideAllocator()


def _memory_before_build(card: str | None, device: str) -> MemoryBeforeBuild:
    """Cap the GPU if a card is to be imitated; return what is known about memory so far."""
    if device != "cuda":
        return MemoryBeforeBuild(start_bytes=meter_for(device).reset())
    if card is None:
        return MemoryBeforeBuild()
    allocator_bytes = cap_gpu(card_bytes(card))
    return MemoryBeforeBuild(outside_allocator_bytes=card_bytes(card) - allocator_bytes)


def _accelerator(setup: Setup, device: str) -> Accelerator:
    if setup.options.dtype == "fp16" and device == "cpu":
        raise UsageError("training in fp16 needs a GPU: take --dtype fp32 or bf16 here")
    # Some of the trained parameters may get no gradient, such as the head of the language model if
    # no loss is on the answer. Without this, the exchange of gradients would wait for theirs.
    data_parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision=MIXED_PRECISION[setup.case.precision],
        kwargs_handlers=[data_parallel],
        **accelerator_settings(trackers_named(setup.options.report_to), setup.folder),
    )


def _manifest(
    setup: Setup, accelerator: Accelerator, samples: Splits, memory: MemoryBeforeBuild
) -> TrainingManifest:
    """Return the manifest as it is before anything is trained."""
    data = {}
    fingerprints = {}
    warnings: list[str] = []
    for use, split in zip(("train", "val"), samples, strict=True):
        data[use] = TrainingData(
            len(split), split.fingerprint(), **split.origin, sources=_sources(setup, split)
        )
        if accelerator.is_main_process:
            warnings += split.warnings
        fingerprints[FINGERPRINTS[use]] = data[use].fingerprint
    for warning in dict.fromkeys(warnings):  # both splits may be of the same data
        terminal.note(f"warning: {warning}")
    configuration = {
        **setup.configuration(),
        **fingerprints,
        "processes": accelerator.num_processes,
    }
    return TrainingManifest(
        schema=TRAINING_SCHEMA,
        status="running",
        started=now(),
        setup=setup.recorded(),
        configuration=configuration,
        data=data,
        model=TrainedModel(str(setup.options.recipe), setup.case.preset, setup.case.vision),
        environment=environment.describe_machine() | environment.conditions(),
        versions=environment.versions(),
        memory=memory,
    )


def _sources(setup: Setup, split: Samples) -> tuple[TrainingSource, ...]:
    """Return the sources of joined data, as records hold them; none of other data."""
    if not isinstance(split, Joined):
        return ()
    sources = []
    for source, samples in zip(setup.sources, split.sources, strict=True):
        sources.append(TrainingSource(source.name, len(samples), source.weight, **samples.origin))
    return tuple(sources)


def _open_folder(setup: Setup, manifest: TrainingManifest) -> None:
    """Make the folder of a new training, or check that the training in it can be resumed.

    One that was interrupted while its model was built has left no records, and begins anew.

    Raises:
        UsageError: the folder holds a run already, or a training of another configuration.
    """
    has_begun = holds_run(setup.folder) or not (setup.folder / TRAINING).exists()
    if not setup.options.resume or not has_begun:
        create(setup.folder, (TRAINING, EVALUATIONS))
        return
    before = dict(read_training(setup.folder).manifest.configuration)
    # An older release did not know every setting of today; it did what is the default now.
    before["case"] = asdict(LisaConfig()) | before["case"]
    before["options"] = default_configuration() | before["options"]
    if before["case"]["weights"] != setup.case.weights and _has_former_start(setup):
        before["case"]["weights"] = setup.case.weights
        before["options"]["weights"] = setup.options.weights
    differing = _differing(before, manifest.configuration)
    if differing:
        listed = ", ".join(sorted(differing))
        raise UsageError(
            f"{setup.folder} holds a training of another configuration ({listed}): "
            "give the same options again, or name a new --output_dir (to train longer, start a new "
            "one from --weights CHECKPOINT)"
        )


def _has_former_start(setup: Setup) -> bool:
    """Return whether the weights to start from are those of the last checkpoint, by their hash.

    They may have been moved meanwhile. A checkpoint with whole weights does not say.
    """
    last = Checkpoints(setup.checkpoints, lambda _: None).last()
    if last is None or setup.case.weights in (RANDOM, PACKAGED):
        return False
    start = weights_format.read(last).start
    return start is not None and start.weights_hash == stated(setup.case.weights).weights_hash


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    flat_before = _flat(before)
    flat_after = _flat(after)
    keys = []
    for key in flat_before | flat_after:
        if flat_before.get(key) != flat_after.get(key):
            keys.append(key)
    if DATA_OPTIONS.intersection(keys):
        keys = [key for key in keys if key not in FINGERPRINTS.values()]
    return [f"{key} was {flat_before.get(key)} and is {flat_after.get(key)}" for key in keys]


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value)
        else:
            flat[key] = value
    return flat


def _train(
    setup: Setup,
    accelerator: Accelerator,
    samples: Splits,
    journal: TrainingJournal,
    progress: Progress,
) -> None:
    """Build the model, make it trainable, and train it."""
    lisa = Lisa(setup.case, NullProbe(), for_training=True)
    if "bridge" in lisa.new_parts:
        refuse_random_bridge(setup.options, setup.case, setup.recipe)
    write = make_writer(setup, lisa, _origin(setup), accelerator.is_main_process)
    make_trainable(lisa.model, setup.case, setup.recipe.trains, lisa.tokenizer, setup.lora)
    if setup.options.gradient_checkpointing:
        _recompute_activations(lisa.model.llm)
    counts = trained_by_part(lisa.model)
    if accelerator.is_main_process:
        model = replace(
            journal.manifest.model, trained_parameters=counts, settings=dict(lisa.settings)
        )
        journal.begin(replace(journal.manifest, model=model))
        _print_trained(counts)
        for warning in _warnings(setup, lisa):
            terminal.note(f"warning: {warning}")

    checkpoints = Checkpoints(setup.checkpoints, write)
    trainer = Trainer(setup, accelerator, lisa, samples, journal, checkpoints, progress)
    trainer.run(_teacher(setup))


def _recompute_activations(llm: PreTrainedModel) -> None:
    """Have a language model keep its layers' inputs alone, and compute the rest again."""
    # What it says, that layers keep no cache meanwhile, is as it should be.
    logging.getLogger("transformers.modeling_layers").setLevel(logging.ERROR)
    # Older releases of transformers have the older name only.
    enable = getattr(llm, "activation_checkpointing_enable", llm.gradient_checkpointing_enable)
    # The reentrant kind computes no gradients if a layer's input needs none, as with frozen
    # embeddings.
    enable({"use_reentrant": False})


def _print_trained(counts: Mapping[str, int]) -> None:
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    terminal.note(f"training {sum(counts.values()):,} parameters: {parts}")


def _warnings(setup: Setup, lisa: Lisa) -> list[str]:
    warnings = list(lisa.warnings)
    trains_head = "embeddings" in setup.recipe.trains or "token_rows" in setup.recipe.trains
    if trains_head and not setup.losses.ce:
        warnings.append(
            "the language model's head is trained but learns nothing, because no loss is on the "
            "answer (--ce_weight is 0)"
        )
    return warnings


def _teacher(setup: Setup) -> SamVisionEncoder | None:
    """Return SAM's encoder with the weights of a dual, if the recipe distils it.

    Raises:
        UsageError: the teacher's weights have another SAM than the model.
    """
    if not setup.recipe.distils:
        return None
    weights = setup.options.teacher or setup.case.weights
    case = replace(
        setup.case,
        weights=weights,
        vision="dual",
        frame="whole",
        bridge="linear",
        quantization="none",
        quantized="llm",
    )
    dual = Lisa(case, NullProbe(), for_training=True)
    if "sam_encoder" in dual.new_parts:
        raise UsageError(
            f"the teacher ({weights}) has another SAM than sam={setup.case.sam}: "
            "set sam to the one that it has"
        )
    return cast(SamVisionEncoder, dual.model.get_submodule("encoder.sam_encoder"))


def _origin(setup: Setup) -> Origin:
    """Return where the trained weights come from, for their card."""
    options = setup.options
    data = f"generated scenes, split {options.split}"
    if setup.sources:
        data = ", ".join(f"{source.name}/{options.split}" for source in setup.sources)
    start = "random weights" if setup.case.weights == RANDOM else setup.case.weights
    description = (
        f"trained by the recipe {options.recipe} from {start} on {data}, seed {options.seed}"
    )
    splits: tuple[str, ...] = ()
    if options.data and options.split in EVALUATION_SPLITS:
        splits = (options.split,)
    return Origin(description, splits, command_of(options, setup.case))


def command_of(options: TrainingOptions, case: LisaConfig) -> str:
    """Return the command line of the same training in a new folder."""
    words = ["lisabench", "train"]
    switches = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in ("output_dir", "resume"):
            continue
        if value is True:
            switches.append(f"--{field.name}")
        elif isinstance(value, list):
            words += [f"--{field.name}={item}" for item in value]
        elif value is not False and value != field.default:
            words.append(f"--{field.name}={value}")
    words += switches
    for field in fields(case):
        value = getattr(case, field.name)
        if field.name not in SETTINGS_WITH_OPTION and value != field.default:
            words.append(f"--set={field.name}={value}")
    return shlex.join(words)
