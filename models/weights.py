"""Where a LISA's weights come from: at random, from a folder that `convert` wrote, or from such a folder on the hub."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..harness.errors import DataError, UsageError
from . import llama_tokenizer, saved, tokenizer
from .axes import LisaCase
from .loaded import LoadedParts
from .parts import Make, RandomParts
from .presets import Preset


class Tokens(Protocol):
    """Turns prompts into ids and ids into answers.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.
    """

    seg_id: int
    end_id: int

    def encode(self, prompt: str) -> list[int]:
        """The prompt's ids, ``<s>`` first, with ``tokenizer.IMAGE_ID`` in place of the image."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of an answer, without ``<s>`` and ``</s>``."""
        ...


@dataclass(frozen=True)
class Source:
    """What a `Lisa` is built from.

    Attributes:
        make: makes each part, on its device and in its precision.
        tokenizer: the one that the weights were trained with.
        preset: the sizes, the vocabulary being that of the weights.
        has_quality: False for random weights.
        weights_hash: of the weights that were read; None for random ones, which follow from the seed.
        warnings: what a user of these weights has to know, one sentence each.
    """

    make: Make
    tokenizer: Tokens
    preset: Preset
    has_quality: bool
    weights_hash: str | None = None
    warnings: tuple[str, ...] = ()


def source(case: LisaCase, device: str) -> Source:
    """The weights of a case.

    Args:
        case: names them.
        device: "cpu" or "cuda", where the parts are to be.

    Raises:
        UsageError: there are no such weights, or they are of another preset than the case's.
        DataError: they are incomplete or broken, or the hub is not reached.
    """
    return _random(case, device) if case.weights == "random" else _saved(case, device)


def _random(case: LisaCase, device: str) -> Source:
    """Weights at random. The tiny tokenizer serves all sizes: of a prompt, only its length matters then."""
    tokens = tokenizer.PromptTokenizer(tokenizer.load("tiny"))
    return Source(RandomParts(case, device), tokens, case.sizes, has_quality=False)


def _saved(case: LisaCase, device: str) -> Source:
    folder = saved.located(case.weights)
    known = saved.read(folder)
    _refuse_another_model(case, folder, known)
    tokens = _tokens(folder, known)
    return Source(
        make=LoadedParts(folder, case, device),
        tokenizer=tokens,
        preset=known.sizes,
        has_quality=known.trained,
        weights_hash=known.weights_hash,
        warnings=(*known.warnings, *_departures(case, known)),
    )


def _refuse_another_model(case: LisaCase, folder: Path, known: saved.Saved) -> None:
    llama = known.sizes.llama
    own = {"vocabulary": llama.vocabulary, "context": llama.context, "norm_epsilon": llama.norm_epsilon}
    if replace(case.sizes, llama=replace(case.sizes.llama, **own)) != known.sizes:
        wanted = f"preset={case.preset} with sam={case.sam}"
        raise UsageError(
            f"the weights in {folder} are not of {wanted}: set preset={known.preset} and sam={known.sam} "
            f"({known.sizes} instead of {case.sizes})"
        )
    if case.seg_head != known.seg_head:
        raise UsageError(f"the weights in {folder} have seg_head={known.seg_head}, not {case.seg_head}: set that")


def _tokens(folder: Path, known: saved.Saved) -> Tokens:
    tokens = llama_tokenizer.load(folder)
    if tokens.size > known.sizes.llama.vocabulary:
        raise DataError(
            f"the tokenizer in {folder} has {tokens.size} tokens and the weights have rows for "
            f"{known.sizes.llama.vocabulary}: it is another model's; convert the weights again with their own"
        )
    return tokens


def _departures(case: LisaCase, known: saved.Saved) -> Iterator[str]:
    """Where a case uses weights otherwise than they were trained."""
    for axis in ("vision", "template", "conditioning"):
        trained, used = getattr(known, axis), getattr(case, axis)
        if trained != used:
            yield f"these weights ({known.source}) were trained with {axis}={trained} and are used with {used}"
