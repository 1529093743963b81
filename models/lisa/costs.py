"""What a case costs by arithmetic: parameters, bytes, and floating-point operations of one query.

A multiplication and an addition are two operations. Norms, activations and softmax are left out;
they are below a percent. Attention of the language model counts the causal half. All numbers are
for a batch of one. Cheap to import.
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
# NF4 as in QLoRA (arXiv:2305.14314): a scale for each block of weights, itself in 8 bits, and a
# scale of scales for each block of those.
BLOCK, SCALE_BLOCK = 64, 256
# float32 tables that bitsandbytes keeps for each layer: the 16 values of a weight, the 256 values
# of a scale, and the scales' mean.
NF4_TABLES = 4 * (16 + 256 + 1)


def parameters(case: LisaConfig) -> dict[str, int]:
    """Return the parameters of each part, counted as the original counts them."""
    return {name: part.parameters for name, part in _parts(case).items()}


def weight_bytes(case: LisaConfig) -> dict[str, int]:
    """Return the bytes of each part's weights in memory."""
    return {name: _bytes(name, part, case) for name, part in _parts(case).items()}


def flops(
    case: LisaConfig, prompt_tokens: int | None = None, answer_tokens: int | None = None
) -> dict[str, int]:
    """Return the operations of one query, by region; the part before the dot is its stage.

    A forced answer takes one pass of the language model, and none of its head, which a mask does
    not need; ``execution=upstream`` applies the head to every position all the same.

    Args:
        case: the model and how it is run.
        prompt_tokens: length of the prompt, image tokens included; by default those and
            `TEXT_TOKENS`.
        answer_tokens: how many are generated; by default ``max_new_tokens``.
    """
    sizes = case.sizes
    parts = _parts(case)
    prompt = prompt_tokens or _usual_prompt(case)
    passes = 1 if case.answer == "forced" else answer_tokens or case.max_new_tokens
    return {
        **_vision(case, parts, _clip_passes(case, passes)),
        **_llm(case, parts["llm"], prompt, passes),
        "llm.projection": 2 * parts["seg_projection"].weights,
        "decoder.masks": _decoder(sizes.sam, parts["mask_decoder"]),
    }


def paper(
    case: LisaConfig, prompt_tokens: int | None = None, answer_tokens: int | None = None
) -> Paper:
    """Return everything that measurements are set beside; arguments as for `flops`."""
    prompt = prompt_tokens or _usual_prompt(case)
    answer = 0 if case.answer == "forced" else answer_tokens or case.max_new_tokens
    cache_bytes = 0
    if case.caches:
        # The last token of an answer is chosen, and never fed back.
        cache_bytes = kv_cache_bytes(case, prompt + answer - 1)
    return Paper(
        weight_bytes=weight_bytes(case),
        kv_cache_bytes=cache_bytes,
        flops=stages(flops(case, prompt, answer)),
        traffic_bytes=traffic_bytes(case, passes=answer or 1),
    )


def kv_cache_bytes(case: LisaConfig, tokens: int) -> int:
    """Return the bytes of the keys and values of so many tokens, in all layers."""
    sizes = case.sizes.llama
    return 2 * sizes.layers * sizes.hidden * tokens * WIDTHS[case.precision]


def traffic_bytes(case: LisaConfig, passes: int) -> dict[str, int]:
    """Return the bytes of weights that each stage reads in one query.

    Activations are left out, and so are the few rows that are read of the embedding: this is the
    least that a stage must move.

    Args:
        case: the model and how it is run.
        passes: of the language model, each of which reads its weights again.
    """
    held = weight_bytes(case)
    llama = case.sizes.llama
    llm = _parts(case)["llm"]
    embedding = llama.vocabulary * llama.hidden
    llm_bytes = _bytes("llm", replace(llm, head=(), other=llm.other - embedding), case)
    if case.execution == "upstream" or case.answer == "generated":
        llm_bytes += _bytes("llm", Inventory((), head=llm.head), case)
    clip_bytes = held.get("clip", 0) + held["projector"]
    return {
        "vision": clip_bytes * _clip_passes(case, passes)
        + held.get("sam_encoder", 0)
        + held.get("bridge", 0),
        "llm": passes * llm_bytes + held["seg_projection"],
        "decoder": held["mask_decoder"] + held["prompt_encoder"],
    }


