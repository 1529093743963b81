"""The contract between a model, a data set and the instrument.

Outside packages depend on it: keep it stable.

    Sample      one query about one image: what a data set yields
    Adapter     a model under test: five stages, and what each hands on is the adapter's own affair
    Prediction  the answer to one query
    Probe       what an adapter sees of the instrument

The functions in `measure.py` call the stages in order and time each of them. Adapters never time
themselves; inside a stage they may name finer regions (``with probe.region("vision.clip")``). Their
names are the adapter's own affair, except for those of generated answers: see `FURTHER_TOKEN`.

Shape suffixes: H and W are height and width of the image in pixels; 3 is the colour channels, RGB.
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
# Names of regions that reports understand, for models that generate their answers token by token.
# The cost of a further token is the time of the stage `llm`, without the regions `ONCE_AN_ANSWER`,
# divided by the calls of `FURTHER_TOKEN`.
FURTHER_TOKEN = "llm.decode"  # computes one token after the first; its calls count these tokens
ONCE_AN_ANSWER = ("llm.embed", "llm.prefill", "llm.projection")  # the prompt, and [SEG]'s embedding
IGNORED = 255  # the value of pixels in a target that no score counts; the same as in ReasonSeg
# What the sides of an image may be, for models to see it.
NARROWEST_PX = 2
# Long side over short side. Scaled to 1024 pixels, as SAM does, five pixels are left of the short
# side.
MOST_EXTREME = 200


@dataclass(frozen=True)
class Sample:
    """One query about one image.

    The image and the target are read on first use, and kept. Nobody may write into them.

    Attributes:
        id: unique within its split.
        query: the text, exactly as annotated.
        is_sentence: whether `query` is a whole sentence or a noun phrase.
        tags: metadata by which scores can be sliced, such as ``{"family": "relation"}``.
        source: path of the image file, for messages.
        pixels: reads `image`.
        annotation: draws `target_HW`.
        identity: computes `image_id`.
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
        """The image, uint8 [H, W, 3], RGB."""
        return self.pixels()

    @cached_property
    def target_HW(self) -> np.ndarray:
        """The target, uint8 [H, W]: 0 background, 1 target, 255 ignored."""
        return self.annotation()

    @cached_property
    def image_id(self) -> str:
        """A hash of the image file.

        Samples of one image share it. They form one cluster in a confidence interval, because
        queries about one image succeed and fail together.
        """
        return self.identity()


@dataclass(frozen=True)
class Prediction:
    """The answer of a model to one query.

    Attributes:
        mask_HW: bool [H, W], at the size of the sample's image; all False where the answer has no
            [SEG].
        has_seg: whether the answer has the token [SEG], which stands for a mask.
        predicted_iou: the model's own estimate of its IoU, or None.
        text: the generated text, or None.
        prompt_tokens: length of the language model's prompt, image tokens included; None without a
            language model.
        answer_tokens: number of generated tokens; 0 where the answer was teacher-forced.
        kv_cache_bytes: size of the language model's KV cache at the end of the answer; None without
            a language model.
        nonfinite: which numbers of the model were NaN or infinite, such as "the mask's logits";
            None if all were finite. The query then counts as failed, with IoU 0: otherwise an empty
            mask that comes of NaN would be right wherever the target is empty.
        masks_MHW: bool [M, H, W], a mask for each [SEG] of the answer, in order; None where the
            adapter was not told to keep them apart. No score counts them.
    """

    mask_HW: np.ndarray
    has_seg: bool = True
    predicted_iou: float | None = None
    text: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    kv_cache_bytes: int | None = None
    nonfinite: str | None = None
    masks_MHW: np.ndarray | None = None


