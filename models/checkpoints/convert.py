"""Convert the original's checkpoints into our own layout, or start a LISA from a LLaVA and a SAM.

Weights stream from file to file, so that no more than a shard is in memory, whatever the size of
the model.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...harness.errors import DataError, RunFailed, UsageError, unknown
from ...harness.records.whole_file import whole_folder
from ...harness.text import escape
from ..lisa import llama_tokenizer
from ..lisa import weights_format as saved
from ..lisa.network import LisaModel
from ..lisa.parts import DTYPES, seg_projection
from ..lisa.presets import PRESETS, SAM_SIZES, Preset
from ..lisa.prompts import SEG, added_tokens
from . import upstream, vocabulary
from .facts import Facts, facts_of
from .ingredients import gathered
from .modified import SEG_TOKEN
from .original_settings import with_settings
from .random_parts import RandomParts
from .shards import Shape, ShardWriter
from .upstream import Original
from .upstream_names import EMBEDDING, HEAD, LM_HEAD, SAM, misfits, upstream_name
from .vocabulary import grown
from .whole import learned_folder, write_whole

# Is called with how many weights were written, how many there are, and the name of the last one.
Progress = Callable[[int, int, str], None]
# The precision of a model is that of its language model: SAM and CLIP are published in float32.
PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}
CONDITIONINGS = ("original", "described")
TEMPLATE_NOT_STATED = (
    " (the template is the default of the original's scripts; it is not stated which template they "
    "were trained with)"
)


def _show_nothing(done: int, total: int, name: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Attributes:
        folder: the new folder.
        saved: the settings in its ``config.json``.
        parameters: number of parameters.
        total_bytes: size of the weights on disk.
        warnings: what a user must know about the weights, one sentence each.
        facts: how the weights were trained, and how that is known; see `facts.Facts`.
    """

    folder: Path
    saved: saved.Saved
    parameters: int
    total_bytes: int
    warnings: tuple[str, ...]
    facts: tuple[str, ...]


def convert(
    src: Path,
    dst: Path,
    vision_tower: Path | None = None,
    sam: Path | None = None,
    progress: Progress = _show_nothing,
    seed: int = 0,
    conditioning: str = "original",
    template: str | None = None,
    trained_on_val: bool | None = None,
) -> Conversion:
    """Write the weights of a folder in our layout.

    Args:
        src: a LISA as the original or its releases lay it out, a LLaVA, an adapter of PEFT, or the
            checkpoint of the modified LISA. A folder, an id of the Hub or, of the last, a file. Or
            a folder of ours that holds what a training learned alone: whole weights are then
            written.
        dst: a folder that does not exist or is empty.
        vision_tower: CLIP, if `src` leaves it out and its settings name no other: a folder or an
            id.
        sam: SAM, if `src` is a LLaVA: a file as its authors publish it, a folder or an id.
        progress: is called for every weight that was written.
        seed: of new weights: rows of new tokens, and the projection of [SEG] in a start from a
            LLaVA.
        conditioning: for a start from a LLaVA: ``original`` adds the original's tokens,
            ``described`` adds [SEG] alone, as the modified LISA is described.
        template: the words around a query that the weights were trained with; None: as the files
            say.
        trained_on_val: whether they were trained on ReasonSeg's val; None: as the files say.

    Raises:
        UsageError: the arguments do not go together, `dst` is not empty, its disk is too small, or
            another conversion writes it.
        DataError: a file is missing or broken, or the weights fit no preset.
        RunFailed: `dst` cannot be written.
    """
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise UsageError(f"{dst} exists already: name a new folder")
    learned = learned_folder(src)
    if learned is not None:
        return _whole(learned, dst, progress)
    local = gathered(src, dst, vision_tower, sam)
    source = upstream.read(local.src, local.vision_tower, local.sam, local.tokenizer)
    if source.modified is not None:
        known = source.modified.facts(template, trained_on_val)
    else:
        known = facts_of(local.src, source.base, source.config, template, trained_on_val)
    plan = _plan(source, src, known, start=sam is not None, seed=seed, conditioning=conditioning)
    _refuse_small_disk(dst, _bytes_to_write(plan, source))
    try:
        with whole_folder(dst) as temporary:
            conversion = _write(plan, source, temporary, progress)
    except OSError as error:
        raise RunFailed(f"{dst} cannot be written ({error})") from None
    return replace(conversion, folder=dst)


