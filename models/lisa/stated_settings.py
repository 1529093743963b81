"""What weights say of themselves, applied to the settings of a case that uses them.

Cheap to import, and of weights on the hub only ``config.json`` is fetched: what does not fit is
refused before gigabytes are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from ...harness.errors import UsageError
from . import packaged, weights_format
from .presets import Preset

# Weights work with other values of these than they were trained with, but worse.
ONLY_WARNED_OF = ("template", "conditioning", "frame")


class Settings(Protocol):
    """A `LisaConfig`, which imports this module: what is read of it here, beside ``getattr``."""

    @property
    def weights(self) -> str: ...

    @property
    def vision(self) -> str: ...

    @property
    def sizes(self) -> Preset: ...


def filled(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings together with those that their weights state; what is given is kept.

    Args:
        given: settings of a `LisaConfig`, by the user, a suite or a sweep.

    Raises:
        UsageError: there are no such weights, or they are of another preset.
        DataError: they are not of our layout, or the hub cannot be reached.
    """
    weights = given.get("weights", weights_format.RANDOM)
    if not isinstance(weights, str) or weights in ("", weights_format.RANDOM):
        return given
    if weights == weights_format.PACKAGED:
        saved = packaged.chosen(given)
    else:
        saved = weights_format.stated(weights)
        # The sizes of one preset mean nothing for another, so nothing else is filled in.
        preset = given.get("preset", saved.preset)
        if preset != saved.preset:
            raise UsageError(
                f"the weights in {weights} are of preset={saved.preset}, not {preset}: "
                f"set preset={saved.preset}, or leave it out"
            )
    settings = {}
    for name, value in saved.settings.items():
        if _applies(name, given, saved):
            settings[name] = value
    return {**settings, **given}


def _applies(name: str, given: Mapping[str, Any], saved: weights_format.Saved) -> bool:
    """Return whether a stated setting means something beside what is given.

    Another variant, or another side of CLIP's images, may be given, since a training may start from
    the weights.
    """
    vision = given.get("vision", saved.vision)
    if name in ("bridge", "frame"):
        return vision == saved.vision
    if name == "clip_px":
        return vision != "sam"
    if name == "image_tokens":
        stated_px = saved.settings["clip_px"]
        return vision != "sam" and given.get("clip_px", stated_px) == stated_px
    return True


def sizes_of(case: Settings, saved: weights_format.Saved) -> Preset:
    """Return the case's sizes, with the vocabulary, context and epsilon of the saved model."""
    sizes = case.sizes
    llama = replace(
        sizes.llama,
        vocabulary=saved.sizes.llama.vocabulary,
        context=saved.sizes.llama.context,
        norm_epsilon=saved.sizes.llama.norm_epsilon,
    )
    return replace(sizes, llama=llama)


def refuse_misfit(case: Settings, saved: weights_format.Saved, for_training: bool = False) -> None:
    """Refuse weights that cannot be used with these settings.

    Args:
        case: the settings.
        saved: what the weights say of themselves.
        for_training: they are a start of a training, which may make parts anew.

    Raises:
        UsageError: they are of other sizes, or have another projection of [SEG] or another bridge.
    """
    sizes = sizes_of(case, saved)
    compared_sizes = _sizes_before_a_start(sizes, saved.sizes) if for_training else sizes
    if compared_sizes != saved.sizes:
        saved_settings = {"preset": saved.preset, **saved.size_settings}
        case_settings = {name: getattr(case, name) for name in saved_settings}
        raise UsageError(
            f"weights={case.weights} are not of {weights_format.settings_text(case_settings)}:"
            f" set {weights_format.settings_text(saved_settings)}, or leave them out"
            f" ({saved.sizes} instead of {case.sizes})"
        )
    if for_training:
        return
    compared = ["seg_head"]
    if case.vision == saved.vision:
        compared.append("bridge")
    for name in compared:
        saved_value = getattr(saved, name)
        case_value = getattr(case, name)
        if case_value != saved_value:
            raise UsageError(
                f"weights={case.weights} have {name}={saved_value}, not {case_value}:"
                f" set {name}={saved_value}, or leave it out"
            )


def _sizes_before_a_start(sizes: Preset, saved: Preset) -> Preset:
    """Return `sizes` with the saved values of what a start of a training may change.

    It may change CLIP's grid, because position embeddings can be interpolated, and SAM's encoder,
    if the mask decoder stays the same.
    """
    clip = replace(sizes.clip, image_px=saved.clip.image_px, token_grid=saved.clip.token_grid)
    same_decoder = all(
        getattr(sizes.sam, name) == getattr(saved.sam, name)
        for name in ("image_px", "patch_px", "prompt_dim", "decoder_mlp")
    )
    sam = saved.sam if same_decoder else sizes.sam
    return replace(sizes, clip=clip, sam=sam)


def warnings_of_other_use(case: Settings, saved: weights_format.Saved) -> list[str]:
    """Return a warning for each setting that differs from the weights' training."""
    warnings = []
    for name in ("vision", *ONLY_WARNED_OF):
        if name == "template" and not saved.template_is_stated:
            continue
        trained = getattr(saved, name)
        used = getattr(case, name)
        if trained != used:
            warnings.append(
                f"these weights ({saved.source}) were trained with {name}={trained} "
                f"and are used with {used}"
            )
    return warnings
