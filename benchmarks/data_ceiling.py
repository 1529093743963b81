"""``lisabench data ceiling``: how well an encoder's grid can represent a folder's true masks.

Each true mask is brought onto the grid and back to the image's size, and scored against itself, in
two readings (`grids.py` computes them):

- ``interpolated``: each cell keeps one value, the share of it that the target covers. The values
  are brought back bilinearly, and the threshold is one half.
- ``whole cells``: each cell is taken or left as a whole, whichever gives the better IoU. No mask
  made of whole cells can score higher.

Both describe a decoder that has *one value per cell*. A real decoder reads many channels per cell,
which can tell where in the cell the outline runs, so it may score higher than either; its training
may leave it far below. The readings show what the grid's positions carry by themselves, so what one
grid or frame loses against another before anything is learned. Only what a crop leaves out is lost
for every decoder.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

from ..datasets.opening import located, open_samples, split_names
from ..harness.contract import Sample
from ..harness.metrics import Counts, count, scores
from ..models.lisa.frames import FRAMES
from .grids import READINGS, Grid
from .progress import Progress

# Side of the frame in pixels, by cells along a side of the grid: CLIP ViT-L/14 twice, and SAM.
GRIDS = {16: 224, 24: 336, 64: 1024}
# The classes of targets, by their area in cells: from each bound to the next.
BOUNDS = (0, 1, 4, 16)
SIZE_NOTE = (
    "Last columns: mIoU by the target's area, in cells of that grid and frame, and the number of "
    "such targets."
)


@dataclass(frozen=True)
class SizeClass:
    """The targets of some size.

    Attributes:
        at_least: smallest area, in cells.
        below: the area is less than this, in cells; None: there is no limit.
        queries: number of such targets.
        mIoU: mean IoU of these queries; None if there are none.
    """

    at_least: int
    below: int | None
    queries: int
    mIoU: float | None

    @property
    def name(self) -> str:
        """The class as a column's heading."""
        if self.below is None:
            return f">= {self.at_least}"
        if self.at_least == 0:
            return f"< {self.below}"
        return f"{self.at_least}-{self.below}"


@dataclass(frozen=True)
class Ceiling:
    """The score of the masks after one grid in one frame, in one reading.

    Attributes:
        reading: a name in `READINGS`.
        cells: cells along a side of the grid.
        frame: ``whole`` or ``crop``.
        queries: number of queries.
        gIoU: mean IoU over all queries; a query without a target has an IoU of 1.
        mIoU: mean IoU over the queries with a target; None if there are none.
        cIoU: sum of intersections over sum of unions; None if there is no target.
        sizes: the queries with a target, by its area.
    """

    reading: str
    cells: int
    frame: str
    queries: int
    gIoU: float | None
    mIoU: float | None
    cIoU: float | None
    sizes: list[SizeClass]


@dataclass(frozen=True)
class PassedMask:
    """One mask after it passed through a grid.

    Attributes:
        target_cells: area of the target, in cells.
        counts: pixels of the mask that came back, against the target.
    """

    target_cells: float
    counts: Counts


def compute_ceilings(root: str | Path, split: str | None, progress: Progress) -> list[Ceiling]:
    """Return the score of a folder's true masks after each grid and frame, in each reading.

    One image is in memory at a time; pixel counts are all that is kept of a query.

    Args:
        root: the folder that holds the splits, or data in another layout.
        split: name of a split; None: all of them together.
        progress: is called for every query.

    Raises:
        DataError: the folder, the split or a file in it is missing or broken.
    """
    grids = list(product(READINGS, GRIDS, FRAMES))
    masks_of: dict[tuple[str, int, str], list[PassedMask]] = {}
    for sample in _samples(root, split, progress):
        for reading, cells, frame in grids:
            mask = _passed(sample, reading, cells, frame)
            masks_of.setdefault((reading, cells, frame), []).append(mask)
    ceilings = []
    for (reading, cells, frame), masks in masks_of.items():
        ceilings.append(_ceiling(reading, cells, frame, masks))
    return ceilings


def _samples(root: str | Path, split: str | None, progress: Progress) -> Iterator[Sample]:
    names = split_names(root) if split is None else [split]
    data_sets = []
    for name in names:
        data_sets.append(open_samples(located(root, name, progress), name))
    total = sum(len(data_set) for data_set in data_sets)
    for done, sample in enumerate(chain.from_iterable(data_sets)):
        progress(done, total, sample.id)
        yield sample
    progress(total, total, "done")


def _passed(sample: Sample, reading: str, cells: int, frame: str) -> PassedMask:
    target_HW = sample.target_HW
    height, width = target_HW.shape
    grid = Grid.on((height, width), frame, GRIDS[cells], cells)
    mask_HW = READINGS[reading](target_HW, grid)
    counts = count(mask_HW, target_HW)
    # The grid covers the image's longest side in the whole frame, its shortest in the crop.
    covered_px = max(height, width) if frame == "whole" else min(height, width)
    cell_px = covered_px / cells
    return PassedMask(counts.target_px / cell_px**2, counts)


def _ceiling(reading: str, cells: int, frame: str, masks: list[PassedMask]) -> Ceiling:
    total = scores(mask.counts for mask in masks)
    sizes = []
    for at_least, below in zip(BOUNDS, (*BOUNDS[1:], math.inf), strict=True):
        of_size = []
        for mask in masks:
            has_target = mask.counts.target_px > 0
            if has_target and at_least <= mask.target_cells < below:
                of_size.append(mask.counts)
        # JSON has no infinity: None is no limit.
        limit = None if below == math.inf else int(below)
        sizes.append(SizeClass(at_least, limit, len(of_size), scores(of_size)["mIoU"]))
    return Ceiling(
        reading=reading,
        cells=cells,
        frame=frame,
        queries=len(masks),
        gIoU=total["gIoU"],
        mIoU=total["mIoU"],
        cIoU=total["cIoU"],
        sizes=sizes,
    )


def table(ceilings: list[Ceiling]) -> str:
    """Return the ceilings as a text table, and what they are computed from."""
    sizes = ceilings[0].sizes
    heading = ["one value per cell", "grid", "frame", "gIoU", "mIoU", "cIoU"]
    rows = [heading + [size.name for size in sizes]]
    for ceiling in ceilings:
        row = [ceiling.reading, f"{ceiling.cells} x {ceiling.cells}", ceiling.frame]
        row += [_score(ceiling.gIoU), _score(ceiling.mIoU), _score(ceiling.cIoU)]
        for size in ceiling.sizes:
            row.append(f"{_score(size.mIoU)} ({size.queries})" if size.queries else "-")
        rows.append(row)
    queries_with_target = sum(size.queries for size in sizes)
    note = f"{ceilings[0].queries} queries, {queries_with_target} of them with a target."
    return "\n".join([*_aligned(rows), "", note, SIZE_NOTE])


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return rows as lines with aligned columns: three of words, then numbers."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cells.append(cell.ljust(width) if number < 3 else cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines


def _score(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
