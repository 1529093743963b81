"""Outlines of the objects' shapes, centred, and all of one area.

Each is float [N, 2], (x, y) with y pointing down.
"""

import math

import numpy as np

AREA = 2.4  # in squared radii: objects of one radius are equally large, whatever their shape


def _regular(corners: int, turned: float = 0.0) -> np.ndarray:
    """Return a regular polygon with a corner at the top, turned by some radians."""
    angles = 2 * math.pi * (np.arange(corners) / corners) - math.pi / 2 + turned
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, inner: float) -> np.ndarray:
    """Return a star whose inner corners are `inner` times as far from the centre as its points."""
    angles = np.arange(2 * points) * math.pi / points - math.pi / 2
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> np.ndarray:
    """Return the well-known heart curve.

    x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t.
    """
    t = 2 * math.pi * np.arange(48) / 48
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1)


def _moon() -> np.ndarray:
    """Return a disc less a smaller one that is shifted to the right."""
    outer_angles = np.linspace(0.28, 1.72, 40) * math.pi
    tip_x, tip_y = math.cos(outer_angles[0]), math.sin(outer_angles[0])
    centre = 0.52
    # The inner arc runs back from tip to tip.
    tip_angle = math.atan2(tip_y, tip_x - centre)
    radius = math.hypot(tip_x - centre, tip_y)
    inner_angles = np.linspace(2 * math.pi - tip_angle, tip_angle, 30)
    outer = np.stack([np.cos(outer_angles), np.sin(outer_angles)], axis=1)
    inner_x = centre + radius * np.cos(inner_angles)
    inner_y = radius * np.sin(inner_angles)
    return np.concatenate([outer, np.stack([inner_x, inner_y], axis=1)])


def _cross() -> np.ndarray:
    a, b = 0.34, 1.0
    corners = [
        (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
        (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a),
    ]  # fmt: skip
    return np.array(corners)


def _normalised(outline: np.ndarray) -> np.ndarray:
    """Return an outline centred on its bounding box, and scaled to the common area.

    The area of a polygon is half of |sum of x_i y_(i+1) - x_(i+1) y_i| (the shoelace formula).
    """
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
