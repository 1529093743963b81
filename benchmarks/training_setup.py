"""From what was said to what is trained: options with nothing left open, the model's case, its recipe, its losses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ..datasets.embedded import embedded
from ..datasets.reasonseg import ReasonSeg
from ..harness.errors import DataError, UsageError, unknown
from ..models.axes import LisaCase
from ..models.recipes import IGNORED, LOSSES, RECIPES, LossWeights, Recipe
from ..models.registry import make_case
from .training_options import TrainingOptions

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
    case: LisaCase
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
        kept = {name: value for name, value in recorded["options"].items() if name not in NOT_OF_THE_CONFIGURATION}
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
    """Checks what was said, and fills in the rest.

    Args:
        said: options by name, with ``config`` and ``changes`` as `training_options.command` gives them.

    Raises:
        UsageError: an unknown option or name, or options that contradict each other.
    """
    given = {name: value for name, value in said.items() if name not in ("config", "changes")}
    options = _filled(_read(said["config"]) | given if "config" in said else given)
    _check(options)
    axes = {"preset": options.preset, "weights": options.weights, "vision": options.vision, "device": options.device}
    axes |= {"precision": options.dtype, "quantization": options.quantization, "seed": options.seed}
    case = make_case("lisa", axes | dict(said.get("changes", {})))
    recipe = RECIPES[str(options.recipe)]
    _refuse_impossible(options, case, recipe)
    return Setup(options, case, recipe, _losses(options, recipe))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected a table of options, such as `epochs: 20`")
    return content


def _filled(given: Mapping[str, Any]) -> TrainingOptions:
    known = {field.name for field in fields(TrainingOptions)}
    for name in given:
        if name not in known:
            raise unknown("option", name, known)
    try:
        options = TypeAdapter(TrainingOptions).validate_python(dict(given))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}" for e in error.errors())
        raise UsageError(f"options of training: {problems}") from error
    if options.use_vlm_vision and options.vision == "sam":
        raise UsageError("--use_vlm_vision is --vision clip, and --vision sam was asked for too: take one of them")
    tiny = options.preset == "tiny"
    vision = "clip" if options.use_vlm_vision else options.vision
    return replace(
        options,
        vision=vision,
        dtype=options.dtype or ("fp32" if tiny else "bf16"),
        quantization="none" if options.no_quantization else options.quantization or ("none" if tiny else "nf4"),
        recipe=options.recipe or ("original" if vision == "dual" else "described"),
        output_dir=options.output_dir or Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}",
    )


def _check(options: TrainingOptions) -> None:
    named = {
        "recipe": (options.recipe, RECIPES),
        "choice of losses": (options.losses, (*LOSSES, None)),
        "choice for ignored pixels": (options.ignored, IGNORED),
        "optimiser": (options.optim, OPTIMS),
        "save_strategy": (options.save_strategy, ("epoch", "no")),
    }
    for kind, (value, known) in named.items():
        if value not in known:
            raise unknown(kind, value, [name for name in known if name])
    if options.resume and (options.output_dir is None or not options.output_dir.is_dir()):
        raise UsageError(f"--resume needs the folder of a training: --output_dir DIR, not {options.output_dir}")


def _refuse_impossible(options: TrainingOptions, case: LisaCase, recipe: Recipe) -> None:
    if recipe.distils and case.vision != "clip":
        raise UsageError(f"the recipe {options.recipe} teaches CLIP's features to be SAM's: it needs --vision clip")
    if case.answer != "forced" or case.execution != "eager" or case.reuse != "off":
        raise UsageError("training forces the answer and runs eagerly: leave answer, execution and reuse as they are")
    if options.quantization != "none" and case.weights == "random" and options.save_strategy != "no":
        raise UsageError(
            "random weights that are quantised cannot be saved: add --no_quantization, or --save_strategy no"
        )


def _losses(options: TrainingOptions, recipe: Recipe) -> LossWeights:
    weights = LOSSES[options.losses or recipe.losses]
    said = {name: getattr(options, f"{name}_weight") for name in ("ce", "bce", "dice", "iou")}
    return replace(weights, **{name: weight for name, weight in said.items() if weight is not None})


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


def check_targets(samples: ReasonSeg) -> None:
    """
    Raises:
        DataError: no query has a target, so that there is nothing to learn.
    """
    if not any((sample.target_HW == 1).any() for sample in samples):
        raise DataError(f"{samples[0].source.parent}: none of its {len(samples)} queries has a target to learn from")
