"""From the options of ``lisabench train`` to a setup: model settings, recipe and losses."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...datasets.joined import Joined
from ...datasets.opening import located, open_samples
from ...datasets.samples import TEXTS, Samples
from ...datasets.scenes.cache import embedded
from ...harness.errors import DataError, UsageError, unknown, validation_problems
from ...harness.input_file import read_text
from ...harness.paths import user_path, user_source
from ...harness.records.training import TrainingSetup
from ...harness.yaml_file import read_yaml
from ...models.lisa.config import LisaConfig
from ...models.lisa.weights_format import PACKAGED, RANDOM, stated
from ...models.registry import make_case
from ...models.training.recipes import (
    EVERYTHING,
    IGNORED,
    LOSSES,
    PARTS,
    RECIPES,
    VARIANTS,
    LoraSettings,
    LossWeights,
    Recipe,
)
from ..progress import shown
from .mixture import Source, sources_of
from .options import SEPARATE_MODELS, TrainingOptions, canonical
from .trackers import trackers_named

# How many synthetic scenes are generated if no number and no data are given.
TRAIN_SCENES, VAL_SCENES = 1000, 200
# What is taken if neither an option nor the recipe says otherwise.
DEFAULTS = {"epochs": 3, "batch_size": 4, "weight_decay": 0.0}
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit")
# Those of transformers' ``get_scheduler`` that need no further settings and no evaluation. Ours is
# linear, see `schedule.py`.
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
    "constant",
    "constant_with_warmup",
)
# Options that change neither what is learned nor what is measured; a training may be resumed with
# others.
NOT_OF_THE_CONFIGURATION = {
    "resume",
    "output_dir",
    "checkpoint_dir",
    "save_steps",
    "save_strategy",
    "save_merged",
    "save_every",
    "eval_steps",
    "early_stopping_patience",
    "logging_steps",
    "report_to",
    "dataloader_num_workers",
    "gpu_memory",
}


@dataclass(frozen=True)
class Setup:
    """What a training does, with every choice made.

    Attributes:
        options: the options, all defaults filled in.
        case: the model's settings.
        recipe: what is trained.
        losses: what is minimised.
    """

    options: TrainingOptions
    case: LisaConfig
    recipe: Recipe
    losses: LossWeights

    @property
    def folder(self) -> Path:
        """The folder of the training's records."""
        return Path(self.options.output_dir or "")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.options.checkpoint_dir or self.folder / "checkpoints"

    @property
    def lora(self) -> LoraSettings:
        """How LoRA changes the language model, if the recipe trains it.

        Raises:
            UsageError: a layer is unknown.
        """
        options = self.options
        targets = [target.strip() for target in options.lora_target_modules.split(",")]
        return LoraSettings(
            options.lora_r, options.lora_alpha, options.lora_dropout, tuple(filter(None, targets))
        )

    @property
    def saves_whole_weights(self) -> bool:
        """Whether checkpoints hold whole weights, and not what was learned with a pointer."""
        writes_none = self.options.save_strategy == "no"
        return self.options.save_merged or writes_none or EVERYTHING in self.recipe.trains

    def recorded(self) -> TrainingSetup:
        """Return the setup as the manifest records it."""
        options: dict[str, Any] = {}
        for name, value in asdict(self.options).items():
            options[name] = str(value) if isinstance(value, Path) else value
        if self.options.data is not None and len(self.options.data) == 1:
            (options["data"],) = self.options.data  # as before there could be several
        return TrainingSetup(
            options=options,
            case=asdict(self.case),
            trains=self.recipe.trains,
            losses=asdict(self.losses),
        )

    def configuration(self) -> dict[str, Any]:
        """Return what must be the same when a training is resumed."""
        configuration = asdict(self.recorded())
        configuration["trains"] = list(self.recipe.trains)
        for name in NOT_OF_THE_CONFIGURATION:
            del configuration["options"][name]
        return configuration

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of the data to train on; none for generated scenes."""
        return sources_of(self.options.data or ())

    def train_samples(self) -> Samples:
        """Return the split to train on: of all sources, one after the other."""
        options = self.options
        limit = options.max_train_samples
        if not self.sources:
            return _scenes(options.split, limit or TRAIN_SCENES)
        opened = []
        for source in self.sources:
            opened.append(_samples(source.location, options.split, limit, options.texts))
        return opened[0] if len(opened) == 1 else Joined(opened)

    @property
    def evaluation_data(self) -> str | None:
        """The data to evaluate on; None for generated scenes."""
        if self.options.val_data is not None:
            return self.options.val_data
        return self.sources[0].location if self.sources else None

    def val_samples(self) -> Samples:
        """Return the split to evaluate on: its first wordings, as in the original's validation."""
        options = self.options
        limit = options.max_val_samples
        data = self.evaluation_data
        if data is None:
            return _scenes(options.val_split, limit or VAL_SCENES)
        return _samples(data, options.val_split, limit)


def _samples(source: str, split: str, limit: int | None, texts: str = "first") -> Samples:
    with shown() as progress:
        root = located(source, split, progress)
    return open_samples(root, split, texts, limit)


