"""Tiny LISAs with random weights, images of noise, and a probe that remembers: for tests."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lisabench.harness.contract import Prediction, Sample
from lisabench.models.adapters.lisa import build
from lisabench.models.adapters.lisa_stages import Decoded, Lisa
from lisabench.models.execution.pillow_resampling import PillowResize
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.generation import Answers


class Regions:
    """A probe that counts how often each region is entered, in the order of the first times."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        self.calls[name] += 1
        yield


def noise(
    query: str = "the red circle",
    size_HW: tuple[int, int] = (60, 90),
    seed: int = 0,
    is_sentence: bool = True,
) -> Sample:
    """Return a query about an image of noise that the seed alone determines."""
    image_HW3 = np.random.default_rng(seed).integers(0, 256, (*size_HW, 3), np.uint8)
    return Sample(
        id=query,
        query=query,
        is_sentence=is_sentence,
        source=Path("noise.png"),
        pixels=lambda: image_HW3,
        annotation=lambda: np.zeros(size_HW, np.uint8),
        identity=lambda: str(seed),
    )


def lisa(probe: Regions | None = None, **settings: object) -> Lisa:
    """Return a LISA on the CPU: the tiny dual one with random weights, unless set otherwise."""
    return build(LisaConfig(device="cpu", **settings), probe or Regions())


@lru_cache(maxsize=8)
def shared_lisa(**settings: object) -> Lisa:
    """Return the same, shared by all tests of a process with these settings: they only read it.

    Not for tests that replace the preset: the LISA would have the sizes of whoever came first.
    """
    return lisa(**settings)


def decoded(adapter: Lisa, *samples: Sample) -> tuple[Answers, Decoded]:
    """Return the answers and the mask logits of some queries, evaluated as one batch."""
    inputs = adapter.preprocess(samples)
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    return answers, adapter.decoder(inputs, features, answers)


def predict(adapter: Lisa, *samples: Sample) -> list[Prediction]:
    """Return the predictions of some queries, evaluated as one batch."""
    inputs = adapter.preprocess(samples)
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    return adapter.postprocess(inputs, answers, adapter.decoder(inputs, features, answers))


def on_meta(_: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a part without memory for its weights, to count what it has."""
    with torch.device("meta"):
        return build()


def uncompiled_resize(device: str, _: bool) -> PillowResize:
    """Return what resizes without compiling: to stand in for `PillowResize`."""
    return PillowResize(device)
