"""What all figures of a report share: style, colours, canvas and heading. Agg only, without pyplot's global state."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH_IN, DPI = 10.0, 150  # 1500 pixels: sharp where a README shows it at 1000
HEAD_IN = 1.15  # for the heading and the legend
OVER_IN, BELOW_IN, BETWEEN_IN = (
    0.25,
    0.6,
    0.12,
)  # over the first panel, below each, and from there to the next
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}

# Okabe and Ito's palette, which readers with any kind of colour vision can tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, PALE, INK, MUTED = "#8C8C8C", "#DDDDDD", "#222222", "#5A5A5A"
STAGE_COLOURS = {
    "build": GREY, "preprocess": SKY, "vision": ORANGE, "llm": BLUE, "decoder": GREEN, "postprocess": PURPLE,
}  # fmt: skip
WINE, INDIGO = "#882255", "#332288"  # beyond the palette, for a seventh and an eighth case
CASE_COLOURS = (VERMILION, BLUE, ORANGE, PURPLE, SKY, YELLOW, WINE, INDIGO)
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 11, "axes.titlesize": 14, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 12, "axes.labelcolor": INK, "text.color": INK,
    "axes.edgecolor": GREY, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "grid.color": PALE, "grid.linewidth": 0.8,
    "hatch.linewidth": 0.8, "hatch.color": GREY, "legend.frameon": False, "figure.dpi": DPI,
    "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


def case_colour(index: int) -> str:
    """The colour of the case at this place of the summary."""
    return CASE_COLOURS[index % len(CASE_COLOURS)]


def canvas(height_in: float) -> Figure:
    """An empty figure of a report's width."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes the PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    figure.savefig(temporary, format="png", dpi=DPI)
    temporary.replace(path)
    return path


def wrapped(name: str, width: int) -> str:
    """A name on as many lines as it needs, broken at its hyphens where it has any."""
    return "\n".join(textwrap.wrap(name, width)) or name


def panels(
    rows: Sequence[Sequence[str]], row_in: float, left_in: float, right_in: float
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel below the other for each of `rows`, whose names stand on the left, the first on top.

    Args:
        rows: per panel the names of its rows.
        row_in: height of a row in inches.
        left_in, right_in: margins.
    """
    heights_in = [len(names) * row_in for names in rows]
    figure = canvas(
        HEAD_IN + OVER_IN + sum(heights_in) + len(rows) * BELOW_IN + (len(rows) - 1) * BETWEEN_IN
    )
    high_in = figure.get_figheight()
    top_in, width, found = high_in - HEAD_IN - OVER_IN, 1 - (left_in + right_in) / WIDTH_IN, []
    for names, panel_in in zip(rows, heights_in, strict=True):
        axes = figure.add_axes(
            (left_in / WIDTH_IN, (top_in - panel_in) / high_in, width, panel_in / high_in)
        )
        axes.set_yticks(range(len(names)), [wrapped(name, 18) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        top_in -= panel_in + BELOW_IN + BETWEEN_IN
        found.append(axes)
    return figure, found


def panel_title(axes: Axes, name: str) -> None:
    """A name over a panel, from the figure's left edge on."""
    axes.annotate(name, (0.015, 1), (0, 5), xycoords=("figure fraction", "axes fraction"),
                  textcoords="offset points", fontweight="bold", va="bottom", annotation_clip=False)  # fmt: skip


def heading(figure: Figure, message: str, what: str) -> None:
    """What the figure says, and below it, smaller, what is drawn."""
    height_in = figure.get_figheight()
    size = 14 if len(message) < 78 else 14 * 78 / len(message)
    figure.text(0.015, 1 - 0.15 / height_in, message, va="top", fontsize=size, fontweight="bold")
    figure.text(0.015, 1 - 0.45 / height_in, what, va="top", fontsize=10.5, color=MUTED)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """One line under the heading."""
    corner = (0.008, 1 - 0.68 / figure.get_figheight())
    figure.legend(
        handles=handles, ncols=len(handles), loc="upper left", bbox_to_anchor=corner,
        handlelength=1.2, handleheight=1.0, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip
