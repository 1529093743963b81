"""Converts the original's checkpoints into our own layout, and starts a LISA from a LLaVA and a SAM.

Weights stream from file to file: what is in memory is a shard, whatever the size of the model.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...harness.errors import DataError, RunFailed, UsageError, unknown
from ..lisa import llama_tokenizer, sentencepiece
from ..lisa import weights_format as saved
from ..lisa.network import LisaModel
from ..lisa.parts import seg_projection
from ..lisa.presets import PRESETS, SAM_SIZES, Preset
from ..lisa.prompts import added_tokens
from . import upstream, vocabulary
from .random_parts import RandomParts
from .shards import Shape, ShardWriter
from .upstream import EMBEDDING, HEAD, LM_HEAD, SAM, Original
from .upstream_names import misfits, upstream_name
from .vocabulary import grown

Progress = Callable[[str, int, int], None]
CONDITIONINGS = ("original", "described")
# What our parts take for granted, and the original's settings may say otherwise.
TAKEN_FOR_GRANTED = {
    "hidden_act": ("silu",),
    "rope_theta": (10000, 10000.0),
    "rope_scaling": (None,),
    "mm_vision_select_layer": (-2,),
    "mm_vision_select_feature": ("patch",),
    "tie_word_embeddings": (False,),
}

TEMPLATE = "llava_v1"  # what the original's scripts default to, for every checkpoint
TEMPLATE_NOT_STATED = " (the default of the original's scripts; it is not stated which template they were trained with)"


@dataclass(frozen=True)
class Conversion:
    """What came of it.

    Attributes:
        folder: where the weights are now.
        saved: what its ``config.json`` says.
        parameters: how many there are.
        total_bytes: of them on disk.
        warnings: what to know about them, one sentence each.
    """

    folder: Path
    saved: saved.Saved
    parameters: int
    total_bytes: int
    warnings: tuple[str, ...]


def convert(
    src: Path,
    dst: Path,
    vision_tower: Path | None = None,
    sam: Path | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    conditioning: str = "original",
) -> Conversion:
    """Writes the weights of a folder in our layout.

    Args:
        src: as the original or its releases lay it out, or a LLaVA, or an adapter of PEFT.
        dst: a folder that does not exist or is empty.
        vision_tower: a folder with CLIP, where `src` leaves it out.
        sam: a file with SAM, as its authors publish it, where `src` is a LLaVA.
        progress: is told the name of every weight written, how many are, and how many there are.
        seed: of what is new: rows of new tokens, and the projection of [SEG] in a start from a LLaVA.
        conditioning: of a start from a LLaVA: which tokens it adds, those of the ``original`` or, as the modified LISA
            is ``described``, [SEG] alone.

    Raises:
        UsageError: the folders are not what they should be, or do not go together.
        DataError: a file is missing or broken, or the weights fit no preset.
        RunFailed: `dst` cannot be written.
    """
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise UsageError(f"{dst} exists already: name a new folder")
    source = upstream.read(src, vision_tower, sam)
    plan = _plan(source, src, start=sam is not None, seed=seed, conditioning=conditioning)
    partial = dst.with_name(f"{dst.name}.partial")
    if partial.exists():
        raise UsageError(
            f"{partial} is left from a conversion that broke off, or is at work: remove it or wait"
        )
    try:
        partial.mkdir(parents=True)
        conversion = _write(plan, source, partial, progress or (lambda *_: None))
        if dst.exists():
            dst.rmdir()
        partial.rename(dst)
    except OSError as error:
        raise RunFailed(f"{dst} cannot be written ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(conversion, folder=dst)


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Attributes:
        saved: the settings, without a hash yet.
        names: from the original's to ours.
        tokens: added to the tokenizer, with their ids.
        seed: of what is new.
    """

    saved: saved.Saved
    names: Mapping[str, str]
    tokens: Mapping[str, int]
    seed: int


