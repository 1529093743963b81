"""What all figures of all reports share: sheet, style, canvas, panels, heading and legend.

Figures are made without pyplot, whose figures are global to the process and have to be closed.
Their background is transparent, and their texts are read on white and on dark pages. Lengths whose
names end in ``_in`` are inches.
"""

import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..harness.records.whole_file import whole_file
from ..harness.text import LONGEST_REASON, one_line
from .palette import INK, PALE, Look
from .plotting import (
    Artist,
    Axes,
    Figure,
    FigureCanvasAgg,
    font_manager,
    rc_context,
    rcParamsDefault,
)

DPI = 150  # a report's figure has 1500 pixels: sharp where a README shows it at 1000
COLUMN_DPI = 600  # of pixels in a paper
# Of a report's figure. Lengths in the code are of this size; `Sheet.scaled` gives those of others.
REPORT_WIDTH_IN, REPORT_TEXT_PT = 10.0, 11.0
COLUMN_TEXT_PT = 7.0
NARROW_IN = 6.0  # below it, panels stand below each other, and labels are short
TITLE_IN = 0.72  # for the title and the subtitle
LEGEND_ROW_IN, LEGEND_LEFT = 0.25, 0.008  # height of a line; its left edge, as a share
OVER_IN = 0.25  # over the first panel, for its title
BELOW_IN = 0.6  # below each panel, for the numbers of its axis
BETWEEN_IN = 0.22  # from there to the next panel
EDGE_IN = 0.15  # where texts begin
CHARACTERS_OF_A_TITLE = 78  # that fit into the width at full size
TITLE_SIZE = 14
CHARACTERS_OF_A_SUBTITLE = 130
SUBTITLE_SIZE = 10.5
NAME_CHARACTERS = 18  # of a row's name on one line
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
Form = Literal["png", "pdf", "svg"]
FORMS: tuple[Form, ...] = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Sheet:
    """The size of a figure.

    Attributes:
        width_in: width in inches.
        text_pt: size of its usual text in points.
        has_title: whether it has a title and a subtitle. In a paper the caption has their part.
        dpi: pixels an inch, where it is made of pixels.
    """

    width_in: float = REPORT_WIDTH_IN
    text_pt: float = REPORT_TEXT_PT
    has_title: bool = True
    dpi: int = DPI

    @property
    def is_narrow(self) -> bool:
        """Whether there is no room for panels side by side."""
        return self.width_in < NARROW_IN

    @property
    def ink(self) -> str:
        """The colour of texts and thin lines: black in a paper, whose page is white for sure."""
        return INK if self.has_title else "black"

    def scaled(self, length: float) -> float:
        """Return a length of a report's figure, in inches or points, as long as it is here."""
        return length * self.text_pt / REPORT_TEXT_PT


REPORT_SHEET = Sheet()


def column(width_in: float) -> Sheet:
    """Return the sheet of a figure that is so wide in a paper: 7 pt, and no title."""
    return Sheet(width_in, COLUMN_TEXT_PT, has_title=False, dpi=COLUMN_DPI)


Figures = Mapping[str, Callable[[Sheet], Figure | None]]


def _settings(sheet: Sheet) -> dict[str, Any]:
    """Return the settings of matplotlib for a sheet."""
    text = sheet.text_pt
    return {
        # Names and queries are data: two dollar signs in them are no formula.
        "text.parse_math": False,
        "font.size": text,
        "axes.titlesize": text,
        "axes.labelsize": text,
        "axes.labelpad": sheet.scaled(4),
        "xtick.labelsize": text,
        "ytick.labelsize": text,
        "xtick.major.size": sheet.scaled(3.5),
        "xtick.major.pad": sheet.scaled(3.5),
        "ytick.major.size": sheet.scaled(3.5),
        "ytick.major.pad": sheet.scaled(3.5),
        "xtick.major.width": sheet.scaled(0.8),
        "ytick.major.width": sheet.scaled(0.8),
        "legend.fontsize": text,
        "axes.labelcolor": sheet.ink,
        "text.color": sheet.ink,
        "axes.edgecolor": PALE,
        "axes.linewidth": sheet.scaled(0.8),
        "xtick.color": sheet.ink,
        "ytick.color": sheet.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": PALE,
        "grid.alpha": 0.35,
        "grid.linewidth": sheet.scaled(0.8),
        "hatch.linewidth": sheet.scaled(1.0),
        "legend.frameon": False,
        "figure.dpi": sheet.dpi,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        # Type 3 fonts, the default, are refused by several conferences.
        "pdf.fonttype": 42,
        # Without it, the ids in an SVG are different each time.
        "svg.hashsalt": "lisabench",
    }


class Drawn(NamedTuple):
    """What became of the figures of a report.

    Attributes:
        names: of the files that were drawn.
        warnings: a sentence for each figure that could not be drawn.
    """

    names: frozenset[str] = frozenset()
    warnings: Sequence[str] = ()


NOTHING_DRAWN = Drawn()


