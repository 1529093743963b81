"""The gallery: a few queries with their target and the mask that every case has answered, side by side."""

import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...harness.errors import DataError
from ...harness.masks import decode
from ...harness.metrics import iou
from ...harness.records.readings import ANSWERED, Record, counts
from ...harness.records.run import GALLERY, Run
from ..drawing import (
    GREEN,
    GREY,
    HEAD_IN,
    MUTED,
    STYLE,
    WIDTH_IN,
    canvas,
    case_colour,
    heading,
    legend,
    save,
    wrapped,
)
from . import verdict_words
from .schema import Case, Summary

FILE = "gallery.png"
TILES_A_ROW = 5
MARGIN_IN, GAP_IN, NAME_LINE_IN, CAPTION_IN, QUERY_LINE_IN, BETWEEN_IN = (
    0.15,
    0.08,
    0.18,
    0.27,
    0.2,
    0.22,
)
CHARACTER_IN = 0.105  # of a bold name
HEIGHT_OVER_WIDTH = (0.45, 1.15)  # taller or wider images are framed in white
IGNORED = 255
FAILURES = {
    "oom": "failed: out of memory",
    "timeout": "failed: took too long",
    "error": "failed: an error",
}


@dataclass(frozen=True)
class Shown:
    """One query of the gallery: its pixels uint8 [h, w, 3], its target uint8 [H, W] and its records by case."""

    image: np.ndarray
    target_HW: np.ndarray
    query: str
    records: dict[str, Record]


@dataclass(frozen=True)
class Tile:
    """One picture: pixels uint8 [h, w, 3], what stands above and below it, and the colour of its frame."""

    pixels: np.ndarray
    name: str
    caption: str
    colour: str


def draw(run: Run, summary: Summary) -> Path | None:
    """Draws the gallery; None where the run has kept none, or nothing that can be read."""
    shown = _shown(run)
    cases = [case for case in summary.cases if any(case.name in query.records for query in shown)]
    if not shown or not cases:
        return None
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # its keys are typed as literals
        return save(
            _figure([_tiles(query, cases) for query in shown], shown, cases), run.folder / FILE
        )


def _shown(run: Run) -> list[Shown]:
    ids = run.run.get("gallery") or []
    names = [case["name"] for case in run.run["cases"]]
    by_case = {name: {record["sample_id"]: record for record in run.scored(name)} for name in names}
    shown = []
    for index, (image, target_HW) in enumerate(_pictures(run.folder / GALLERY, len(ids))):
        records = {
            name: records[ids[index]] for name, records in by_case.items() if ids[index] in records
        }
        query = next((record["query"] for record in records.values()), "")
        shown.append(Shown(image, target_HW, query, records))
    return shown


