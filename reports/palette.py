"""The colours and marks of all figures and pages.

The colour of a case says which image encoder it has, in every figure: a reader learns it once. How
its weights are quantised and how it is executed is said by hatches in bars, and by the kind of mark
in plots. Stages have colours of their own.

All colours are seen on a white page and on a dark one: their contrast is at least 3 to 1 on both,
which is what WCAG 2.2 (1.4.11) asks of graphics. The encoders' colours are of the palette of Okabe
and Ito, "Color Universal Design", 2008: readers with any kind of colour vision tell them apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

# On a dark page, the encoders' names are written in lighter colours: 4.5 to 1, as for text.
ENCODERS = {"dual": "#D55E00", "clip": "#0072B2", "sam": "#009E73"}
ENCODERS_ON_DARK = {"dual": "#E8772E", "clip": "#4AA3DF", "sam": "#2FBF8F"}
# Of models that name no such encoder, in the order of their cases.
OTHERS = ("#CC79A7", "#8F7A1E", "#7B6BD0")
STAGES = {
    "build": "#8C8C8C",
    "preprocess": "#6A99B1",
    "vision": "#B8901F",
    "llm": "#7B6BD0",
    "decoder": "#6A6A6A",
    "postprocess": "#CC79A7",
}
# Of what is wrong in a mask. Neither is the colour of an encoder.
TOO_MUCH, MISSED = "#E0218A", "#F0E442"
# Texts and lines that are read on both pages: their contrast is 4.3 to 1 on each, and no grey has
# more on both.
INK, PALE = "#737B84", "#8C96A0"
# Of a change of costs, which is no encoder's either.
LESS, MORE = "#7B6BD0", "#B8901F"
GOOD_ZONE = "#2DA44E"  # always drawn nearly transparent
WHITE_PAGE, DARK_PAGE = "#FFFFFF", "#0D1117"  # the pages of GitHub

QUANTISED = {"nf4": "////", "int8": "\\\\\\\\"}
EXECUTED = {"upstream": "....", "compiled": "----"}
MEANINGS = {  # of the hatches
    QUANTISED["nf4"]: "nf4",
    QUANTISED["int8"]: "int8",
    EXECUTED["upstream"]: "upstream",
    EXECUTED["compiled"]: "compiled",
}
MARKS = {"upstream": "D", "compiled": "s"}
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (9, 2)))
Dash = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Look:
    """How a case is drawn.

    Attributes:
        colour: of its encoder.
        hatch: of its bars, as matplotlib writes it; empty for plain ones.
        mark: of its points, as matplotlib writes it.
        is_open: whether its points are rings, as those of quantised weights are.
        dash: of its lines; cases that look alike in all else have different ones.
    """

    colour: str
    hatch: str = ""
    mark: str = "o"
    is_open: bool = False
    dash: Dash = "-"


def looks(cases: Sequence[tuple[str, Mapping[str, Any] | None]]) -> list[Look]:
    """Return how each case is drawn, given its name and its settings, None where unknown."""
    others = count()
    looks = []
    for name, settings in cases:
        encoder = encoder_of(name, settings)
        if encoder:
            colour = ENCODERS[encoder]
        else:
            colour = OTHERS[next(others) % len(OTHERS)]
        looks.append(_look(colour, name, settings))
    return looks


def encoder_of(name: str, settings: Mapping[str, Any] | None) -> str | None:
    """Return ``dual``, ``clip`` or ``sam``; None for a model that names no such encoder.

    A case that was never built has no settings yet. Then its name tells.
    """
    return _part(name, settings, "vision", ENCODERS)


def _part(
    name: str, settings: Mapping[str, Any] | None, setting: str, known: Mapping[str, str]
) -> str | None:
    """Return the value of a setting if it is known; without settings, of a part of the name."""
    values = name.split("-") if settings is None else [str(settings.get(setting))]
    for value in values:
        if value in known:
            return value
    return None


def _look(colour: str, name: str, settings: Mapping[str, Any] | None) -> Look:
    quantisation = _part(name, settings, "quantization", QUANTISED) or ""
    execution = _part(name, settings, "execution", EXECUTED) or ""
    return Look(
        colour=colour,
        hatch=QUANTISED.get(quantisation, "") + EXECUTED.get(execution, ""),
        mark=MARKS.get(execution, "o"),
        is_open=quantisation in QUANTISED,
    )


def with_dashes(looks: Sequence[Look]) -> list[Look]:
    """Return the looks with another dash for each that would be drawn like one before it."""
    times_seen: dict[Look, int] = {}
    dashed = []
    for look in looks:
        times = times_seen.get(look, 0)
        times_seen[look] = times + 1
        dashed.append(replace(look, dash=DASHES[times % len(DASHES)]))
    return dashed


def contrast(colour: str, page: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""
    lighter, darker = sorted((_luminance(colour), _luminance(page)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def text_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    black, white = "#111111", "#FFFFFF"
    return max((white, black), key=lambda text: contrast(text, colour))


def _luminance(colour: str) -> float:
    """Return the relative luminance of a colour such as ``#D55E00``, from 0 to 1 (WCAG 2.2)."""
    luminance = 0.0
    for place, weight in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        channel = int(colour[place : place + 2], 16) / 255
        linear = channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        luminance += weight * linear
    return luminance
