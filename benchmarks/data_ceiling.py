"""What an encoder's grid alone allows: how much of the true masks of a folder is left after they passed through it.

No model is asked. Each true mask is brought onto the grid and back to the image's size, and scored against itself, in
two readings (`grid.py` computes them):

- ``interpolated``: each cell keeps one value, the share of it that the target covers, which is brought back bilinearly
  and thresholded at one half.
- ``whole cells``: each cell is taken or left as a whole, whichever serves the IoU best. No mask made of whole cells can
  score higher: of such masks this is the ceiling in the literal sense.

Both are of a decoder that has *one value per cell*. A real decoder reads many channels per cell, which can say where in
a cell the outline runs, so it may score above either; and its training may keep it far below. What the two show is what
the places of the grid carry by themselves, and so what one grid or frame loses against another before anything is
learnt. Only what a crop leaves out is lost for every decoder: there it has seen nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..datasets.reasonseg import ReasonSeg, splits
from ..harness.contract import Sample
from ..harness.metrics import Counts, count, scores
from .grids import FRAMES, READINGS, Grid

GRIDS = {
    16: 224,
    24: 336,
    64: 1024,
}  # cells a side and the input in pixels: CLIP ViT-L/14 at two sizes, and SAM
BOUNDS = (0, 1, 4, 16)  # of the classes of objects, by area in cells
BY_SIZE = (
    "Last columns: mIoU by the target's area, in cells of that grid and frame, and the number of such "
    "targets."
)

Progress = Callable[[int, int, str], None]
Key = tuple[str, int, str]


@dataclass(frozen=True)
class SizeClass:
    """The objects of a size: their areas in cells, from `at_least` to less than `below` (None: and more)."""

    at_least: int
    below: int | None
    queries: int
    mIoU: float | None

    @property
    def name(self) -> str:
        if self.below is None:
            return f">= {self.at_least}"
        return f"{self.at_least}-{self.below}" if self.at_least else f"< {self.below}"


@dataclass(frozen=True)
class Ceiling:
    """What one grid in one frame leaves of the masks, in one reading.

    Attributes:
        reading: a name in `READINGS`.
        cells: along a side of the grid.
        frame: ``whole`` or ``crop``.
        queries: all of them.
        gIoU: mean IoU over all queries, as everywhere; a query without a target counts as 1.
        mIoU: mean IoU over the queries with a target; None where there is none.
        cIoU: sum of intersections over sum of unions; None where there is no target.
        sizes: the queries with a target, by its area in cells of this grid in this frame.
    """

    reading: str
    cells: int
    frame: str
    queries: int
    gIoU: float | None
    mIoU: float | None
    cIoU: float | None
    sizes: list[SizeClass]


def ceilings(root: str | Path, split: str | None, progress: Progress) -> list[Ceiling]:
    """Passes every true mask of a folder through every grid.

    One picture is held at a time; what is kept of a query is its pixel counts.

    Args:
        root: the folder that holds the splits.
        split: the one to look at; None takes all of them together.
        progress: told how many queries are done, of how many, and which is next.

    Raises:
        DataError: the folder, the split or a file in it is missing or broken.
    """
    found: dict[Key, list[tuple[float, Counts]]] = {}
    for sample in _samples(Path(root), split, progress):
        for key, cells, counts in _passed(sample):
            found.setdefault(key, []).append((cells, counts))
    return [_ceiling(*key, queries) for key, queries in found.items()]


def _samples(root: Path, split: str | None, progress: Progress) -> Iterator[Sample]:
    parts = [ReasonSeg(root, name) for name in ([split] if split else splits(root))]
    total, done = sum(map(len, parts)), 0
    for part in parts:
        for sample in part:
            progress(done, total, sample.id)
            yield sample
            done += 1
    progress(done, total, "done")


def _passed(sample: Sample) -> Iterator[tuple[Key, float, Counts]]:
    """For each reading, grid and frame: the area of the target in cells, and what the mask that came back scores."""
    target_HW = sample.target_HW
    height, width = target_HW.shape
    for reading, read in READINGS.items():
        for cells, frame_px in GRIDS.items():
            for frame in FRAMES:
                counts = count(
                    read(target_HW, Grid.on((height, width), frame, frame_px, cells)), target_HW
                )
                cell_px = (max if frame == "whole" else min)(height, width) / cells
                yield (reading, cells, frame), counts.target_px / cell_px**2, counts


def _ceiling(reading: str, cells: int, frame: str, queries: list[tuple[float, Counts]]) -> Ceiling:
    found = scores(counts for _, counts in queries)
    sizes = [
        _size_class(queries, *bounds) for bounds in zip(BOUNDS, (*BOUNDS[1:], None), strict=True)
    ]
    return Ceiling(
        reading, cells, frame, len(queries), found["gIoU"], found["mIoU"], found["cIoU"], sizes
    )


def _size_class(queries: list[tuple[float, Counts]], at_least: int, below: int | None) -> SizeClass:
    of_size = [
        c
        for size, c in queries
        if c.target_px and at_least <= size and (below is None or size < below)
    ]
    return SizeClass(at_least, below, len(of_size), scores(of_size)["mIoU"])


def table(found: list[Ceiling]) -> str:
    """The ceilings as lines of text whose columns line up, and what they are of."""
    sizes = found[0].sizes
    heading = [
        "one value per cell",
        "grid",
        "frame",
        "gIoU",
        "mIoU",
        "cIoU",
        *(size.name for size in sizes),
    ]
    lines = [heading, *map(_line, found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ("  ".join(_padded(line, widths)).rstrip() for line in lines)
    queries = (
        f"{found[0].queries} queries, {sum(size.queries for size in sizes)} of them with a target."
    )
    return "\n".join([*text, "", queries, BY_SIZE])


def _line(one: Ceiling) -> list[str]:
    grid = f"{one.cells} x {one.cells}"
    sizes = [f"{_score(size.mIoU)} ({size.queries})" if size.queries else "-" for size in one.sizes]
    return [one.reading, grid, one.frame, *map(_score, (one.gIoU, one.mIoU, one.cIoU)), *sizes]


def _padded(line: list[str], widths: list[int]) -> Iterator[str]:
    for number, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.ljust(width) if number < 3 else cell.rjust(width)


def _score(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
