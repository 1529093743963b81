"""What is at (x, y) in an image is found there in every view, on every grid, and in the mask."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL.Image import fromarray
from torch import nn
from torch.nn import functional

from lisabench.models.checkpoints.random_parts import RandomParts
from lisabench.models.lisa.encoders import ClipEncoder, CroppedClipEncoder, SamEncoder, pool
from lisabench.models.lisa.frames import crop_frame, extent_in_frame, whole_frame
from lisabench.models.lisa.preprocessing import Preprocessor
from lisabench.models.lisa.presets import PRESETS, SAM_SIZES, Preset
from lisabench.models.lisa.resampling import carry, grid_map, logits_at_size

pytestmark = pytest.mark.no_clock

TINY = PRESETS["tiny"]
NO_PROBE = SimpleNamespace(region=lambda _: nullcontext())
SIZES = {"wide": (200, 640), "tall": (500, 301), "square": (333, 333)}
MARKS = [(0.07, 0.11), (0.45, 0.8), (0.93, 0.3)]

each_size = pytest.mark.parametrize("size_HW", SIZES.values(), ids=SIZES)
each_mark = pytest.mark.parametrize("mark", MARKS)


def marked(
    size_HW: tuple[int, int], mark: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """A black image with a small white square, and where its centre is: (x, y) in pixels."""
    image_HW3 = np.zeros((*size_HW, 3), np.uint8)
    radius = max(size_HW) // 60
    x, y = int(mark[0] * size_HW[1]), int(mark[1] * size_HW[0])
    x, y = (
        min(max(v, radius), side - radius - 1) for v, side in ((x, size_HW[1]), (y, size_HW[0]))
    )
    image_HW3[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    return image_HW3, (x + 0.5, y + 0.5)


def in_frame(
    place: tuple[float, float], size_HW: tuple[int, int], frame_px: int
) -> tuple[float, float]:
    height, width = extent_in_frame(size_HW, frame_px)
    return place[0] * width / size_HW[1], place[1] * height / size_HW[0]


def brightness(pixels_3HW: np.ndarray) -> torch.Tensor:
    """[1, 1, H, W], 0 where the image is black or absent."""
    grey_HW = torch.from_numpy(np.ascontiguousarray(pixels_3HW)).mean(0)
    return (grey_HW - 1).clamp(min=0)[None, None]


def centre(grey_11HW: torch.Tensor) -> tuple[float, float]:
    """Centre of brightness (x, y), in cells."""
    grey_HW = grey_11HW[0, 0] / grey_11HW.sum()
    y, x = (torch.arange(side) + 0.5 for side in grey_HW.shape)
    return float((grey_HW.sum(0) * x).sum()), float((grey_HW.sum(1) * y).sum())


class BrightPatches(nn.Module):
    """In an encoder's place: every patch's state is its brightness."""

    dtype = torch.float32

    def __init__(self, patch_px: int) -> None:
        super().__init__()
        self.patch_px = patch_px

    def forward(self, pixels_B3HW: torch.Tensor, **_: object) -> SimpleNamespace:
        grid_11hw = functional.avg_pool2d(brightness(pixels_B3HW[0].numpy()), self.patch_px)
        states = torch.cat([torch.zeros(1, 1, 1), grid_11hw.flatten(2).transpose(1, 2)], dim=1)
        return SimpleNamespace(
            hidden_states=[states, states * float("nan")], last_hidden_state=grid_11hw
        )


def stand_in(name: str, _: object) -> nn.Module:
    patch_px = {"clip": TINY.clip.patch_px, "sam_encoder": TINY.sam.patch_px}
    return BrightPatches(patch_px[name]) if name in patch_px else nn.Identity()


def cell(place: tuple[float, float], frame_px: int, grid: int) -> tuple[int, int]:
    """Row and column of the cell that holds a place of the frame."""
    return int(place[1] * grid / frame_px), int(place[0] * grid / frame_px)


class WideBrightPatches(BrightPatches):
    """Stands in for CLIP where several layers are read.

    Each layer holds the brightness along one direction, from a point off zero.
    """

    def forward(self, pixels_B3HW: torch.Tensor, **_: object) -> SimpleNamespace:
        bright_1N1 = super().forward(pixels_B3HW).hidden_states[0]
        random = torch.Generator().manual_seed(0)
        layers = TINY.clip.layers
        dark_LC, along_LC = (
            torch.randn(layers, TINY.clip.hidden, generator=random) for _ in range(2)
        )
        states = [dark + bright_1N1 * along for dark, along in zip(dark_LC, along_LC, strict=True)]
        return SimpleNamespace(hidden_states=[*states, states[0] * float("nan")])


def with_its_own_bridge(name: str, build: object) -> nn.Module:
    if name == "clip":
        return WideBrightPatches(TINY.clip.patch_px)
    return (
        RandomParts.plain("cpu", torch.float32, seed=0)(name, build)
        if name == "bridge"
        else nn.Identity()
    )


@torch.no_grad()
def changed_by_a_mark(
    encoder: ClipEncoder, size_HW: tuple[int, int], mark: tuple[float, float]
) -> tuple[torch.Tensor, tuple[float, float]]:
    """Return how much each cell differs from that of a black image, [1, 1, h, w]; and the mark."""
    image_HW3, place = marked(size_HW, mark)
    maps = {name: each[None] for name, each in encoder.maps(size_HW).items()}
    (view,) = encoder.views
    see = Preprocessor(encoder._preset, encoder.views)
    seen = [
        torch.from_numpy(see(view, image))[None] for image in (image_HW3, np.zeros_like(image_HW3))
    ]
    with_it, without = (
        encoder({view: each, **maps}, NO_PROBE).mask_embedding_BChw for each in seen
    )
    return (with_it - without).norm(dim=1, keepdim=True), place


UPSAMPLED = {
    "one doubling": TINY,
    "none": TINY.with_clip(224, "patches"),
    "three": replace(TINY, sam=SAM_SIZES["vit_b"]),
}


@each_size
@each_mark
@pytest.mark.parametrize("preset", UPSAMPLED.values(), ids=UPSAMPLED)
def test_a_mark_that_clip_saw_is_at_its_place_behind_the_upsampling_bridge(
    size_HW: tuple[int, int], mark: tuple[float, float], preset: Preset
) -> None:
    encoder = ClipEncoder(preset, with_its_own_bridge, upsampling=True)
    changed_11hw, place = changed_by_a_mark(encoder, size_HW, mark)
    found = [each * preset.sam.patch_px for each in centre(changed_11hw)]
    expected = in_frame(place, size_HW, preset.sam.image_px)
    patch_on_sam_px = preset.sam.image_px / preset.clip.grid
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.55 * patch_on_sam_px)


@each_size
@each_mark
@pytest.mark.parametrize(
    ("view", "frame_px"), [("clip_frame", TINY.clip.image_px), ("sam_frame", TINY.sam.image_px)]
)
def test_a_mark_is_at_its_place_in_a_frame(
    size_HW: tuple[int, int], mark: tuple[float, float], view: str, frame_px: int
) -> None:
    image_HW3, place = marked(size_HW, mark)
    pixels_3HW = Preprocessor(TINY, [view])(view, image_HW3)
    assert pixels_3HW.shape == (3, frame_px, frame_px)
    np.testing.assert_allclose(
        centre(brightness(pixels_3HW)), in_frame(place, size_HW, frame_px), rtol=0, atol=0.5
    )


def test_clips_own_crop_does_not_see_the_ends_of_a_wide_image_and_its_frame_does() -> None:
    image_HW3, _ = marked(SIZES["wide"], (0.07, 0.5))
    seen = {
        view: brightness(Preprocessor(TINY, [view])(view, image_HW3)).max()
        for view in ("clip_crop", "clip_frame")
    }
    assert seen["clip_crop"] == 0 and seen["clip_frame"] > 0.5


@each_size
@each_mark
def test_a_mark_that_clip_saw_is_at_its_place_for_the_language_model_and_for_the_mask_decoder(
    size_HW: tuple[int, int], mark: tuple[float, float]
) -> None:
    image_HW3, place = marked(size_HW, mark)
    encoder = ClipEncoder(TINY, stand_in)
    pixels = torch.from_numpy(Preprocessor(TINY, encoder.views)("clip_frame", image_HW3))[None]
    maps = {name: each[None] for name, each in encoder.maps(size_HW).items()}
    features = encoder({"clip_frame": pixels, **maps}, NO_PROBE)

    row, column = cell(
        in_frame(place, size_HW, TINY.clip.image_px), TINY.clip.image_px, TINY.clip.grid
    )
    assert int(features.image_tokens_BNC.argmax()) == row * TINY.clip.grid + column
    expected = in_frame(place, size_HW, TINY.sam.image_px)
    found = [each * TINY.sam.patch_px for each in centre(features.mask_embedding_BChw)]
    patch_on_sam_px = TINY.sam.image_px / TINY.clip.grid
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.55 * patch_on_sam_px)


@each_size
@each_mark
def test_a_mark_that_sam_saw_is_at_its_place_for_the_language_model_and_for_the_mask_decoder(
    size_HW: tuple[int, int], mark: tuple[float, float]
) -> None:
    image_HW3, place = marked(size_HW, mark)
    encoder = SamEncoder(TINY, stand_in)
    pixels = torch.from_numpy(Preprocessor(TINY, encoder.views)("sam_frame", image_HW3))[None]
    features = encoder({"sam_frame": pixels}, NO_PROBE)

    expected = in_frame(place, size_HW, TINY.sam.image_px)
    row, column = cell(expected, TINY.sam.image_px, TINY.clip.grid)
    assert int(features.image_tokens_BNC.argmax()) == row * TINY.clip.grid + column
    row, column = cell(expected, TINY.sam.image_px, TINY.sam.grid)
    assert int(features.mask_embedding_BChw.argmax()) == row * TINY.sam.grid + column


@each_size
@pytest.mark.parametrize(("clip_px", "sam_px"), [(112, 256), (224, 1024), (336, 1024)])
def test_carrying_between_grids_keeps_every_place_of_the_image(
    size_HW: tuple[int, int], clip_px: int, sam_px: int
) -> None:
    """Features that say where in the image they are still say so on the other grid."""
    clip_cells, sam_cells = clip_px // 14, sam_px // 16

    def places(frame_px: int, cells: int) -> torch.Tensor:
        height, width = extent_in_frame(size_HW, frame_px)
        centres = (torch.arange(cells) + 0.5) * frame_px / cells
        x, y = centres / width * size_HW[1], centres / height * size_HW[0]
        return torch.stack([x.expand(cells, -1), y[:, None].expand(-1, cells)])

    clip_to_sam = grid_map(whole_frame(size_HW, clip_px), whole_frame(size_HW, sam_px), sam_cells)
    (carried,) = carry(places(clip_px, clip_cells)[None], clip_to_sam[None])
    # Nearer to the edge than the centre of the outermost patch, nothing can be known.
    edge = -(-sam_cells // clip_cells)
    inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(carried[inner], places(sam_px, sam_cells)[inner], rtol=0, atol=1e-2)


@each_size
@each_mark
@pytest.mark.parametrize("clip_px", [224, 336])
def test_at_full_size_a_place_of_the_image_keeps_it_from_clips_view_to_sams_grid(
    size_HW: tuple[int, int], mark: tuple[float, float], clip_px: int
) -> None:
    """The cell of SAM's grid that holds a mark is sampled where the mark is in CLIP's frame."""
    place = mark[0] * size_HW[1], mark[1] * size_HW[0]
    row, column = cell(in_frame(place, size_HW, 1024), 1024, 64)
    clip_to_sam = grid_map(whole_frame(size_HW, clip_px), whole_frame(size_HW, 1024), 64)
    sampled_px = (clip_to_sam[row, column].numpy() + 1) / 2 * clip_px
    np.testing.assert_allclose(
        sampled_px, in_frame(place, size_HW, clip_px), rtol=0, atol=0.55 * clip_px / 64
    )


def in_crop(
    place: tuple[float, float], size_HW: tuple[int, int], crop_px: int
) -> tuple[float, float]:
    """Where CLIP's processor puts a place: the short side scaled, the centre cut out."""
    scale = crop_px / min(size_HW)
    return tuple(
        v * scale - (side * scale - crop_px) / 2
        for v, side in zip(place, size_HW[::-1], strict=True)
    )