def _plan(source: Original, src: Path, start: bool, seed: int, conditioning: str) -> Plan:
    start = start and not any(name.startswith(HEAD) for name in source.shapes)
    if conditioning not in CONDITIONINGS:
        raise unknown("conditioning", conditioning, CONDITIONINGS)
    if conditioning != "original" and not start:
        raise UsageError(
            f"--conditioning {conditioning} is for a start from a LLaVA: {src} is a LISA, and keeps its own tokens"
        )
    tokens, new, rows = _vocabulary(source, start, conditioning)
    shapes = _final_shapes(source, rows)
    name, sizes = _matched(shapes, start)
    sizes = _checked(sizes, source)
    known = saved.Saved(
        preset=name,
        sam=_sam_name(name, sizes),
        sizes=sizes,
        vision="dual",
        template=TEMPLATE,
        template_is_stated=not _is_on_llama_2(src, source.config),
        seg_head="text_hidden_fcs",
        conditioning=conditioning,
        trained=not start,
        new_rows=new,
        contaminated_splits=("val",)
        if saved.trained_on_val(src, str(source.config.get("_name_or_path")))
        else (),
        source=_source(src),
        weights_hash="",
    )
    return Plan(known, {theirs: ours for theirs, (ours, _) in wanted(sizes).items()}, tokens, seed)


def _source(src: Path) -> str:
    """What to call the source: its id on the hub where it lies in the hub's cache, else the folder's name."""
    cached = (
        part.removeprefix("models--")
        for part in src.absolute().parts
        if part.startswith("models--")
    )
    return next(cached, src.absolute().name).replace("--", "/")


