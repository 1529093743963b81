"""Paints a layout: background, shadows, textured and shaded objects, light and noise.

A canvas is float32 [3, H, W], one plane a colour: NumPy takes several times as long where the colours lie innermost.
"""

import colorsys
import math

import cv2
import numpy as np

from .layout import Layout, Patch, Thing

RGB = {
    "red": (208, 38, 40),
    "yellow": (240, 205, 36),
    "green": (38, 150, 62),
    "blue": (40, 84, 212),
    "purple": (142, 52, 172),
    "white": (242, 242, 238),
    "black": (28, 28, 32),
}
PATTERN = {
    "white": 0.58,
    "yellow": 0.52,
    "green": 0.45,
    "red": 0.45,
}  # share of brightness left; others are lightened
LIGHTENED = 0.5
JITTER = 10  # of each colour channel, so that no colour is one number
NOISE = 5.0  # standard deviation at most, in levels


def render(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Paints the picture of a layout.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    canvas_3HW = _background(layout.height, layout.width, rng)
    lean = rng.random() * 2 * math.pi
    towards_light = (math.cos(lean), math.sin(lean))
    for thing, patch in zip(layout.things, layout.patches, strict=True):
        _shadow(canvas_3HW, thing, patch, towards_light)
        _paint(canvas_3HW, thing, patch, towards_light, rng)
    return _finish(canvas_3HW, towards_light, rng)


def _background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A muted gradient with blotches and one of three fine textures; float32 levels."""
    hue, other = rng.random(2)
    begin, end = (_muted(value, rng) for value in (hue, hue + 0.15 * other))
    turn = rng.random() * 2 * math.pi
    x, y = (
        np.linspace(-0.5, 0.5, width, dtype=np.float32),
        np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None],
    )
    along = np.clip(0.5 + math.cos(turn) * x + math.sin(turn) * y, 0, 1)
    grain = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))](height, width, rng)
    blotches = _smooth_noise(height, width, 5, rng) * 14
    canvas_3HW = along * _planes(end - begin)
    canvas_3HW += _planes(begin)
    canvas_3HW += blotches + grain
    return canvas_3HW


def _planes(colour: np.ndarray) -> np.ndarray:
    """A colour that fills a canvas."""
    return colour[:, None, None]


def _muted(hue: float, rng: np.random.Generator) -> np.ndarray:
    """Neither as vivid as the objects' colours nor as bright or dark as white and black."""
    rgb = colorsys.hsv_to_rgb(hue % 1, 0.05 + 0.2 * rng.random(), 0.42 + 0.22 * rng.random())
    return np.array(rgb, np.float32) * 255


def _smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Noise from -1 to 1 whose blotches are a `cells`-th of the longest side."""
    size = [max(2, round(cells * side / max(height, width))) for side in (height, width)]
    coarse = (rng.random(size) * 2 - 1).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _sand(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return _smooth_noise(height, width, max(height, width) // 4, rng) * 9


def _planks(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Long fibres along one axis."""
    fibres = (
        rng.random((height // 2 + 2, 6)) if rng.random() < 0.5 else rng.random((6, width // 2 + 2))
    )
    return (
        cv2.resize(
            (fibres * 2 - 1).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )
        * 12
    )


def _tiles(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A faint lattice of joints, with tiles of slightly different brightness."""
    side = int(rng.integers(36, 80))
    rows, columns = np.arange(height) // side, np.arange(width) // side
    tones = (rng.random((height // side + 1, width // side + 1)) * 2 - 1).astype(np.float32) * 8
    grain = tones[rows[:, None], columns]
    grain[np.arange(height) % side == 0] -= 12
    grain[:, np.arange(width) % side == 0] -= 12
    return grain


BACKGROUNDS = (_sand, _planks, _tiles)


def _shadow(
    canvas_3HW: np.ndarray, thing: Thing, patch: Patch, towards_light: tuple[float, float]
) -> None:
    """Darkens softly what lies on the far side from the light."""
    height, width = canvas_3HW.shape[1:]
    reach = max(3, round(0.16 * thing.radius))
    coverage = _padded(patch.coverage_hw, 2 * reach)
    coverage = cv2.blur(cv2.blur(coverage, (reach, reach)), (reach, reach))
    left = patch.left - 2 * reach - round(reach * towards_light[0])
    top = patch.top - 2 * reach - round(reach * towards_light[1])
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + coverage.shape[1], width), min(top + coverage.shape[0], height)
    inside = coverage[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
    canvas_3HW[:, y0:y1, x0:x1] *= 1 - inside * (0.42 / 255)


def _padded(coverage_hw: np.ndarray, by: int) -> np.ndarray:
    return cv2.copyMakeBorder(coverage_hw, by, by, by, by, cv2.BORDER_CONSTANT, value=[0])


def _paint(
    canvas_3HW: np.ndarray,
    thing: Thing,
    patch: Patch,
    towards_light: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Lays one object over the canvas: pattern, shading from the light, and a rim that sets it off."""
    base = (
        np.array(RGB[thing.colour], np.float32)
        + (rng.random(3) * 2 - 1).astype(np.float32) * JITTER
    )
    height, width = patch.coverage_hw.shape
    x = (np.arange(width, dtype=np.float32) + np.float32(patch.left - thing.x)) / np.float32(
        thing.radius
    )
    y = (
        (np.arange(height, dtype=np.float32) + np.float32(patch.top - thing.y))
        / np.float32(thing.radius)
    )[:, None]
    mixed_hw = _pattern(thing.texture, x, y, rng)
    light_hw = 1 + 0.16 * (towards_light[0] * x + towards_light[1] * y)
    inner = cv2.erode(patch.coverage_hw, np.ones((3, 3), np.uint8)).astype(np.float32) / 255
    light_hw *= 0.72 + 0.28 * inner
    colour_3hw = mixed_hw * _planes(_second_colour(thing.colour, base) - base)
    colour_3hw += _planes(base)
    colour_3hw *= light_hw
    window = canvas_3HW[:, *patch.window]
    colour_3hw -= window
    colour_3hw *= patch.coverage_hw.astype(np.float32) / 255
    window += colour_3hw


def _second_colour(colour: str, base: np.ndarray) -> np.ndarray:
    """Of a pattern: a darker or lighter shade of the same colour, so that the object's colour keeps its name."""
    return base * PATTERN[colour] if colour in PATTERN else base + LIGHTENED * (255 - base)


def _pattern(texture: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the second colour, 0 to 1, at offsets in radii from the object's centre."""
    turn, phase = rng.random() * math.pi, rng.random(2)
    along, across = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    return PATTERNS[texture](along + phase[0], across + phase[1]).astype(np.float32)


def _wave(values: np.ndarray, period: float) -> np.ndarray:
    return np.cos(values * np.float32(2 * math.pi / period))


def _edge(values: np.ndarray) -> np.ndarray:
    """A soft step at 0."""
    return np.clip(0.5 + values * 4, 0, 1)


PATTERNS = {
    "plain": lambda along, across: np.zeros(np.broadcast_shapes(along.shape, across.shape)),
    "striped": lambda along, across: _edge(_wave(along, 0.52) + 0 * across),
    "dotted": lambda along, across: _edge(_wave(along, 0.62) + _wave(across, 0.62) - 0.75),
    "checked": lambda along, across: _edge(_wave(along, 0.9) * _wave(across, 0.9) * 3),
}


def _finish(
    canvas_3HW: np.ndarray, towards_light: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Light that falls off across the picture, and a sensor's noise."""
    height, width = canvas_3HW.shape[1:]
    x, y = (
        np.linspace(-0.5, 0.5, width, dtype=np.float32),
        np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None],
    )
    falloff = np.float32(0.1 + 0.2 * rng.random())
    light_HW = np.float32(0.92 + 0.12 * rng.random()) + falloff * (
        towards_light[0] * x + towards_light[1] * y
    )
    noise = rng.random((height, width), dtype=np.float32) - np.float32(0.5)
    canvas_3HW *= light_HW
    canvas_3HW += noise * np.float32(NOISE * math.sqrt(12) * rng.random())
    levels_3HW = np.clip(canvas_3HW, 0, 255, out=canvas_3HW).astype(np.uint8)
    return cv2.merge(list(levels_3HW))
