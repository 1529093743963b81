"""Painting a layout: background, shadows, textured and shaded objects, light and noise.

A canvas is float32 [3, H, W] of levels from 0 to 255, one plane a colour. NumPy is several times
slower where the colours lie innermost. Suffix hw: height and width of one object's patch.

The order of operations, and of draws from the random generator, is part of the pictures: another
order gives other bytes.
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
# The second colour of a pattern is darker for these (share of brightness that is left), and lighter
# for the others (share of the way to white).
PATTERN = {"white": 0.58, "yellow": 0.52, "green": 0.45, "red": 0.45}
LIGHTENED = 0.5
JITTER = 10  # of each colour channel, so that no colour is one number
NOISE = 5.0  # standard deviation at most, in levels


def render(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Paint the picture of a layout.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    canvas_3HW = _background(layout.height, layout.width, rng)
    direction = rng.random() * 2 * math.pi
    towards_light = (math.cos(direction), math.sin(direction))
    for thing, patch in zip(layout.things, layout.patches, strict=True):
        _shadow(canvas_3HW, thing, patch, towards_light)
        _paint(canvas_3HW, thing, patch, towards_light, rng)
    return _finish(canvas_3HW, towards_light, rng)


def _background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a muted gradient with blotches and one of three fine textures."""
    hue, hue_change = rng.random(2)
    begin = _muted(hue, rng)
    end = _muted(hue + 0.15 * hue_change, rng)
    turn = rng.random() * 2 * math.pi
    x, y = _from_centre(height, width)
    along_HW = np.clip(0.5 + math.cos(turn) * x + math.sin(turn) * y, 0, 1)
    texture = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    grain_HW = texture(height, width, rng)
    blotches_HW = _smooth_noise(height, width, 5, rng) * 14
    canvas_3HW = along_HW * _planes(end - begin)
    canvas_3HW += _planes(begin)
    canvas_3HW += blotches_HW + grain_HW
    return canvas_3HW


