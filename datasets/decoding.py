"""Decode the images of a data set ahead, in processes of their own, while a model works.

They are the worker processes of a PyTorch `DataLoader`. They only read files: no worker touches a
GPU. An image comes back through shared memory, so that the model's process does not copy it.
"""

import math
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..harness.contract import Sample
from .reasonseg import ReasonSeg

LEAST_AHEAD = 2  # images for each worker, PyTorch's own default


class AheadDecoder:
    """Yields samples in order, whose images worker processes decode ahead.

    The processes are started here and kept, since starting them takes longer than decoding a few
    images. Make it before the process uses a GPU, and before it is pinned to a core: the workers
    are forked from it.

    Args:
        samples: the data.
        workers: how many processes decode; 0: each image is decoded when it is needed.
        batch: how many images are needed at once: so many are decoded ahead, or a few more.
    """

    def __init__(self, samples: ReasonSeg, workers: int, batch: int) -> None:
        self._samples = samples
        self._positions: list[int] = []  # of the block; the loader reads it at its start
        self._loader: Any = None
        if workers > 0:
            self._loader = self._started_loader(workers, batch)

    def _started_loader(self, workers: int, batch: int) -> Any:
        # Imported here: a fake model that measures without workers needs no torch.
        from torch.utils.data import DataLoader

        # A daemonic process must not start any. This one ends its workers itself, in `close`; if
        # it is killed, they notice within seconds.
        multiprocessing.current_process().daemon = False
        loader = DataLoader(
            _Images(self._samples),  # pyright: ignore[reportArgumentType]
            batch_size=None,  # each image is a task of its own, so that a batch is shared out
            sampler=self._positions,
            num_workers=workers,
            prefetch_factor=max(LEAST_AHEAD, math.ceil(batch / workers)),
            persistent_workers=True,
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )
        iter(loader)  # starts the workers; there is nothing to decode yet
        return loader

    def samples(self, positions: Sequence[int]) -> Iterator[Sample]:
        """Yield the samples at some positions, with their images.

        All but the images is read before this returns. The workers begin when the first sample is
        taken, and not before.

        Raises:
            DataError: an image or annotation cannot be read.
        """
        decoded: list[np.ndarray] = []
        samples = []
        for number, position in enumerate(positions):
            if self._loader is None:
                sample = self._samples[position]
            else:
                sample = self._samples.with_pixels(position, partial(decoded.__getitem__, number))
            _ = sample.image_id  # a hash of the file, which a model may need
            samples.append(sample)
        if self._loader is None:
            return _decoded_here(samples)
        self._positions[:] = positions
        return self._decoded_ahead(samples, decoded)

    def _decoded_ahead(
        self, samples: Sequence[Sample], decoded: list[np.ndarray]
    ) -> Iterator[Sample]:
        """Yield the samples, each when its image has come. They read it from `decoded`."""
        for sample, image_HW3 in zip(samples, self._loader, strict=True):
            decoded.append(image_HW3.numpy())
            yield sample

    def close(self) -> None:
        """End the worker processes."""
        self._loader = None


def _decoded_here(samples: Sequence[Sample]) -> Iterator[Sample]:
    for sample in samples:
        _ = sample.image  # reading it is the decoding
        yield sample


class _Images:
    """The images of a data set, as PyTorch's loader asks for them."""

    def __init__(self, samples: ReasonSeg) -> None:
        self._samples = samples

    def __getitem__(self, position: int) -> np.ndarray:
        # The loader makes a tensor of it, which the other process shares.
        return self._samples[position].image
