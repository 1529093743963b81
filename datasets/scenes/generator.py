"""Reasoning scenes: pictures made from a seed, with queries that need looking and thinking, in ReasonSeg's format.

A scene depends on its seed, split and number, and on nothing else; query i of a split is the same however many are
made. Three queries share a scene's picture in a folder; `Scene.queries` has all that can be asked.
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
from .layout import Layout, layout
from .queries import Query, queries
from .render import render
from .words import vocabulary

__all__ = ["GENERATOR", "Query", "Scene", "make", "scene", "vocabulary"]

GENERATOR = 2  # counts the versions whose pictures or words differ
ATTEMPTS = 500  # about two layouts in three are good
JPEG_QUALITY = 92

# The families of a scene's three queries, by the scene's number. At nine of twelve a trained dual fails if its language
# model sees another scene; with the others, words and SAM's features are all but enough.
PLANS = (
    ("ordinal", "relation", "attribute"),
    ("odd", "ordinal", "relation"),
    ("relation", "ordinal", "superlative"),
    ("odd", "ordinal", "negation"),
)
PER_SCENE = len(PLANS[0])
EMPTY_EVERY = 5  # one scene in five, so one query in fifteen, has no target
IGNORED_EVERY = 7  # one query in seven has an ignored region
SIZES = (
    (0.0, "none"),
    (0.015, "small"),
    (0.035, "medium"),
    (1.0, "large"),
)  # of the target, by its share of the picture


@dataclass(frozen=True)
class Scene:
    """One picture and what can be asked about it.

    Attributes:
        index: its number within the split.
        layout: its objects, sizes and visible areas.
        queries: some twenty; the family's first ones are those that a folder takes.
        stream: seed of the painter.
    """

    index: int
    layout: Layout
    queries: tuple[Query, ...]
    stream: tuple[int, ...]

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 [H, W, 3], RGB; painted when first asked for."""
        return render(self.layout, np.random.default_rng(self.stream))

    @property
    def labels_HW(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, else the label of the object that is visible there."""
        return self.layout.labels_HW

    def target_HW(self, query: Query) -> np.ndarray:
        """bool [H, W]: the visible pixels of what a query asks for."""
        return np.isin(self.labels_HW, query.targets)


def scene(seed: int, split: str, index: int) -> Scene:
    """Makes one scene.

    Args:
        seed: from 0 on.
        split: any name; splits of one seed share nothing.
        index: number of the scene, from 0 on.

    Raises:
        UsageError: the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected a number from 0 on")
    for attempt in range(ATTEMPTS):
        stream = (GENERATOR, seed, zlib.crc32(split.encode()), index, attempt)
        rng = np.random.default_rng((*stream, 0))
        placed = layout(index, "odd" in PLANS[index % len(PLANS)], rng)
        if placed is None:
            continue
        made = Scene(index, placed, queries(placed, rng), (*stream, 1))
        if len(chosen(made)) == PER_SCENE:
            return made
    raise AssertionError(f"no layout for scene {index} of split {split!r} with seed {seed}")


def chosen(made: Scene) -> list[Query]:
    """The queries that a folder takes from a scene: one of each family in its plan, where the scene has them all."""
    plan = PLANS[made.index % len(PLANS)]
    empty = _empty_slot(made.index)
    found = [
        next(
            (q for q in made.queries if q.family == family and bool(q.targets) == (slot != empty)),
            None,
        )
        for slot, family in enumerate(plan)
    ]
    return [query for query in found if query is not None]


def _empty_slot(index: int) -> int | None:
    """Which query of the scene has no target: never the odd one out, which is always there where one asks for it."""
    if index % EMPTY_EVERY != 2:
        return None
    slots = [slot for slot, family in enumerate(PLANS[index % len(PLANS)]) if family != "odd"]
    return slots[index // EMPTY_EVERY % len(slots)]


def make(root: str | Path, split: str, count: int, seed: int) -> None:
    """Writes a split: ``ROOT/<split>/NNNNNN.jpg`` and ``.json``, one pair a query.

    Args:
        root: is made if need be.
        split: name of the folder in it.
        count: of queries.
        seed: from 0 on.

    Raises:
        UsageError: a number makes no sense, or the folder already holds something, or cannot be written.
    """
    folder = Path(root) / split
    if count < 1:
        raise UsageError(f"count is {count}; expected a number of queries from 1 on")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(
                f"{folder}: is not empty; choose another folder or another --split, or empty it"
            )
        for index in range(-(-count // PER_SCENE)):
            _write_scene(folder, scene(seed, split, index), count)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error


def _write_scene(folder: Path, made: Scene, count: int) -> None:
    """Writes a scene's queries, as far as their numbers are below `count`; all share one JPEG's bytes."""
    jpeg = _encode(made.image)
    for slot, query in enumerate(chosen(made)):
        number = made.index * PER_SCENE + slot
        if number < count:
            path = folder / f"{number:06d}.jpg"
            path.write_bytes(jpeg)
            annotation = json.dumps(_annotation(made, query, number, path.name))
            path.with_suffix(".json").write_text(annotation, encoding="utf-8")


def _encode(image_HW3: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()


def _annotation(made: Scene, query: Query, number: int, image_name: str) -> dict[str, Any]:
    """One query in ReasonSeg's format; the polygons are the outlines of what is visible."""
    labels = [("target", label) for label in query.targets]
    labels += [("ignore", label) for label in _ignored(made, query, number)]
    return {
        "text": list(query.texts),
        "is_sentence": query.is_sentence,
        "shapes": [
            _polygon(role, contour, image_name)
            for role, label in labels
            for contour in made.layout.contours(label - 1)
        ],
        "meta": _meta(made, query),
    }


def _ignored(made: Scene, query: Query, number: int) -> list[int]:
    """The largest of the objects that the query does not speak of, in some queries."""
    areas = made.layout.visible_px
    others = set(range(1, len(areas) + 1)) - {*query.targets, *query.mentioned}
    return (
        sorted(others, key=lambda label: areas[label - 1])[-1:]
        if number % IGNORED_EVERY == 3
        else []
    )


def _polygon(label: str, contour: np.ndarray, image_name: str) -> dict[str, Any]:
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
    """By what scores are sliced; the values are strings."""
    height, width = made.labels_HW.shape
    share = sum(made.layout.visible_px[label - 1] for label in query.targets) / (height * width)
    return {
        "family": query.family,
        "size": next(name for limit, name in SIZES if share <= limit),
        "has_target": "yes" if query.targets else "no",
        "aspect": "wide" if width > 1.2 * height else "tall" if height > 1.2 * width else "square",
        "objects": str(len(made.layout.things)),
        "scene": str(made.index),
    }
