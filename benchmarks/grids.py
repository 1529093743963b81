"""Where an encoder's grid of cells lies on an image, and what is left of a mask that has to pass through it.

Two frames. ``whole``: the whole image, scaled by its longest side, in the top left corner of a square, as SAM sees it.
``crop``: the image scaled by its shortest side, a square cut out of its centre, as CLIP's own processor does. The sizes
are rounded as those processors round. The models' geometry is not imported here; a test holds the two equal.

Axes: H and W the image, h and w the grid.
"""

from dataclasses import dataclass

import numpy as np

from ..harness.contract import IGNORED

FRAMES = ("whole", "crop")


@dataclass(frozen=True)
class Side:
    """One side of an image in one side of a frame.

    Attributes:
        image_px: of the image itself.
        scaled_px: of the image as it was scaled for the frame.
        start_px: where the frame begins in the scaled image.
        frame_px: of the frame.
        cells: of the grid that tiles the frame.
    """

    image_px: int
    scaled_px: int
    start_px: int
    frame_px: int
    cells: int

    def place(self, pixel: np.ndarray) -> np.ndarray:
        """Positions in the image, in pixels from its edge, as positions in the frame, in cells from its edge."""
        return (pixel * (self.scaled_px / self.image_px) - self.start_px) * (
            self.cells / self.frame_px
        )

    def centres(self) -> np.ndarray:
        """Where the centre of each pixel lies, in cells."""
        return self.place(np.arange(self.image_px) + 0.5)

    def overlaps(self) -> np.ndarray:
        """float32 [cells, image_px]: the part of each cell's length that each pixel covers."""
        edges, cell = self.place(np.arange(self.image_px + 1)), np.arange(self.cells)[:, None]
        return np.clip(
            np.minimum(edges[1:], cell + 1) - np.maximum(edges[:-1], cell), 0, None
        ).astype(np.float32)

    def members(self) -> np.ndarray:
        """float32 [cells, image_px]: 1 where the pixel's centre lies in the cell."""
        return (np.floor(self.centres()) == np.arange(self.cells)[:, None]).astype(np.float32)

    def weights(self) -> np.ndarray:
        """float32 [image_px, cells]: of each cell in each pixel, bilinear; none in a pixel outside the frame."""
        centres = self.centres()[:, None]
        nearest = np.clip(centres - 0.5, 0, self.cells - 1)
        seen = (centres >= 0) & (centres < self.cells)
        return (seen * np.maximum(0, 1 - np.abs(nearest - np.arange(self.cells)))).astype(
            np.float32
        )


@dataclass(frozen=True)
class Grid:
    """A grid on an image: its two sides, `y` down and `x` across."""

    y: Side
    x: Side

    @classmethod
    def on(cls, size_HW: tuple[int, int], frame: str, frame_px: int, cells: int) -> "Grid":
        """The grid of so many cells a side, in a frame from `FRAMES` whose sides are `frame_px`."""
        if frame == "whole":
            scale = frame_px / max(size_HW)
            scaled, starts = [int(side * scale + 0.5) for side in size_HW], [0, 0]
        else:
            scaled = [int(frame_px * side / min(size_HW)) for side in size_HW]
            starts = [(side - frame_px) // 2 for side in scaled]
        y, x = (Side(*each, frame_px, cells) for each in zip(size_HW, scaled, starts, strict=True))
        return cls(y, x)


def interpolated(target_HW: np.ndarray, grid: Grid) -> np.ndarray:
    """The mask with one value left per cell: its coverage, brought back bilinearly, and thresholded at one half.

    The coverage is the exact share of the target in the part of the cell that is known, that is neither padding nor
    ignored; a cell of which nothing is known takes no side. Bilinear is how a linear decoder of the grid would bring it
    back, and how LISA's own postprocessing brings its logits to the image's size.

    Args:
        target_HW: uint8 [H, W]: 0 background, 1 target, 255 ignored.
        grid: as of `Grid.on`, for an image of that size.

    Returns:
        bool [H, W]; False outside the frame.
    """
    rows, columns = grid.y.overlaps(), grid.x.overlaps()
    target_hw, known_hw = (rows @ each_HW @ columns.T for each_HW in _target_and_known(target_HW))
    sides_hw = np.divide(
        2 * target_hw - known_hw, known_hw, out=np.zeros_like(known_hw), where=known_hw > 0
    )
    return grid.y.weights() @ sides_hw @ grid.x.weights().T > 0


def whole_cells(target_HW: np.ndarray, grid: Grid) -> np.ndarray:
    """The mask made of whole cells that has the largest IoU with the target: no other choice of cells has a larger one.

    A pixel belongs to the cell that holds its centre. Taking a cell raises an IoU exactly where target : background in
    it exceeds the IoU, so the best choice is the cells of the largest share of target, and only their number is sought.

    Args and the returned mask are those of `interpolated`.
    """
    rows, columns = grid.y.members(), grid.x.members()
    target_hw, known_hw = (rows @ each_HW @ columns.T for each_HW in _target_and_known(target_HW))
    chosen_hw = _best(target_hw, known_hw, int(np.count_nonzero(target_HW == 1)))
    return rows.T @ chosen_hw @ columns > 0


def _target_and_known(target_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (target_HW == 1).astype(np.float32), (target_HW != IGNORED).astype(np.float32)


def _best(target_hw: np.ndarray, known_hw: np.ndarray, target_px: int) -> np.ndarray:
    """float32 [h, w]: 1 for the cells whose union has the largest IoU with a target of so many pixels."""
    target, known = (each_hw.ravel().astype(np.float64) for each_hw in (target_hw, known_hw))
    candidates = np.flatnonzero(target)
    order = candidates[np.argsort(-target[candidates] / known[candidates], kind="stable")]
    hit, background = np.cumsum(target[order]), np.cumsum(known[order] - target[order])
    best = np.argmax(hit / (target_px + background)) + 1 if order.size else 0
    chosen = np.zeros(target.size, np.float32)
    chosen[order[:best]] = 1
    return chosen.reshape(target_hw.shape)


READINGS = {"interpolated": interpolated, "whole cells": whole_cells}
