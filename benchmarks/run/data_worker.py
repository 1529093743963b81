"""The data worker: a process without a model, which reads the data and describes the machine.

The session itself opens no image and imports no torch: a failure of either must not take it down,
and it must not compete with the models for memory.
"""

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
from numpy.lib.format import write_array

from ...datasets.opening import open_samples
from ...harness import environment, measure, noise, roofline
from ...harness.measure import Failure
from ...harness.records.gallery import THUMBNAIL_PX, as_webp
from ...harness.records.whole_file import whole_file
from ...models.checkpoints import weights_hash
from ...models.checkpoints.weights_hash import HashedWeights
from ...models.lisa.weights_format import WeightsFolder
from .worker_messages import DataReader, Line, Machine

MOST_IMAGES = 400  # that a run keeps: a page with more would be too large to send


class DataWorker:
    """What the session may call in the data process."""

    def __init__(self, data: DataReader) -> None:
        self.samples = open_samples(**data)

    def describe_machine(self) -> Machine:
        """Return the machine, its conditions, and the versions of the software."""
        facts = environment.describe_machine() | environment.conditions()
        return Machine(facts, environment.versions())

    def resolve_devices(self, devices: Sequence[str]) -> list[str]:
        """Return what each device is on this machine: ``auto`` becomes ``cuda`` or ``cpu``.

        Raises:
            UsageError: a device is not there.
        """
        return [environment.resolve_device(device) for device in devices]

    def check_data(self, positions: Sequence[int] | None = None) -> None:
        """Read images and targets once: broken data are found before anything is measured.

        Args:
            positions: of the queries; None: all.

        Raises:
            DataError: the first one that is broken.
        """
        for position in range(len(self.samples)) if positions is None else positions:
            sample = self.samples[position]
            _ = sample.image, sample.target_HW  # reading them is the check

    def check_weights(self, weights: WeightsFolder) -> HashedWeights:
        """Compare the bytes of weights with their hash, for all processes of the run.

        Raises:
            DataError: they are not those that the folder's ``config.json`` names.
        """
        return weights_hash.check(weights)

    def save_gallery(self, positions: Sequence[int], path: str) -> list[str]:
        """Save small images and whole targets of some queries, as `records.gallery` reads them.

        An image is saved once, whatever the number of its queries.

        Args:
            positions: of the queries, those first that matter most: of at most `MOST_IMAGES` images
                the queries are kept.
            path: of the file.

        Returns:
            The ids of the kept queries, in the order of the data.
        """
        images: dict[str, int] = {}  # number of each image, by its id
        numbers: dict[int, int] = {}  # number of a query's image, by the query's position
        for position in positions:
            image_id = self.samples[position].image_id
            if image_id in images or len(images) < MOST_IMAGES:
                numbers[position] = images.setdefault(image_id, len(images))
        ids, images_of_queries = [], []
        saved: set[int] = set()
        # As `np.savez_compressed` does, but one array after the other: the targets of 400 images
        # take hundreds of megabytes together.
        with whole_file(Path(path)) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as file:
            for place, position in enumerate(sorted(numbers)):
                sample, number = self.samples[position], numbers[position]
                if number not in saved:
                    webp = as_webp(_thumbnail(sample.image))
                    _add(file, f"image_{number}", np.frombuffer(webp, np.uint8))
                    saved.add(number)
                _add(file, f"target_{place}", sample.target_HW)
                ids.append(sample.id)
                images_of_queries.append(number)
            _add(file, "images", np.array(images_of_queries, np.int64))
        return ids

    def warn_of_other_load(self, devices: Sequence[str]) -> list[str]:
        """Return warnings about other programs that keep the devices busy.

        To be called while none of the run's models is on a GPU: it could not be distinguished from
        another's.
        """
        warnings: list[str] = []
        for device in dict.fromkeys(self.resolve_devices(devices)):
            for warning in noise.surroundings(device):
                if warning not in warnings:
                    warnings.append(warning)
        return warnings

    def measure_roofline(self, device: str) -> Line:
        """Return the peak rates of a device, which are measured once and then cached."""
        return roofline.cached_roofline(device)

    def unanswered_timed(self, positions: Sequence[int], failure: Failure) -> list[Line]:
        """Return the lines of timed queries whose worker was lost."""
        return [measure.failed_measurement(self.samples[place], failure) for place in positions]

    def unanswered_scored(self, positions: Sequence[int], failure: Failure) -> list[Line]:
        """Return the lines of queries of the quality pass whose worker was lost."""
        return [measure.failed_evaluation(self.samples[place], failure) for place in positions]


def _add(file: ZipFile, name: str, array: np.ndarray) -> None:
    """Add an array to an ``.npz`` file."""
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        write_array(member, array, allow_pickle=False)


def _thumbnail(image_HW3: np.ndarray) -> np.ndarray:
    height, width = image_HW3.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
