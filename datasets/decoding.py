"""Decode the images of a data set ahead, in processes of their own, while a model works.

They are the worker processes of a PyTorch `DataLoader`. They only read files: no worker touches a
GPU. A worker writes an image where the model's process reads it, so that it is not sent.
"""

import math
import mmap
import multiprocessing
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..harness.contract import Sample
from ..harness.errors import DataError
from ..harness.lifeline import START_METHOD, end_with, lifeline
from .samples import Samples

LEAST_AHEAD = 2  # images for each worker, PyTorch's own default
PLACE_BYTES = 16 << 20  # of an image: over five million pixels; a larger one is sent

Shape = tuple[int, ...]
Task = tuple[int, int]  # number of the query in its block, and position in the data


class AheadDecoder:
    """Yields samples in order, whose images worker processes decode ahead.

    The processes are started here and kept, since starting them takes longer than decoding a few
    images. Make it before the process uses a GPU, and before it is pinned to a core: the workers
    are forked from it.

    Args:
        samples: the data.
        workers: how many processes decode; 0: each image is decoded when it is needed.
        batch: how many images are needed at once: so many are decoded ahead, or a few more.
        block: how many samples are taken in a row, at most. Their images stay until the next block.
    """

    def __init__(self, samples: Samples, workers: int, batch: int, block: int) -> None:
        self._samples = samples
        self._tasks: list[Task] = []  # of the block; the loader reads them at its start
        self._loader: Any = None
        self._shared: _SharedImages | None = None
        if workers > 0:
            if START_METHOD == "fork":
                self._shared = _SharedImages(block)
            self._loader = self._started_loader(workers, batch)

    def _started_loader(self, workers: int, batch: int) -> Any:
        # Imported here: a fake model that is measured without workers needs no torch.
        from torch.utils.data import DataLoader

        # A daemonic process must not start any. This one ends its workers itself, in `close`; if
        # it is killed, its lifeline ends them.
        multiprocessing.current_process().daemon = False
        loader = DataLoader(
            _Images(self._samples, self._shared),  # pyright: ignore[reportArgumentType]
            batch_size=None,  # each image is a task of its own, so that a batch is shared out
            sampler=self._tasks,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=max(LEAST_AHEAD, math.ceil(batch / workers)),
            persistent_workers=True,
            multiprocessing_context=START_METHOD,
            worker_init_fn=partial(_end_with, lifeline()),
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
        self._tasks[:] = enumerate(positions)
        return self._decoded_ahead(samples, decoded)

    def _decoded_ahead(
        self, samples: Sequence[Sample], decoded: list[np.ndarray]
    ) -> Iterator[Sample]:
        """Yield the samples, each when its image has come. They read it from `decoded`."""
        for number, received in enumerate(self._loader):
            if isinstance(received, DataError):
                raise received
            image_HW3 = received
            if self._shared is not None and isinstance(received, tuple):
                image_HW3 = self._shared.image(number, received)
            decoded.append(image_HW3)
            yield samples[number]

    def close(self) -> None:
        """End the worker processes."""
        self._loader = None


def _decoded_here(samples: Sequence[Sample]) -> Iterator[Sample]:
    for sample in samples:
        _ = sample.image  # reading it is the decoding
        yield sample


class _SharedImages:
    """Memory for the images of a block, which forked processes share.

    It is anonymous memory and not PyTorch's, which lies in ``/dev/shm``: a container often has
    64 MB there. Pages are taken when an image is first written.
    """

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * PLACE_BYTES)

    def image(self, number: int, shape: Shape) -> np.ndarray:
        """Return the image at a place of the block, uint8, to read it or to write it."""
        return np.ndarray(shape, np.uint8, self._memory, number * PLACE_BYTES)


def _end_with(parents_lifeline: Connection, worker: int) -> None:
    """Have a worker process of the loader end with the process of the model."""
    del worker
    end_with(parents_lifeline)


class _Images:
    """The images of a data set, as PyTorch's loader asks its workers for them."""

    def __init__(self, samples: Samples, shared: _SharedImages | None) -> None:
        self._samples = samples
        self._shared = shared

    def __getitem__(self, task: Task) -> np.ndarray | Shape | DataError:
        """Write an image to its place and return its shape, or return it if it has no place.

        An image that cannot be read is returned as its error: if it were raised, PyTorch would add
        a traceback to the message.
        """
        number, position = task
        try:
            image_HW3 = self._samples[position].image
        except DataError as error:
            return error
        if self._shared is None or image_HW3.nbytes > PLACE_BYTES:
            return image_HW3
        self._shared.image(number, image_HW3.shape)[:] = image_HW3
        return image_HW3.shape


def _as_it_is(received: Any) -> Any:
    """Return what a worker returned: the loader would make tensors of arrays."""
    return received
