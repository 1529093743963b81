"""Scenes rendered ahead, as a GPU reads them: views as pixels, labels, and queries as ids.

A training from scratch reads every scene dozens of times. What the CPU computes for it is computed
once, by many processes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL.Image import fromarray
from torch import Tensor

from ...datasets.scenes.generator import Scene, chosen, scene
from ...datasets.scenes.words import COLOURS, SHAPES, TEXTURES
from ...harness.errors import DataError
from ...harness.records.whole_file import whole_file
from ...harness.text import LONGEST_REASON, one_line
from ...models.lisa.config import LisaConfig
from ...models.lisa.forced_prompt import forced_ids
from ...models.lisa.frames import extent_in_frame
from ...models.lisa.preprocessing import Preprocessor
from ...models.lisa.presets import Preset
from ...models.lisa.tokenizer import IMAGE_ID, WordTokenizer, load
from ..subprocesses import process_pool

FAMILIES = ("attribute", "negation", "superlative", "odd", "ordinal", "relation")
ATTRIBUTES = (tuple(SHAPES), tuple(COLOURS), tuple(TEXTURES))  # the kinds, each with its values
VIEWS = ("clip_crop", "clip_frame", "sam_frame")
FINE_VIEW = "clip_frame"  # also rendered for a CLIP of a finer grid
LABELS_PX = 128  # side of the label map, in SAM's frame
OUTSIDE = 255
MOST_OBJECTS = 16
# The type of a tensor, and how many axes it has.
Form = tuple[torch.dtype, int]
# What a file must hold of a `Chunk`; the letters at the end of a name are the axes.
FORMS: Mapping[str, Form] = {
    "sizes_N2": (torch.int64, 2),
    "labels_NHW": (torch.uint8, 3),
    "crop_labels_NHW": (torch.uint8, 3),
    "attributes_NO3": (torch.int16, 3),
    "scene_Q": (torch.int32, 1),
    "targets_Q": (torch.int32, 1),
    "family_Q": (torch.uint8, 1),
    "chosen_Q": (torch.bool, 1),
    "ids_QL": (torch.int16, 2),
    "ends_Q": (torch.int16, 1),
    "prefix": (torch.int64, 1),
}
VIEW_FORM: Form = (torch.uint8, 4)
SCENES_OF_A_FILE = 125  # few enough that many processes end at about the same time


@dataclass(frozen=True)
class Chunk:
    """Some scenes and all queries about them.

    Attributes:
        views: uint8 [N, 3, side, side], by the name of the view.
        sizes_N2: height and width of the images, in pixels.
        labels_NHW: uint8, the object at each place of SAM's frame; 0 is background, `OUTSIDE` the
            padding.
        crop_labels_NHW: uint8, likewise at the middle of each patch of CLIP's crop.
        attributes_NO3: int16, the shape, colour and texture of each object, from 1 on; 0 is none.
        scene_Q: int32, the scene of each query.
        targets_Q: int32, the objects that are targets: bit i is label i.
        family_Q: uint8, a place in `FAMILIES`.
        chosen_Q: bool, whether it is the wording that a folder in ReasonSeg's format would have.
        ids_QL: int16, the tokens after the image and those of the answer, padded with 0.
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


@dataclass(frozen=True)
class _Part:
    """The scenes of a split that one file holds."""

    split: str
    file: Path
    indices: range

    def fine_file(self, clip_px: int) -> Path:
        """Return the file that holds the same scenes for a CLIP of a finer grid."""
        return _fine_file(self.file, FINE_VIEW, clip_px)

    def is_rendered(self, sides: Collection[int]) -> bool:
        """Return whether its file and those of all finer grids are there."""
        expected = [self.file]
        for side in sides:
            expected.append(self.fine_file(side))
        return all(file.exists() for file in expected)