def _scenes(split: str, count: int) -> Samples:
    return open_samples(embedded(split, count, 0), split)


def default_configuration() -> dict[str, Any]:
    """Return the defaults of the options that must be the same when a training is resumed."""
    defaults = asdict(TrainingOptions())
    return {name: defaults[name] for name in defaults if name not in NOT_OF_THE_CONFIGURATION}


def resolve_setup(given: Mapping[str, Any]) -> Setup:
    """Return the setup of a training: check the options that were given, and fill in the others.

    Args:
        given: options by name. ``config`` may name a YAML file of further options, and ``changes``
            or ``set`` hold settings of the model that have no option of their own. An option that
            was given comes before the file's.

    Raises:
        UsageError: an unknown option or name, or options that contradict each other.
    """
    file_options = _read_file(given["config"]) if "config" in given else {}
    given_options = {name: given[name] for name in given if name not in ("config", "changes")}
    file_options, given_options = canonical(file_options), canonical(given_options)
    for options_of_one in (file_options, given_options):
        if isinstance(options_of_one.get("data"), str):
            options_of_one["data"] = [options_of_one["data"]]
    _refuse_separate_models(file_options | given_options)
    settings = {
        **_take_settings(file_options),
        **_take_settings(given_options),
        **given.get("changes", {}),
    }
    options = _fill_in(_checked_options(file_options | given_options))
    recipe = RECIPES[str(options.recipe)]
    case = _case(options, recipe, settings)
    _refuse_impossible(options, case, recipe)
    setup = Setup(options, case, recipe, _losses(options, recipe))
    _ = setup.lora  # refuses unknown layers
    return setup


def _refuse_separate_models(given: Mapping[str, Any]) -> None:
    """Refuse the models that the modified LISA's tool puts together when it starts.

    Raises:
        UsageError: has the command that puts them together.
    """
    if not any(name in given for name in SEPARATE_MODELS):
        return
    vlm = shlex.quote(str(given.get("vlm_name", "LLAVA")))
    sam = shlex.quote(str(given.get("sam_name", "SAM")))
    raise UsageError(
        "a training starts from one folder, and not from vlm_name and sam_name: put them together "
        f"once with `lisabench convert {vlm} START --sam {sam} --conditioning described`, and give "
        "--weights START"
    )


def _read_file(path: Path) -> dict[str, Any]:
    name = f"--config {path}"
    try:
        content = read_yaml(read_text(user_path(path)), name)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{name}: expected a table of options, such as `epochs: 20`")
    return content