def draw(folder: Path, figures: Figures, sheet: Sheet = REPORT_SHEET, form: Form = "png") -> Drawn:
    """Draw figures into a folder. One that cannot be drawn keeps no other from being drawn.

    A file of a figure that has nothing to show any more is removed.

    Args:
        folder: where they are written.
        figures: for the name of each file, as it ends in a report, a function that returns the
            figure, or None where there is nothing to show.
        sheet: their size.
        form: of the files.
    """
    names, problems = set(), []
    for png, make in figures.items():
        name = Path(png).with_suffix(f".{form}").name
        try:
            with style(sheet):
                figure = make(sheet)
                if figure is None:
                    (folder / name).unlink(missing_ok=True)
                else:
                    save(figure, folder / name, form)
                    names.add(name)
        # Whatever it is: the report is worth more than its figure.
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}", LONGEST_REASON)
            problems.append(f"the figure {name} could not be drawn ({reason})")
    return Drawn(frozenset(names), problems)


@contextmanager
def style(sheet: Sheet = REPORT_SHEET) -> Iterator[None]:
    """Let figures that are made and saved inside the block have the style of reports.

    It begins from matplotlib's own defaults: a user's ``matplotlibrc`` is for other figures.
    """
    defaults = {}
    for name, value in rcParamsDefault.items():
        if not name.startswith("backend"):  # it shows windows, and changing it closes figures
            defaults[name] = value
    installed = set(font_manager.get_font_names())
    fonts = [FONT, *(name for name in FURTHER_FONTS if name in installed)]
    settings = defaults | _settings(sheet) | {"font.family": fonts}
    # matplotlib types the keys of its settings as literals, and ours are strings.
    with rc_context(settings), warnings.catch_warnings():  # pyright: ignore[reportArgumentType]
        # A character that none of the fonts has is drawn as a box. That is warning enough.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def canvas(sheet: Sheet, height_in: float) -> Figure:
    """Return an empty figure of a sheet's width."""
    figure = Figure(figsize=(sheet.width_in, height_in))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, form: Form = "png", description: str | None = None) -> Path:
    """Write a figure, whole or not at all, and return its path.

    The same figure is the same file each time: without a date in it.

    Args:
        figure: what is written.
        path: of the file.
        form: of the file.
        description: a text that is kept in the file beside the picture, such as its numbers.
    """
    metadata: dict[str, Any] = {}
    if description is not None:
        metadata["Subject" if form == "pdf" else "Description"] = description
    if form == "pdf":
        metadata["CreationDate"] = None
    if form == "svg":
        metadata["Date"] = None
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=form, metadata=metadata)
    return path


def wrapped(name: str, width: int) -> str:
    """Return a name on as many lines as it needs, broken at its hyphens where it has any."""
    return "\n".join(textwrap.wrap(name, width)) or name


def widest_in(sheet: Sheet, texts: Sequence[str], **font: Any) -> float:
    """Return the width of the widest of some texts, in inches."""
    figure = canvas(sheet, 1)
    widths = [0.0]
    for text in texts:
        box = figure.text(0, 0, text, **font).get_window_extent()
        widths.append(box.width / figure.dpi)
    return max(widths)


def add_axes(
    figure: Figure, left_in: float, bottom_in: float, width_in: float, height_in: float
) -> Axes:
    """Return new axes, whose lower left corner is at this place of a figure."""
    whole_width_in, whole_height_in = figure.get_size_inches()
    left, bottom = left_in / whole_width_in, bottom_in / whole_height_in
    size = (width_in / whole_width_in, height_in / whole_height_in)
    return figure.add_axes((left, bottom, *size))