def stages(regions: dict[str, int]) -> dict[str, int]:
    """Return the sums of what `flops` returns, by stage."""
    totals: dict[str, int] = {}
    for region, count in regions.items():
        stage = region.partition(".")[0]
        totals[stage] = totals.get(stage, 0) + count
    return totals


def describe(preset: str) -> str:
    """Return a preset in a line: its sizes, and the original's parameters and weights at them."""
    total = sum(parameters(LisaConfig(preset=preset)).values())
    gib = sum(weight_bytes(LisaConfig(preset=preset, precision="bf16")).values()) / GIB
    return f"{PRESETS[preset]}; {total:,} parameters, {gib:.2f} GiB in bf16"


def _usual_prompt(case: LisaConfig) -> int:
    return case.sizes.clip.image_tokens + TEXT_TOKENS


def _clip_passes(case: LisaConfig, llm_passes: int) -> int:
    """Return how often CLIP runs: the original runs it again for every token of an answer."""
    return llm_passes if case.execution == "upstream" else 1


def _parts(case: LisaConfig) -> dict[str, Inventory]:
    return inventory(case.sizes, case.vision, case.seg_head, case.bridge)


def _bytes(name: str, part: Inventory, case: LisaConfig) -> int:
    """Return the bytes of a part's weights, some of which may be quantised."""
    width = WIDTHS[case.precision]
    quantized: list[Linear] = []
    if name in case.quantized_parts:
        quantized += part.linear
    if "lm_head" in case.quantized_parts:
        quantized += part.head
    total = part.parameters * width
    for layer in quantized:
        total += QUANTIZED_BYTES[case.quantization](layer) - layer.weights * width
    return total


def _nf4(layer: Linear) -> int:
    weights = layer.inputs * layer.outputs
    packed = _divided_up(weights, 2)
    scales = _divided_up(weights, BLOCK)
    scales_of_scales = 4 * _divided_up(scales, SCALE_BLOCK)
    return layer.count * (packed + scales + scales_of_scales + NF4_TABLES)


def _int8(layer: Linear) -> int:
    """Return a byte a weight, and a float32 scale a row: LLM.int8 (arXiv:2208.07339)."""
    return layer.weights + 4 * layer.count * layer.outputs


QUANTIZED_BYTES = {"nf4": _nf4, "int8": _int8}