@each_size
@each_mark
@pytest.mark.parametrize("crop_px", [112, 224, 336])
def test_a_place_of_the_image_keeps_it_from_clips_crop_to_sams_grid(
    size_HW: tuple[int, int], mark: tuple[float, float], crop_px: int
) -> None:
    place = mark[0] * size_HW[1], mark[1] * size_HW[0]
    row, column = cell(in_frame(place, size_HW, 1024), 1024, 64)
    clip_to_sam = grid_map(crop_frame(size_HW, crop_px), whole_frame(size_HW, 1024), 64)
    sampled_px = (clip_to_sam[row, column].numpy() + 1) / 2 * crop_px
    half_a_cell_px = 0.5 * max(size_HW) / min(size_HW) * crop_px / 64
    np.testing.assert_allclose(
        sampled_px, in_crop(place, size_HW, crop_px), rtol=0, atol=half_a_cell_px + 1
    )


@each_size
@pytest.mark.parametrize("mark", [(0.07, 0.11), (0.45, 0.7), (0.93, 0.3)])  # none on a crop's edge
def test_a_mark_is_where_it_was_for_the_mask_decoder_if_clips_crop_saw_it_and_nowhere_if_not(
    size_HW: tuple[int, int], mark: tuple[float, float]
) -> None:
    image_HW3, place = marked(size_HW, mark)
    encoder = CroppedClipEncoder(TINY, stand_in)
    pixels = torch.from_numpy(Preprocessor(TINY, encoder.views)("clip_crop", image_HW3))[None]
    maps = {name: each[None] for name, each in encoder.maps(size_HW).items()}
    features = encoder({"clip_crop": pixels, **maps}, NO_PROBE)

    seen_at = in_crop(place, size_HW, TINY.clip.image_px)
    if not all(0 < v < TINY.clip.image_px for v in seen_at):
        assert features.mask_embedding_BChw.abs().max() < 1e-3
        return
    row, column = cell(seen_at, TINY.clip.image_px, TINY.clip.grid)
    assert int(features.image_tokens_BNC.argmax()) == row * TINY.clip.grid + column
    found = [each * TINY.sam.patch_px for each in centre(features.mask_embedding_BChw)]
    patch_on_sam_px = TINY.sam.image_px / TINY.clip.grid * min(size_HW) / max(size_HW)
    expected = in_frame(place, size_HW, TINY.sam.image_px)
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=0.55 * patch_on_sam_px + 0.5 * TINY.sam.patch_px
    )


