"""What a case takes, on paper: parameters, bytes and floating-point operations, per part and per region of a query.

Cheap to import. A multiplication and an addition are two operations; norms, activations and the softmax are left out.
Attention of the language model counts the causal half. Numbers are for a batch of one.
"""

from dataclasses import replace

from ...harness.contract import Paper
from .config import LisaConfig
from .inventory import (
    MASK_TOKENS,
    SAM_BLOCKS,
    Inventory,
    Linear,
    inventory,
    neck_weights,
    upsampling_weights,
    upscaling_weights,
)
from .presets import PRESETS, ClipSizes, LlamaSizes, Preset, SamSizes, upsampling

GIB = 2**30
WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a parameter
TEXT_TOKENS = 64  # of a typical prompt, beside the image's
BLOCK, SCALE_BLOCK = 64, 256  # NF4: weights to a scale, scales to a scale of scales
NF4_TABLES = 4 * (
    16 + 256 + 1
)  # of each layer: the codes of weights and of scales, and the scales' mean


def parameters(case: LisaConfig) -> dict[str, int]:
    """Of each part, in the original's counting."""
    return {name: part.parameters for name, part in _parts(case).items()}


def weight_bytes(case: LisaConfig) -> dict[str, int]:
    """Of each part as it lies in memory."""
    return {name: _bytes(name, part, case) for name, part in _parts(case).items()}


def flops(
    case: LisaConfig, prompt_tokens: int | None = None, answer_tokens: int | None = None
) -> dict[str, int]:
    """Of one query, by the regions of the instrument, the stage before the dot.

    Args:
        case: forced, it makes one pass of the language model, and none through the head, which a mask does not need;
            the original's habits apply the head to every position.
        prompt_tokens: length of the prompt, the image's tokens included; by default theirs and `TEXT_TOKENS`.
        answer_tokens: how many are generated; by default ``max_new_tokens``.
    """
    sizes, parts = case.sizes, _parts(case)
    prompt = prompt_tokens or _prompt(case)
    passes = 1 if case.answer == "forced" else answer_tokens or case.max_new_tokens
    looks = passes if case.execution == "upstream" else 1  # how often CLIP sees the image
    return {
        **_vision(case, parts, looks),
        **_llm(case, parts["llm"], prompt, passes),
        "llm.projection": 2 * parts["seg_projection"].weights,
        "decoder.masks": _decoder(sizes.sam, parts["mask_decoder"]),
    }


def paper(
    case: LisaConfig, prompt_tokens: int | None = None, answer_tokens: int | None = None
) -> Paper:
    """Everything that the instrument reads a case against; arguments as those of `flops`."""
    prompt = prompt_tokens or _prompt(case)
    answer = 0 if case.answer == "forced" else answer_tokens or case.max_new_tokens
    return Paper(
        weight_bytes(case),
        kv_cache_bytes(case, prompt + answer - 1) if case.caches else 0,
        stages(flops(case, prompt, answer)),
        traffic_bytes(case, answer or 1),
    )


def kv_cache_bytes(case: LisaConfig, tokens: int) -> int:
    """Keys and values of so many tokens, in every layer of the language model."""
    sizes = case.sizes.llama
    return 2 * sizes.layers * sizes.hidden * tokens * WIDTHS[case.precision]


def traffic_bytes(case: LisaConfig, passes: int) -> dict[str, int]:
    """The weights that each stage reads in one query, once for each of its passes; a lookup in the embeddings is none.

    Activations are left out: this is the least that a stage must move.
    """
    held, upstream = weight_bytes(case), case.execution == "upstream"
    looks, llama, llm = passes if upstream else 1, case.sizes.llama, _parts(case)["llm"]
    body = _bytes(
        "llm", replace(llm, head=(), other=llm.other - llama.vocabulary * llama.hidden), case
    )
    head = (
        _bytes("llm", Inventory((), head=llm.head), case)
        if upstream or case.answer == "generated"
        else 0
    )
    towers = held.get("clip", 0) + held["projector"]
    return {
        "vision": towers * looks + held.get("sam_encoder", 0) + held.get("bridge", 0),
        "llm": passes * (body + head) + held["seg_projection"],
        "decoder": held["mask_decoder"] + held["prompt_encoder"],
    }


def stages(regions: dict[str, int]) -> dict[str, int]:
    """Sums of what `flops` gives, by stage."""
    totals: dict[str, int] = {}
    for region, count in regions.items():
        stage = region.partition(".")[0]
        totals[stage] = totals.get(stage, 0) + count
    return totals


def described(preset: str) -> str:
    """A preset in a line: its sizes, and the original's parameters and weights at them."""
    total = sum(parameters(LisaConfig(preset=preset)).values())
    gib = sum(weight_bytes(LisaConfig(preset=preset, precision="bf16")).values()) / GIB
    return f"{PRESETS[preset]}; {total:,} parameters, {gib:.2f} GiB in bf16"


def _prompt(case: LisaConfig) -> int:
    return case.sizes.clip.image_tokens + TEXT_TOKENS


def _parts(case: LisaConfig) -> dict[str, Inventory]:
    return inventory(case.sizes, case.vision, case.seg_head, case.bridge)


def _bytes(name: str, part: Inventory, case: LisaConfig) -> int:
    width = WIDTHS[case.precision]
    quantized = [layer for layer in part.linear if name in case.quantized_parts]
    quantized += [layer for layer in part.head if "lm_head" in case.quantized_parts]
    saved = sum(
        layer.weights * width - QUANTIZED_BYTES[case.quantization](layer) for layer in quantized
    )
    return part.parameters * width - saved