def _divided_up(count: int, by: int) -> int:
    return -(-count // by)


def _vision(case: LisaConfig, parts: dict[str, Inventory], clip_passes: int) -> dict[str, int]:
    sizes = case.sizes
    tokens = sizes.clip.image_tokens
    counts = {"vision.projector": 2 * tokens * parts["projector"].weights * clip_passes}
    if "clip" in parts:
        counts["vision.clip"] = _clip(sizes.clip, parts["clip"]) * clip_passes
    if "sam_encoder" in parts:
        counts["vision.sam"] = _sam(sizes.sam, parts["sam_encoder"])
    if "bridge" in parts:
        # From CLIP, every patch is bridged; from SAM, what was pooled to tokens before.
        positions = sizes.clip.patches if case.vision == "clip" else tokens
        counts["vision.bridge"] = 2 * positions * parts["bridge"].weights
    if case.bridge == "upsampling":
        counts["vision.bridge"] += _bridge_convolutions(sizes)
    return counts


def _bridge_convolutions(preset: Preset) -> int:
    """Return the upsampling bridge's: a doubling works on the cells it finds, the rest on SAM's."""
    doubling, sharpening, last = upsampling_weights(preset)
    doubled_cells = 0
    for done in range(upsampling(preset).doublings):
        doubled_cells += preset.clip.patches * 4**done
    return 2 * (doubled_cells * doubling + preset.sam.grid**2 * (sharpening + last))


def _clip(sizes: ClipSizes, part: Inventory) -> int:
    tokens = sizes.patches + 1  # the class token
    patch_embedding = 2 * sizes.patches * 3 * sizes.patch_px**2 * sizes.hidden
    layers = 2 * tokens * part.weights
    attention = sizes.layers * _attention(tokens, tokens, sizes.hidden)
    return patch_embedding + layers + attention


def _sam(sizes: SamSizes, part: Inventory) -> int:
    """Return SAM's image encoder's operations.

    Windows tile the grid, which is padded up to whole windows. Attention and its projections work
    on the padding too; the MLPs do not.
    """
    hidden = sizes.hidden
    cells = sizes.grid**2
    windows = _divided_up(sizes.grid, sizes.window) ** 2
    window = sizes.window**2
    global_layers = len(sizes.global_layers)
    window_layers = sizes.layers - global_layers
    cells_in_windows = windows * window * window_layers  # over all such layers
    cells_in_grids = cells * global_layers

    attention_layers, mlp_layers = part.linear[:2], part.linear[2:]
    total = 0
    for layer in attention_layers:
        total += 2 * (cells_in_windows + cells_in_grids) * layer.inputs * layer.outputs
    for layer in mlp_layers:
        total += 2 * cells * layer.weights
    total += global_layers * _attention(cells, cells, hidden)
    total += window_layers * windows * _attention(window, window, hidden)
    total += 2 * cells * (3 * sizes.patch_px**2 * hidden + neck_weights(sizes))
    if sizes.relative_positions:
        # Each cell against every row and every column of its window or grid.
        total += 2 * 2 * hidden * (cells_in_windows * sizes.window + cells_in_grids * sizes.grid)
    return total


def _llm(case: LisaConfig, part: Inventory, prompt: int, passes: int) -> dict[str, int]:
    sizes = case.sizes.llama
    counts = {"llm.prefill": _prefill(sizes, part, prompt)}
    # Of each further pass, the tokens before its own and that one.
    lengths = range(prompt + 1, prompt + passes)
    if passes > 1:
        one_pass = _step if case.caches else _prefill
        counts["llm.decode"] = sum(one_pass(sizes, part, length) for length in lengths)
    if case.execution == "upstream":
        head_positions = sum((prompt, *lengths))
    elif case.answer == "forced":
        head_positions = 0
    else:
        head_positions = passes
    counts["llm.head"] = 2 * head_positions * part.head[0].weights
    return counts


def _prefill(sizes: LlamaSizes, part: Inventory, tokens: int) -> int:
    causal = _attention(tokens, tokens, sizes.hidden) // 2
    return 2 * tokens * part.weights + sizes.layers * causal


def _step(sizes: LlamaSizes, part: Inventory, tokens: int) -> int:
    """Return the operations of one token that attends to all before it, and to itself."""
    return 2 * part.weights + sizes.layers * _attention(1, tokens, sizes.hidden)


def _attention(queries: int, keys: int, width: int) -> int:
    """Return the operations of the scores and of the weighted sum of values, over all heads."""
    return 2 * 2 * queries * keys * width


def _decoder(sizes: SamSizes, part: Inventory) -> int:
    """Return the mask decoder's operations for one [SEG].

    Its tokens are the [SEG], those of the masks, and that of the IoU; they attend to each other
    and, both ways, to the image's cells.
    """
    width, cells, tokens = sizes.prompt_dim, sizes.grid**2, MASK_TOKENS + 2
    self_attention, widen, narrow = part.linear[:3]
    heads = part.linear[5:]
    total = 2 * tokens * (self_attention.weights + widen.weights + narrow.weights)
    total += SAM_BLOCKS * _attention(tokens, tokens, width)
    # Attention between tokens and image, at half the width: two projections on either side.
    crossings = 2 * SAM_BLOCKS + 1
    projection = 2 * width * (width // 2)
    crossing = 2 * (cells + tokens) * projection + _attention(tokens, cells, width // 2)
    total += crossings * crossing
    total += 2 * sum(layer.weights for layer in heads)
    # The image is upscaled twice, by 2 x 2 each time, to 16 pixels a cell.
    first, second = upscaling_weights(sizes)
    total += 2 * cells * first + 2 * 4 * cells * second
    total += 2 * MASK_TOKENS * (width // 8) * 16 * cells
    return total
