"""Where a LISA's weights come from: at random, from a folder of our layout, or from such a folder on the hub."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from ...harness.errors import DataError, UsageError
from ..lisa import llama_tokenizer, tokenizer, weights_format
from ..lisa.config import LisaConfig
from ..lisa.parts import Make
from ..lisa.presets import Preset
from ..lisa.prompts import added_tokens
from .loaded_parts import POSITIONS, LoadedParts, interpolated
from .random_parts import RandomParts


@dataclass(frozen=True)
class Source:
    """What a `Lisa` is built from.

    Attributes:
        make: makes each part, on its device and in its precision.
        tokenizer: the one that the weights were trained with.
        preset: the sizes, the language model's being those of the weights.
        has_quality: False for random weights.
        weights_hash: of the weights that were read; None for random ones, which follow from the seed.
        warnings: what a user of these weights has to know, one sentence each.
        new_parts: those that were made at random, the rest being read; none where all are random.
        adapted: what is made of weights as they are read, by their names in a `LisaModel`.
    """

    make: Make
    tokenizer: tokenizer.Tokens
    preset: Preset
    has_quality: bool
    weights_hash: str | None = None
    warnings: tuple[str, ...] = ()
    new_parts: frozenset[str] = frozenset()
    adapted: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


def source(case: LisaConfig, device: str, starting: bool = False) -> Source:
    """The weights of a case.

    Args:
        case: names them.
        device: "cpu" or "cuda", where the parts are to be.
        starting: they are to be trained. What joins their parts may be new, at random, and so may SAM's encoder, where
            the mask decoder fits it; and CLIP may read images of another side, its position embeddings interpolated.

    Raises:
        UsageError: there are no such weights, or they are of another preset than the case's.
        DataError: they are incomplete or broken, or the hub is not reached.
    """
    return _random(case, device) if case.weights == "random" else _saved(case, device, starting)


def _random(case: LisaConfig, device: str) -> Source:
    """Weights at random. The tiny tokenizer serves all sizes: of a prompt, only its length matters then."""
    tokens = tokenizer.PromptTokenizer(tokenizer.load("tiny"))
    return Source(RandomParts(case, device), tokens, case.sizes, has_quality=False)


def _saved(case: LisaConfig, device: str, starting: bool) -> Source:
    folder = weights_format.located(case.checkpoint)
    known = weights_format.read(folder)
    _refuse_another_model(case, folder, known, starting)
    tokens = _tokens(folder, known, case.conditioning)
    new = _new_parts(case, device, known) if starting else {}
    sizes = _own(case, known)
    adapted = {} if sizes.clip.patches == known.sizes.clip.patches else _on_grid(sizes.clip.grid)
    return Source(
        make=LoadedParts(folder, case, device, new, adapted),
        tokenizer=tokens,
        preset=sizes,
        has_quality=known.trained,
        weights_hash=known.weights_hash,
        warnings=(
            *known.warnings,
            *(_doubts_of_a_start(case, known, new) if starting else _departures(case, known)),
        ),
        new_parts=frozenset(new),
        adapted=adapted,
    )


def _own(case: LisaConfig, known: weights_format.Saved) -> Preset:
    """The case's sizes with what else the weights' language model says of itself."""
    llama = known.sizes.llama
    own = {
        "vocabulary": llama.vocabulary,
        "context": llama.context,
        "norm_epsilon": llama.norm_epsilon,
    }
    return replace(case.sizes, llama=replace(case.sizes.llama, **own))


def _on_grid(grid: int) -> dict[str, Callable[[Tensor], Tensor]]:
    return {POSITIONS: partial(interpolated, grid=grid)}


def _new_parts(case: LisaConfig, device: str, known: weights_format.Saved) -> dict[str, Make]:
    """What may be made at random: what the weights lack, or have otherwise."""
    otherwise = {
        "bridge": (case.vision, case.bridge) != (known.vision, known.bridge),
        "seg_projection": case.seg_head != known.seg_head,
        "sam_encoder": case.vision != "clip" and case.sizes.sam != known.sizes.sam,
    }
    return {name: RandomParts(case, device) for name, differs in otherwise.items() if differs}


def _doubts_of_a_start(
    case: LisaConfig, known: weights_format.Saved, new: Mapping[str, Make]
) -> Iterator[str]:
    if "sam_encoder" in new:
        yield "SAM's encoder is new, at random: these weights have another one; only a recipe that trains it is of use"
    described, rows = case.sizes.llama.vocabulary, known.sizes.llama.vocabulary
    if case.conditioning == "described" and rows > described:
        yield (
            f"the vocabulary has {rows:,} rows and not the document's {described:,}: these weights have tokens that "
            "the described prompt does not use; start from `lisabench convert --conditioning described`"
        )


def _refuse_another_model(
    case: LisaConfig, folder: Path, known: weights_format.Saved, starting: bool
) -> None:
    sizes = _own(case, known)
    if (_as_started_from(sizes, known.sizes) if starting else sizes) != known.sizes:
        theirs = {"preset": known.preset, **known.sized}
        asked = {axis: getattr(case, axis) for axis in theirs}
        wanted, cure = (
            ", ".join(f"{axis}={value}" for axis, value in each.items()) for each in (asked, theirs)
        )
        raise UsageError(
            f"the weights in {folder} are not of {wanted}: set {cure} ({known.sizes} instead of {case.sizes})"
        )
    if starting:
        return
    for axis in ("seg_head", *(("bridge",) if case.vision == known.vision else ())):
        theirs, asked = getattr(known, axis), getattr(case, axis)
        if asked != theirs:
            raise UsageError(f"the weights in {folder} have {axis}={theirs}, not {asked}: set that")


def _as_started_from(sizes: Preset, known: Preset) -> Preset:
    """Sizes but for what may differ from the weights' in a start: CLIP's grid, and a SAM of the same decoder."""
    clip = replace(sizes.clip, image_px=known.clip.image_px, token_grid=known.clip.token_grid)
    same_decoder = all(
        getattr(sizes.sam, name) == getattr(known.sam, name)
        for name in ("image_px", "patch_px", "prompt_dim", "decoder_mlp")
    )
    return replace(sizes, clip=clip, sam=known.sam if same_decoder else sizes.sam)


def _tokens(folder: Path, known: weights_format.Saved, conditioning: str) -> tokenizer.Tokens:
    if (folder / tokenizer.FILE).exists():
        tokens: tokenizer.Tokens = tokenizer.read(folder)
    else:
        tokens = llama_tokenizer.load(folder, added_tokens(conditioning))
    if tokens.size > known.sizes.llama.vocabulary:
        raise DataError(
            f"the tokenizer in {folder} has {tokens.size} tokens and the weights have rows for "
            f"{known.sizes.llama.vocabulary}: it is another model's; convert the weights again with their own"
        )
    return tokens


def _departures(case: LisaConfig, known: weights_format.Saved) -> Iterator[str]:
    """Where a case uses weights otherwise than they were trained."""
    for axis in ("vision", "template", "conditioning", "frame"):
        trained, used = getattr(known, axis), getattr(case, axis)
        is_known = axis != "template" or known.template_is_stated
        if trained != used and is_known:
            yield f"these weights ({known.source}) were trained with {axis}={trained} and are used with {used}"


TOKENIZER_FILES = (tokenizer.FILE, llama_tokenizer.MODEL_FILE, llama_tokenizer.ADDED_FILE)