def render(
    folder: Path, seed: int, splits: Mapping[str, int], processes: int, sides: Collection[int] = ()
) -> list[Path]:
    """Render scenes into files, except those that are there already.

    Args:
        folder: of the files.
        seed: of the scenes.
        splits: how many scenes of each split.
        processes: how many render at once.
        sides: of images that further CLIPs read. For each, a further file beside every file holds
            the view ``clip_frame`` at that side.

    Returns:
        The files, split by split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for split, scenes in splits.items():
        parts += _parts(folder, seed, split, scenes)
    missing = [part for part in parts if not part.is_rendered(sides)]
    render_part = partial(_render_part, seed, sides)
    if processes == 1:
        for part in missing:
            render_part(part)
    else:
        with process_pool(processes, _use_one_thread) as pool:
            list(pool.map(render_part, missing))
    return [part.file for part in parts]


def files(folder: Path, seed: int, split: str, scenes: int) -> list[Path]:
    """Return the files into which `render` writes the scenes of a split."""
    return [part.file for part in _parts(folder, seed, split, scenes)]


def _parts(folder: Path, seed: int, split: str, scenes: int) -> list[_Part]:
    parts = []
    for start in range(0, scenes, SCENES_OF_A_FILE):
        end = min(start + SCENES_OF_A_FILE, scenes)
        file = folder / f"{split}-{seed}-{start:06}-{end:06}.pt"
        parts.append(_Part(split, file, range(start, end)))
    return parts


def _fine_file(file: Path, view: str, side: int) -> Path:
    return file.with_name(f"{file.stem}.{view}-{side}.pt")


def _use_one_thread() -> None:
    """Let this process use one thread: each of the many processes has one core."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _render_part(seed: int, sides: Collection[int], part: _Part) -> None:
    scenes = [scene(seed, part.split, index) for index in part.indices]
    if not part.file.exists():
        _save(part.file, vars(chunk(scenes)))
    for side in sides:
        if not part.fine_file(side).exists():
            _save(part.fine_file(side), {FINE_VIEW: _fine_view(scenes, side)})


def _fine_view(scenes: Sequence[Scene], clip_px: int) -> Tensor:
    """Return the view of a CLIP that reads images of another side: uint8 [N, 3, side, side]."""
    preprocessor = Preprocessor(LisaConfig(clip_px=clip_px).sizes, (FINE_VIEW,))
    pixels = []
    for drawn in scenes:
        picture = fromarray(drawn.image)
        pixels.append(preprocessor.pixels(FINE_VIEW, picture))
    return torch.from_numpy(np.stack(pixels))


def _save(file: Path, content: dict[str, Any]) -> None:
    # Given a path, torch.save would store the temporary file's name in the file.
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)


def read(file: Path) -> Chunk:
    """Read a file of `render`; its tensors stay on the disk until they are used.

    Raises:
        DataError: the file is damaged.
    """
    content = _load(file)
    if content.keys() != {"views", *FORMS}:
        raise _damaged(file, "it does not hold what is rendered of scenes")
    for name, form in FORMS.items():
        _check(file, content, name, form)
    if not isinstance(content["views"], dict):
        raise _damaged(file, "its views are no table")
    for view in VIEWS:
        _check(file, content["views"], view, VIEW_FORM)
    return Chunk(**content)


def pixels(file: Path, view: str, preset: Preset) -> Tensor:
    """Return a view of the scenes in a file of `render`, at the side that a preset's encoder reads.

    It stays on the disk until it is used.

    Args:
        file: of `render`.
        view: one of `VIEWS`.
        preset: of the encoder.

    Returns:
        uint8 [N, 3, side, side].
    """
    usual = read(file).views[view]
    side = preset.sam.image_px if view == "sam_frame" else preset.clip.image_px
    if usual.shape[-1] == side:
        return usual
    fine_file = _fine_file(file, view, side)
    content = _load(fine_file)
    _check(fine_file, content, view, VIEW_FORM)
    return content[view]


def _load(file: Path) -> dict[str, Any]:
    """Return what `_save` wrote into a file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        content = torch.load(file, mmap=True, weights_only=True)
    except Exception as error:  # a damaged file makes the library raise errors of any type
        raise _damaged(file, str(error) or type(error).__name__) from error
    if not isinstance(content, dict):
        raise _damaged(file, "it holds no table of tensors")
    return content


def _check(file: Path, content: Mapping[str, Any], name: str, form: Form) -> None:
    """Check that a table of a file holds a tensor of a type and with so many axes.

    Raises:
        DataError: it does not.
    """
    dtype, axes = form
    tensor = content.get(name)
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tensor.ndim != axes:
        raise _damaged(file, f"{name} is no tensor of {dtype} with {axes} axes")


def _damaged(file: Path, reason: str) -> DataError:
    shown = one_line(reason, LONGEST_REASON)
    return DataError(f"{file} is damaged ({shown}): remove it, and it is rendered again")


def chunk(scenes: Sequence[Scene]) -> Chunk:
    """Return what a GPU reads of some scenes, at the tiny preset's sizes."""
    config = LisaConfig()
    return Chunk(
        views=_views(scenes, config.sizes),
        **_label_maps(scenes, config.sizes.clip.grid),
        **_queries(scenes, config),
    )


def _views(scenes: Sequence[Scene], preset: Preset) -> dict[str, Tensor]:
    """Return the pixels of the scenes, by the name of the view."""
    preprocessor = Preprocessor(preset, VIEWS)
    pictures = [fromarray(drawn.image) for drawn in scenes]
    views = {}
    for view in VIEWS:
        of_scenes = [preprocessor.pixels(view, picture) for picture in pictures]
        views[view] = torch.from_numpy(np.stack(of_scenes))
    return views


