"""A picture is painted plane by plane, which is quick; the plain way here has colours innermost."""

import math

import cv2
import numpy as np
import pytest

from lisabench.datasets.scenes import render as painter
from lisabench.datasets.scenes.generator import Scene, scene
from lisabench.datasets.scenes.layout import Patch, Thing

pytestmark = pytest.mark.no_clock

SCENES = 28  # every aspect with every plan of queries


def plain(made: Scene) -> np.ndarray:
    layout, rng = made.layout, np.random.default_rng(made.stream)
    canvas_HW3 = background(layout.height, layout.width, rng)
    lean = rng.random() * 2 * math.pi
    light = (math.cos(lean), math.sin(lean))
    for thing, patch in zip(layout.things, layout.patches, strict=True):
        darken(canvas_HW3, thing, patch, light)
        paint(canvas_HW3, thing, patch, light, rng)
    return finished(canvas_HW3, light, rng)


def background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    hue, other = rng.random(2)
    begin, end = (painter._muted(value, rng) for value in (hue, hue + 0.15 * other))
    turn = rng.random() * 2 * math.pi
    x, y = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in (width, height))
    along = np.clip(0.5 + math.cos(turn) * x + math.sin(turn) * y[:, None], 0, 1)
    grain = painter.BACKGROUNDS[int(rng.integers(len(painter.BACKGROUNDS)))](height, width, rng)
    blotches = painter._smooth_noise(height, width, 5, rng) * 14
    return (begin + along[..., None] * (end - begin)) + (blotches + grain)[..., None]


def darken(canvas_HW3: np.ndarray, thing: Thing, patch: Patch, light: tuple[float, float]) -> None:
    reach = max(3, round(0.16 * thing.radius))
    coverage = np.pad(patch.coverage_hw, 2 * reach)
    coverage = cv2.blur(cv2.blur(coverage, (reach, reach)), (reach, reach))
    left = patch.left - 2 * reach - round(reach * light[0])
    top = patch.top - 2 * reach - round(reach * light[1])
    for y in range(max(top, 0), min(top + coverage.shape[0], canvas_HW3.shape[0])):
        x0, x1 = max(left, 0), min(left + coverage.shape[1], canvas_HW3.shape[1])
        inside = coverage[y - top, x0 - left : x1 - left].astype(np.float32)
        canvas_HW3[y, x0:x1] *= (1 - inside * (0.42 / 255))[:, None]


def paint(
    canvas_HW3: np.ndarray,
    thing: Thing,
    patch: Patch,
    light: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    jitter = (rng.random(3) * 2 - 1).astype(np.float32) * painter.JITTER
    base = np.array(painter.RGB[thing.colour], np.float32) + jitter
    height, width = patch.coverage_hw.shape
    x = (np.arange(width, dtype=np.float32) + np.float32(patch.left - thing.x)) / np.float32(
        thing.radius
    )
    y = (
        (np.arange(height, dtype=np.float32) + np.float32(patch.top - thing.y))
        / np.float32(thing.radius)
    )[:, None]
    mixed_hw1 = painter._pattern(thing.texture, x, y, rng)[..., None]
    inner = cv2.erode(patch.coverage_hw, np.ones((3, 3), np.uint8)).astype(np.float32) / 255
    light_hw = (1 + 0.16 * (light[0] * x + light[1] * y)) * (0.72 + 0.28 * inner)
    colour_hw3 = (
        base + mixed_hw1 * (painter._second_colour(thing.colour, base) - base)
    ) * light_hw[..., None]
    window = canvas_HW3[patch.window]
    window += (patch.coverage_hw.astype(np.float32) / 255)[..., None] * (colour_hw3 - window)


def finished(
    canvas_HW3: np.ndarray, light: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    height, width = canvas_HW3.shape[:2]
    x, y = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in (width, height))
    falloff = np.float32(0.1 + 0.2 * rng.random())
    light_HW = np.float32(0.92 + 0.12 * rng.random()) + falloff * (
        light[0] * x + light[1] * y[:, None]
    )
    noise = rng.random((height, width), dtype=np.float32) - np.float32(0.5)
    noise *= np.float32(painter.NOISE * math.sqrt(12) * rng.random())
    return np.clip(canvas_HW3 * light_HW[..., None] + noise[..., None], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("index", range(SCENES))
def test_the_picture_is_to_the_byte_the_one_that_is_painted_plainly(index):
    made = scene(0, "painter", index)
    assert (made.image.dtype, made.image.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(made.image, plain(made))