def _nf4(layer: Linear) -> int:
    weights = layer.inputs * layer.outputs
    scales = -(-weights // BLOCK)
    return layer.count * (-(-weights // 2) + scales + 4 * -(-scales // SCALE_BLOCK) + NF4_TABLES)


def _int8(layer: Linear) -> int:
    return layer.weights + 4 * layer.count * layer.outputs


QUANTIZED_BYTES = {"nf4": _nf4, "int8": _int8}


def _vision(case: LisaConfig, parts: dict[str, Inventory], looks: int) -> dict[str, int]:
    sizes, tokens = case.sizes, case.sizes.clip.image_tokens
    counts = {"vision.projector": 2 * tokens * parts["projector"].weights * looks}
    if "clip" in parts:
        counts["vision.clip"] = _clip(sizes.clip, parts["clip"]) * looks
    if "sam_encoder" in parts:
        counts["vision.sam"] = _sam(sizes.sam, parts["sam_encoder"])
    if "bridge" in parts:
        read = sizes.clip.patches if case.vision == "clip" else tokens
        counts["vision.bridge"] = 2 * read * parts["bridge"].weights
    if case.bridge == "upsampling":
        counts["vision.bridge"] += _convolutions(sizes)
    return counts


def _convolutions(preset: Preset) -> int:
    """Of the bridge: each doubling works on the cells that it finds, the rest on SAM's."""
    unfold, sharpen, out = upsampling_weights(preset)
    unfolded = sum(preset.clip.patches * 4**done for done in range(upsampling(preset).doublings))
    return 2 * (unfolded * unfold + preset.sam.grid**2 * (sharpen + out))


def _clip(sizes: ClipSizes, part: Inventory) -> int:
    tokens = sizes.patches + 1
    patches = 2 * sizes.patches * 3 * sizes.patch_px**2 * sizes.hidden
    return (
        patches
        + 2 * tokens * part.weights
        + sizes.layers * _attention(tokens, tokens, sizes.hidden)
    )


def _sam(sizes: SamSizes, part: Inventory) -> int:
    """Windows tile the grid, filled up to whole ones; only the attention works on the filling."""
    hidden, cells = sizes.hidden, sizes.grid**2
    windows, window = (-(-sizes.grid // sizes.window)) ** 2, sizes.window**2
    globally = len(sizes.global_layers)
    filled = windows * window * (sizes.layers - globally) + cells * globally
    to_scores, mlp = part.linear[:2], part.linear[2:]
    projections = 2 * filled * sum(layer.inputs * layer.outputs for layer in to_scores)
    attention = globally * _attention(cells, cells, hidden)
    attention += (sizes.layers - globally) * windows * _attention(window, window, hidden)
    convolutions = 2 * cells * (3 * sizes.patch_px**2 * hidden + neck_weights(sizes))
    relative = (
        _relative(sizes, filled - cells * globally, cells * globally)
        if sizes.relative_positions
        else 0
    )
    return (
        projections
        + 2 * cells * sum(layer.weights for layer in mlp)
        + attention
        + convolutions
        + relative
    )


def _relative(sizes: SamSizes, in_windows: int, in_grids: int) -> int:
    """Each cell against every row and every column."""
    return 2 * 2 * sizes.hidden * (in_windows * sizes.window + in_grids * sizes.grid)


def _llm(case: LisaConfig, part: Inventory, prompt: int, passes: int) -> dict[str, int]:
    sizes = case.sizes.llama
    counts = {"llm.prefill": _prefill(sizes, part, prompt)}
    lengths = range(
        prompt + 1, prompt + passes
    )  # of what each further pass has before it, and itself
    if passes > 1:
        one = _step if case.caches else _prefill
        counts["llm.decode"] = sum(one(sizes, part, length) for length in lengths)
    upstream = case.execution == "upstream"
    positions = sum((prompt, *lengths)) if upstream else 0 if case.answer == "forced" else passes
    return counts | {"llm.head": 2 * positions * part.head[0].weights}


def _prefill(sizes: LlamaSizes, part: Inventory, tokens: int) -> int:
    causal = _attention(tokens, tokens, sizes.hidden) // 2
    return 2 * tokens * part.weights + sizes.layers * causal


def _step(sizes: LlamaSizes, part: Inventory, tokens: int) -> int:
    """One token that attends to all before it, and to itself."""
    return 2 * part.weights + sizes.layers * _attention(1, tokens, sizes.hidden)


def _attention(queries: int, keys: int, width: int) -> int:
    return 2 * 2 * queries * keys * width


def _decoder(sizes: SamSizes, part: Inventory) -> int:
    """One [SEG], with the tokens of the masks and of the IoU, against the image's cells."""
    width, cells, tokens = sizes.prompt_dim, sizes.grid**2, MASK_TOKENS + 2
    itself, widen, narrow, *_ = part.linear
    crossings = 2 * SAM_BLOCKS + 1
    half = 2 * width * (width // 2)
    blocks = 2 * tokens * (itself.weights + widen.weights + narrow.weights)
    blocks += SAM_BLOCKS * _attention(tokens, tokens, width)
    blocks += crossings * (2 * (cells + tokens) * half + _attention(tokens, cells, width // 2))
    heads = 2 * sum(layer.weights for layer in part.linear[5:])
    first, second = upscaling_weights(sizes)
    masks = 2 * MASK_TOKENS * (width // 8) * 16 * cells
    return blocks + heads + 2 * cells * first + 2 * 4 * cells * second + masks
