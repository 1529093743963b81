"""Where a LISA's weights come from: random numbers, or a folder in our layout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from ...harness.errors import DataError
from ..lisa import llama_tokenizer, stated_settings, tokenizer, weights_format
from ..lisa.config import LisaConfig
from ..lisa.parts import Make
from ..lisa.presets import Preset
from ..lisa.prompts import added_tokens
from .loaded_parts import POSITIONS, LoadedParts, interpolated
from .random_parts import RandomParts

TOKENIZER_FILES = (
    tokenizer.FILE,
    llama_tokenizer.MODEL_FILE,
    llama_tokenizer.ADDED_FILE,
    llama_tokenizer.SPECIAL_FILE,
)


@dataclass(frozen=True)
class Source:
    """What a `Lisa` is built from.

    Attributes:
        make: makes each part, on its device and in its precision.
        tokenizer: the one that the weights were trained with.
        preset: the sizes; those of the language model are the weights' own.
        has_quality: False for random weights.
        weights_hash: hash of the weights that were read; None for random weights, which the seed
            determines.
        weights_source: where they come from, as their folder says, such as the id of a release;
            None for random weights.
        warnings: what a reader of the results must know about the weights, one sentence each.
        new_parts: names of the parts that are random although the others are read; empty if all are
            random.
        weight_transforms: functions that are applied to weights as they are read, by the weights'
            names in `LisaModel`.
    """

    make: Make
    tokenizer: tokenizer.Tokens
    preset: Preset
    has_quality: bool
    weights_hash: str | None = None
    weights_source: str | None = None
    warnings: tuple[str, ...] = ()
    new_parts: frozenset[str] = frozenset()
    weight_transforms: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


def open_source(case: LisaConfig, device: str, for_training: bool = False) -> Source:
    """Return the source of a case's weights.

    Args:
        case: names the weights.
        device: "cpu" or "cuda", where the parts are made.
        for_training: the model is a start of a training. The bridge and the projection of [SEG] may
            then be new and random, SAM's encoder too if the mask decoder fits it, and CLIP may read
            images of another side.

    Raises:
        UsageError: there are no such weights, or they do not fit the case.
        DataError: the weights are incomplete or broken, or the hub cannot be reached.
    """
    saved = case.saved
    if saved is not None:
        # First, because the folder may be gigabytes on the hub.
        stated_settings.refuse_misfit(case, saved, for_training)
    weights = case.weights_folder
    if saved is None or weights is None:
        # The tiny tokenizer serves all sizes: with random weights, only the length of a prompt
        # matters.
        tokens = tokenizer.PromptTokenizer(tokenizer.load("tiny"))
        return Source(RandomParts(case, device), tokens, case.sizes, has_quality=False)

    folder = weights.folder
    sizes = stated_settings.sizes_of(case, saved)
    tokens = _read_tokenizer(folder, saved, case.conditioning)
    if for_training:
        new_parts = _new_parts(case, device, saved)
        warnings = _warnings_of_a_start(case, saved, new_parts)
    else:
        new_parts = {}
        warnings = stated_settings.warnings_of_other_use(case, saved)
    weight_transforms: dict[str, Callable[[Tensor], Tensor]] = {}
    if sizes.clip.patches != saved.sizes.clip.patches:
        weight_transforms[POSITIONS] = partial(interpolated, grid=sizes.clip.grid)
    return Source(
        make=LoadedParts(weights, case, device, new_parts, weight_transforms),
        tokenizer=tokens,
        preset=sizes,
        has_quality=saved.trained,
        weights_hash=saved.weights_hash,
        weights_source=saved.source,
        warnings=(*saved.warnings, *warnings),
        new_parts=frozenset(new_parts),
        weight_transforms=weight_transforms,
    )


def _new_parts(case: LisaConfig, device: str, saved: weights_format.Saved) -> dict[str, Make]:
    """Return what makes the parts that the weights lack, or have in another form: random ones."""
    differs = {
        "bridge": (case.vision, case.bridge) != (saved.vision, saved.bridge),
        "seg_projection": case.seg_head != saved.seg_head,
        "sam_encoder": case.vision != "clip" and case.sizes.sam != saved.sizes.sam,
    }
    return {name: RandomParts(case, device) for name in differs if differs[name]}


def _warnings_of_a_start(
    case: LisaConfig, saved: weights_format.Saved, new_parts: Mapping[str, Make]
) -> list[str]:
    warnings = []
    if "sam_encoder" in new_parts:
        warnings.append(
            "SAM's encoder is new and random, because these weights have another one;"
            " use a recipe that trains it"
        )
    described_rows = case.sizes.llama.vocabulary
    rows = saved.sizes.llama.vocabulary
    if case.conditioning == "described" and rows > described_rows:
        warnings.append(
            f"the vocabulary has {rows:,} rows, and the described model has {described_rows:,}: "
            "these weights have tokens that the described prompt does not use; "
            "start from `lisabench convert --conditioning described`"
        )
    return warnings


def _read_tokenizer(
    folder: Path, saved: weights_format.Saved, conditioning: str
) -> tokenizer.Tokens:
    """Return the weights' own tokenizer.

    A model that is evaluated on other ids than it was trained on would be a confound.

    Raises:
        DataError: the tokenizer has more tokens than the weights have rows.
    """
    if (folder / tokenizer.FILE).exists():
        tokens: tokenizer.Tokens = tokenizer.read(folder)
    else:
        tokens = llama_tokenizer.load(folder, added_tokens(conditioning))
    rows = saved.sizes.llama.vocabulary
    if tokens.size > rows:
        raise DataError(
            f"the tokenizer in {folder} has {tokens.size} tokens, but the weights have {rows} "
            "rows: the tokenizer belongs to another model; "
            "convert the weights again with their own tokenizer"
        )
    return tokens