def _pictures(path: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and targets; fewer or none where the file was cut short or is not there yet."""
    try:
        with np.load(path) as kept:
            return [
                (kept[f"image_{i}"], kept[f"target_{i}"])
                for i in range(count)
                if f"target_{i}" in kept
            ]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return []


def _tiles(query: Shown, cases: Sequence[Case]) -> list[Tile]:
    ignored_hw = _fitted(query.target_HW == IGNORED, query.image)
    striped = _striped(query.image, ignored_hw)
    target_hw = _fitted(query.target_HW == 1, query.image)
    caption = (
        f"{100 * np.mean(query.target_HW == 1):.1f} % of the image"
        if target_hw.any()
        else "no target"
    )
    answers = [
        _answer(case, case_colour(index), query, striped, target_hw)
        for index, case in enumerate(cases)
    ]
    return [
        Tile(query.image, "image", "", GREY),
        Tile(_tinted(striped, target_hw, GREEN), "target", caption, GREEN),
        *answers,
    ]


def _answer(
    case: Case, colour: str, query: Shown, striped: np.ndarray, target_hw: np.ndarray
) -> Tile:
    record = query.records.get(case.name)
    mask_hw = _mask(record, query.image)
    pixels = _tinted(striped, mask_hw, colour) if mask_hw is not None else _faded(striped)
    pixels[_outline(target_hw, 3)] = 255
    pixels[_outline(target_hw, 2)] = 255 * np.array(to_rgb(GREEN))
    return Tile(pixels, case.name, _caption(case, record, mask_hw), colour)


def _mask(record: Record | None, image: np.ndarray) -> np.ndarray | None:
    if record is None or record.get("mask_rle") is None:
        return None
    try:
        return _fitted(decode(record["mask_rle"]), image)
    except DataError:
        return None


def _caption(case: Case, record: Record | None, mask_hw: np.ndarray | None) -> str:
    """Under a mask: its IoU, or why there is none."""
    if record is None:
        return "not asked yet"
    if record["status"] not in ANSWERED:
        return FAILURES.get(str(record["status"]), "failed")
    answer = (
        "no [SEG]" if record["status"] == "no_seg" else "mask not kept" if mask_hw is None else ""
    )
    quality = verdict_words.why_no_quality(case) or f"IoU {iou(counts(record)):.2f}"
    return ", ".join(part for part in (quality, answer) if part)


def _fitted(mask_HW: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The mask at the size of the shown image, by the nearest pixel."""
    (height, width), (h, w) = mask_HW.shape, image.shape[:2]
    return mask_HW[np.ix_(np.arange(h) * height // h, np.arange(w) * width // w)]


def _striped(image: np.ndarray, ignored_hw: np.ndarray) -> np.ndarray:
    """Grey stripes over what is ignored."""
    y, x = np.indices(ignored_hw.shape)
    pixels = image.astype(float)
    pixels[ignored_hw] = 0.35 * pixels[ignored_hw] + 0.65 * 150
    pixels[ignored_hw & ((x + y) % 8 < 3)] = 225
    return pixels


def _faded(pixels: np.ndarray) -> np.ndarray:
    return (0.3 * pixels + 0.7 * 255).astype(np.uint8)


def _tinted(pixels: np.ndarray, mask_hw: np.ndarray, colour: str) -> np.ndarray:
    """The mask in its colour, with a white line around it; what lies outside is turned to a pale grey."""
    tint, grey = 255 * np.array(to_rgb(colour)), pixels.mean(axis=2, keepdims=True)
    painted = 0.55 * grey + 0.45 * 0.5 * (pixels + 255)
    painted[mask_hw] = 0.35 * pixels[mask_hw] + 0.65 * tint
    painted[_outline(mask_hw, 1)] = 255
    return painted.clip(0, 255).astype(np.uint8)


def _outline(mask_hw: np.ndarray, thickness_px: int) -> np.ndarray:
    """The rim of the mask, inside it; the image's border is no rim."""
    inside = mask_hw
    for _ in range(thickness_px):
        padded = np.pad(inside, 1, mode="edge")
        inside = (
            inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return mask_hw & ~inside


@dataclass(frozen=True)
class Layout:
    """Where one query's tiles go; all in inches."""

    columns: int
    side_in: float
    query_lines: list[str]
    name_lines: int
    tile_in: float

    @property
    def row_in(self) -> float:
        return self.name_lines * NAME_LINE_IN + 0.06 + self.tile_in + CAPTION_IN

    @property
    def query_in(self) -> float:
        return len(self.query_lines) * QUERY_LINE_IN + 0.06

    def height_in(self, tiles: int) -> float:
        return self.query_in + -(-tiles // self.columns) * self.row_in + BETWEEN_IN


def _layout(row: list[Tile], query: str) -> Layout:
    columns = min(len(row), TILES_A_ROW)
    side_in = (WIDTH_IN - 2 * MARGIN_IN - (columns - 1) * GAP_IN) / max(columns, 4)
    name_lines = max(_name(tile, side_in).count("\n") + 1 for tile in row)
    height, width = row[0].pixels.shape[:2]
    tile_in = side_in * float(np.clip(height / width, *HEIGHT_OVER_WIDTH))
    return Layout(columns, side_in, textwrap.wrap(query, 105) or [""], name_lines, tile_in)


def _name(tile: Tile, side_in: float) -> str:
    return wrapped(tile.name, int(side_in / CHARACTER_IN))


def _figure(rows: list[list[Tile]], shown: list[Shown], cases: Sequence[Case]) -> Figure:
    layouts = [_layout(row, query.query) for row, query in zip(rows, shown, strict=True)]
    figure = canvas(HEAD_IN + 0.06 + sum(layout.height_in(len(rows[0])) for layout in layouts))
    top_in = figure.get_figheight() - HEAD_IN - 0.06
    for row, layout in zip(rows, layouts, strict=True):
        _draw_query(figure, row, layout, top_in)
        top_in -= layout.height_in(len(row))
    heading(figure, _message(cases), "each query's image and target, and what every case answered")
    legend(figure, _handles(any((query.target_HW == IGNORED).any() for query in shown)))
    return figure


def _handles(ignored: bool) -> list[Patch]:
    handles = [
        Patch(color=GREEN, alpha=0.75, label="target (outlined in every answer)"),
        Patch(color=case_colour(0), alpha=0.75, label="predicted mask (each case has its colour)"),
    ]
    stripes = Patch(facecolor="#BBBBBB", edgecolor="white", hatch="////", label="ignored")
    return [*handles, stripes] if ignored else handles


def _message(cases: Sequence[Case]) -> str:
    if any(case.has_quality is False for case in cases):
        return "Random weights: these masks show that the pipeline runs, not what it can do"
    return "What was asked, and what was answered"


def _draw_query(figure: Figure, row: list[Tile], layout: Layout, top_in: float) -> None:
    _write(
        figure, MARGIN_IN, top_in, "\n".join(layout.query_lines), fontsize=11.5, fontstyle="italic"
    )
    for index, tile in enumerate(row):
        deep, column = divmod(index, layout.columns)
        left_in = MARGIN_IN + column * (layout.side_in + GAP_IN)
        above_in = (
            top_in - layout.query_in - (deep + 1) * layout.row_in + layout.tile_in + CAPTION_IN
        )
        _draw_tile(figure, tile, layout, left_in, above_in)


def _draw_tile(figure: Figure, tile: Tile, layout: Layout, left_in: float, above_in: float) -> None:
    """`above_in`: where the picture's upper edge is, above the figure's lower one."""
    bottom_in, high_in = above_in - layout.tile_in, figure.get_figheight()
    place = (
        left_in / WIDTH_IN,
        bottom_in / high_in,
        layout.side_in / WIDTH_IN,
        layout.tile_in / high_in,
    )
    axes = figure.add_axes(place)
    axes.imshow(tile.pixels, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=tile.colour, linewidth=1.6)
    name = _name(tile, layout.side_in)
    _write(figure, left_in, above_in + 0.05, name, va="bottom", fontsize=10.5, fontweight="bold")
    _write(figure, left_in, bottom_in - 0.05, tile.caption, fontsize=10, color=MUTED)


def _write(
    figure: Figure, left_in: float, above_in: float, text: str, va: str = "top", **how: Any
) -> None:
    figure.text(left_in / WIDTH_IN, above_in / figure.get_figheight(), text, va=va, **how)
