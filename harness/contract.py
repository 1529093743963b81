"""The contract between a model, a data set and the instrument.

A model under test is an `Adapter`: five stages, called in order by the loop in `measure.py`, which times each of them.
Adapters never time themselves; inside a stage they may name finer regions (``with probe.region("vision.clip")``).

Shape suffixes: H, W height and width of the image in pixels; 3 colour channels, RGB.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .clock import Clock

STAGES = ("preprocess", "vision", "llm", "decoder", "postprocess")
IGNORED = 255


@dataclass(frozen=True)
class Sample:
    """One query about one image. The pixels and the target are read when first asked for, and never to be written into.

    Attributes:
        id: unique within its split.
        query: the words, exactly as annotated.
        is_sentence: whether `query` is a whole sentence or a noun phrase.
        tags: metadata by which scores can be sliced, such as ``{"family": "relation"}``.
        source: path of the image file, for messages.
        pixels: makes `image`.
        annotation: makes `target_HW`.
        identity: makes `image_id`.
    """

    id: str
    query: str
    is_sentence: bool
    source: Path
    pixels: Callable[[], np.ndarray] = field(repr=False, compare=False)
    annotation: Callable[[], np.ndarray] = field(repr=False, compare=False)
    identity: Callable[[], str] = field(repr=False, compare=False)
    tags: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 [H, W, 3], RGB."""
        return self.pixels()

    @cached_property
    def target_HW(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, 1 target, 255 ignored."""
        return self.annotation()

    @cached_property
    def image_id(self) -> str:
        """Hash of the image file: samples that show the same picture share it, and are one cluster in an interval."""
        return self.identity()


@dataclass(frozen=True)
class Prediction:
    """What an adapter answers to one query.

    Attributes:
        mask_HW: bool [H, W], at the size of the sample's image; all False where the answer has no [SEG].
        has_seg: whether the answer asked for a mask at all.
        predicted_iou: the model's own estimate of its IoU, or None.
        text: the answer in words, or None.
        prompt_tokens: length of the language model's prompt, image tokens included; None without a language model.
        answer_tokens: tokens that were generated (0 where the answer was forced).
        kv_cache_bytes: what the language model's keys and values took at the end; None without a language model.
    """

    mask_HW: np.ndarray
    has_seg: bool = True
    predicted_iou: float | None = None
    text: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    kv_cache_bytes: int | None = None


@dataclass(frozen=True)
class Paper:
    """What a model should take, by arithmetic, for one query.

    Attributes:
        weight_bytes: of each part, as it lies in memory.
        kv_cache_bytes: keys and values of the prompt and the answer.
        flops: floating-point operations of each stage; a multiplication and an addition are two.
        traffic_bytes: the fewest bytes that each stage must read: its weights, once for each pass over them.
    """

    weight_bytes: Mapping[str, int]
    kv_cache_bytes: int
    flops: Mapping[str, int]
    traffic_bytes: Mapping[str, int]


class Adapter(Protocol):
    """A model under test. Made by ``build(case, probe)``; what the stages hand each other is the adapter's own affair.

    Attributes:
        settings: flat and resolved (no "auto"); what the confound check compares.
        has_quality: False for random weights: no quality figure is ever derived from such a run.

    An adapter may also have `parameters`, a count for each of its parts; `weights`, the bytes that each of them holds
    in memory; `warnings`, what is to be known of it; ``paper(prompt_tokens, answer_tokens)``, the `Paper` that it is
    read against; and ``prompt_tokens(sample)``, the length of a sample's prompt, by which it is warmed up on CUDA.
    """

    settings: Mapping[str, Any]
    has_quality: bool

    def preprocess(self, samples: Sequence[Sample]) -> Any:
        """CPU work on pixels and words, and the copy to the device."""

    def vision(self, inputs: Any) -> Any:
        """Every encoder that looks at pixels."""

    def llm(self, inputs: Any, features: Any) -> Any:
        """From words and image tokens to the [SEG] embedding of every query."""

    def decoder(self, inputs: Any, features: Any, answers: Any) -> Any:
        """Mask logits, and the predicted IoU where there is one."""

    def postprocess(self, inputs: Any, answers: Any, decoded: Any) -> list[Prediction]:
        """Masks at the images' own sizes, on the host; one prediction a sample, in order."""
        ...

    def close(self) -> None:
        """Frees what `build` took."""


class Probe(Protocol):
    """What an adapter sees of the instrument.

    Attributes:
        clock: what regions are timed by; only a stand-in that lets simulated time pass has a use for it.
    """

    clock: Clock

    def region(self, name: str) -> AbstractContextManager[object]:
        """The time inside counts for `name`, whose part before the first dot is its stage."""
        ...
