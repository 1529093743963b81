"""The gallery: a few queries with their target and the masks of all cases, side by side.

Shape suffixes: HW is the size of the query's image, hw the size at which the gallery keeps it.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...harness.contract import IGNORED
from ...harness.errors import DataError
from ...harness.masks import decode
from ...harness.metrics import iou
from ...harness.records.gallery import read_gallery
from ...harness.records.query import QueryRecord
from ...harness.records.run import GALLERY, Run
from ..drawing import (
    GREEN,
    GREY,
    HEAD_IN,
    MUTED,
    WIDTH_IN,
    canvas,
    case_colour,
    heading,
    legend,
    save,
    style,
    wrapped,
)
from ..plotting import Figure, Patch, to_rgb
from . import verdict_words
from .schema import Case, Summary

FILE = "gallery.png"
MOST_QUERIES = 6
TILES_A_ROW = 5
FEWEST_COLUMNS = 4  # tiles are no larger than if there were so many of them
QUERY_CHARACTERS = 105  # of a query on one line
MARGIN_IN, GAP_IN = 0.15, 0.08  # at the figure's edges, and between tiles
QUERY_LINE_IN, NAME_LINE_IN, CAPTION_IN = 0.2, 0.18, 0.27
SPACE_IN = 0.06  # under the heading, a query, and a name
BETWEEN_QUERIES_IN = 0.22
CHARACTER_IN = 0.105  # width of a character of a bold name
LOWEST, HIGHEST = 0.45, 1.15  # height over width of a tile; other images are framed in white
FAILURES = {
    "oom": "failed: out of memory",
    "timeout": "failed: took too long",
    "nonfinite": "failed: NaN or infinity",
    "error": "failed: an error",
}


@dataclass(frozen=True)
class GalleryQuery:
    """One query of the gallery.

    Attributes:
        image: uint8 [h, w, 3], RGB.
        target_HW: uint8 [H, W]: 0 background, 1 target, 255 ignored.
        text: of the query.
        records: how each case answered it, by the case's name.
    """

    image: np.ndarray
    target_HW: np.ndarray
    text: str
    records: Mapping[str, QueryRecord]


@dataclass(frozen=True)
class Tile:
    """One picture.

    Attributes:
        pixels: uint8 [h, w, 3], RGB.
        name, caption: what stands above and below it.
        colour: of its frame.
    """

    pixels: np.ndarray
    name: str
    caption: str
    colour: str


def draw_query(run: Run, summary: Summary, text: str, path: Path) -> Path:
    """Draw one kept query alone, with its legend, as the README shows one.

    Args:
        run: holds the records.
        summary: of the run.
        text: the words of the query.
        path: the file to write.

    Raises:
        DataError: the run's gallery has no such query.
    """
    queries = [query for query in _gallery_queries(run) if query.text == text]
    if not queries:
        raise DataError(
            f"the gallery of {run.folder} has no query '{text}': keep more with --set gallery=8"
        )
    with style():
        return save(_figure(queries[:1], summary.cases), path)


def gallery(run: Run, summary: Summary) -> Figure | None:
    """Return a figure with the kept queries about which the cases disagree most.

    None where the run has kept no images, or none that can be read.
    """
    queries = _gallery_queries(run)
    cases = []
    for case in summary.cases:
        if any(case.name in query.records for query in queries):
            cases.append(case)
    if not cases:
        return None
    # The sort keeps the order of queries about which all agree alike.
    queries.sort(key=lambda query: -disagreement(query))
    return _figure(queries[:MOST_QUERIES], cases)


def disagreement(query: GalleryQuery) -> float:
    """Return the largest difference of IoU of two cases, 0 to 1; a failed query has IoU 0."""
    scores = []
    for record in query.records.values():
        scores.append(iou(record.counts) if record.answered else 0.0)
    return max(scores, default=0.0) - min(scores, default=0.0)


def _gallery_queries(run: Run) -> list[GalleryQuery]:
    """Return the kept queries whose images can be read, in the order of the data."""
    kept = read_gallery(run.folder / GALLERY, run.manifest.gallery)
    answers: dict[str, dict[str, QueryRecord]] = {sample_id: {} for sample_id in kept}
    for case in run.cases:
        for record in case.scored:
            if record.sample_id in answers:
                answers[record.sample_id][case.name] = record
    queries = []
    for sample_id, records in answers.items():
        texts = [record.query for record in records.values()]
        query = GalleryQuery(
            kept[sample_id].image.pixels,
            kept[sample_id].target_HW,
            texts[0] if texts else "",
            records,
        )
        queries.append(query)
    return queries


def _tiles(query: GalleryQuery, cases: Sequence[Case]) -> list[Tile]:
    """Return the tiles of a query: its image, its target, and the answer of every case."""
    striped = _striped(query.image, _fitted(query.target_HW == IGNORED, query.image))
    target_hw = _fitted(query.target_HW == 1, query.image)
    caption = "no target"
    if target_hw.any():
        caption = f"{100 * np.mean(query.target_HW == 1):.1f} % of the image"
    tiles = [
        Tile(query.image, "image", "", GREY),
        Tile(_tinted(striped, target_hw, GREEN), "target", caption, GREEN),
    ]
    for index, case in enumerate(cases):
        record = query.records.get(case.name)
        mask_hw = _mask(record, query.image)
        colour = case_colour(index)
        pixels = _faded(striped) if mask_hw is None else _tinted(striped, mask_hw, colour)
        # The target's outline in green, with a white line inside it.
        pixels[_outline(target_hw, 3)] = 255
        pixels[_outline(target_hw, 2)] = 255 * np.array(to_rgb(GREEN))
        tiles.append(Tile(pixels, case.name, _caption(case, record, mask_hw), colour))
    return tiles


def _mask(record: QueryRecord | None, image: np.ndarray) -> np.ndarray | None:
    """Return a case's mask, bool [h, w]; None where it was not kept or cannot be read."""
    if record is None or record.mask_rle is None:
        return None
    try:
        return _fitted(decode(record.mask_rle), image)
    except DataError:
        return None


