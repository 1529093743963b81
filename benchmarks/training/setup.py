"""From what was said to what is trained: options with nothing left open, the model's case, its recipe, its losses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ...datasets.reasonseg import ReasonSeg
from ...datasets.scenes.cache import embedded
from ...harness.errors import DataError, UsageError, unknown
from ...models.lisa.config import LisaConfig
from ...models.registry import make_case
from ...models.training.recipes import (
    EVERYTHING,
    IGNORED,
    LOSSES,
    PARTS,
    RECIPES,
    VARIANTS,
    LossWeights,
    Recipe,
)
from .options import TrainingOptions

SCENES = {"train": 1000, "val": 200}
OPTIMS = ("adamw", "adamw_8bit", "paged_adamw_8bit")
NOT_OF_THE_CONFIGURATION = {
    "resume", "output_dir", "checkpoint_dir", "save_steps", "save_strategy", "dataloader_num_workers", "gpu_memory",
}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What is trained.

    Attributes:
        options: as said, the rest by default, nothing left open.
        case: the model.
        recipe: what of it learns.
        losses: what it minimises.
    """

    options: TrainingOptions
    case: LisaConfig
    recipe: Recipe
    losses: LossWeights

    @property
    def folder(self) -> Path:
        return Path(self.options.output_dir or "")

    @property
    def checkpoints(self) -> Path:
        return self.options.checkpoint_dir or self.folder / "checkpoints"

    def recorded(self) -> dict[str, Any]:
        """As it stands in ``run.json``: JSON throughout."""
        return {
            "options": _plain(asdict(self.options)),
            "case": asdict(self.case),
            "trains": list(self.recipe.trains),
            "losses": asdict(self.losses),
        }

    def configuration(self) -> dict[str, Any]:
        """What must not differ between a training and its resumption."""
        recorded = self.recorded()
        kept = {
            name: value
            for name, value in recorded["options"].items()
            if name not in NOT_OF_THE_CONFIGURATION
        }
        return {**recorded, "options": kept}

    def train_samples(self) -> ReasonSeg:
        return self._samples(self.options.split, self.options.max_train_samples, "train")

    def val_samples(self) -> ReasonSeg:
        return self._samples(self.options.val_split, self.options.max_val_samples, "val")

    def _samples(self, split: str, most: int | None, usual: str) -> ReasonSeg:
        if self.options.data:
            return ReasonSeg(self.options.data, split, limit=most)
        count = most or SCENES[usual]
        return ReasonSeg(embedded(split, count, 0), split)


def setup(said: Mapping[str, Any]) -> Setup:
    """Check the options of a training, and fill in the rest.

    Args:
        said: options by name, with ``config`` and ``changes`` as `training_options.command` gives them; or with ``set``
            in place of ``changes``, as a YAML file has it.

    Raises:
        UsageError: an unknown option or name, or options that contradict each other.
    """
    from_file = _read(said["config"]) if "config" in said else {}
    given = {name: value for name, value in said.items() if name not in ("config", "changes")}
    changes = {
        **_further_settings(from_file),
        **_further_settings(given),
        **said.get("changes", {}),
    }
    options = _filled(from_file | given)
    recipe = RECIPES[str(options.recipe)]
    case = _case(options, recipe, changes)
    _refuse_impossible(options, case, recipe)
    return Setup(options, case, recipe, _losses(options, recipe))


def _case(options: TrainingOptions, recipe: Recipe, changes: Mapping[str, Any]) -> LisaConfig:
    """Return the model: the settings that follow from the options and the recipe, and the further changes.

    Raises:
        UsageError: an unknown setting or value, or a change of what the recipe settles.
    """
    if options.vision in VARIANTS and options.vision not in recipe.variants:
        variants = " or ".join(f"--vision {vision}" for vision in recipe.variants)
        raise UsageError(
            f"the recipe {options.recipe} is not for --vision {options.vision}: it needs {variants}"
        )
    axes = {
        "preset": options.preset,
        "weights": options.weights,
        "vision": options.vision,
        "device": options.device,
        "precision": options.dtype,
        "quantization": options.quantization,
        "seed": options.seed,
    }
    axes |= recipe.settings(str(options.vision), str(options.quantization))
    case = make_case("lisa", axes | dict(changes))
    for axis, value in recipe.axes.items():
        if getattr(case, axis) != value:
            raise UsageError(
                f"the recipe {options.recipe} has {axis}={value}, not {getattr(case, axis)}: "
                "leave it as it is, or take the recipe with-projector"
            )
    return case


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected a table of options, such as `epochs: 20`")
    return content


