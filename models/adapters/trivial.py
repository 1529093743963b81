"""The trivial baselines of quality: masks that depend on the image's size alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...harness.contract import Prediction, Probe, Sample


@dataclass(frozen=True)
class NoSettings:
    """A trivial baseline has no settings."""


class TrivialBaseline:
    """An adapter that neither looks at the image nor reads the query.

    Args:
        name: name of the adapter.
        draw: marks the answer in a mask, bool [H, W], which is all False before.
    """

    has_quality = True

    def __init__(self, name: str, draw: Callable[[np.ndarray], None]) -> None:
        self.settings = {"adapter": name}
        self._draw = draw

    def preprocess(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples themselves."""
        return samples

    def vision(self, inputs: object) -> None:
        """Do nothing: there is no encoder."""

    def llm(self, inputs: object, features: object) -> None:
        """Do nothing: there is no language model."""

    def decoder(
        self, inputs: Sequence[Sample], features: object, answers: object
    ) -> list[np.ndarray]:
        """Return one mask per sample, bool [H, W]."""
        masks = []
        for sample in inputs:
            mask_HW = np.zeros(sample.image.shape[:2], bool)
            self._draw(mask_HW)
            masks.append(mask_HW)
        return masks

    def postprocess(
        self, inputs: object, answers: object, decoded: list[np.ndarray]
    ) -> list[Prediction]:
        """Return the masks as predictions."""
        return [Prediction(mask_HW) for mask_HW in decoded]

    def close(self) -> None:
        """Do nothing: no resources are held."""


def whole_image(case: NoSettings, probe: Probe) -> TrivialBaseline:  # noqa: ARG001
    """Every pixel is the target."""

    def draw(mask_HW: np.ndarray) -> None:
        mask_HW.fill(True)

    return TrivialBaseline("whole-image", draw)


def centre_box(case: NoSettings, probe: Probe) -> TrivialBaseline:  # noqa: ARG001
    """The middle half of the width and of the height is the target."""

    def draw(mask_HW: np.ndarray) -> None:
        height, width = mask_HW.shape
        mask_HW[height // 4 : height - height // 4, width // 4 : width - width // 4] = True

    return TrivialBaseline("centre-box", draw)


def empty(case: NoSettings, probe: Probe) -> TrivialBaseline:  # noqa: ARG001
    """There is never a target."""

    def draw(mask_HW: np.ndarray) -> None:
        del mask_HW  # stays all False

    return TrivialBaseline("empty", draw)
