"""Reasoning scenes: synthetic pictures with queries that need looking and thinking.

They are written in ReasonSeg's format. A scene depends on its seed, split and number, and on
nothing else: query i of a split is the same however many are made. In a folder three queries share
a scene's picture; `Scene.queries` has all that there are.
"""

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...harness.errors import UsageError
from ...harness.text import is_folder_name, visible
from .layout import Layout, layout
from .queries import Query, queries
from .render import render
from .words import vocabulary

__all__ = ["GENERATOR", "Query", "Scene", "make", "scene", "vocabulary"]

GENERATOR = 2  # version of the generator: a new one where pictures or words differ
ATTEMPTS = 500  # about two layouts in three are good
JPEG_QUALITY = 92
# Pictures of a size that is asked for: objects stay clear from 240 pixels on, and fit into pictures
# that are up to twice as long as wide, as those of the package's own sizes are.
GIVEN_SIDES_PX = (240, 4096)
MOST_STRETCHED = 2.0

Size = tuple[int, int]  # width and height of a picture, in pixels

# The families of a scene's three queries, by the scene's number. At nine of these twelve, a trained
# dual fails if its language model sees another scene; at the others, words and SAM's features
# nearly suffice.
PLANS = (
    ("ordinal", "relation", "attribute"),
    ("odd", "ordinal", "relation"),
    ("relation", "ordinal", "superlative"),
    ("odd", "ordinal", "negation"),
)
PER_SCENE = len(PLANS[0])
EMPTY_EVERY = 5  # one scene in five, so one query in fifteen, has no target
IGNORED_EVERY = 7  # one query in seven has an ignored region
# Sizes of the target by its share of the picture: each name up to its limit.
SIZES = ((0.0, "none"), (0.015, "small"), (0.035, "medium"), (1.0, "large"))


@dataclass(frozen=True)
class Scene:
    """A picture and the queries about it.

    Attributes:
        index: its number within the split.
        layout: its objects, sizes and visible areas.
        queries: some twenty; a folder takes the first of a family.
        stream: seed of the painter.
    """

    index: int
    layout: Layout
    queries: tuple[Query, ...]
    stream: tuple[int, ...]

    @cached_property
    def image(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3], RGB; painted on first use."""
        return render(self.layout, np.random.default_rng(self.stream))

    @property
    def labels_HW(self) -> np.ndarray:
        """The labels, uint8 [H, W]: 0 background, else the label of the visible object."""
        return self.layout.labels_HW

    def target_HW(self, query: Query) -> np.ndarray:
        """Return the visible pixels of a query's target, bool [H, W]."""
        return np.isin(self.labels_HW, query.targets)


