"""Tiny LISAs with random weights, images of noise, and a probe that remembers: for tests."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lisabench.harness.contract import Prediction, Sample
from lisabench.models.adapters.lisa import build
from lisabench.models.adapters.lisa_stages import Decoded, Lisa
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.generation import Answers


class Regions:
    """A probe that counts the regions that are entered, outermost ones of a name or not."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        self.calls[name] += 1
        yield


def noise(
    query: str = "the red circle", size_HW: tuple[int, int] = (60, 90), seed: int = 0
) -> Sample:
    """A query about an image that the seed alone determines."""
    image_HW3 = np.random.default_rng(seed).integers(0, 256, (*size_HW, 3), np.uint8)
    return Sample(
        id=query,
        query=query,
        is_sentence=True,
        source=Path("noise.png"),
        pixels=lambda: image_HW3,
        annotation=lambda: np.zeros(size_HW, np.uint8),
        identity=lambda: str(seed),
    )


def lisa(probe: Regions | None = None, **axes: object) -> Lisa:
    return build(LisaConfig(device="cpu", **axes), probe or Regions())


def decoded(adapter: Lisa, *samples: Sample) -> tuple[Answers, Decoded]:
    inputs = adapter.preprocess(samples)
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    return answers, adapter.decoder(inputs, features, answers)


def predict(adapter: Lisa, *samples: Sample) -> list[Prediction]:
    inputs = adapter.preprocess(samples)
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    return adapter.postprocess(inputs, answers, adapter.decoder(inputs, features, answers))


def on_meta(_: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a part without memory for its weights, to count what it has."""
    with torch.device("meta"):
        return build()
