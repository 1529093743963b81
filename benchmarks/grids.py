"""What is left of a mask that has to pass through an encoder's grid of cells.

Where the grid lies on the image is the models' own geometry (`models/lisa/frames.py`). A grid and a
mask are separable: every step below is a matrix over rows times a matrix over columns.

Axes: H and W the image, h and w the grid.
"""

from dataclasses import dataclass

import numpy as np

from ..harness.contract import IGNORED
from ..models.lisa.frames import FRAMES


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

    def in_cells(self, image_px: np.ndarray) -> np.ndarray:
        """Return positions in the frame, in cells from its edge, of positions in the image."""
        scaled_px = image_px * (self.scaled_px / self.image_px)
        return (scaled_px - self.start_px) * (self.cells / self.frame_px)

    def centres(self) -> np.ndarray:
        """Return where the centre of each pixel lies, in cells."""
        return self.in_cells(np.arange(self.image_px) + 0.5)

    def overlaps(self) -> np.ndarray:
        """Return float32 [cells, image_px]: the part of each cell that each pixel covers."""
        edges = self.in_cells(np.arange(self.image_px + 1))
        cell = np.arange(self.cells)[:, None]
        ends = np.minimum(edges[1:], cell + 1)
        starts = np.maximum(edges[:-1], cell)
        return np.clip(ends - starts, 0, None).astype(np.float32)

    def members(self) -> np.ndarray:
        """Return float32 [cells, image_px]: 1 where the pixel's centre lies in the cell."""
        cell = np.arange(self.cells)[:, None]
        return (np.floor(self.centres()) == cell).astype(np.float32)

    def weights(self) -> np.ndarray:
        """Return float32 [image_px, cells]: the bilinear weight of each cell in each pixel.

        A pixel outside the frame has no weights. Nearer to the frame's edge than the outermost
        cell's centre, that cell alone counts, as in ``interpolate(align_corners=False)``.
        """
        centres = self.centres()[:, None]
        is_seen = (centres >= 0) & (centres < self.cells)
        position = np.clip(centres - 0.5, 0, self.cells - 1)
        distance = np.abs(position - np.arange(self.cells))
        return (is_seen * np.maximum(0, 1 - distance)).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """A grid on an image: its two sides, `y` down and `x` across."""

    y: Side
    x: Side

    @classmethod
    def on(cls, size_HW: tuple[int, int], frame: str, frame_px: int, cells: int) -> "Grid":
        """Return the grid of `cells` a side in a frame of an image.

        Args:
            size_HW: of the image, in pixels.
            frame: a name in ``frames.FRAMES``.
            frame_px: side of the frame.
            cells: along a side of the grid.
        """
        laid = FRAMES[frame](size_HW, frame_px)
        y, x = (
            Side(size_HW[axis], laid.scaled_HW[axis], laid.start_YX[axis], frame_px, cells)
            for axis in (0, 1)
        )
        return cls(y, x)


def interpolated(target_HW: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the mask with one value left per cell, brought back bilinearly.

    The value is the cell's coverage: the exact share of the target in the known part of the cell,
    which is neither padding nor ignored. A cell of which nothing is known counts as one half. The
    mask is where the interpolated coverage exceeds one half. Bilinear is how a linear decoder of
    the grid would bring it back, and how LISA's own postprocessing brings its logits to the image.

    Args:
        target_HW: uint8 [H, W]: 0 background, 1 target, 255 ignored.
        grid: as of `Grid.on`, for an image of that size.

    Returns:
        bool [H, W]; False outside the frame.
    """
    target_hw, known_hw = _target_and_known(target_HW, grid.y.overlaps(), grid.x.overlaps())
    # 2 * coverage - 1, so that the threshold of one half is 0 and an unknown cell is 0 too: outside
    # the frame all weights are 0, and such pixels come out as background.
    logit_hw = np.divide(
        2 * target_hw - known_hw, known_hw, out=np.zeros_like(known_hw), where=known_hw > 0
    )
    return grid.y.weights() @ logit_hw @ grid.x.weights().T > 0


def whole_cells(target_HW: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the mask made of whole cells that has the largest IoU with the target.

    No other choice of cells has a larger one. A pixel belongs to the cell that holds its centre.

    Args and the returned mask are those of `interpolated`.
    """
    rows, columns = grid.y.members(), grid.x.members()
    target_hw, known_hw = _target_and_known(target_HW, rows, columns)
    target_px = int(np.count_nonzero(target_HW == 1))
    chosen_hw = _best_cells(target_hw, known_hw, target_px)
    return rows.T @ chosen_hw @ columns > 0


def _target_and_known(
    target_HW: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the area of the target and of what is known in each cell: float32 [h, w] each."""
    is_target_HW = (target_HW == 1).astype(np.float32)
    is_known_HW = (target_HW != IGNORED).astype(np.float32)
    return rows @ is_target_HW @ columns.T, rows @ is_known_HW @ columns.T


def _best_cells(target_hw: np.ndarray, known_hw: np.ndarray, target_px: int) -> np.ndarray:
    """Return float32 [h, w]: 1 for the cells whose union has the largest IoU with the target.

    Adding a cell raises an IoU exactly where target : background in the cell exceeds the IoU. The
    best choice is therefore the first cells in the order of their share of target, and only their
    number is sought.
    """
    target = target_hw.ravel().astype(np.float64)
    known = known_hw.ravel().astype(np.float64)
    chosen = np.zeros(target.size, np.float32)
    candidates = np.flatnonzero(target)
    if candidates.size:
        share = target[candidates] / known[candidates]
        order = candidates[np.argsort(-share, kind="stable")]
        hits = np.cumsum(target[order])
        background = np.cumsum(known[order] - target[order])
        ious = hits / (target_px + background)
        chosen[order[: np.argmax(ious) + 1]] = 1
    return chosen.reshape(target_hw.shape)


READINGS = {"interpolated": interpolated, "whole cells": whole_cells}