def test_convolutions_do_not_fill_what_the_crop_left_out() -> None:
    encoder = CroppedClipEncoder(TINY, with_its_own_bridge, upsampling=True)
    changed_11hw, place = changed_by_a_mark(encoder, (200, 600), (0.5, 0.5))
    maps = {name: each[None] for name, each in encoder.maps((200, 600)).items()}
    with torch.no_grad():
        pixels = torch.zeros(1, 3, TINY.clip.image_px, TINY.clip.image_px)
        embedding_hw = (
            encoder({"clip_crop": pixels, **maps}, NO_PROBE).mask_embedding_BChw[0].abs().amax(0)
        )
    inner = slice(6, 10)  # of 16 columns: those that the crop covers whole
    assert (embedding_hw[:5, inner] > 0).all()
    assert embedding_hw[:, :5].sum() == embedding_hw[:, 11:].sum() == embedding_hw[6:].sum() == 0
    found = [each * TINY.sam.patch_px for each in centre(changed_11hw)]
    np.testing.assert_allclose(
        found, in_frame(place, (200, 600), TINY.sam.image_px), rtol=0, atol=8
    )


def test_what_lies_outside_the_crop_is_zeros_and_inside_it_is_what_clip_saw() -> None:
    """The image is 3 : 1: the crop is its middle third, and it fills a third of SAM's frame."""
    clip_to_sam = grid_map(crop_frame((200, 600), 112), whole_frame((200, 600), 1024), 64)
    carried = carry(torch.ones(1, 1, 8, 8), clip_to_sam[None], "zeros")[0, 0]
    middle, first_padded_row = slice(22, 42), 22
    assert (carried[:21, middle] == 1).all()
    assert carried[:, :21].sum() == carried[:, 43:].sum() == carried[first_padded_row:].sum() == 0


