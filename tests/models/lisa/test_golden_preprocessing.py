"""The encoders are fed the original's pixels."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL.Image import fromarray
from places import GOLDENS

from lisabench.models.lisa.frames import extent_in_frame
from lisabench.models.lisa.preprocessing import VIEWS, Preprocessor
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock

TINY = PRESETS["tiny"]
FULL = replace(TINY, clip=replace(TINY.clip, image_px=224), sam=replace(TINY.sam, image_px=1024))


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDENS / "lisa_data.npz"))


@pytest.mark.parametrize(
    ("view", "name", "step"), [("sam_frame", "sam_input", 16), ("clip_crop", "clip_input", 7)]
)
def test_golden_pixels_are_the_originals(
    recorded: dict[str, np.ndarray], view: str, name: str, step: int
) -> None:
    pixels_3HW = Preprocessor(FULL, [view])(view, recorded["image"])
    np.testing.assert_allclose(pixels_3HW[:, ::step, ::step], recorded[name], rtol=0, atol=1e-5)


def test_golden_extent_in_sams_frame_is_the_originals(recorded: dict[str, np.ndarray]) -> None:
    extent = json.loads((GOLDENS / "lisa_data.json").read_text())["sam_resized"]
    assert list(extent_in_frame(recorded["image"].shape[:2], 1024)) == extent


@pytest.mark.parametrize("sizes", [TINY, FULL], ids=["tiny", "full"])
@pytest.mark.parametrize("view", VIEWS)
def test_pixels_are_to_the_byte_what_the_processors_make_before_they_normalise(view, sizes):
    rng, preprocessor, whole = (
        np.random.default_rng(0),
        Preprocessor(sizes, [view]),
        VIEWS[view](sizes),
    )
    sides = [(112, 112), (256, 255), (225, 224), (30, 41), *rng.integers(40, 700, (24, 2)).tolist()]
    for height, width in sides:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        kept = {"do_rescale": False, "do_normalize": False, "input_data_format": "channels_last"}
        expected = whole(image, **kept)["pixel_values"][0]
        found = preprocessor.pixels(view, fromarray(image))
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected, err_msg=f"{height} x {width}")