def _from_centre(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x [W] and y [H, 1] of each pixel, from -0.5 to 0.5."""
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    return x, y


def _planes(colour: np.ndarray) -> np.ndarray:
    """Return a colour [3] as [3, 1, 1], which fills a canvas."""
    return colour[:, None, None]


def _muted(hue: float, rng: np.random.Generator) -> np.ndarray:
    """Return a colour less vivid than the objects', and neither white nor black."""
    saturation = 0.05 + 0.2 * rng.random()
    brightness = 0.42 + 0.22 * rng.random()
    rgb = colorsys.hsv_to_rgb(hue % 1, saturation, brightness)
    return np.array(rgb, np.float32) * 255


def _smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise from -1 to 1 whose blotches are a `cells`-th of the longest side."""
    size = [max(2, round(cells * side / max(height, width))) for side in (height, width)]
    coarse = (rng.random(size) * 2 - 1).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _sand(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return fine grains of a few pixels."""
    return _smooth_noise(height, width, max(height, width) // 4, rng) * 9


def _planks(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return long fibres along one axis."""
    is_horizontal = rng.random() < 0.5
    coarse_size = (height // 2 + 2, 6) if is_horizontal else (6, width // 2 + 2)
    coarse = (rng.random(coarse_size) * 2 - 1).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * 12


def _tiles(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a faint lattice of joints, with tiles of slightly different brightness."""
    side = int(rng.integers(36, 80))
    rows, columns = np.arange(height) // side, np.arange(width) // side
    tones = (rng.random((height // side + 1, width // side + 1)) * 2 - 1).astype(np.float32) * 8
    grain_HW = tones[rows[:, None], columns]
    grain_HW[np.arange(height) % side == 0] -= 12
    grain_HW[:, np.arange(width) % side == 0] -= 12
    return grain_HW


BACKGROUNDS = (_sand, _planks, _tiles)


def _shadow(
    canvas_3HW: np.ndarray, thing: Thing, patch: Patch, towards_light: tuple[float, float]
) -> None:
    """Darken softly, in place, what lies on the far side of an object from the light."""
    height, width = canvas_3HW.shape[1:]
    reach = max(3, round(0.16 * thing.radius))
    margin = 2 * reach  # two blurs spread the shadow that far
    shadow_hw = cv2.copyMakeBorder(
        patch.coverage_hw, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=[0]
    )
    shadow_hw = cv2.blur(cv2.blur(shadow_hw, (reach, reach)), (reach, reach))
    left = patch.left - margin - round(reach * towards_light[0])
    top = patch.top - margin - round(reach * towards_light[1])
    # Only the part that lies within the picture.
    x0, x1 = max(left, 0), min(left + shadow_hw.shape[1], width)
    y0, y1 = max(top, 0), min(top + shadow_hw.shape[0], height)
    inside_hw = shadow_hw[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
    canvas_3HW[:, y0:y1, x0:x1] *= 1 - inside_hw * (0.42 / 255)


def _paint(
    canvas_3HW: np.ndarray,
    thing: Thing,
    patch: Patch,
    towards_light: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Lay one object over the canvas, in place: pattern, shading from the light, a darker rim."""
    jitter = (rng.random(3) * 2 - 1).astype(np.float32) * JITTER
    base = np.array(RGB[thing.colour], np.float32) + jitter
    # Offsets of each pixel from the object's centre, in radii.
    height, width = patch.coverage_hw.shape
    radius = np.float32(thing.radius)
    x = (np.arange(width, dtype=np.float32) + np.float32(patch.left - thing.x)) / radius
    y = (np.arange(height, dtype=np.float32) + np.float32(patch.top - thing.y)) / radius
    y = y[:, None]
    mixed_hw = _pattern(thing.texture, x, y, rng)
    light_hw = 1 + 0.16 * (towards_light[0] * x + towards_light[1] * y)
    # Eroded by one pixel, the coverage leaves the rim out.
    inner_hw = cv2.erode(patch.coverage_hw, np.ones((3, 3), np.uint8)).astype(np.float32) / 255
    light_hw *= 0.72 + 0.28 * inner_hw
    colour_3hw = mixed_hw * _planes(_second_colour(thing.colour, base) - base)
    colour_3hw += _planes(base)
    colour_3hw *= light_hw
    # Blended by coverage: canvas + coverage * (colour - canvas).
    window = canvas_3HW[:, *patch.window]
    colour_3hw -= window
    colour_3hw *= patch.coverage_hw.astype(np.float32) / 255
    window += colour_3hw


def _second_colour(colour: str, base: np.ndarray) -> np.ndarray:
    """Return the second colour of a pattern.

    It is a darker or lighter shade of the same colour, so that the object's colour keeps its name.
    """
    if colour in PATTERN:
        return base * PATTERN[colour]
    return base + LIGHTENED * (255 - base)


def _pattern(texture: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the share of the second colour, 0 to 1, at offsets in radii from the centre."""
    turn = rng.random() * math.pi
    phase = rng.random(2)
    along = math.cos(turn) * x + math.sin(turn) * y
    across = math.cos(turn) * y - math.sin(turn) * x
    return PATTERNS[texture](along + phase[0], across + phase[1]).astype(np.float32)


def _wave(values: np.ndarray, period: float) -> np.ndarray:
    """Return a cosine of some period."""
    return np.cos(values * np.float32(2 * math.pi / period))


def _edge(values: np.ndarray) -> np.ndarray:
    """Return a soft step at 0."""
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
    """Add light that falls off across the picture and a sensor's noise; return uint8 [H, W, 3]."""
    height, width = canvas_3HW.shape[1:]
    x, y = _from_centre(height, width)
    falloff = np.float32(0.1 + 0.2 * rng.random())
    brightness = np.float32(0.92 + 0.12 * rng.random())
    light_HW = brightness + falloff * (towards_light[0] * x + towards_light[1] * y)
    # Uniform noise from -0.5 to 0.5 has the standard deviation 1 / sqrt(12).
    noise_HW = rng.random((height, width), dtype=np.float32) - np.float32(0.5)
    canvas_3HW *= light_HW
    canvas_3HW += noise_HW * np.float32(NOISE * math.sqrt(12) * rng.random())
    levels_3HW = np.clip(canvas_3HW, 0, 255, out=canvas_3HW).astype(np.uint8)
    return cv2.merge(list(levels_3HW))