def _whole(learned: saved.WeightsFolder, dst: Path, progress: Progress) -> Conversion:
    """Write what a training learned, which changes other weights, as whole weights."""
    try:
        with whole_folder(dst) as temporary:
            written = write_whole(learned, temporary, progress)
    except OSError as error:
        raise RunFailed(f"{dst} cannot be written ({error})") from None
    return Conversion(
        dst, written.saved, written.parameters, written.total_bytes, warnings=(), facts=()
    )


@dataclass(frozen=True)
class ConversionPlan:
    """What a conversion writes.

    Attributes:
        saved: the settings, still without a hash.
        names: our name of each weight, by the original's.
        tokens: the tokens that are added to the tokenizer, with their ids.
        kept_rows: rows of the source's embedding and head that are kept; later ones are dropped.
        seed: of new weights.
        known: how the weights were trained.
    """

    saved: saved.Saved
    names: Mapping[str, str]
    tokens: Mapping[str, int]
    kept_rows: int
    seed: int
    known: Facts


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a converted LISA.

    Attributes:
        added: tokens beside those of ``tokenizer.model``, with their ids.
        new_ids: ids of the tokens that the source does not have.
        rows: rows of the embedding and the head.
        kept_rows: those of them that are the source's.
    """

    added: Mapping[str, int]
    new_ids: tuple[int, ...]
    rows: int
    kept_rows: int


def _plan(
    source: Original, src: Path, known: Facts, start: bool, seed: int, conditioning: str
) -> ConversionPlan:
    # A source with a projection of [SEG] is a LISA, even if its SAM is given beside it.
    start = start and not any(name.startswith(HEAD) for name in source.shapes)
    if conditioning not in CONDITIONINGS:
        raise unknown("conditioning", conditioning, CONDITIONINGS)
    if conditioning != "original" and not start:
        raise UsageError(
            f"--conditioning {conditioning} is for a start from a LLaVA, "
            f"but {src} is a LISA and keeps its own tokens"
        )
    network = ORIGINAL
    frame = "whole"
    if source.modified is not None:
        network = Network(source.modified.vision, "seg_token_to_sam")
        conditioning, frame = "described", source.modified.frame
    tokens = _vocabulary(source, start, conditioning)
    shapes = dict(source.shapes)
    if not start and LM_HEAD in shapes and shapes[LM_HEAD][0] < tokens.rows:
        raise DataError(
            f"{src} has fewer rows in {LM_HEAD} than in {EMBEDDING}: they are not of one model"
        )
    for name in (EMBEDDING, LM_HEAD):
        if name in shapes:
            shapes[name] = (tokens.rows, *shapes[name][1:])
    preset, sizes = _matching_preset(shapes, start, network)
    sizes = with_settings(sizes, source.config, source.clip_config, source.settings_file)

    settings = saved.Saved(
        preset=preset,
        sam=_sam_name(preset, sizes),
        sizes=sizes,
        vision=network.vision,
        template=known.template,
        template_is_stated=known.template_is_stated,
        seg_head=network.seg_head,
        conditioning=conditioning,
        frame=frame,
        trained=not start,
        new_rows=tokens.new_ids,
        contaminated_splits=known.contaminated_splits,
        source=known.source,
        weights_hash="",
    )
    names = {original: ours for original, (ours, _) in weights_of(sizes, network).items()}
    return ConversionPlan(settings, names, tokens.added, tokens.kept_rows, seed, known)


def _vocabulary(source: Original, start: bool, conditioning: str) -> Vocabulary:
    """Return the tokens of the converted LISA.

    Raises:
        DataError: the source is a LISA but lacks some of a LISA's tokens, or its tokenizer is
            another model's.
    """
    model = llama_tokenizer.read_model(source.tokenizer / llama_tokenizer.MODEL_FILE)
    present = llama_tokenizer.added_tokens(source.tokenizer)
    if source.modified is not None and SEG_TOKEN in present:
        present[SEG] = present.pop(SEG_TOKEN)
    needed = added_tokens(conditioning)
    tokens = vocabulary.with_added(model.get_piece_size(), present, needed)
    new_tokens = tokens.keys() - present.keys()
    if new_tokens and not start and source.modified is None:
        raise DataError(
            f"{source.tokenizer} has no {llama_tokenizer.ADDED_FILE} that says which ids"
            f" {', '.join(sorted(new_tokens))} have: get it from where the weights come from"
        )
    tokenizer = llama_tokenizer.LlamaTokenizer(model, tokens, needed)
    if start:
        new_ids = tuple(sorted(tokens[token] for token in new_tokens))
        # A LLaVA may have rows without a token, such as those that fill up its 32,064.
        kept_rows = min(new_ids, default=tokenizer.size)
        return Vocabulary(tokens, new_ids, tokenizer.size, kept_rows)
    rows = source.shapes.get(EMBEDDING, (0,))[0]
    # The modified LISA's training resizes the embedding to its tokens, <SEG> being the last.
    is_other = rows != tokenizer.size if source.modified is not None else rows < tokenizer.size
    if is_other:
        raise DataError(
            f"{source.tokenizer} has {tokenizer.size} tokens and {EMBEDDING} has {rows} rows: "
            "they are not of one model"
        )
    return Vocabulary(tokens, (), rows, rows)


@dataclass(frozen=True)
class Network:
    """Which layers a LISA has: settings of a `LisaModel` beside the sizes."""

    vision: str = "dual"
    seg_head: str = "text_hidden_fcs"


ORIGINAL = Network()


@lru_cache
def weights_of(sizes: Preset, network: Network = ORIGINAL) -> dict[str, tuple[str, Shape]]:
    """Return our name and the shape of every weight of a LISA, by the original's name.

    Nothing is allocated: the model is built on the meta device.
    """
    with torch.device("meta"):
        model = LisaModel(
            sizes, network.vision, lambda _, build: build(), seg_head=network.seg_head
        )
    weights = {}
    for name, tensor in model.state_dict().items():
        weights[upstream_name(name)] = (name, tuple(tensor.shape))
    return weights


def _matching_preset(
    shapes: Mapping[str, Shape], start: bool, network: Network
) -> tuple[str, Preset]:
    """Return the name and the sizes of the preset that weights of these shapes belong to.

    Raises:
        DataError: they belong to none. The message tells how they differ from the nearest.
    """
    fewest_differing: int | None = None
    reason = "there are no presets"
    for name in PRESETS:
        sizes = _adjusted_preset(name, shapes)
        needed: dict[str, Shape] = {}
        for original_name, (_, shape) in weights_of(sizes, network).items():
            # A start has no projection of [SEG] yet.
            if not (start and HEAD in original_name):
                needed[original_name] = shape
        differing = len(needed.items() ^ shapes.items())
        if differing == 0:
            return name, sizes
        if fewest_differing is None or differing < fewest_differing:
            fewest_differing = differing
            reason = (
                f"the weights fit no preset; the nearest is {name} ({sizes}), "
                f"from which they differ: {misfits(needed, shapes)}"
            )
    raise DataError(reason)


def _adjusted_preset(name: str, shapes: Mapping[str, Shape]) -> Preset:
    """Return a preset with the SAM and the vocabulary that weights of these shapes have."""
    sizes = PRESETS[name]
    rows = shapes.get(EMBEDDING, (sizes.llama.vocabulary,))[0]
    llama = replace(sizes.llama, vocabulary=rows)
    sam = sizes.sam
    if sam in SAM_SIZES.values():
        width = shapes.get(f"{SAM}image_encoder.patch_embed.proj.weight", (0,))[0]
        for published in SAM_SIZES.values():
            if published.hidden == width:
                sam = published
    return replace(sizes, llama=llama, sam=sam)


def _sam_name(preset: str, sizes: Preset) -> str:
    if sizes.sam == PRESETS[preset].sam:
        return "preset"
    name_of = {published: name for name, published in SAM_SIZES.items()}
    return name_of[sizes.sam]


def _bytes_to_write(plan: ConversionPlan, source: Original) -> int:
    """Return the size of all weights that a conversion writes."""
    item_bytes = source.item_bytes
    shapes = weights_of(plan.saved.sizes, Network(plan.saved.vision, plan.saved.seg_head))
    total = 0
    for name in plan.names:
        shape = shapes[name][1]
        # A new projection of [SEG] has the precision of the language model.
        total += math.prod(shape) * item_bytes.get(name, item_bytes[EMBEDDING])
    return total


def _refuse_small_disk(folder: Path, needed_bytes: int) -> None:
    """Check that a disk has room for a folder that is to be written.

    Raises:
        UsageError: it has not.
    """
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < needed_bytes:
        raise UsageError(
            f"{folder} takes {needed_bytes / 2**30:.2f} GiB, and its disk has "
            f"{free_bytes / 2**30:.2f} GiB left: make room, or name a folder on another disk"
        )


def _write(plan: ConversionPlan, source: Original, folder: Path, progress: Progress) -> Conversion:
    writer = ShardWriter(folder)
    broken = []
    precision = ""
    for count, (name, tensor) in enumerate(_tensors(plan, source), start=1):
        if not tensor.isfinite().all():
            broken.append(name)
        if name == EMBEDDING:
            precision = PRECISIONS.get(tensor.dtype, "")
        writer.add(plan.names[name], tensor)
        progress(count, len(plan.names), name)
    settings = replace(plan.saved, weights_hash=writer.close(), precision=precision)
    llama_tokenizer.write(folder, source.tokenizer, plan.tokens)
    doubts = plan.known.doubts if settings.trained else ()
    (folder / "README.md").write_text(_card(settings, writer, doubts), encoding="utf-8")
    # Last: a folder without its settings is not taken for a checkpoint.
    saved.write(folder, settings)
    warnings = [*settings.contaminations, *settings.warnings]
    if broken:
        warnings.append(
            f"{len(broken)} of {len(plan.names)} weights have values that are NaN or infinite, "
            f"such as {broken[0]}: answers made with them are not finite either"
        )
    warnings += doubts
    facts = list(plan.known.sentences)
    if source.quantized:
        facts.append(
            f"{len(source.quantized)} weights are kept in 4 bits there and are written out, with "
            "the values that the model computed with; for as little memory: quantization=nf4"
        )
    return Conversion(
        folder=folder,
        saved=settings,
        parameters=writer.parameters,
        total_bytes=writer.total_bytes,
        warnings=tuple(warnings),
        facts=tuple(facts),
    )


def _tensors(plan: ConversionPlan, source: Original) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight by the original's name: the source's, and new ones of a start."""
    dtype = torch.float32
    for name, tensor in source.tensors():
        if name in (EMBEDDING, LM_HEAD):
            dtype = tensor.dtype
            rows = plan.saved.sizes.llama.vocabulary
            tensor = grown(tensor[: plan.kept_rows], rows, name, plan.seed)
        yield name, tensor
    if not plan.saved.trained:
        # In the precision of the language model, which it belongs to.
        make = RandomParts.plain("cpu", torch.float32, plan.seed)
        projection = make("seg_projection", lambda: seg_projection(plan.saved.sizes))
        for name, tensor in projection.state_dict().items():
            yield f"{HEAD}0.{name}", tensor.to(dtype)


def _card(settings: saved.Saved, writer: ShardWriter, doubts: Iterable[str]) -> str:
    """Return the folder's README: what a person who finds the folder needs to know."""
    state = "trained"
    if not settings.trained:
        state = "a start of training: its projection of [SEG] is random"
    trained_on = escape(", ".join(settings.contaminated_splits) or "not known")
    template_note = "" if settings.template_is_stated else TEMPLATE_NOT_STATED
    notes = "".join(f"- beware: {escape(doubt)}\n" for doubt in doubts)
    return f"""# LISA, in lisabench's layout

- from: {escape(settings.source)}
- sizes: {settings.sizes}
- {writer.parameters:,} parameters, {writer.total_bytes / 2**30:.2f} GiB; {state}
- settings: {saved.settings_on_card(settings)}{template_note}
- splits of ReasonSeg meant for evaluation that it was trained on: {trained_on}
- weights: `{settings.weights_hash}`
{notes}
Use it with `weights=` this folder: the settings are applied unless others are given.
The licences of the weights that it was made from apply.
"""
