"""Scenes rendered ahead, as a GPU wants them: views as pixels, labels, and queries as ids, in files of some hundreds.

A training from scratch looks at every scene dozens of times; what the CPU makes of it is made once, by many processes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL.Image import fromarray
from torch import Tensor

from ...datasets.scenes.generator import Query, Scene, chosen, scene
from ...datasets.scenes.words import COLOURS, SHAPES, TEXTURES
from ...models.lisa.config import LisaConfig
from ...models.lisa.forced_prompt import forced_ids
from ...models.lisa.frames import extent_in_frame
from ...models.lisa.preprocessing import Preprocessor
from ...models.lisa.presets import Preset
from ...models.lisa.tokenizer import IMAGE_ID, WordTokenizer, load

FAMILIES = ("attribute", "negation", "superlative", "odd", "ordinal", "relation")
ATTRIBUTES = (tuple(SHAPES), tuple(COLOURS), tuple(TEXTURES))
VIEWS = ("clip_crop", "clip_frame", "sam_frame")
FINE_VIEW = "clip_frame"  # what is rendered for a CLIP of a finer grid too
LABELS_PX = 128  # side of the label map, in SAM's frame
OUTSIDE = 255
MOST_OBJECTS = 16
PER_FILE = 125  # few enough that many processes end at about the same time


@dataclass(frozen=True)
class Chunk:
    """Some scenes and all that is asked about them.

    Attributes:
        views: uint8 [N, 3, side, side], by name.
        sizes_N2: height and width of the images, in pixels.
        labels_NHW: uint8, the object at each place of SAM's frame; 0 is background, `OUTSIDE` the padding.
        crop_labels_NHW: uint8, likewise at the middle of each patch of CLIP's crop.
        attributes_NO3: int16, the shape, colour and texture of each object, from 1 on; 0 is none.
        scene_Q: int32, the scene of each query.
        targets_Q: int32, the objects asked for: bit i is label i.
        family_Q: uint8, a place in `FAMILIES`.
        chosen_Q: bool, whether it is the wording that a folder in ReasonSeg's format would have.
        ids_QL: int16, the tokens after the image and the answer's, filled up with 0.
        ends_Q: int16, how many of them come before the answer.
        prefix: the tokens before the image, the same for all.
    """

    views: dict[str, Tensor]
    sizes_N2: Tensor
    labels_NHW: Tensor
    crop_labels_NHW: Tensor
    attributes_NO3: Tensor
    scene_Q: Tensor
    targets_Q: Tensor
    family_Q: Tensor
    chosen_Q: Tensor
    ids_QL: Tensor
    ends_Q: Tensor
    prefix: Tensor


def render(
    folder: Path, seed: int, splits: Mapping[str, int], processes: int, sides: Collection[int] = ()
) -> list[Path]:
    """Renders scenes into files, those apart that are there already.

    Args:
        folder: where to.
        seed: of the scenes.
        splits: how many scenes of each.
        processes: that work at once.
        sides: of images that further CLIPs read: ``clip_frame`` lies once more beside the files for each.

    Returns:
        The files, split by split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        _Part(split, *each)
        for split, scenes in splits.items()
        for each in _files(folder, seed, split, scenes)
    ]
    missing = [
        part
        for part in parts
        if not all(file.exists() for file in (part.file, *_besides(part.file, sides)))
    ]
    write = partial(_write, seed, sides)
    if processes == 1:
        for part in missing:
            write(part)
    else:
        with ProcessPoolExecutor(processes, initializer=_alone) as pool:
            list(pool.map(write, missing))
    return [part.file for part in parts]


def files(folder: Path, seed: int, split: str, scenes: int) -> list[Path]:
    """Where `render` leaves the scenes of a split."""
    return [file for file, _ in _files(folder, seed, split, scenes)]


@dataclass(frozen=True)
class _Part:
    """What lies in one file: these scenes of a split."""

    split: str
    file: Path
    indices: range


def _files(folder: Path, seed: int, split: str, scenes: int) -> Iterator[tuple[Path, range]]:
    for start in range(0, scenes, PER_FILE):
        end = min(start + PER_FILE, scenes)
        yield folder / f"{split}-{seed}-{start:06}-{end:06}.pt", range(start, end)


def _besides(file: Path, sides: Collection[int]) -> list[Path]:
    return [_beside(file, FINE_VIEW, side) for side in sides]


def _beside(file: Path, view: str, side: int) -> Path:
    return file.with_name(f"{file.stem}.{view}-{side}.pt")


def _write(seed: int, sides: Collection[int], part: _Part) -> None:
    scenes = [scene(seed, part.split, i) for i in part.indices]
    _save(part.file, lambda: vars(chunk(scenes)))
    for side, file in zip(sides, _besides(part.file, sides), strict=True):
        _save(file, partial(_fine, scenes, side))


