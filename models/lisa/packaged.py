"""The trained tiny LISAs that come with the package, one a variant: ``weights: packaged``.

They lie in folders of our layout, beside a file of the weights that several of them share; see
`checkpoints/pack.py`. Cheap to import.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...harness.errors import UsageError
from . import weights_format

PRESET = "tiny"
FAMILY = Path(__file__).parents[1] / "assets" / PRESET
# Weights can be used with other values of these than they were trained with: a warning says so
# where they then work worse. With other values of the rest they would not fit.
FREE = ("template", "conditioning", "frame", "precision")


def folders() -> dict[str, Path]:
    """Return the folders of the packaged LISAs, by variant; an installation may have none."""
    configs = sorted(FAMILY.glob(f"*/{weights_format.CONFIG}"))
    return {path.parent.name: path.parent for path in configs}


def located(preset: str, vision: str) -> Path:
    """Return the folder of the packaged LISA of a variant.

    Raises:
        UsageError: there is none.
    """
    if preset != PRESET or vision not in folders():
        raise _missing({"preset": preset, "vision": vision})
    return folders()[vision]


@cache
def read(folder: Path) -> weights_format.Saved:
    """Read the ``config.json`` of packaged weights. Cached: the package's files do not change."""
    return weights_format.read(folder)


def chosen(settings: Mapping[str, Any]) -> weights_format.Saved:
    """Return what the packaged weights that fit some settings say of themselves.

    Args:
        settings: as they were given; `preset` and `vision` choose the weights.

    Raises:
        UsageError: there are no such weights, or they do not fit what was given.
    """
    folder = located(settings.get("preset", PRESET), settings.get("vision", "dual"))
    saved = read(folder)
    misfits = {}
    for name, trained_value in saved.settings.items():
        if name not in settings or name in FREE:
            continue
        fitting_values = [trained_value]
        if name == "clip_px":
            # 0 is the preset's own side, which may also be given as a number.
            fitting_values.append(saved.sizes.clip.image_px)
        if settings[name] not in fitting_values:
            misfits[name] = settings[name]
    if misfits:
        raise _missing({"vision": saved.vision, **misfits})
    return saved


def _missing(settings: Mapping[str, Any]) -> UsageError:
    descriptions = [_description(read(folder)) for folder in folders().values()]
    packaged = "this installation comes without any"
    if descriptions:
        packaged = f"packaged are: {'; '.join(descriptions)}"
    return UsageError(
        f"no packaged weights are of {weights_format.settings_text(settings)}; {packaged}. "
        "Name a folder, or set weights=random"
    )


def _description(saved: weights_format.Saved) -> str:
    """Return the variant, and those of its settings that are not the defaults."""
    defaults = {
        "sam": "preset",
        "clip_px": 0,
        "image_tokens": "patches",
        "bridge": "linear",
        "frame": "whole",
    }
    trained_with = saved.settings
    shown = {"preset": saved.preset, "vision": saved.vision}
    for name, default in defaults.items():
        if trained_with[name] != default:
            shown[name] = trained_with[name]
    return weights_format.settings_text(shown)
