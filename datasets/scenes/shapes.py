"""Outlines of the objects' shapes: float [N, 2], (x, y), y pointing down, centred, and all of one area."""

import math

import numpy as np

AREA = 2.4  # objects of one radius are equally large, whatever their shape


def _star(points: int, inner: float) -> np.ndarray:
    turns = np.arange(2 * points) * math.pi / points - math.pi / 2
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1)


def _regular(corners: int, turned: float = 0.0) -> np.ndarray:
    turns = 2 * math.pi * (np.arange(corners) / corners) - math.pi / 2 + turned
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _heart() -> np.ndarray:
    t = 2 * math.pi * np.arange(48) / 48
    x = 16 * np.sin(t) ** 3
    return np.stack(
        [x, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], axis=1
    )


def _moon() -> np.ndarray:
    """A disc less a smaller one that is shifted to the right."""
    outer = np.linspace(0.28, 1.72, 40) * math.pi
    tip = np.array([math.cos(outer[0]), math.sin(outer[0])])
    centre = 0.52
    reach = math.atan2(tip[1], tip[0] - centre)
    inner = np.linspace(2 * math.pi - reach, reach, 30)
    radius = math.hypot(tip[0] - centre, tip[1])
    arc = np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], axis=1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], axis=1), arc])


def _cross() -> np.ndarray:
    a, b = 0.34, 1.0
    corners = [
        (-a, -b),
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    return np.array(corners)


def _normalised(outline: np.ndarray) -> np.ndarray:
    """Centred on its bounding box, and scaled to the common area (shoelace formula)."""
    outline = outline - (outline.max(axis=0) + outline.min(axis=0)) / 2
    x, y = outline.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return outline * math.sqrt(AREA / area)


UNIT_SHAPES = {
    "circle": _normalised(_regular(64)),
    "square": _normalised(_regular(4, math.pi / 4)),
    "triangle": _normalised(_regular(3)),
    "star": _normalised(_star(5, 0.48)),
    "cross": _normalised(_cross()),
    "heart": _normalised(_heart()),
    "moon": _normalised(_moon()),
}