def _caption(case: Case, record: QueryRecord | None, mask_hw: np.ndarray | None) -> str:
    """Return what stands under an answer: its IoU, or why there is none."""
    if record is None:
        return "not evaluated yet"
    if not record.answered:
        return FAILURES.get(record.status, "failed")
    caption = verdict_words.why_no_quality(case) or f"IoU {iou(record.counts):.2f}"
    if record.status == "no_seg":
        return f"{caption}, no [SEG]"
    if mask_hw is None:
        return f"{caption}, mask not kept"
    return caption


def _fitted(mask_HW: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return a mask at the size of the kept image, by the nearest pixel."""
    height, width = mask_HW.shape
    h, w = image.shape[:2]
    rows = np.arange(h) * height // h
    columns = np.arange(w) * width // w
    return mask_HW[np.ix_(rows, columns)]


def _striped(image: np.ndarray, ignored_hw: np.ndarray) -> np.ndarray:
    """Return the image, as float [h, w, 3], with grey stripes over what is ignored."""
    y, x = np.indices(ignored_hw.shape)
    pixels = image.astype(float)
    pixels[ignored_hw] = 0.35 * pixels[ignored_hw] + 0.65 * 150
    pixels[ignored_hw & ((x + y) % 8 < 3)] = 225
    return pixels


def _faded(pixels: np.ndarray) -> np.ndarray:
    """Return an image that is nearly white, for an answer without a mask."""
    return (0.3 * pixels + 0.7 * 255).astype(np.uint8)


def _tinted(pixels: np.ndarray, mask_hw: np.ndarray, colour: str) -> np.ndarray:
    """Return the image in pale grey, with the mask in its colour and a white line around it."""
    tint = 255 * np.array(to_rgb(colour))
    grey = pixels.mean(axis=2, keepdims=True)
    painted = 0.55 * grey + 0.45 * 0.5 * (pixels + 255)
    painted[mask_hw] = 0.35 * pixels[mask_hw] + 0.65 * tint
    painted[_outline(mask_hw, 1)] = 255
    return painted.clip(0, 255).astype(np.uint8)


def _outline(mask_hw: np.ndarray, thickness_px: int) -> np.ndarray:
    """Return the rim of a mask, inside it, as bool [h, w].

    A pixel stays inside if its four neighbours do. At the image's border the mask is continued, so
    that the border is no rim.
    """
    inside = mask_hw
    for _ in range(thickness_px):
        padded = np.pad(inside, 1, mode="edge")
        above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
        left, right = padded[1:-1, :-2], padded[1:-1, 2:]
        inside = inside & above & below & left & right
    return mask_hw & ~inside


@dataclass(frozen=True)
class Layout:
    """Where the tiles of one query go; all in inches.

    Attributes:
        columns: tiles in a row.
        side_in, tile_in: width and height of a tile.
        query_lines: the query's text, broken into lines.
        name_lines: lines of the longest name.
    """

    columns: int
    side_in: float
    tile_in: float
    query_lines: Sequence[str]
    name_lines: int

    @property
    def query_in(self) -> float:
        """Height of the query's text."""
        return len(self.query_lines) * QUERY_LINE_IN + SPACE_IN

    @property
    def row_in(self) -> float:
        """Height of a row: names, tiles and captions."""
        return self.name_lines * NAME_LINE_IN + SPACE_IN + self.tile_in + CAPTION_IN

    def height_in(self, tiles: int) -> float:
        """Return the height of the whole query with so many tiles."""
        return self.query_in + math.ceil(tiles / self.columns) * self.row_in + BETWEEN_QUERIES_IN


def _layout(tiles: Sequence[Tile], text: str) -> Layout:
    columns = min(len(tiles), TILES_A_ROW)
    room_in = WIDTH_IN - 2 * MARGIN_IN - (columns - 1) * GAP_IN
    side_in = room_in / max(columns, FEWEST_COLUMNS)
    height, width = tiles[0].pixels.shape[:2]
    return Layout(
        columns=columns,
        side_in=side_in,
        tile_in=side_in * float(np.clip(height / width, LOWEST, HIGHEST)),
        query_lines=textwrap.wrap(text, QUERY_CHARACTERS) or [""],
        name_lines=max(_name(tile, side_in).count("\n") + 1 for tile in tiles),
    )


def _name(tile: Tile, side_in: float) -> str:
    return wrapped(tile.name, int(side_in / CHARACTER_IN))


def _figure(queries: Sequence[GalleryQuery], cases: Sequence[Case]) -> Figure:
    all_tiles = [_tiles(query, cases) for query in queries]
    layouts = []
    for tiles, query in zip(all_tiles, queries, strict=True):
        layouts.append(_layout(tiles, query.text))
    tiles_in = sum(layout.height_in(2 + len(cases)) for layout in layouts)
    figure = canvas(HEAD_IN + SPACE_IN + tiles_in)
    top_in = figure.get_figheight() - HEAD_IN - SPACE_IN
    for tiles, layout in zip(all_tiles, layouts, strict=True):
        _draw_query(figure, tiles, layout, top_in)
        top_in -= layout.height_in(len(tiles))
    message = "A query and the masks of every case"
    if len(queries) > 1:
        message = "A few queries and the masks of every case"
    if any(case.has_quality is False for case in cases):
        message = "Random weights: these masks show that the pipeline runs, not what it can do"
    drawn = "image, target, and the answer of every case with its IoU to the target"
    heading(figure, message, drawn)
    ignored = any((query.target_HW == IGNORED).any() for query in queries)
    legend(figure, _handles(ignored))
    return figure


def _handles(ignored: bool) -> list[Patch]:
    handles = [
        Patch(color=GREEN, alpha=0.75, label="target"),
        Patch(facecolor="none", edgecolor=GREEN, linewidth=2, label="outline of the target"),
        Patch(color=case_colour(0), alpha=0.75, label="a case's mask, in the colour of its frame"),
    ]
    if ignored:
        stripes = Patch(facecolor="#BBBBBB", edgecolor="white", hatch="////", label="ignored")
        handles.append(stripes)
    return handles


def _draw_query(figure: Figure, tiles: Sequence[Tile], layout: Layout, top_in: float) -> None:
    """Draw a query's text and tiles, whose upper edge is `top_in` above the figure's lower edge."""
    figure.text(
        MARGIN_IN / WIDTH_IN,
        top_in / figure.get_figheight(),
        "\n".join(layout.query_lines),
        va="top",
        fontsize=11.5,
        fontstyle="italic",
    )
    for index, tile in enumerate(tiles):
        row, column = divmod(index, layout.columns)
        left_in = MARGIN_IN + column * (layout.side_in + GAP_IN)
        row_bottom_in = top_in - layout.query_in - (row + 1) * layout.row_in
        _draw_tile(figure, tile, layout, left_in, row_bottom_in + CAPTION_IN)


def _draw_tile(
    figure: Figure, tile: Tile, layout: Layout, left_in: float, bottom_in: float
) -> None:
    """Draw a picture, with its lower left corner at this place, its name and its caption."""
    height_in = figure.get_figheight()
    left, bottom = left_in / WIDTH_IN, bottom_in / height_in
    axes = figure.add_axes((left, bottom, layout.side_in / WIDTH_IN, layout.tile_in / height_in))
    axes.imshow(tile.pixels, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=tile.colour, linewidth=1.6)
    name_y = (bottom_in + layout.tile_in + 0.05) / height_in
    caption_y = (bottom_in - 0.05) / height_in
    name = _name(tile, layout.side_in)
    figure.text(left, name_y, name, va="bottom", fontsize=10.5, fontweight="bold")
    figure.text(left, caption_y, tile.caption, va="top", fontsize=10, color=MUTED)