def _take_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Take ``set`` out of some options, and return it."""
    settings = options.pop("set", None)
    if not settings:
        return {}
    if not isinstance(settings, Mapping):
        raise UsageError(
            f"set: expected a table of settings, such as `quantized: llm`, not {settings!r}"
        )
    return dict(settings)


def _checked_options(given: Mapping[str, Any]) -> TrainingOptions:
    """Return the options that were given, each checked by itself."""
    known = {field.name for field in fields(TrainingOptions)}
    for name, value in given.items():
        if name not in known:
            raise unknown("option", name, known)
        is_list = isinstance(value, list | tuple)
        if value == "" or (is_list and "" in value):
            raise UsageError(f"options of training: {name} is empty; give a value, or leave it out")
    try:
        options = TypeAdapter(TrainingOptions).validate_python(dict(given))
    except ValidationError as error:
        problems = validation_problems(error, with_values=True)
        raise UsageError(f"options of training: {problems}") from error

    choices = (
        ("recipe", options.recipe, (*RECIPES, None)),
        ("choice of losses", options.losses, (*LOSSES, None)),
        ("choice of texts", options.texts, TEXTS),
        ("choice for ignored pixels", options.ignored, IGNORED),
        ("optimiser", options.optim, OPTIMIZERS),
        ("schedule of the learning rate", options.lr_scheduler_type, SCHEDULES),
        ("save_strategy", options.save_strategy, ("epoch", "no")),
    )
    for kind, value, allowed in choices:
        if value not in allowed:
            raise unknown(kind, value, [name for name in allowed if name])
    trackers_named(options.report_to)  # refuses unknown ones, and those that are not installed
    paths: dict[str, Any] = {}
    if options.data is not None:
        sources_of(options.data)
        paths["data"] = [user_source(text) for text in options.data]
    if options.val_data is not None:
        paths["val_data"] = user_source(options.val_data)
    for name, value in vars(options).items():
        if isinstance(value, Path):
            paths[name] = user_path(value)
    return replace(options, **paths)


def _fill_in(options: TrainingOptions) -> TrainingOptions:
    """Return the options with a value for each that depends on others.

    Raises:
        UsageError: options contradict each other.
    """
    if options.use_vlm_vision and options.vision not in (None, "clip"):
        raise UsageError(
            f"--use_vlm_vision means --vision clip, but --vision {options.vision} was given too: "
            "take one of them"
        )
    if options.resume and (options.output_dir is None or not options.output_dir.is_dir()):
        raise UsageError(
            f"--resume needs the folder of a training: --output_dir DIR, not {options.output_dir}"
        )
    recipe = options.recipe or "original"
    vision = "clip" if options.use_vlm_vision else options.vision
    saved = None if options.weights in (RANDOM, PACKAGED) else stated(options.weights)
    preset = options.preset or (saved.preset if saved else "tiny")
    if vision is None:
        variants = RECIPES[recipe].variants
        vision = saved.vision if saved and saved.vision in variants else variants[0]
    # A tiny model trains on a CPU, where 16-bit arithmetic is slow. At full size, 8 GB hold a
    # quantised model only.
    tiny = preset == "tiny"
    dtype = options.dtype or ("fp32" if tiny else "bf16")
    quantization = options.quantization or ("none" if tiny else "nf4")
    if options.no_quantization:
        quantization = "none"
    default_folder = Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}"
    defaults = {**DEFAULTS, **RECIPES[recipe].defaults}
    of_the_recipe: dict[str, Any] = {}
    for name, default in defaults.items():
        if getattr(options, name) is None:
            of_the_recipe[name] = default
    return replace(
        options,
        **of_the_recipe,
        recipe=recipe,
        preset=preset,
        vision=vision,
        dtype=dtype,
        quantization=quantization,
        output_dir=options.output_dir or default_folder,
    )


def _case(options: TrainingOptions, recipe: Recipe, changes: Mapping[str, Any]) -> LisaConfig:
    """Return the model's settings: those of the options and the recipe, then the changes.

    Raises:
        UsageError: an unknown setting or value, or a change of a setting that the recipe fixes.
    """
    if options.vision in VARIANTS and options.vision not in recipe.variants:
        variants = " or ".join(f"--vision {vision}" for vision in recipe.variants)
        raise UsageError(
            f"the recipe {options.recipe} is not for --vision {options.vision}: it needs {variants}"
        )
    settings = {
        "preset": options.preset,
        "weights": options.weights,
        "vision": options.vision,
        "device": options.device,
        "precision": options.dtype,
        "quantization": options.quantization,
        "seed": options.seed,
    }
    settings |= recipe.settings(str(options.vision), str(options.quantization))
    case = make_case("lisa", settings | dict(changes), for_training=True)
    for name, value in recipe.axes.items():
        if getattr(case, name) != value:
            raise UsageError(
                f"the recipe {options.recipe} has {name}={value}, not {getattr(case, name)}: "
                "leave it as it is, or take the recipe with-projector"
            )
    return case


def _losses(options: TrainingOptions, recipe: Recipe) -> LossWeights:
    """Return the losses by their name, with the weights that were given by themselves."""
    weights = LOSSES[options.losses or recipe.losses]
    given = {}
    for loss in fields(LossWeights):
        weight = getattr(options, f"{loss.name}_weight")
        if weight is not None:
            given[loss.name] = weight
    return replace(weights, **given)


def _refuse_impossible(options: TrainingOptions, case: LisaConfig, recipe: Recipe) -> None:
    if options.recipe == "described" and case.bridge != "linear":
        raise UsageError(
            f"the recipe described has a linear bridge, not bridge={case.bridge}: "
            "take the recipe with-projector"
        )
    defaults = asdict(TrainingOptions())
    lora = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
    changed = [name for name in lora if getattr(options, name) != defaults[name]]
    if changed and "lora" not in recipe.trains:
        raise UsageError(
            f"--{changed[0]} is for a recipe with LoRA, and {options.recipe} has none: "
            "take --recipe original, or leave it out"
        )
    is_random = case.weights == RANDOM
    if is_random:
        refuse_random_bridge(options, case, recipe)
    if case.answer != "forced" or case.execution not in ("auto", "eager") or case.reuse != "off":
        raise UsageError(
            "training forces the answer and runs eagerly: "
            "leave answer, execution and reuse as they are"
        )
    # Quantised weights are saved as the start's files have them, and random weights are in no file.
    saves = options.save_strategy != "no"
    if is_random and saves and options.quantization != "none":
        raise UsageError(
            "random weights that are quantised cannot be saved: "
            "add --no_quantization, or --save_strategy no"
        )


def refuse_random_bridge(options: TrainingOptions, case: LisaConfig, recipe: Recipe) -> None:
    """Refuse to train around a bridge that is random and stays so.

    Nothing could be learned about the image.

    Raises:
        UsageError: the variant has a bridge, and the recipe does not train it.
    """
    trains_bridge = EVERYTHING in recipe.trains
    for name in recipe.trains:
        if "bridge" in PARTS.get(name, ()):
            trains_bridge = True
    if case.vision != "dual" and not trains_bridge:
        raise UsageError(
            f"the recipe {options.recipe} does not train the bridge of --vision {case.vision}, "
            "which is random: add --recipe described, or another recipe that "
            "`lisabench list recipes` shows with the bridge"
        )


def check_targets(samples: Samples) -> None:
    """Check that there is something to learn.

    Raises:
        DataError: no query has a target.
    """
    for sample in samples:
        if (sample.target_HW == 1).any():
            return
    raise DataError(
        f"{samples[0].source.parent}: none of its {len(samples)} queries has a target to learn from"
    )