def panels(
    sheet: Sheet,
    rows: Sequence[Sequence[str]],
    row_in: float,
    right_in: float,
    handles: Sequence[Artist],
    titled: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel below the other, and the axes of the panels from the top.

    Row i of a panel is at y = i, with its name on the left and the first row on top. The left
    margin is as wide as the longest name.

    Args:
        sheet: size of the figure.
        rows: for each panel the names of its rows.
        row_in: height of a row in inches, of a report's figure.
        right_in: margin in inches.
        handles: of the legend, which is drawn later.
        titled: whether panels have titles.
    """
    row_in = sheet.scaled(row_in)
    names = [[wrapped(name, NAME_CHARACTERS) for name in panel] for panel in rows]
    longest_in = max(widest_in(sheet, panel) for panel in names)
    left_in = sheet.scaled(EDGE_IN + 0.24) + longest_in
    width_in = max(sheet.width_in - left_in - right_in, 0.15 * sheet.width_in)

    below_in, between_in = sheet.scaled(BELOW_IN), sheet.scaled(BETWEEN_IN)
    all_rows_in = sum(len(panel) for panel in names) * row_in
    top_in = head_in(sheet, handles) + sheet.scaled(OVER_IN if titled else 0)
    height_in = top_in + all_rows_in + len(rows) * below_in + (len(rows) - 1) * between_in
    figure = canvas(sheet, height_in)
    upper_in = height_in - top_in
    all_axes = []
    for panel in names:
        panel_in = len(panel) * row_in
        axes = add_axes(figure, left_in, upper_in - panel_in, width_in, panel_in)
        axes.set_yticks(range(len(panel)), panel)
        axes.set_ylim(len(panel) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0, pad=sheet.scaled(17))
        all_axes.append(axes)
        upper_in -= panel_in + below_in + between_in
    return figure, all_axes


def panel_title(sheet: Sheet, axes: Axes, name: str) -> None:
    """Write a name over a panel, from the figure's left edge on."""
    axes.annotate(
        name,
        (sheet.scaled(EDGE_IN) / sheet.width_in, 1),
        (0, sheet.scaled(5)),
        xycoords=("figure fraction", "axes fraction"),
        textcoords="offset points",
        fontweight="bold",
        va="bottom",
        annotation_clip=False,
    )


def mark_rows(sheet: Sheet, axes: Axes, row_looks: Sequence[Look]) -> None:
    """Draw the mark of each row's case beside its name, in the colour of its encoder."""
    beside = axes.get_yaxis_transform()
    offset_in = sheet.scaled(9) / 72
    x = -offset_in / (axes.get_position().width * sheet.width_in)
    for row, look in enumerate(row_looks):
        axes.plot(x, row, transform=beside, clip_on=False, **mark(sheet, look))


def mark(sheet: Sheet, look: Look, size: float = 7) -> dict[str, Any]:
    """Return how a case's points are drawn, as arguments of `plot`."""
    return {
        "marker": look.mark,
        "color": look.colour,
        "markerfacecolor": "none" if look.is_open else look.colour,
        "markersize": sheet.scaled(size),
        "markeredgewidth": sheet.scaled(1.6),
        "linestyle": "",
    }


def mark_line(sheet: Sheet, look: Look, width: float = 2) -> dict[str, Any]:
    """Return how a case's lines are drawn, as arguments of `plot`."""
    return {"color": look.colour, "linewidth": sheet.scaled(width), "linestyle": look.dash}


def head_in(sheet: Sheet, handles: Sequence[Artist]) -> float:
    """Return the height of the title and the legend, in inches."""
    height_in = sheet.scaled(TITLE_IN if sheet.has_title else 0.08)
    if handles:
        rows = -(-len(handles) // _legend_columns(sheet, handles))
        height_in += sheet.scaled(rows * LEGEND_ROW_IN + 0.17)
    return height_in


def heading(sheet: Sheet, figure: Figure, message: str, subtitle: str) -> None:
    """Write what the figure says, and below it, smaller, what is drawn, where it has a title.

    A text that is too long for the figure's width is written smaller.
    """
    if not sheet.has_title:
        return
    height_in = figure.get_figheight()
    room = sheet.width_in / sheet.scaled(REPORT_WIDTH_IN)
    size = TITLE_SIZE * min(1, room * CHARACTERS_OF_A_TITLE / max(1, len(message)))
    subtitle_size = SUBTITLE_SIZE * min(1, room * CHARACTERS_OF_A_SUBTITLE / max(1, len(subtitle)))
    left = sheet.scaled(EDGE_IN) / sheet.width_in
    message_y = 1 - sheet.scaled(0.15) / height_in
    subtitle_y = 1 - sheet.scaled(0.45) / height_in
    figure.text(left, message_y, message, va="top", fontsize=size, fontweight="bold")
    figure.text(left, subtitle_y, subtitle, va="top", fontsize=subtitle_size, color=sheet.ink)


def legend(sheet: Sheet, figure: Figure, handles: Sequence[Artist]) -> None:
    """Draw a legend under the heading, on as many lines as it needs."""
    if not handles:
        return
    top_in = sheet.scaled(TITLE_IN if sheet.has_title else 0.08)
    corner = (LEGEND_LEFT, 1 - top_in / figure.get_figheight())
    _add_legend(figure, handles, _legend_columns(sheet, handles), corner)


def _legend_columns(sheet: Sheet, handles: Sequence[Artist]) -> int:
    """Return how many entries of a legend fit into a line."""
    scratch = canvas(sheet, 1)
    for columns in range(len(handles), 1, -1):
        entries = _add_legend(scratch, handles, columns, (0, 1))
        # Only after a first layout the entries have their places.
        scratch.draw_without_rendering()
        width_in = entries.get_window_extent().width / scratch.dpi
        entries.remove()
        if width_in <= (1 - 2 * LEGEND_LEFT) * sheet.width_in:
            return columns
    return 1


def _add_legend(
    figure: Figure, handles: Sequence[Artist], columns: int, corner: tuple[float, float]
) -> Artist:
    # Matplotlib fills columns first, and people read lines first.
    in_columns = []
    for column_number in range(columns):
        in_columns += handles[column_number::columns]
    # Not the artists' own labels: matplotlib leaves out those that begin with an underscore.
    return figure.legend(
        handles=in_columns,
        labels=[str(handle.get_label()) for handle in in_columns],
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=corner,
        handlelength=1.4,
        handleheight=1.0,
        columnspacing=1.2,
        handletextpad=0.5,
        labelspacing=0.4,
    )
