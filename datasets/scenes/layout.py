"""What is in a reasoning scene, before any pixel is painted: objects, where they lie, and what of them is visible."""

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from .shapes import UNIT_SHAPES
from .words import COLOURS, SHAPES, TEXTURES

# Width over height. Seven, so that they run through all combinations with the four query plans of `scenes.py`.
ASPECTS = (4 / 3, 16 / 9, 3 / 4, 2.0, 1.0, 9 / 16, 3 / 2)
SIDES_PX = (240, 640)  # shortest and longest side of any picture
VISIBLE = 0.5  # smallest visible share of an object
COORDINATE_BITS = 4  # outlines are drawn to a sixteenth of a pixel
ODD_THEMES = ("shape", "colour", "texture")


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        x, y: centre, in pixels from the left top corner of the picture.
        radius: in pixels; the area is 2.4 times its square.
        angle: in radians, clockwise.
    """

    shape: str
    colour: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Patch:
    """Where an object would be seen if nothing covered it: uint8 coverage (0 to 255) from pixel (left, top) on."""

    left: int
    top: int
    coverage_hw: np.ndarray

    def lies_within(self, height: int, width: int) -> bool:
        """Whether all of it is in a picture of that size."""
        rows, columns = self.window
        return (
            rows.start >= 0 and columns.start >= 0 and rows.stop <= height and columns.stop <= width
        )

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.coverage_hw.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Layout:
    """The objects of a picture, from back to front; object i bears the label i + 1 in `labels_HW`."""

    height: int
    width: int
    things: tuple[Thing, ...]
    patches: tuple[Patch, ...]
    labels_HW: np.ndarray

    @cached_property
    def full_px(self) -> list[int]:
        """Area of each object, hidden parts included."""
        return [int(np.count_nonzero(patch.coverage_hw > 127)) for patch in self.patches]

    @cached_property
    def extent_px(self) -> list[int]:
        """Longest side of each object's bounding box, hidden parts included."""
        return [max(patch.coverage_hw.shape) for patch in self.patches]

    @cached_property
    def visible_px(self) -> list[int]:
        """Visible area of each object."""
        return [cv2.countNonZero(self.visible_hw(i)) for i in range(len(self.things))]

    def visible_hw(self, i: int) -> np.ndarray:
        """Where object i is visible within its patch: uint8, 0 or 1."""
        return (self.labels_HW[self.patches[i].window] == i + 1).view(np.uint8)

    @cached_property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Edges (x0, y0, x1, y1), half-open, of each object's visible part."""
        return [self._box(i) for i in range(len(self.things))]

    def _box(self, i: int) -> tuple[int, int, int, int]:
        patch = self.patches[i]
        left, top, width, height = cv2.boundingRect(self.visible_hw(i))
        return (
            patch.left + left,
            patch.top + top,
            patch.left + left + width,
            patch.top + top + height,
        )

    @cached_property
    def hidden_px(self) -> np.ndarray:
        """[N, N]: how many pixels of object j (column) lie under object i (row)."""
        count = len(self.things)
        hidden = np.zeros((count, count), np.int64)
        canvas_HW = np.zeros((self.height, self.width), np.uint8)
        for j, below in enumerate(self.patches):
            canvas_HW[below.window] = below.coverage_hw > 127
            for i in range(j + 1, count):
                hidden[i, j] = np.count_nonzero(
                    canvas_HW[self.patches[i].window] & (self.patches[i].coverage_hw > 127)
                )
            canvas_HW[below.window] = 0
        return hidden

    def contours(self, i: int) -> list[np.ndarray]:
        """Outlines of the visible part of object i: int32 [N, 2], (x, y), whole pixels."""
        patch = self.patches[i]
        offset = np.array([patch.left, patch.top], np.int32)
        found, _ = cv2.findContours(self.visible_hw(i), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return [contour.reshape(-1, 2).astype(np.int32) + offset for contour in found]


def picture_size(index: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width, in pixels; the aspect ratio follows from the scene's number, so that a few scenes have all."""
    aspect = ASPECTS[index % len(ASPECTS)]
    stretch = max(aspect, 1 / aspect)
    shortest = int(rng.integers(SIDES_PX[0], int(SIDES_PX[1] / stretch) + 1))
    longest = round(shortest * stretch)
    return (shortest, longest) if aspect >= 1 else (longest, shortest)


def layout(index: int, odd: bool, rng: np.random.Generator) -> Layout | None:
    """Draws up one scene.

    Args:
        index: of the scene; decides the aspect ratio.
        odd: whether all objects but one are to share an attribute.
        rng: the scene's own.

    Returns:
        None if the objects do not fit, hide each other too much, or cannot be written as polygons.
    """
    height, width = picture_size(index, rng)
    count = int(rng.integers(4 if odd else 3, 9))
    places = _places(height, width, count, rng)
    if places is None:
        return None
    looks = _odd_looks(count, rng) if odd else _mixed_looks(count, rng)
    angles = rng.random(count) * 0.7 - 0.35
    things = tuple(
        Thing(*look, *place, float(a)) for look, place, a in zip(looks, places, angles, strict=True)
    )
    made = assemble(height, width, things)
    return made if made is not None and is_clear(made) else None


def assemble(height: int, width: int, things: tuple[Thing, ...]) -> Layout | None:
    """Lays objects over each other, the first one at the back; None where one does not lie within the picture."""
    patches = tuple(_patch(thing) for thing in things)
    labels_HW = np.zeros((height, width), np.uint8)
    if not all(patch.lies_within(height, width) for patch in patches):
        return None
    for label, patch in enumerate(patches, start=1):
        labels_HW[patch.window][patch.coverage_hw > 127] = label
    return Layout(height, width, things, patches, labels_HW)


def _places(
    height: int, width: int, count: int, rng: np.random.Generator
) -> list[tuple[float, float, float]] | None:
    """Centre and radius of each object; some are put so that they cover a part of an earlier one."""
    scale = math.sqrt(height * width)
    low, high = 0.06 * scale, (0.17 if count <= 4 else 0.145 if count <= 6 else 0.125) * scale
    steps = (rng.permutation(count) + 0.2 + 0.6 * rng.random(count)) / count
    places: list[tuple[float, float, float]] = []
    for radius in (low * (high / low) ** steps).tolist():
        touching = bool(places) and rng.random() < 0.3
        place = _place(places, touching, (height, width), radius, rng)
        if place is None:
            return None
        places.append(place)
    return places


def _place(
    places: list[tuple[float, float, float]],
    touching: bool,
    size: tuple[int, int],
    radius: float,
    rng: np.random.Generator,
) -> tuple[float, float, float] | None:
    """Tries forty places: clear of all others, or, if touching, over the border of exactly one."""
    height, width = size
    margin = 1.5 * radius  # the corners of a turned triangle reach that far
    if min(height, width) <= 2 * margin:
        return None
    for u, v in rng.random((40, 2)).tolist():
        x, y = margin + u * (width - 2 * margin), margin + v * (height - 2 * margin)
        nearness = [math.hypot(x - a, y - b) / (radius + r) for a, b, r in places]
        close = [value for value in nearness if value < 1.25]
        if (not close and not touching) or (
            touching and len(close) == 1 and 0.62 < close[0] < 0.85
        ):
            return x, y, radius
    return None


def _mixed_looks(count: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Few shapes and colours, so that most of them occur more than once."""
    shapes = _choose(tuple(SHAPES), int(rng.integers(2, 4)), rng)
    colours = _choose(COLOURS, int(rng.integers(2, 5)), rng)
    textures = _choose(TEXTURES, int(rng.integers(1, 4)), rng)
    return [(_one(shapes, rng), _one(colours, rng), _one(textures, rng)) for _ in range(count)]


def _odd_looks(count: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """All but one share one attribute; the others are mixed."""
    odd = int(rng.integers(count))
    field = int(rng.integers(len(ODD_THEMES)))
    common, different = _choose((tuple(SHAPES), COLOURS, TEXTURES)[field], 2, rng)
    looks = [list(look) for look in _mixed_looks(count, rng)]
    for i, look in enumerate(looks):
        look[field] = different if i == odd else common
    return [(shape, colour, texture) for shape, colour, texture in looks]


def _choose(values: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))[:count]]


def _one(values: list[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


def _patch(thing: Thing) -> Patch:
    turn = np.array(
        [
            [math.cos(thing.angle), math.sin(thing.angle)],
            [-math.sin(thing.angle), math.cos(thing.angle)],
        ]
    )
    outline = UNIT_SHAPES[thing.shape] @ turn * thing.radius + [thing.x, thing.y]
    left, top = np.floor(outline.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 2
    coverage_hw = np.zeros((bottom - top, right - left), np.uint8)
    points = np.round((outline - [left, top]) * (1 << COORDINATE_BITS)).astype(np.int32)
    cv2.fillPoly(coverage_hw, [points], 255, cv2.LINE_AA, COORDINATE_BITS)
    return Patch(int(left), int(top), coverage_hw)


def is_clear(made: Layout) -> bool:
    """Whether every object is visible enough, and its polygons draw just its visible pixels (no holes, no crumbs)."""
    shares = zip(made.full_px, made.visible_px, strict=True)
    return all(visible >= VISIBLE * full for full, visible in shares) and all(
        _is_drawn(made.visible_hw(i), full) for i, full in enumerate(made.full_px)
    )


def _is_drawn(visible_hw: np.ndarray, full: int) -> bool:
    """Whether no part is a crumb, and none has a hole: an outline from pixel to pixel draws all that it encloses."""
    outlines, parents = cv2.findContours(visible_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    has_holes = bool((parents[..., 3] >= 0).any())
    return not has_holes and all(cv2.contourArea(outline) >= 0.05 * full for outline in outlines)
