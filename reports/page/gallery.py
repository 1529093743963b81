"""The gallery: the queries about which the cases disagree most, with the masks of all of them.

Errors are marked, and pictures are cut to where something is to be seen.

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
from ...harness.records.gallery import KeptQuery
from ...harness.records.query import QueryRecord
from ...harness.records.run import Run
from ..drawing import (
    REPORT_SHEET,
    Sheet,
    add_axes,
    canvas,
    head_in,
    heading,
    legend,
    save,
    style,
    wrapped,
)
from ..palette import MISSED, PALE, TOO_MUCH, Look
from ..plotting import Artist, Figure, Patch, to_rgb
from ..run import verdict_words
from ..run.schema import Case, Summary
from . import figures

FILE = "gallery.png"
MOST_QUERIES = 6
MOST_IN_A_COLUMN = 2  # of a paper, whose pages are about 9 inches high
TILE_IN = 1.6  # a tile is at least so wide
FEWEST_COLUMNS = 4  # tiles are no larger than if there were so many of them
# A picture is cut to what is masked, with so much around it, as a share of the longer side of that.
AROUND = 0.25
SMALLEST_CUT = 0.25  # a cut picture shows at least this share of the image's sides
LARGEST_CUT = 0.85  # beyond it, the whole image is shown
SHARP_PX = 480  # what is shown is enlarged to about so many pixels, for thin outlines
STRIPES = 24  # across what is shown
CHARACTERS_AN_INCH = 10.5  # of a query
MARGIN_IN, GAP_IN = 0.15, 0.08  # at the figure's edges, and between tiles
QUERY_LINE_IN, NAME_LINE_IN, CAPTION_IN = 0.2, 0.18, 0.27
SPACE_IN = 0.06  # under the heading, a query, and a name
BETWEEN_QUERIES_IN = 0.22
CHARACTER_IN = 0.105  # width of a character of a bold name
LOWEST, HIGHEST = 0.45, 1.15  # height over width of a tile; other images do not fill it
Window = tuple[int, int, int, int]  # top, bottom, left, right

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
        kept: its small image and its target.
        text: of the query.
        records: how each case answered it, by the case's name.
    """

    kept: KeptQuery
    text: str
    records: Mapping[str, QueryRecord]

    @property
    def target_HW(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, 1 target, 255 ignored."""
        return self.kept.target_HW


@dataclass(frozen=True)
class View:
    """What is shown of an image: a part of it, enlarged so that outlines are thin.

    Attributes:
        image_hw3: what is shown, uint8 [h, w, 3], RGB.
        times: how often each pixel of the image is repeated, down and across.
        whole_hw: height and width of the whole image, as large as it was kept.
        window: the part of it; None for the whole.
    """

    image_hw3: np.ndarray
    times: int
    whole_hw: tuple[int, int]
    window: Window | None

    def of(self, mask_HW: np.ndarray) -> np.ndarray:
        """Return what is shown of a mask of the whole image, by the nearest pixel."""
        h, w = self.whole_hw
        top, bottom, left, right = self.window or (0, h, 0, w)
        rows = np.arange(self.times * top, self.times * bottom)
        columns = np.arange(self.times * left, self.times * right)
        height, width = mask_HW.shape
        return mask_HW[
            np.ix_(rows * height // (self.times * h), columns * width // (self.times * w))
        ]


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
        return save(
            _figure(REPORT_SHEET, queries[:1], summary.cases, figures.case_looks(summary)), path
        )


def gallery(run: Run, summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return a figure with the kept queries about which the cases disagree most.

    At most half of them seek nothing. An answer to such a query is all right or all wrong, so they
    have the largest differences, and would fill the figure.

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
    names = [case.name for case in cases]
    queries.sort(key=lambda query: -disagreement(query, names))
    most = MOST_IN_A_COLUMN if sheet.is_narrow else MOST_QUERIES
    return _figure(sheet, shown(queries, most), cases, figures.case_looks(summary))


def shown(queries: Sequence[GalleryQuery], most: int = MOST_QUERIES) -> list[GalleryQuery]:
    """Return the first queries, of which at most half seek nothing if there are enough others."""
    seeks_nothing = [not (query.target_HW == 1).any() for query in queries]
    left = max(most // 2, most - seeks_nothing.count(False))
    chosen = []
    for query, is_empty in zip(queries, seeks_nothing, strict=True):
        if is_empty:
            if not left:
                continue
            left -= 1
        chosen.append(query)
    return chosen[:most]


def disagreement(query: GalleryQuery, cases: Sequence[str]) -> float:
    """Return the largest difference of IoU of two cases, 0 to 1; a failed query has IoU 0.

    Args:
        query: of the gallery.
        cases: names of those that are compared, so that trivial baselines have no say.
    """
    scores = []
    for name in cases:
        record = query.records.get(name)
        if record is not None:
            scores.append(iou(record.counts) if record.answered else 0.0)
    return max(scores, default=0.0) - min(scores, default=0.0)


def _gallery_queries(run: Run) -> list[GalleryQuery]:
    """Return the kept queries whose images can be read, in the order of the data."""
    kept = run.kept_queries
    answers: dict[str, dict[str, QueryRecord]] = {sample_id: {} for sample_id in kept}
    for case in run.cases:
        for record in case.scored:
            if record.sample_id in answers:
                answers[record.sample_id][case.name] = record
    queries = []
    for sample_id, records in answers.items():
        texts = [record.query for record in records.values()]
        queries.append(GalleryQuery(kept[sample_id], texts[0] if texts else "", records))
    return queries


def query_tiles(
    query: GalleryQuery, cases: Sequence[Case], case_looks: Mapping[str, Look]
) -> list[Tile]:
    """Return the tiles of a query: its image, its target, and the answer of every case."""
    image_hw3 = query.kept.image.pixels
    masks = {case.name: _mask(query.records.get(case.name)) for case in cases}
    view = _view(image_hw3, [query.target_HW == 1, *masks.values()])
    size_px = max(view.image_hw3.shape)
    thin, stripe_px = max(1, size_px // 250), max(4, size_px // STRIPES)
    target_hw, ignored_hw = view.of(query.target_HW == 1), view.of(query.target_HW == IGNORED)
    striped = _striped(view.image_hw3, ignored_hw)
    grey = _greyed(striped)
    caption = "no target"
    if (query.target_HW == 1).any():
        caption = f"{100 * np.mean(query.target_HW == 1):.1f} % of the image"
    target = grey.copy()
    target[target_hw] = striped[target_hw]
    _outline_target(target, target_hw, thin)
    whole_caption = "" if view.window is None else "box: shown beside"
    tiles = [
        Tile(_framed(image_hw3, view.window), "image", whole_caption, PALE),
        Tile(target, "target", caption, PALE),
    ]
    for case in cases:
        look, mask_HW = case_looks[case.name], masks[case.name]
        if mask_HW is None:
            pixels = _faded(striped)
        else:
            mask_hw = view.of(mask_HW)
            pixels = _answer(striped, grey, mask_hw, target_hw, ignored_hw, look.colour, stripe_px)
        _outline_target(pixels, target_hw, thin)
        caption = _caption(case, query.records.get(case.name), mask_HW is not None)
        tiles.append(Tile(pixels, case.name, caption, look.colour))
    return tiles


def _view(image_hw3: np.ndarray, masks: Sequence[np.ndarray | None]) -> View:
    """Return what is shown of an image: where any of the masks is, or all of it."""
    whole_hw = image_hw3.shape[:2]
    whole = View(image_hw3, 1, whole_hw, None)
    masked_hw = np.zeros(whole_hw, bool)
    for mask_HW in masks:
        if mask_HW is not None:
            masked_hw |= whole.of(mask_HW)
    window = _window(masked_hw)
    part = image_hw3
    if window is not None:
        top, bottom, left, right = window
        part = image_hw3[top:bottom, left:right]
    times = max(1, round(SHARP_PX / max(part.shape)))
    return View(part.repeat(times, axis=0).repeat(times, axis=1), times, whole_hw, window)


def _window(masked_hw: np.ndarray) -> Window | None:
    """Return the part of an image, of its aspect ratio, that shows what is masked.

    None where that is nearly the whole image, or nothing is masked.
    """
    h, w = masked_hw.shape
    rows, columns = np.flatnonzero(masked_hw.any(axis=1)), np.flatnonzero(masked_hw.any(axis=0))
    if not len(rows):
        return None
    # Both sides as shares of the image's, so that the window has its aspect ratio.
    tall = (rows[-1] - rows[0] + 1) / h
    wide = (columns[-1] - columns[0] + 1) / w
    share = max(SMALLEST_CUT, (1 + AROUND) * max(tall, wide))
    if share > LARGEST_CUT:
        return None
    side_h, side_w = round(share * h), round(share * w)
    top = int(np.clip((rows[0] + rows[-1] - side_h) // 2, 0, h - side_h))
    left = int(np.clip((columns[0] + columns[-1] - side_w) // 2, 0, w - side_w))
    return top, top + side_h, left, left + side_w


def _framed(image_hw3: np.ndarray, window: Window | None) -> np.ndarray:
    """Return an image with a box around the window: white, with a dark line on both sides."""
    pixels = image_hw3.copy()
    if window is None:
        return pixels
    top, bottom, left, right = window
    thin = max(2, max(pixels.shape) // 160)
    box_hw = np.zeros(pixels.shape[:2], bool)
    box_hw[top:bottom, left:right] = True
    pixels[_outline(box_hw, 3 * thin)] = 30
    pixels[_outline(box_hw, 2 * thin) & ~_outline(box_hw, thin)] = 255
    return pixels


def _answer(
    striped: np.ndarray,
    grey: np.ndarray,
    mask_hw: np.ndarray,
    target_hw: np.ndarray,
    ignored_hw: np.ndarray,
    colour: str,
    stripe_px: int,
) -> np.ndarray:
    """Return the grey image with what a mask hits in a colour, and its errors striped.

    What it has too much and what it misses are striped in two directions, so that they differ
    without their colours, too. Ignored pixels are neither hits nor errors: there the mask is a
    tint.
    """
    pixels = grey.astype(float)
    too_much_hw, missed_hw = mask_hw & ~target_hw & ~ignored_hw, target_hw & ~mask_hw
    rgb = 255 * np.array(to_rgb(colour))
    for covered_hw, share in ((mask_hw & target_hw, 0.7), (mask_hw & ignored_hw, 0.3)):
        pixels[covered_hw] = (1 - share) * striped[covered_hw] + share * rgb
    y, x = np.indices(mask_hw.shape)
    rising, falling = (x + y) % stripe_px, (x - y) % stripe_px
    pixels[too_much_hw] = 255
    pixels[too_much_hw & (rising < 0.6 * stripe_px)] = 255 * np.array(to_rgb(TOO_MUCH))
    pixels[missed_hw] = 40
    pixels[missed_hw & (falling < 0.6 * stripe_px)] = 255 * np.array(to_rgb(MISSED))
    return pixels.clip(0, 255).astype(np.uint8)


def _outline_target(pixels: np.ndarray, target_hw: np.ndarray, thin: int) -> None:
    """Draw the rim of the target into an image: a white line with a dark one inside it."""
    pixels[_outline(target_hw, 2 * thin)] = 30
    pixels[_outline(target_hw, thin)] = 255


def _mask(record: QueryRecord | None) -> np.ndarray | None:
    """Return a case's mask, bool [H, W]; None where it was not kept or cannot be read."""
    if record is None or record.mask_rle is None:
        return None
    try:
        return decode(record.mask_rle)
    except DataError:
        return None


def _caption(case: Case, record: QueryRecord | None, has_mask: bool) -> str:
    """Return what stands under an answer: its IoU, or why there is none."""
    if record is None:
        return "not evaluated yet"
    if not record.answered:
        return FAILURES.get(record.status, "failed")
    caption = verdict_words.why_no_quality(case) or f"IoU {iou(record.counts):.2f}"
    if record.status == "no_seg":
        return f"{caption}, no [SEG]"
    if not has_mask:
        return f"{caption}, mask not kept"
    return caption


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


def _greyed(pixels: np.ndarray) -> np.ndarray:
    """Return the image in pale grey, uint8 [h, w, 3]."""
    grey = pixels.mean(axis=2, keepdims=True)
    painted = 0.55 * grey + 0.45 * 0.5 * (pixels + 255)
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
        sheet: size of the figure.
        columns: tiles in a row.
        side_in, tile_in: width and height of a tile.
        query_lines: the query's text, broken into lines.
        name_lines: lines of the longest name.
    """

    sheet: Sheet
    columns: int
    side_in: float
    tile_in: float
    query_lines: Sequence[str]
    name_lines: int

    @property
    def query_in(self) -> float:
        """Height of the query's text."""
        return self.sheet.scaled(len(self.query_lines) * QUERY_LINE_IN + SPACE_IN)

    @property
    def row_in(self) -> float:
        """Height of a row: names, tiles and captions."""
        texts_in = self.sheet.scaled(self.name_lines * NAME_LINE_IN + SPACE_IN + CAPTION_IN)
        return self.tile_in + texts_in

    def height_in(self, tiles: int) -> float:
        """Return the height of the whole query with so many tiles."""
        rows_in = math.ceil(tiles / self.columns) * self.row_in
        return self.query_in + rows_in + self.sheet.scaled(BETWEEN_QUERIES_IN)


def _layout(sheet: Sheet, tiles: Sequence[Tile], text: str) -> Layout:
    width_in = sheet.width_in - 2 * sheet.scaled(MARGIN_IN)
    columns = min(len(tiles), max(1, int(width_in / sheet.scaled(TILE_IN))))
    gap_in = sheet.scaled(GAP_IN)
    across = columns if sheet.is_narrow else max(columns, FEWEST_COLUMNS)
    side_in = (width_in - (across - 1) * gap_in) / across
    height, width = tiles[0].pixels.shape[:2]
    characters = int(CHARACTERS_AN_INCH * width_in / sheet.scaled(1))
    return Layout(
        sheet=sheet,
        columns=columns,
        side_in=side_in,
        tile_in=side_in * float(np.clip(height / width, LOWEST, HIGHEST)),
        query_lines=textwrap.wrap(text, characters) or [""],
        name_lines=max(_name(sheet, tile, side_in).count("\n") + 1 for tile in tiles),
    )


def _name(sheet: Sheet, tile: Tile, side_in: float) -> str:
    return wrapped(tile.name, int(side_in / sheet.scaled(CHARACTER_IN)))


def _figure(
    sheet: Sheet,
    queries: Sequence[GalleryQuery],
    cases: Sequence[Case],
    case_looks: Mapping[str, Look],
) -> Figure:
    all_tiles = [query_tiles(query, cases, case_looks) for query in queries]
    layouts = []
    for tiles, query in zip(all_tiles, queries, strict=True):
        layouts.append(_layout(sheet, tiles, query.text))
    tiles_in = sum(layout.height_in(2 + len(cases)) for layout in layouts)
    ignored = any((query.target_HW == IGNORED).any() for query in queries)
    handles = _handles(sheet, cases, case_looks, ignored)
    above_in = head_in(sheet, handles) + sheet.scaled(SPACE_IN)
    figure = canvas(sheet, above_in + tiles_in)
    top_in = figure.get_figheight() - above_in
    for tiles, layout in zip(all_tiles, layouts, strict=True):
        _draw_query(figure, tiles, layout, top_in)
        top_in -= layout.height_in(len(tiles))
    message = "A query and the masks of every case"
    if len(queries) > 1:
        message = "The queries about which the cases disagree most"
    if any(case.has_quality is False for case in cases):
        message = "Random weights: these masks show that the pipeline runs, not what it can do"
    drawn = "image, target, and the answer of every case with its IoU to the target"
    heading(sheet, figure, message, drawn)
    legend(sheet, figure, handles)
    return figure


def _handles(
    sheet: Sheet, cases: Sequence[Case], case_looks: Mapping[str, Look], ignored: bool
) -> list[Artist]:
    colour = case_looks[cases[0].name].colour
    outline = {"facecolor": "none", "edgecolor": sheet.ink, "linewidth": sheet.scaled(1.5)}
    handles: list[Artist] = [
        Patch(label="outline of the target", **outline),
        Patch(color=colour, alpha=0.75, label="hit, in the colour of the case"),
        Patch(facecolor="white", hatch="////", hatchcolor=TOO_MUCH, label="too much"),
        Patch(facecolor="#282828", hatch="\\\\\\\\", hatchcolor=MISSED, label="missed"),
    ]
    if ignored:
        stripes = Patch(facecolor="#BBBBBB", edgecolor="white", hatch="////", label="ignored")
        handles.append(stripes)
    return handles


def _draw_query(figure: Figure, tiles: Sequence[Tile], layout: Layout, top_in: float) -> None:
    """Draw a query's text and tiles, whose upper edge is `top_in` above the figure's lower edge."""
    sheet = layout.sheet
    margin_in, gap_in = sheet.scaled(MARGIN_IN), sheet.scaled(GAP_IN)
    figure.text(
        margin_in / sheet.width_in,
        top_in / figure.get_figheight(),
        "\n".join(layout.query_lines),
        va="top",
        fontsize=sheet.scaled(11.5),
        fontstyle="italic",
    )
    for index, tile in enumerate(tiles):
        row, column = divmod(index, layout.columns)
        left_in = margin_in + column * (layout.side_in + gap_in)
        row_bottom_in = top_in - layout.query_in - (row + 1) * layout.row_in
        _draw_tile(figure, tile, layout, left_in, row_bottom_in + sheet.scaled(CAPTION_IN))


def _draw_tile(
    figure: Figure, tile: Tile, layout: Layout, left_in: float, bottom_in: float
) -> None:
    """Draw a picture, with its lower left corner at this place, its name and its caption."""
    sheet, height_in = layout.sheet, figure.get_figheight()
    left = left_in / sheet.width_in
    axes = add_axes(figure, left_in, bottom_in, layout.side_in, layout.tile_in)
    axes.imshow(tile.pixels, interpolation="antialiased")
    axes.set_anchor("W")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=tile.colour, linewidth=sheet.scaled(1.6))
    beside_in = sheet.scaled(0.05)
    name_y = (bottom_in + layout.tile_in + beside_in) / height_in
    caption_y = (bottom_in - beside_in) / height_in
    name, name_pt = _name(sheet, tile, layout.side_in), sheet.scaled(10.5)
    figure.text(left, name_y, name, va="bottom", fontsize=name_pt, fontweight="bold")
    figure.text(left, caption_y, tile.caption, va="top", fontsize=sheet.scaled(10), color=sheet.ink)