def _fine(scenes: Sequence[Scene], clip_px: int) -> dict[str, Tensor]:
    preprocessor = Preprocessor(LisaConfig(clip_px=clip_px).sizes, (FINE_VIEW,))
    pictures = (fromarray(each.image) for each in scenes)
    return {
        FINE_VIEW: torch.from_numpy(
            np.stack([preprocessor.pixels(FINE_VIEW, each) for each in pictures])
        )
    }


def _alone() -> None:
    """One thread for each of many processes."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _save(file: Path, content: Callable[[], dict[str, Any]]) -> None:
    if not file.exists():
        partial_file = file.with_suffix(".partial")
        torch.save(content(), partial_file)
        partial_file.rename(file)


def read(file: Path) -> Chunk:
    """A file of `render`, its tensors left on the disk until they are used."""
    return Chunk(**_load(file))


def pixels(file: Path, view: str, preset: Preset) -> Tensor:
    """A view of the scenes in a file of `render`, at the side that a preset's encoder reads: uint8 [N, 3, side, side].

    They are left on the disk until they are used.
    """
    usual = read(file).views[view]
    side = preset.sam.image_px if view == "sam_frame" else preset.clip.image_px
    return usual if usual.shape[-1] == side else _load(_beside(file, view, side))[view]


def _load(file: Path) -> dict[str, Any]:
    return torch.load(file, mmap=True, weights_only=True)


def chunk(scenes: Sequence[Scene]) -> Chunk:
    """What a GPU wants of some scenes, at the tiny preset's sizes."""
    case = LisaConfig()
    preset, tokens = case.sizes, WordTokenizer(load("tiny"))
    preprocessor = Preprocessor(preset, VIEWS)
    pictures = [fromarray(each.image) for each in scenes]
    views = {
        view: np.stack([preprocessor.pixels(view, each) for each in pictures]) for view in VIEWS
    }
    asked = [
        (i, query, text)
        for i, each in enumerate(scenes)
        for query in each.queries
        for text in query.texts
    ]
    folder = {(i, query.texts[0]) for i, each in enumerate(scenes) for query in chosen(each)}
    prompts = [forced_ids(case, tokens, text, query.is_sentence) for _, query, text in asked]
    image = prompts[0][0].index(IMAGE_ID)
    after = [prompt[image + 1 :] for prompt, _ in prompts]
    rows = [ids + answer for ids, (_, answer) in zip(after, prompts, strict=True)]
    return Chunk(
        views={view: torch.from_numpy(pixels) for view, pixels in views.items()},
        sizes_N2=torch.tensor([each.labels_HW.shape for each in scenes]),
        labels_NHW=torch.from_numpy(np.stack([_in_frame(each.labels_HW) for each in scenes])),
        crop_labels_NHW=torch.from_numpy(
            np.stack([_in_crop(each.labels_HW, preset.clip.grid) for each in scenes])
        ),
        attributes_NO3=torch.tensor([_attributes(each) for each in scenes], dtype=torch.int16),
        scene_Q=torch.tensor([i for i, _, _ in asked], dtype=torch.int32),
        targets_Q=torch.tensor([_bits(query) for _, query, _ in asked], dtype=torch.int32),
        family_Q=torch.tensor(
            [FAMILIES.index(query.family) for _, query, _ in asked], dtype=torch.uint8
        ),
        chosen_Q=torch.tensor([(i, text) in folder for i, _, text in asked]),
        ids_QL=_filled_up(rows),
        ends_Q=torch.tensor([len(ids) for ids in after], dtype=torch.int16),
        prefix=torch.tensor(prompts[0][0][:image], dtype=torch.int64),
    )


def _filled_up(rows: Sequence[Sequence[int]]) -> Tensor:
    columns_LQ = np.array(list(zip_longest(*rows, fillvalue=0)), np.int16)
    return torch.from_numpy(np.ascontiguousarray(columns_LQ.T))


def _bits(query: Query) -> int:
    return sum(1 << label for label in query.targets)


def _attributes(made: Scene) -> list[list[int]]:
    things = [
        [
            values.index(value) + 1
            for values, value in zip(ATTRIBUTES, (t.shape, t.colour, t.texture), strict=True)
        ]
        for t in made.layout.things
    ]
    return [[0, 0, 0], *things, *([[0, 0, 0]] * (MOST_OBJECTS - 1 - len(things)))]


def _in_frame(labels_HW: np.ndarray) -> np.ndarray:
    """The label at the middle of each cell of SAM's frame."""
    height, width = labels_HW.shape
    extent = extent_in_frame((height, width), LABELS_PX)
    frame = np.full((LABELS_PX, LABELS_PX), OUTSIDE, np.uint8)
    frame[: extent[0], : extent[1]] = cv2.resize(
        labels_HW, extent[::-1], interpolation=cv2.INTER_NEAREST_EXACT
    )
    return frame


def _in_crop(labels_HW: np.ndarray, grid: int) -> np.ndarray:
    """The label at the middle of each patch of the centre square."""
    height, width = labels_HW.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(labels_HW[top : top + side, left : left + side])
    return cv2.resize(square, (grid, grid), interpolation=cv2.INTER_NEAREST_EXACT)