def test_pooling_averages_the_cells_that_a_token_covers() -> None:
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(
        pool(features, 2)[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]), rtol=0, atol=0
    )


@each_size
@each_mark
def test_a_mark_in_the_logits_is_at_its_place_in_the_mask(
    size_HW: tuple[int, int], mark: tuple[float, float]
) -> None:
    frame_px, cells = TINY.sam.image_px, 4 * TINY.sam.grid
    _, place = marked(size_HW, mark)
    logits_hw = torch.zeros(cells, cells)
    logits_hw[cell(in_frame(place, size_HW, frame_px), frame_px, cells)] = 1
    (image_HW,) = logits_at_size(logits_hw[None], size_HW, frame_px)
    assert image_HW.shape == size_HW
    cell_px = max(size_HW) / cells
    np.testing.assert_allclose(centre(image_HW[None, None]), place, rtol=0, atol=0.75 * cell_px)


@pytest.mark.parametrize("view", ["clip_crop", "clip_frame", "sam_frame"])
def test_views_that_are_normalised_together_are_those_made_one_by_one(view):
    preprocessor, rng = Preprocessor(TINY, [view]), np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (*size_HW, 3), np.uint8) for size_HW in ((60, 90), (130, 70), (50, 50))
    ]
    pixels = torch.from_numpy(
        np.stack([preprocessor.pixels(view, fromarray(image)) for image in images])
    )
    extents = torch.tensor([extent_in_frame(image.shape[:2], pixels.shape[-1]) for image in images])
    together = preprocessor.normalised(view, pixels, extents)
    for mine, image in zip(together, images, strict=True):
        torch.testing.assert_close(
            mine, torch.from_numpy(preprocessor(view, image)), rtol=1e-5, atol=1e-5
        )
