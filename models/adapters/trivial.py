"""The floors: answers without a look or a thought, which every quality figure is read against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...harness.contract import Prediction, Probe, Sample


@dataclass(frozen=True)
class NoSettings:
    """A floor has nothing to set."""


class Floor:
    """Answers with a mask that depends on the image's size alone."""

    has_quality = True

    def __init__(self, name: str, draw: Callable[[np.ndarray], None]) -> None:
        self.settings = {"adapter": name}
        self._draw = draw

    def preprocess(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        return samples

    def vision(self, inputs: object) -> None:
        """Does not look."""

    def llm(self, inputs: object, features: object) -> None:
        """Does not read."""

    def decoder(
        self,
        inputs: Sequence[Sample],
        features: object,
        answers: object,
    ) -> list[np.ndarray]:
        masks = [np.zeros(sample.image.shape[:2], bool) for sample in inputs]
        for mask_HW in masks:
            self._draw(mask_HW)
        return masks

    def postprocess(
        self,
        inputs: object,
        answers: object,
        decoded: list[np.ndarray],
    ) -> list[Prediction]:
        return [Prediction(mask_HW) for mask_HW in decoded]

    def close(self) -> None:
        """Holds nothing."""


def whole_image(case: NoSettings, probe: Probe) -> Floor:  # noqa: ARG001
    """Every pixel is the target."""
    return Floor("whole-image", lambda mask_HW: mask_HW.fill(True))


def centre_box(case: NoSettings, probe: Probe) -> Floor:  # noqa: ARG001
    """The middle half of the width and of the height is the target."""

    def draw(mask_HW: np.ndarray) -> None:
        height, width = mask_HW.shape
        mask_HW[height // 4 : height - height // 4, width // 4 : width - width // 4] = True

    return Floor("centre-box", draw)


def empty(case: NoSettings, probe: Probe) -> Floor:  # noqa: ARG001
    """There is never a target."""
    return Floor("empty", lambda _: None)