def _further_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Take ``set`` out of options, and return it."""
    changes = options.pop("set", None) or {}
    if not isinstance(changes, Mapping):
        raise UsageError(
            f"set: expected a table of settings, such as `quantized: llm`, not {changes!r}"
        )
    return dict(changes)


def _filled(given: Mapping[str, Any]) -> TrainingOptions:
    known = {field.name for field in fields(TrainingOptions)}
    for name in given:
        if name not in known:
            raise unknown("option", name, known)
    try:
        options = TypeAdapter(TrainingOptions).validate_python(dict(given))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}"
            for e in error.errors()
        )
        raise UsageError(f"options of training: {problems}") from error
    if options.use_vlm_vision and options.vision not in (None, "clip"):
        raise UsageError(
            f"--use_vlm_vision is --vision clip, and --vision {options.vision} was asked for too: take one of them"
        )
    _check(options)
    tiny = options.preset == "tiny"
    recipe = options.recipe or "original"
    return replace(
        options,
        vision="clip" if options.use_vlm_vision else options.vision or RECIPES[recipe].variants[0],
        dtype=options.dtype or ("fp32" if tiny else "bf16"),
        quantization="none"
        if options.no_quantization
        else options.quantization or ("none" if tiny else "nf4"),
        recipe=recipe,
        output_dir=options.output_dir or Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}",
    )


def _check(options: TrainingOptions) -> None:
    named = {
        "recipe": (options.recipe, (*RECIPES, None)),
        "choice of losses": (options.losses, (*LOSSES, None)),
        "choice for ignored pixels": (options.ignored, IGNORED),
        "optimiser": (options.optim, OPTIMS),
        "save_strategy": (options.save_strategy, ("epoch", "no")),
    }
    for kind, (value, known) in named.items():
        if value not in known:
            raise unknown(kind, value, [name for name in known if name])
    if options.resume and (options.output_dir is None or not options.output_dir.is_dir()):
        raise UsageError(
            f"--resume needs the folder of a training: --output_dir DIR, not {options.output_dir}"
        )


def _refuse_impossible(options: TrainingOptions, case: LisaConfig, recipe: Recipe) -> None:
    if options.recipe == "described" and case.bridge != "linear":
        raise UsageError(
            f"the recipe described has a linear bridge, not bridge={case.bridge}: take the recipe with-projector"
        )
    if case.weights == "random":
        refuse_random_bridge(options, case, recipe)
    if case.answer != "forced" or case.execution != "eager" or case.reuse != "off":
        raise UsageError(
            "training forces the answer and runs eagerly: leave answer, execution and reuse as they are"
        )
    if (
        options.quantization != "none"
        and case.weights == "random"
        and options.save_strategy != "no"
    ):
        raise UsageError(
            "random weights that are quantised cannot be saved: add --no_quantization, or --save_strategy no"
        )


def refuse_random_bridge(options: TrainingOptions, case: LisaConfig, recipe: Recipe) -> None:
    """Refuse to train around a bridge that is at random and stays so: nothing could be learned of the image.

    Raises:
        UsageError: the variant has such a bridge, and the recipe does not train it.
    """
    trains_bridge = EVERYTHING in recipe.trains or any(
        "bridge" in PARTS.get(name, ()) for name in recipe.trains
    )
    if case.vision != "dual" and not trains_bridge:
        raise UsageError(
            f"the recipe {options.recipe} does not train the bridge of --vision {case.vision}, which is at random: "
            "add --recipe described, or another that `lisabench list recipes` shows with the bridge"
        )


def _losses(options: TrainingOptions, recipe: Recipe) -> LossWeights:
    weights = LOSSES[options.losses or recipe.losses]
    said = {name: getattr(options, f"{name}_weight") for name in ("ce", "bce", "dice", "iou")}
    return replace(weights, **{name: weight for name, weight in said.items() if weight is not None})


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }


def check_targets(samples: ReasonSeg) -> None:
    """
    Raises:
        DataError: no query has a target, so that there is nothing to learn.
    """
    if not any((sample.target_HW == 1).any() for sample in samples):
        raise DataError(
            f"{samples[0].source.parent}: none of its {len(samples)} queries has a target to learn from"
        )
