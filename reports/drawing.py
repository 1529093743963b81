"""What all figures of all reports share: style, colours, canvas, panels, heading and legend.

Figures are made without pyplot, whose figures are global to the process and have to be closed.
Lengths whose names end in ``_in`` are inches.
"""

import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..harness.records.whole_file import whole_file
from ..harness.text import LONGEST_REASON, one_line
from .plotting import (
    Artist,
    Axes,
    Figure,
    FigureCanvasAgg,
    font_manager,
    rc_context,
    rcParamsDefault,
)

WIDTH_IN, DPI = 10.0, 150  # 1500 pixels: sharp where a README shows it at 1000
HEAD_IN = 1.15  # for the heading and the legend
OVER_IN = 0.25  # over the first panel, for its title
BELOW_IN = 0.6  # below each panel, for the numbers of its axis
BETWEEN_IN = 0.12  # from there to the next panel
LEFT_EDGE = 0.015  # where texts begin, as a share of the width
CHARACTERS_OF_A_TITLE = 78  # that fit into the width at full size
TITLE_SIZE = 14
CHARACTERS_OF_A_SUBTITLE = 130
SUBTITLE_SIZE = 10.5
NAME_CHARACTERS = 18  # of a row's name on one line, beside a margin of 1.75 inches
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}

# The palette of Okabe and Ito, "Color Universal Design", 2008: readers with any kind of colour
# vision can tell its colours apart.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
# Beyond the palette, for a seventh and an eighth case.
WINE = "#882255"
INDIGO = "#332288"
GREY, PALE, INK, MUTED = "#8C8C8C", "#DDDDDD", "#222222", "#5A5A5A"
STAGE_COLOURS = {
    "build": GREY,
    "preprocess": SKY,
    "vision": ORANGE,
    "llm": BLUE,
    "decoder": GREEN,
    "postprocess": PURPLE,
}
# Without green, which is the colour of targets.
CASE_COLOURS = (VERMILION, BLUE, ORANGE, PURPLE, SKY, YELLOW, WINE, INDIGO)
FONT = "DejaVu Sans"  # comes with matplotlib
# Fonts of the usual systems with characters that ours lacks. Those that are installed are used.
FURTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "PingFang HK",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "SimHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Nirmala UI",
    "Leelawadee UI",
    "Arial Unicode MS",
)
STYLE = {
    # Names and queries are data: two dollar signs in them are no formula.
    "text.parse_math": False,
    "font.size": 11,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.8,
    "hatch.color": GREY,
    "legend.frameon": False,
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def case_colour(index: int) -> str:
    """Return the colour of the case at this place of the summary."""
    return CASE_COLOURS[index % len(CASE_COLOURS)]


class Drawn(NamedTuple):
    """What became of the figures of a report.

    Attributes:
        names: of the files that were drawn.
        warnings: a sentence for each figure that could not be drawn.
    """

    names: frozenset[str] = frozenset()
    warnings: Sequence[str] = ()


NOTHING_DRAWN = Drawn()


def draw(folder: Path, figures: Mapping[str, Callable[[], Figure | None]]) -> Drawn:
    """Draw the figures of a report. One that cannot be drawn keeps no other from being drawn.

    Args:
        folder: of the report.
        figures: for the name of each file a function that returns the figure, or None where there
            is nothing to draw.
    """
    names, problems = set(), []
    for name, make in figures.items():
        try:
            with style():
                figure = make()
                if figure is not None:
                    save(figure, folder / name)
                    names.add(name)
        # Whatever it is: the report is worth more than its figure.
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}", LONGEST_REASON)
            problems.append(f"the figure {name} could not be drawn ({reason})")
    return Drawn(frozenset(names), problems)


@contextmanager
def style() -> Iterator[None]:
    """Let figures that are made and saved inside the block have the style of reports.

    It begins from matplotlib's own defaults: a user's ``matplotlibrc`` is for other figures.
    """
    defaults = {}
    for name, value in rcParamsDefault.items():
        if not name.startswith("backend"):  # it shows windows, and changing it closes figures
            defaults[name] = value
    installed = set(font_manager.get_font_names())
    fonts = [FONT, *(name for name in FURTHER_FONTS if name in installed)]
    settings = defaults | STYLE | {"font.family": fonts}
    # matplotlib types the keys of its settings as literals, and ours are strings.
    with rc_context(settings), warnings.catch_warnings():  # pyright: ignore[reportArgumentType]
        # A character that none of the fonts has is drawn as a box. That is warning enough.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def canvas(height_in: float) -> Figure:
    """Return an empty figure of a report's width."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def wrapped(name: str, width: int) -> str:
    """Return a name on as many lines as it needs, broken at its hyphens where it has any."""
    return "\n".join(textwrap.wrap(name, width)) or name


def panels(
    rows: Sequence[Sequence[str]], row_in: float, left_in: float, right_in: float
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel below the other, and the axes of the panels from the top.

    Row i of a panel is at y = i, with its name on the left and the first row on top.

    Args:
        rows: for each panel the names of its rows.
        row_in: height of a row in inches.
        left_in, right_in: margins in inches.
    """
    heights_in = [len(names) * row_in for names in rows]
    below_in = len(rows) * BELOW_IN + (len(rows) - 1) * BETWEEN_IN
    height_in = HEAD_IN + OVER_IN + sum(heights_in) + below_in
    figure = canvas(height_in)
    left = left_in / WIDTH_IN
    width = 1 - (left_in + right_in) / WIDTH_IN
    top_in = height_in - HEAD_IN - OVER_IN
    all_axes = []
    for names, panel_in in zip(rows, heights_in, strict=True):
        bottom = (top_in - panel_in) / height_in
        axes = figure.add_axes((left, bottom, width, panel_in / height_in))
        axes.set_yticks(range(len(names)), [wrapped(name, NAME_CHARACTERS) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        all_axes.append(axes)
        top_in -= panel_in + BELOW_IN + BETWEEN_IN
    return figure, all_axes


def panel_title(axes: Axes, name: str) -> None:
    """Write a name over a panel, from the figure's left edge on."""
    axes.annotate(
        name,
        (LEFT_EDGE, 1),
        (0, 5),
        xycoords=("figure fraction", "axes fraction"),
        textcoords="offset points",
        fontweight="bold",
        va="bottom",
        annotation_clip=False,
    )


def heading(figure: Figure, message: str, subtitle: str) -> None:
    """Write what the figure says, and below it, smaller, what is drawn.

    A text that is too long for the figure's width is written smaller.
    """
    height_in = figure.get_figheight()
    size = TITLE_SIZE * min(1, CHARACTERS_OF_A_TITLE / max(1, len(message)))
    subtitle_size = SUBTITLE_SIZE * min(1, CHARACTERS_OF_A_SUBTITLE / max(1, len(subtitle)))
    message_y, subtitle_y = 1 - 0.15 / height_in, 1 - 0.45 / height_in
    figure.text(LEFT_EDGE, message_y, message, va="top", fontsize=size, fontweight="bold")
    figure.text(LEFT_EDGE, subtitle_y, subtitle, va="top", fontsize=subtitle_size, color=MUTED)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Draw a legend on one line under the heading."""
    corner = (0.008, 1 - 0.68 / figure.get_figheight())
    figure.legend(
        handles=handles,
        ncols=len(handles),
        loc="upper left",
        bbox_to_anchor=corner,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.4,
        handletextpad=0.5,
    )