def scene(seed: int, split: str, index: int, image_px: Size | None = None) -> Scene:
    """Make one scene.

    Args:
        seed: from 0 on.
        split: any name; splits of one seed share nothing.
        index: number of the scene, from 0 on.
        image_px: width and height of the picture; None: each scene has a size of its own, with
            sides of 240 to 640 pixels.

    Raises:
        UsageError: the seed is negative, or scenes cannot be of that size.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected a number from 0 on")
    size_HW = None
    if image_px is not None:
        _check_size(image_px)
        width, height = image_px
        size_HW = (height, width)
    plan = PLANS[index % len(PLANS)]
    for attempt in range(ATTEMPTS):
        stream = (GENERATOR, seed, zlib.crc32(split.encode()), index, attempt)
        # Layout and painter have streams of their own, so that a picture is painted only where it
        # is needed.
        rng = np.random.default_rng((*stream, 0))
        placed = layout(index, "odd" in plan, rng, size_HW)
        if placed is None:
            continue
        made = Scene(index, placed, queries(placed, rng), (*stream, 1))
        if len(chosen(made)) == PER_SCENE:
            return made
    raise AssertionError(f"no layout for scene {index} of split {split!r} with seed {seed}")


def _check_size(image_px: Size) -> None:
    """Check the width and height that are asked for."""
    shortest, longest = min(image_px), max(image_px)
    smallest, largest = GIVEN_SIDES_PX
    if shortest < smallest or longest > largest or longest > MOST_STRETCHED * shortest:
        raise UsageError(
            f"image_px is {image_px[0]} x {image_px[1]}; expected width and height from {smallest} "
            f"to {largest} pixels, the longer at most {MOST_STRETCHED:.0f} times the shorter"
        )


def chosen(made: Scene) -> list[Query]:
    """Return the queries that a folder takes from a scene: one for each family in its plan.

    A family of which the scene has none is left out.
    """
    plan = PLANS[made.index % len(PLANS)]
    empty_slot = _empty_slot(made.index)
    result = []
    for slot, family in enumerate(plan):
        has_target = slot != empty_slot
        for query in made.queries:
            if query.family == family and bool(query.targets) == has_target:
                result.append(query)
                break
    return result


def _empty_slot(index: int) -> int | None:
    """Return which query of the scene has no target; None where all have one.

    It is never the odd one out, which always exists where it is asked for.
    """
    if index % EMPTY_EVERY != 2:
        return None
    plan = PLANS[index % len(PLANS)]
    slots = [slot for slot, family in enumerate(plan) if family != "odd"]
    return slots[index // EMPTY_EVERY % len(slots)]


def make(root: str | Path, split: str, count: int, seed: int, image_px: Size | None = None) -> None:
    """Write a split: ``ROOT/<split>/NNNNNN.jpg`` and ``.json``, one pair a query.

    Args:
        root: is made if need be.
        split: name of the folder in it.
        count: number of queries.
        seed: from 0 on.
        image_px: width and height of all pictures; see `scene`.

    Raises:
        UsageError: a number is out of range, or the folder already holds something, or cannot be
            written.
    """
    if not is_folder_name(split):
        raise UsageError(f"split {visible(split)}: expected the name of a folder, without / and \\")
    folder = Path(root) / split
    if count < 1:
        raise UsageError(f"count is {count}; expected a number of queries from 1 on")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(
                f"{folder}: is not empty; choose another folder or another --split, or empty it"
            )
        scenes = -(-count // PER_SCENE)  # rounded up
        for index in range(scenes):
            _write_scene(folder, scene(seed, split, index, image_px), count)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error


def _write_scene(folder: Path, made: Scene, count: int) -> None:
    """Write the queries of a scene whose numbers are below `count`.

    All have the bytes of one JPEG.
    """
    image_BGR = cv2.cvtColor(made.image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", image_BGR, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    jpeg = encoded.tobytes()
    for slot, query in enumerate(chosen(made)):
        number = made.index * PER_SCENE + slot
        if number < count:
            path = folder / f"{number:06d}.jpg"
            path.write_bytes(jpeg)
            annotation = json.dumps(_annotation(made, query, number, path.name))
            path.with_suffix(".json").write_text(annotation, encoding="utf-8")


def _annotation(made: Scene, query: Query, number: int, image_name: str) -> dict[str, Any]:
    """Return one query in ReasonSeg's format; the polygons are the outlines of what is visible."""
    roles = [("target", label) for label in query.targets]
    ignored = _ignored_label(made, query, number)
    if ignored is not None:
        roles.append(("ignore", ignored))
    shapes = []
    for role, label in roles:
        for contour in made.layout.contours(label - 1):
            shapes.append(_polygon(role, contour, image_name))
    return {
        "text": list(query.texts),
        "is_sentence": query.is_sentence,
        "shapes": shapes,
        "meta": _meta(made, query),
    }


def _ignored_label(made: Scene, query: Query, number: int) -> int | None:
    """Return the label of an ignored region, which some queries have.

    It is the largest of the objects that the query does not speak of.
    """
    if number % IGNORED_EVERY != 3:
        return None
    areas = made.layout.visible_px
    spoken_of = {*query.targets, *query.mentioned}
    largest = None
    for label in range(1, len(areas) + 1):
        if label in spoken_of:
            continue
        if largest is None or areas[label - 1] >= areas[largest - 1]:
            largest = label
    return largest


def _polygon(label: str, contour: np.ndarray, image_name: str) -> dict[str, Any]:
    """Return a polygon with all the keys that the annotations of ReasonSeg have."""
    return {
        "label": label,
        "labels": [label],
        "shape_type": "polygon",
        "image_name": image_name,
        "points": contour.tolist(),
        "group_id": None,
        "group_ids": [None],
        "flags": {},
    }


def _meta(made: Scene, query: Query) -> dict[str, str]:
    """Return the tags by which scores can be sliced; the values are strings."""
    height, width = made.labels_HW.shape
    target_px = sum(made.layout.visible_px[label - 1] for label in query.targets)
    share = target_px / (height * width)
    size = next(name for limit, name in SIZES if share <= limit)
    aspect = "square"
    if width > 1.2 * height:
        aspect = "wide"
    elif height > 1.2 * width:
        aspect = "tall"
    return {
        "family": query.family,
        "size": size,
        "has_target": "yes" if query.targets else "no",
        "aspect": aspect,
        "objects": str(len(made.layout.things)),
        "scene": str(made.index),
    }