def _label_maps(scenes: Sequence[Scene], clip_grid: int) -> dict[str, Tensor]:
    """Return the fields of a `Chunk` that say where which objects are."""
    sizes, in_frame, in_crop, attributes = [], [], [], []
    for drawn in scenes:
        sizes.append(drawn.labels_HW.shape)
        in_frame.append(_labels_in_frame(drawn.labels_HW))
        in_crop.append(_labels_in_crop(drawn.labels_HW, clip_grid))
        attributes.append(_attributes(drawn))
    return {
        "sizes_N2": torch.tensor(sizes),
        "labels_NHW": torch.from_numpy(np.stack(in_frame)),
        "crop_labels_NHW": torch.from_numpy(np.stack(in_crop)),
        "attributes_NO3": torch.tensor(attributes, dtype=torch.int16),
    }


def _queries(scenes: Sequence[Scene], config: LisaConfig) -> dict[str, Tensor]:
    """Return the fields of a `Chunk` about its queries: every wording of every query is one."""
    tokens = WordTokenizer(load("tiny"))
    scene_of_query, targets, families, is_chosen = [], [], [], []
    prefix, ends, ids = [], [], []
    for index, drawn in enumerate(scenes):
        # A folder in ReasonSeg's format has the first wording of each chosen query.
        chosen_wordings = {query.texts[0] for query in chosen(drawn)}
        for query in drawn.queries:
            for text in query.texts:
                prompt, answer = forced_ids(config, tokens, text, query.is_sentence)
                image = prompt.index(IMAGE_ID)
                prefix = prompt[:image]  # the same for all queries
                after_image = prompt[image + 1 :]
                ends.append(len(after_image))
                ids.append([*after_image, *answer])
                scene_of_query.append(index)
                # A target is an object's label: bit i is label i.
                targets.append(sum(1 << label for label in query.targets))
                families.append(FAMILIES.index(query.family))
                is_chosen.append(text in chosen_wordings)
    return {
        "scene_Q": torch.tensor(scene_of_query, dtype=torch.int32),
        "targets_Q": torch.tensor(targets, dtype=torch.int32),
        "family_Q": torch.tensor(families, dtype=torch.uint8),
        "chosen_Q": torch.tensor(is_chosen),
        "ids_QL": _padded(ids),
        "ends_Q": torch.tensor(ends, dtype=torch.int16),
        "prefix": torch.tensor(prefix, dtype=torch.int64),
    }


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows of different lengths as one tensor, padded with 0: int16 [Q, L]."""
    longest = max(len(row) for row in rows)
    padded_QL = np.zeros((len(rows), longest), np.int16)
    for number, row in enumerate(rows):
        padded_QL[number, : len(row)] = row
    return torch.from_numpy(padded_QL)


def _attributes(drawn: Scene) -> list[list[int]]:
    """Return shape, colour and texture of each object as places in `ATTRIBUTES`, from 1.

    An object that is not there has 0, like the background.
    """
    no_object = [0, 0, 0]
    objects = [no_object]  # label 0 is the background
    for thing in drawn.layout.things:
        places = []
        values_of_thing = (thing.shape, thing.colour, thing.texture)
        for values, value in zip(ATTRIBUTES, values_of_thing, strict=True):
            places.append(values.index(value) + 1)
        objects.append(places)
    return objects + [no_object] * (MOST_OBJECTS - len(objects))


def _labels_in_frame(labels_HW: np.ndarray) -> np.ndarray:
    """Return the label at the middle of each cell of SAM's frame: uint8 [LABELS_PX, LABELS_PX]."""
    height, width = labels_HW.shape
    rows, columns = extent_in_frame((height, width), LABELS_PX)
    frame_HW = np.full((LABELS_PX, LABELS_PX), OUTSIDE, np.uint8)
    frame_HW[:rows, :columns] = _resized(labels_HW, rows, columns)
    return frame_HW


def _labels_in_crop(labels_HW: np.ndarray, grid: int) -> np.ndarray:
    """Return the label at the middle of each patch of the centre square: uint8 [grid, grid]."""
    height, width = labels_HW.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square_HW = np.ascontiguousarray(labels_HW[top : top + side, left : left + side])
    return _resized(square_HW, grid, grid)


def _resized(labels_HW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return labels at another size.

    The nearest label is taken: labels have no value in between.
    """
    # OpenCV takes the width first. INTER_NEAREST would take the corner of a cell, not its middle.
    return cv2.resize(labels_HW, (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT)