def _is_on_llama_2(src: Path, config: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint is named after Llama 2, as LISA-13B-llama2-v1 is.

    It is stated nowhere whether that one was trained with ``llava_v1`` or ``llava_llama_2``. The original's scripts
    default to ``llava_v1`` for every checkpoint, and so do we.
    """
    names = f"{src.absolute()} {config.get('_name_or_path')}".lower()
    return "llama2" in names or "llama-2" in names


def _vocabulary(
    source: Original, start: bool, conditioning: str
) -> tuple[dict[str, int], tuple[int, ...], int]:
    """The added tokens, the ids of those that are new, and the rows that embedding and head are to have."""
    pieces = sentencepiece.pieces(source.tokenizer / llama_tokenizer.MODEL_FILE)
    present = llama_tokenizer.added_tokens(source.tokenizer)
    needed = added_tokens(conditioning)
    tokens = vocabulary.with_added(len(pieces), present, needed)
    new = tuple(sorted(tokens[token] for token in tokens.keys() - present.keys()))
    if new and not start:
        missing = ", ".join(sorted(tokens.keys() - present.keys()))
        raise DataError(
            f"{source.tokenizer} has no {llama_tokenizer.ADDED_FILE} that says which ids {missing} have: "
            "get it from where the weights come from"
        )
    tokenizer = llama_tokenizer.LlamaTokenizer(pieces, tokens, needed)
    rows = source.shapes.get(EMBEDDING, (0,))[0]
    if start:
        return tokens, new, tokenizer.size
    if tokenizer.size > rows:
        raise DataError(
            f"{source.tokenizer} has {tokenizer.size} tokens and {EMBEDDING} has {rows} rows: they are not of one model"
        )
    return tokens, new, rows


def _final_shapes(source: Original, rows: int) -> dict[str, Shape]:
    """Shapes as they will be written, so far as they come from the source."""
    return {
        name: (rows, *shape[1:]) if name in (EMBEDDING, LM_HEAD) else shape
        for name, shape in source.shapes.items()
    }


@lru_cache
def wanted(sizes: Preset) -> dict[str, tuple[str, Shape]]:
    """Our name and the shape of every weight of a dual LISA, by the original's name. Nothing is allocated."""
    with torch.device("meta"):
        model = LisaModel(sizes, "dual", lambda _, build: build())
    return {
        upstream_name(name): (name, tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
    }


def _matched(shapes: Mapping[str, Shape], start: bool) -> tuple[str, Preset]:
    """The preset that weights of these shapes are of.

    Raises:
        DataError: they are of none; it says how they differ from the nearest.
    """
    found: list[tuple[int, str, str, Preset]] = []
    for name in PRESETS:
        sizes = _with_own(name, shapes)
        expected = {
            theirs: shape
            for theirs, (_, shape) in wanted(sizes).items()
            if not (start and HEAD in theirs)
        }
        differing = len(expected.items() ^ shapes.items())
        if not differing:
            return name, sizes
        found.append((differing, name, misfits(expected, shapes), sizes))
    _, name, problems, sizes = min(found, key=lambda each: each[0])
    raise DataError(
        f"the weights fit no preset; the nearest is {name} ({sizes}), from which they differ: {problems}"
    )


def _with_own(name: str, shapes: Mapping[str, Shape]) -> Preset:
    """A preset with the SAM and the vocabulary that weights of these shapes have."""
    sizes = PRESETS[name]
    rows = shapes.get(EMBEDDING, (sizes.llama.vocabulary,))[0]
    width = shapes.get(f"{SAM}image_encoder.patch_embed.proj.weight", (0,))[0]
    published = {each.hidden: each for each in SAM_SIZES.values()}
    sam = published.get(width, sizes.sam) if sizes.sam in published.values() else sizes.sam
    return replace(sizes, llama=replace(sizes.llama, vocabulary=rows), sam=sam)


def _sam_name(preset: str, sizes: Preset) -> str:
    if sizes.sam == PRESETS[preset].sam:
        return "preset"
    return next(name for name, each in SAM_SIZES.items() if each == sizes.sam)


def _checked(sizes: Preset, source: Original) -> Preset:
    """The sizes with what shapes do not show, from the settings.

    Raises:
        DataError: the settings say what our parts are not made for.
    """
    config, llama, clip = source.config, sizes.llama, sizes.clip
    heads = config.get("num_attention_heads", llama.heads)
    said = {
        "num_attention_heads": (heads, (llama.heads,)),
        "num_key_value_heads": (config.get("num_key_value_heads", heads), (llama.heads,)),
        "vision num_attention_heads": (
            source.clip_config.get("num_attention_heads", clip.heads),
            (clip.heads,),
        ),
        "vision hidden_act": (source.clip_config.get("hidden_act", "quick_gelu"), ("quick_gelu",)),
        **{key: (config.get(key, fine[0]), fine) for key, fine in TAKEN_FOR_GRANTED.items()},
    }
    for key, (value, fine) in said.items():
        if value not in fine:
            raise DataError(
                f"{source.base}/config.json: {key} is {value}; these weights can be read with {fine[0]} only"
            )
    context = int(config.get("max_position_embeddings", llama.context))
    epsilon = float(config.get("rms_norm_eps", llama.norm_epsilon))
    return replace(sizes, llama=replace(llama, context=context, norm_epsilon=epsilon))


def _write(plan: Plan, source: Original, folder: Path, progress: Progress) -> Conversion:
    writer = ShardWriter(folder)
    for done, (theirs, tensor) in enumerate(_tensors(plan, source), start=1):
        writer.add(plan.names[theirs], tensor)
        progress(theirs, done, len(plan.names))
    known = replace(plan.saved, weights_hash=writer.close())
    llama_tokenizer.write(folder, source.tokenizer, plan.tokens)
    (folder / "README.md").write_text(_card(known, writer), encoding="utf-8")
    saved.write(folder, known)
    warnings = (*known.contaminations, *known.warnings, *_doubts(known))
    return Conversion(folder, known, writer.parameters, writer.total_bytes, warnings)


def _tensors(plan: Plan, source: Original) -> Iterator[tuple[str, Tensor]]:
    rows, dtype = plan.saved.sizes.llama.vocabulary, torch.float32
    for name, tensor in source.tensors():
        if name in (EMBEDDING, LM_HEAD):
            tensor, dtype = grown(tensor, rows, name, plan.seed), tensor.dtype
        yield name, tensor
    if not plan.saved.trained:
        fresh = RandomParts.plain("cpu", torch.float32, plan.seed)(
            "seg_projection", lambda: seg_projection(plan.saved.sizes)
        )
        yield from (
            (f"{HEAD}0.{name}", tensor.to(dtype)) for name, tensor in fresh.state_dict().items()
        )


def _doubts(known: saved.Saved) -> Iterator[str]:
    if known.trained and not known.contaminated_splits:
        yield (
            f"nothing in the name of these weights ({known.source}) says that they are one of the original's v1 "
            "releases; if they are, they were trained on ReasonSeg's val, and only test is an evaluation"
        )


def _card(known: saved.Saved, writer: ShardWriter) -> str:
    """What a person who finds the folder needs to know."""
    state = (
        "trained" if known.trained else "a start of training: its projection of [SEG] is at random"
    )
    trained_on = ", ".join(known.contaminated_splits) or "not known"
    return f"""# LISA, in lisabench's layout

- from: {known.source}
- preset: `{known.preset}` (SAM: `{known.sam}`): {known.sizes}
- {writer.parameters:,} parameters, {writer.total_bytes / 2**30:.2f} GiB; {state}
- prompts: `{known.template}`{"" if known.template_is_stated else TEMPLATE_NOT_STATED}
- splits of ReasonSeg meant for evaluation that it was trained on: {trained_on}
- weights: `{known.weights_hash}`

Use it with `weights=` this folder and `preset={known.preset}`. The licences of the weights that it was made from apply.
"""
