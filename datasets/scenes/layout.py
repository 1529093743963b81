"""The layout of a scene: objects, where they lie, and what of them is visible. No pixel is painted.

Shape suffixes: H and W are height and width of the picture, h and w those of one object's patch.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from .shapes import UNIT_SHAPES
from .words import COLOURS, SHAPES, TEXTURES

# Width over height. There are seven, so that with the four query plans of `generator.py` all
# combinations come up.
ASPECTS = (4 / 3, 16 / 9, 3 / 4, 2.0, 1.0, 9 / 16, 3 / 2)
SIDES_PX = (240, 640)  # shortest and longest side of any picture
VISIBLE = 0.5  # smallest visible share of an object
SMALLEST_PART = 0.05  # smallest visible part of an object in one piece, as a share of its area
COORDINATE_BITS = 4  # outlines are drawn to a sixteenth of a pixel
COVERED = 127  # coverage from which on, exclusive, a pixel belongs to an object
ATTEMPTS = 40  # places that are tried for an object
# Share of the objects, from the second on, that are to cover a part of an earlier one.
TOUCHING = 0.3

Place = tuple[float, float, float]  # centre x, y and radius, in pixels
Look = tuple[str, str, str]  # shape, colour and texture


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
    """Where an object would be seen if nothing covered it.

    Attributes:
        left, top: the pixel of the picture at which the patch begins.
        coverage_hw: uint8 [h, w], how much of each pixel the object covers, 0 to 255.
    """

    left: int
    top: int
    coverage_hw: np.ndarray

    def lies_within(self, height: int, width: int) -> bool:
        """Return whether all of it is in a picture of that size."""
        rows, columns = self.window
        return (
            rows.start >= 0 and columns.start >= 0 and rows.stop <= height and columns.stop <= width
        )

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the picture that the patch takes."""
        height, width = self.coverage_hw.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Layout:
    """The objects of a picture, from back to front.

    Attributes:
        height, width: of the picture, in pixels.
        things: the objects.
        patches: where each of them is.
        labels_HW: uint8 [H, W]: 0 background, else i + 1 where object i is visible.
    """

    height: int
    width: int
    things: tuple[Thing, ...]
    patches: tuple[Patch, ...]
    labels_HW: np.ndarray

    @cached_property
    def full_px(self) -> list[int]:
        """Area of each object, hidden parts included."""
        return [int(np.count_nonzero(patch.coverage_hw > COVERED)) for patch in self.patches]

    @cached_property
    def extent_px(self) -> list[int]:
        """Longest side of each object's bounding box, hidden parts included."""
        return [max(patch.coverage_hw.shape) for patch in self.patches]

    @cached_property
    def visible_px(self) -> list[int]:
        """Visible area of each object."""
        return [cv2.countNonZero(self.visible_hw(i)) for i in range(len(self.things))]

    def visible_hw(self, i: int) -> np.ndarray:
        """Return where object i is visible within its patch: uint8 [h, w], 0 or 1."""
        return (self.labels_HW[self.patches[i].window] == i + 1).view(np.uint8)

    @cached_property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Edges (x0, y0, x1, y1), half-open, of each object's visible part."""
        boxes = []
        for i, patch in enumerate(self.patches):
            left, top, width, height = cv2.boundingRect(self.visible_hw(i))
            x0, y0 = patch.left + left, patch.top + top
            boxes.append((x0, y0, x0 + width, y0 + height))
        return boxes

    @cached_property
    def hidden_px(self) -> np.ndarray:
        """How many pixels of object j (column) lie under object i (row), int64 [N, N]."""
        count = len(self.things)
        hidden_px = np.zeros((count, count), np.int64)
        canvas_HW = np.zeros((self.height, self.width), np.uint8)
        for j, below in enumerate(self.patches):
            canvas_HW[below.window] = below.coverage_hw > COVERED
            # Only later objects lie above it.
            for i in range(j + 1, count):
                above = self.patches[i]
                both_hw = canvas_HW[above.window] & (above.coverage_hw > COVERED)
                hidden_px[i, j] = np.count_nonzero(both_hw)
            canvas_HW[below.window] = 0
        return hidden_px

    def contours(self, i: int) -> list[np.ndarray]:
        """Return the outlines of the visible part of object i.

        Each is int32 [N, 2], (x, y), in whole pixels.
        """
        patch = self.patches[i]
        offset = np.array([patch.left, patch.top], np.int32)
        outlines, _ = cv2.findContours(
            self.visible_hw(i), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        return [outline.reshape(-1, 2).astype(np.int32) + offset for outline in outlines]


def picture_size(index: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return height and width, in pixels.

    The aspect ratio follows from the scene's number, so that a few scenes have all of them.
    """
    aspect = ASPECTS[index % len(ASPECTS)]
    stretch = max(aspect, 1 / aspect)
    shortest = int(rng.integers(SIDES_PX[0], int(SIDES_PX[1] / stretch) + 1))
    longest = round(shortest * stretch)
    return (shortest, longest) if aspect >= 1 else (longest, shortest)


def layout(
    index: int, odd: bool, rng: np.random.Generator, size_HW: tuple[int, int] | None = None
) -> Layout | None:
    """Place the objects of one scene.

    Args:
        index: of the scene; decides the aspect ratio.
        odd: whether all objects but one are to share an attribute.
        rng: the scene's own. The order of its draws is part of the scene.
        size_HW: height and width of the picture, in pixels; None: as `picture_size` draws them.

    Returns:
        None if the objects do not fit, hide each other too much, or cannot be written as polygons.
    """
    height, width = size_HW or picture_size(index, rng)
    count = int(rng.integers(4 if odd else 3, 9))
    places = _places(height, width, count, rng)
    if places is None:
        return None
    looks = _odd_looks(count, rng) if odd else _mixed_looks(count, rng)
    angles = rng.random(count) * 0.7 - 0.35  # radians: up to 20 degrees to either side
    things = []
    for look, place, angle in zip(looks, places, angles, strict=True):
        things.append(Thing(*look, *place, float(angle)))
    made = assemble(height, width, tuple(things))
    if made is None or not is_clear(made):
        return None
    return made


def assemble(height: int, width: int, things: tuple[Thing, ...]) -> Layout | None:
    """Lay objects over each other, the first one at the back.

    Returns:
        None where an object does not lie within the picture.
    """
    patches = []
    labels_HW = np.zeros((height, width), np.uint8)
    for label, thing in enumerate(things, start=1):
        patch = _patch(thing)
        if not patch.lies_within(height, width):
            return None
        # What lies above replaces what lies below.
        labels_HW[patch.window][patch.coverage_hw > COVERED] = label
        patches.append(patch)
    return Layout(height, width, things, tuple(patches), labels_HW)


def _places(height: int, width: int, count: int, rng: np.random.Generator) -> list[Place] | None:
    """Return the place of each object; some are to cover a part of an earlier one."""
    scale = math.sqrt(height * width)
    # The more objects, the smaller the largest of them.
    if count <= 4:
        largest = 0.17 * scale
    elif count <= 6:
        largest = 0.145 * scale
    else:
        largest = 0.125 * scale
    smallest = 0.06 * scale
    # The radii are spread evenly in logarithms, so that sizes differ clearly; each is moved a
    # little.
    steps = (rng.permutation(count) + 0.2 + 0.6 * rng.random(count)) / count
    radii = smallest * (largest / smallest) ** steps
    places: list[Place] = []
    for radius in radii.tolist():
        touching = bool(places) and rng.random() < TOUCHING
        place = _place(places, touching, (height, width), radius, rng)
        if place is None:
            return None
        places.append(place)
    return places


def _place(
    places: list[Place],
    touching: bool,
    size: tuple[int, int],
    radius: float,
    rng: np.random.Generator,
) -> Place | None:
    """Return a place at random: away from all others, or, if touching, over the border of one."""
    height, width = size
    margin = 1.5 * radius  # the corners of a turned triangle reach that far
    if min(height, width) <= 2 * margin:
        return None
    for u, v in rng.random((ATTEMPTS, 2)).tolist():
        x = margin + u * (width - 2 * margin)
        y = margin + v * (height - 2 * margin)
        # Distances in sums of both radii: below 1 two discs would overlap.
        close = []
        for other_x, other_y, other_radius in places:
            distance = math.hypot(x - other_x, y - other_y) / (radius + other_radius)
            if distance < 1.25:
                close.append(distance)
        is_free = not close
        is_over_one_border = len(close) == 1 and 0.62 < close[0] < 0.85
        if (touching and is_over_one_border) or (not touching and is_free):
            return x, y, radius
    return None


def _mixed_looks(count: int, rng: np.random.Generator) -> list[Look]:
    """Return looks from a few shapes, colours and textures, so that most occur more than once."""
    shapes = _choose(tuple(SHAPES), int(rng.integers(2, 4)), rng)
    colours = _choose(COLOURS, int(rng.integers(2, 5)), rng)
    textures = _choose(TEXTURES, int(rng.integers(1, 4)), rng)
    looks = []
    for _ in range(count):
        shape = _random_one(shapes, rng)
        colour = _random_one(colours, rng)
        texture = _random_one(textures, rng)
        looks.append((shape, colour, texture))
    return looks


def _odd_looks(count: int, rng: np.random.Generator) -> list[Look]:
    """Return looks of which all but one share one attribute; the other attributes are mixed."""
    odd = int(rng.integers(count))
    values_of = (tuple(SHAPES), COLOURS, TEXTURES)
    attribute = int(rng.integers(len(values_of)))
    common, different = _choose(values_of[attribute], 2, rng)
    looks: list[Look] = []
    for i, mixed in enumerate(_mixed_looks(count, rng)):
        look = list(mixed)
        look[attribute] = different if i == odd else common
        shape, colour, texture = look
        looks.append((shape, colour, texture))
    return looks


def _choose(values: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))[:count]]


def _random_one(values: list[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


def _patch(thing: Thing) -> Patch:
    """Return where an object is seen, with smooth edges."""
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    # Rows of points are multiplied from the left, so this is the transpose of the usual rotation;
    # with y pointing down it turns clockwise.
    turn = np.array([[cos, sin], [-sin, cos]])
    outline = UNIT_SHAPES[thing.shape] @ turn * thing.radius + [thing.x, thing.y]
    # A margin of one pixel for the smooth edge.
    left, top = np.floor(outline.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 2
    coverage_hw = np.zeros((bottom - top, right - left), np.uint8)
    points = np.round((outline - [left, top]) * (1 << COORDINATE_BITS)).astype(np.int32)
    cv2.fillPoly(coverage_hw, [points], 255, cv2.LINE_AA, COORDINATE_BITS)
    return Patch(int(left), int(top), coverage_hw)


def is_clear(made: Layout) -> bool:
    """Return whether every object is visible enough, and polygons draw just its visible pixels."""
    for full_px, visible_px in zip(made.full_px, made.visible_px, strict=True):
        if visible_px < VISIBLE * full_px:
            return False
    return all(_is_drawn(made.visible_hw(i), full_px) for i, full_px in enumerate(made.full_px))


def _is_drawn(visible_hw: np.ndarray, full_px: int) -> bool:
    """Return whether polygons can draw the visible part of an object: no crumbs and no holes.

    An outline from pixel to pixel draws all that it encloses, a hole too.
    """
    outlines, parents = cv2.findContours(visible_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    has_holes = bool((parents[..., 3] >= 0).any())
    if has_holes:
        return False
    return all(cv2.contourArea(outline) >= SMALLEST_PART * full_px for outline in outlines)