@dataclass(frozen=True)
class Paper:
    """What one query should cost by arithmetic ("on paper"), to set beside what was measured.

    An adapter returns it for a query that is evaluated alone. The record of a run that evaluates
    batches holds one query's share of the traffic, and the KV caches of a whole batch.

    Attributes:
        weight_bytes: bytes of each part of the model in memory.
        kv_cache_bytes: bytes of keys and values of the prompt and the answer.
        flops: floating-point operations of each stage; a multiplication and an addition are two.
        traffic_bytes: the fewest bytes that each stage must read: its weights, once for each
            forward pass.
    """

    weight_bytes: Mapping[str, int]
    kv_cache_bytes: int
    flops: Mapping[str, int]
    traffic_bytes: Mapping[str, int]


@dataclass(frozen=True)
class Preparation:
    """What an adapter has done once in its process, so that later queries are fast.

    Attributes:
        graphs: how many CUDA graphs it has captured.
        capture_s: seconds that capturing them took, with the calls before each capture, in which
            layers are compiled.
        compile_s: seconds that compiling layers took. With CUDA graphs they are part of
            `capture_s`.
    """

    graphs: int = 0
    capture_s: float = 0.0
    compile_s: float = 0.0


class Adapter(Protocol):
    """A model under test, made by ``build(case, probe)``.

    Each stage takes a batch of samples or what earlier stages returned for it. Only the first
    argument of `preprocess` and the result of `postprocess` have a type: the rest is the adapter's
    own.

    Attributes:
        settings: all settings as they were resolved, flat and without "auto". Two cases are
            compared by them, to find settings that differ besides the one under test.
        has_quality: False for random weights: then no score is computed from the answers.

    An adapter may also have:
        parameters: number of parameters of each part.
        weights: bytes of each part in memory.
        warnings: what a reader of its results must know.
        weights_source: where its weights come from, such as the id of a release.
        paper(prompt_tokens, answer_tokens): the `Paper` of a query.
        prompt_tokens(sample): length of a sample's prompt, by which the warm-up on CUDA covers
            every length.
        warm_up_key(sample): in place of it, whatever decides which work a sample starts, such as
            the graphs that are replayed for it: a hashable value, by which the warm-up on CUDA
            covers every kind.
        preparation: the `Preparation` up to now. The record of the warm-up has it, and a timed
            query during which it changes gets a warning.
    """

    settings: Mapping[str, Any]
    has_quality: bool

    def preprocess(self, samples: Sequence[Sample]) -> Any:
        """Prepare pixels and text on the CPU, and copy them to the device."""

    def vision(self, inputs: Any) -> Any:
        """Run every encoder that sees pixels."""

    def llm(self, inputs: Any, features: Any) -> Any:
        """Run the language model, from text and image tokens to each query's [SEG] embedding."""

    def decoder(self, inputs: Any, features: Any, answers: Any) -> Any:
        """Decode mask logits, and the predicted IoU where there is one."""

    def postprocess(self, inputs: Any, answers: Any, decoded: Any) -> list[Prediction]:
        """Return one prediction a sample, in order: masks at the images' own sizes, on the host."""
        ...

    def close(self) -> None:
        """Free what `build` allocated."""


class Probe(Protocol):
    """What an adapter sees of the instrument.

    Attributes:
        clock: the clock that regions are timed by. Only the fake adapter uses it: it lets simulated
            time pass.
    """

    clock: Clock

    def region(self, name: str) -> AbstractContextManager[object]:
        """Attribute what happens inside to a region.

        Args:
            name: it begins with the stage, such as ``vision.clip``. Reports understand
                `FURTHER_TOKEN` and `ONCE_AN_ANSWER`; they show every other name as it is.
        """
        ...


def size_fault(height: int, width: int) -> str | None:
    """Return why an image of this size, in pixels, is too narrow for models; None if it is not."""
    short, long = sorted((height, width))
    if short >= NARROWEST_PX and long <= MOST_EXTREME * short:
        return None
    expected = f"expected sides of {NARROWEST_PX} pixels or more, at most {MOST_EXTREME}:1"
    return f"too narrow for the models: {width} x {height} pixels; {expected}"
