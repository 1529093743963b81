"""Where a LISA's weights come from: at random, from a folder that `convert` wrote, or from such a folder on the hub."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..harness.errors import DataError, UsageError
from . import llama_tokenizer, saved, tokenizer
from .axes import LisaCase
from .loaded import LoadedParts
from .parts import Make, RandomParts
from .presets import Preset


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
        new_parts: those that were made at random, the rest being read; none where all are random.
    """

    make: Make
    tokenizer: tokenizer.Tokens
    preset: Preset
    has_quality: bool
    weights_hash: str | None = None
    warnings: tuple[str, ...] = ()
    new_parts: frozenset[str] = frozenset()


def source(case: LisaCase, device: str, starting: bool = False) -> Source:
    """The weights of a case.

    Args:
        case: names them.
        device: "cpu" or "cuda", where the parts are to be.
        starting: they are to be trained, and what joins their parts may be new, at random.

    Raises:
        UsageError: there are no such weights, or they are of another preset than the case's.
        DataError: they are incomplete or broken, or the hub is not reached.
    """
    return _random(case, device) if case.weights == "random" else _saved(case, device, starting)


def _random(case: LisaCase, device: str) -> Source:
    """Weights at random. The tiny tokenizer serves all sizes: of a prompt, only its length matters then."""
    tokens = tokenizer.PromptTokenizer(tokenizer.load("tiny"))
    return Source(RandomParts(case, device), tokens, case.sizes, has_quality=False)


def _saved(case: LisaCase, device: str, starting: bool) -> Source:
    folder = saved.located(case.weights)
    known = saved.read(folder)
    _refuse_another_model(case, folder, known, starting)
    tokens = _tokens(folder, known)
    new = _new_joints(case, device, known) if starting else {}
    return Source(
        make=LoadedParts(folder, case, device, new),
        tokenizer=tokens,
        preset=known.sizes,
        has_quality=known.trained,
        weights_hash=known.weights_hash,
        warnings=(*known.warnings, *(() if starting else _departures(case, known))),
        new_parts=frozenset(new),
    )


def _new_joints(case: LisaCase, device: str, known: saved.Saved) -> dict[str, Make]:
    """What may be made at random: what the weights lack, or have otherwise."""
    otherwise = {"bridge": case.vision != known.vision, "seg_projection": case.seg_head != known.seg_head}
    return {name: RandomParts(case, device) for name, differs in otherwise.items() if differs}


def _refuse_another_model(case: LisaCase, folder: Path, known: saved.Saved, starting: bool) -> None:
    llama = known.sizes.llama
    own = {"vocabulary": llama.vocabulary, "context": llama.context, "norm_epsilon": llama.norm_epsilon}
    if replace(case.sizes, llama=replace(case.sizes.llama, **own)) != known.sizes:
        wanted = f"preset={case.preset} with sam={case.sam}"
        raise UsageError(
            f"the weights in {folder} are not of {wanted}: set preset={known.preset} and sam={known.sam} "
            f"({known.sizes} instead of {case.sizes})"
        )
    if case.seg_head != known.seg_head and not starting:
        raise UsageError(f"the weights in {folder} have seg_head={known.seg_head}, not {case.seg_head}: set that")


def _tokens(folder: Path, known: saved.Saved) -> tokenizer.Tokens:
    if (folder / tokenizer.FILE).exists():
        tokens: tokenizer.Tokens = tokenizer.read(folder)
    else:
        tokens = llama_tokenizer.load(folder)
    if tokens.size > known.sizes.llama.vocabulary:
        raise DataError(
            f"the tokenizer in {folder} has {tokens.size} tokens and the weights have rows for "
            f"{known.sizes.llama.vocabulary}: it is another model's; convert the weights again with their own"
        )
    return tokens


def _departures(case: LisaCase, known: saved.Saved) -> Iterator[str]:
    """Where a case uses weights otherwise than they were trained."""
    for axis in ("vision", "template", "conditioning", "frame"):
        trained, used = getattr(known, axis), getattr(case, axis)
        if trained != used:
            yield f"these weights ({known.source}) were trained with {axis}={trained} and are used with {used}"
