"""The trained tiny LISAs that come with the package, one a variant: ``weights: packaged``. Cheap to import.

They lie in folders of our layout beside one of their weights, in which what several of them share is stored once; see
`pack`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...harness.errors import UsageError
from . import weights_format

PRESET = "tiny"
FAMILY = Path(__file__).parents[1] / "assets" / PRESET
# Otherwise than they were trained, weights can be used, with a warning; by the other axes they would not fit.
ONLY_WARNED_OF = ("template", "conditioning", "frame")


def folders() -> dict[str, Path]:
    """The folders of the packaged LISAs, by variant; none where an installation has none."""
    return {
        path.parent.name: path.parent for path in sorted(FAMILY.glob(f"*/{weights_format.CONFIG}"))
    }


def located(preset: str, vision: str) -> Path:
    """The folder of the packaged LISA of a variant.

    Raises:
        UsageError: there is none.
    """
    if preset != PRESET or vision not in folders():
        raise _lacking(f"preset={preset}, vision={vision}")
    return folders()[vision]


def filled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a LISA with packaged weights, with the axes that they were trained with where nothing else is said.

    Args:
        settings: as they were given; `preset` and `vision` choose the weights.

    Raises:
        UsageError: there are no such weights, or they are of other axes than were given.
    """
    known = weights_format.read(
        located(settings.get("preset", PRESET), settings.get("vision", "dual"))
    )
    theirs = axes(known)
    same = {"clip_px": (theirs["clip_px"], known.sizes.clip.image_px)}
    wrong = {
        axis: settings[axis]
        for axis in theirs.keys() & settings.keys() - set(ONLY_WARNED_OF)
        if settings[axis] not in same.get(axis, (theirs[axis],))
    }
    if wrong:
        raise _lacking(f"vision={known.vision}, {_listed(wrong)}")
    return {**theirs, **settings}


def axes(known: weights_format.Saved) -> dict[str, Any]:
    """The axes of a `LisaConfig` with which weights are used as they were trained."""
    asked = ("seg_head", *ONLY_WARNED_OF)
    return known.axes | {axis: getattr(known, axis) for axis in asked}


def _lacking(asked: str) -> UsageError:
    there = "; ".join(_described(weights_format.read(folder)) for folder in folders().values())
    packaged = f"packaged are: {there}" if there else "this installation comes without any"
    return UsageError(
        f"no packaged weights are of {asked}; {packaged}. Name a folder, or set weights=random"
    )


def _described(known: weights_format.Saved) -> str:
    usual = {
        "sam": "preset",
        "clip_px": 0,
        "image_tokens": "patches",
        "bridge": "linear",
        "frame": "whole",
    }
    theirs = axes(known)
    own = {axis: theirs[axis] for axis, value in usual.items() if theirs[axis] != value}
    return _listed({"preset": known.preset, "vision": known.vision, **own})


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in settings.items())
