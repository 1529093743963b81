"""What each part is made of, on paper: Linear layers, which can be quantised, and how many parameters there are beside.

Counted as the original counts, where SAM's random frequencies are a buffer. Cheap to import.
"""

from dataclasses import dataclass

from .presets import ClipSizes, LlamaSizes, Preset, SamSizes, upsampling

SAM_MLP = 4  # times the hidden width
SAM_BLOCKS = 2  # of the mask decoder's two-way transformer
MASK_TOKENS = 4  # one mask for a clear prompt, three for an ambiguous one


@dataclass(frozen=True)
class Linear:
    """`count` equal layers."""

    inputs: int
    outputs: int
    count: int = 1
    bias: bool = True

    @property
    def weights(self) -> int:
        return self.count * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + (self.count * self.outputs if self.bias else 0)


@dataclass(frozen=True)
class Inventory:
    """Of one part.

    Attributes:
        linear: its Linear layers, the language model's head apart.
        other: parameters of everything else.
        head: the language model's, or none.
    """

    linear: tuple[Linear, ...]
    other: int = 0
    head: tuple[Linear, ...] = ()

    @property
    def weights(self) -> int:
        """Of the Linear layers, without the head and without biases."""
        return sum(layer.weights for layer in self.linear)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in (*self.linear, *self.head)) + self.other


def inventory(
    preset: Preset, vision: str, seg_head: str, bridged: str = "linear"
) -> dict[str, Inventory]:
    """Every part of a variant, by its name in a `LisaModel`."""
    seen = {
        "dual": {
            "clip": clip(preset.clip),
            "projector": projector(preset),
            "sam_encoder": sam_encoder(preset.sam),
        },
        "clip": {
            "clip": clip(preset.clip),
            "projector": projector(preset),
            "bridge": vision_to_sam(preset, bridged),
        },
        "sam": {
            "sam_encoder": sam_encoder(preset.sam),
            "bridge": bridge(preset.sam.prompt_dim, preset.clip.hidden),
            "projector": projector(preset),
        },
    }
    return seen[vision] | {
        "llm": llm(preset.llama),
        "seg_projection": seg_projection(preset, seg_head),
        "prompt_encoder": prompt_encoder(preset.sam),
        "mask_decoder": mask_decoder(preset.sam),
    }


def clip(sizes: ClipSizes) -> Inventory:
    hidden, layers = sizes.hidden, sizes.layers
    linear = (
        Linear(hidden, hidden, 4 * layers),
        Linear(hidden, sizes.intermediate, layers),
        Linear(sizes.intermediate, hidden, layers),
    )
    norms = 2 * hidden * (2 * layers + 2)
    positions = hidden * (sizes.patches + 1)
    return Inventory(linear, norms + positions + hidden + 3 * sizes.patch_px**2 * hidden)


def projector(preset: Preset) -> Inventory:
    hidden = preset.llama.hidden
    first = Linear(preset.clip.hidden, hidden)
    return Inventory((first,) if preset.projector == "linear" else (first, Linear(hidden, hidden)))


def bridge(inputs: int, outputs: int) -> Inventory:
    return Inventory((Linear(inputs, outputs),), other=2 * outputs)


def vision_to_sam(preset: Preset, kind: str) -> Inventory:
    """From CLIP's patches to SAM's grid: ``linear``, or ``upsampling``, with a norm for every layer that it reads."""
    hidden, out = preset.clip.hidden, preset.sam.prompt_dim
    if kind == "linear":
        return bridge(hidden, out)
    sizes, (unfold, sharpen, last) = upsampling(preset), upsampling_weights(preset)
    width, doublings, read = sizes.width, sizes.doublings, len(sizes.layers)
    biases_and_norms = 2 * hidden * read + 3 * width * doublings + 4 * width + 3 * out
    return Inventory(
        (Linear(hidden, width, read),), unfold * doublings + sharpen + last + biases_and_norms
    )


def upsampling_weights(preset: Preset) -> tuple[int, int, int]:
    """Of the bridge's convolutions: each doubling, 2 x 2 and transposed; the two of 3 x 3; and the last, 1 x 1."""
    width = upsampling(preset).width
    return 4 * width**2, 2 * 9 * width**2, width * preset.sam.prompt_dim


def sam_encoder(sizes: SamSizes) -> Inventory:
    hidden, layers, out = sizes.hidden, sizes.layers, sizes.prompt_dim
    linear = (
        Linear(hidden, 3 * hidden, layers),
        Linear(hidden, hidden, layers),
        Linear(hidden, SAM_MLP * hidden, layers),
        Linear(SAM_MLP * hidden, hidden, layers),
    )
    patches = hidden * (3 * sizes.patch_px**2 + 1)
    positions = hidden * sizes.grid**2
    norms = 2 * hidden * 2 * layers
    return Inventory(
        linear,
        patches + positions + norms + _relative_positions(sizes) + neck_weights(sizes) + 4 * out,
    )


def _relative_positions(sizes: SamSizes) -> int:
    if not sizes.relative_positions:
        return 0
    sides = [
        sizes.grid if layer in sizes.global_layers else sizes.window
        for layer in range(sizes.layers)
    ]
    return sum(2 * (2 * side - 1) * (sizes.hidden // sizes.heads) for side in sides)


def neck_weights(sizes: SamSizes) -> int:
    """Of its two convolutions, 1 x 1 and 3 x 3."""
    return sizes.prompt_dim * sizes.hidden + 9 * sizes.prompt_dim**2


def llm(sizes: LlamaSizes) -> Inventory:
    hidden, layers = sizes.hidden, sizes.layers
    linear = (
        Linear(hidden, hidden, 4 * layers, bias=False),
        Linear(hidden, sizes.intermediate, 2 * layers, bias=False),
        Linear(sizes.intermediate, hidden, layers, bias=False),
    )
    head = Linear(hidden, sizes.vocabulary, bias=False)
    return Inventory(linear, sizes.vocabulary * hidden + hidden * (2 * layers + 1), (head,))


def seg_projection(preset: Preset, head: str) -> Inventory:
    hidden, prompt = preset.llama.hidden, preset.sam.prompt_dim
    if head == "seg_token_to_sam":
        return bridge(hidden, prompt)
    return Inventory((Linear(hidden, hidden), Linear(hidden, prompt)))


def prompt_encoder(sizes: SamSizes) -> Inventory:
    """Four kinds of points, no point and no mask; and three convolutions for masks, with two norms."""
    width = sizes.prompt_dim
    convolutions = (4 * 1 + 1) * 4 + (4 * 4 + 1) * 16 + (16 + 1) * width
    return Inventory((), other=6 * width + convolutions + 2 * (4 + 16))


def mask_decoder(sizes: SamSizes) -> Inventory:
    width, mlp = sizes.prompt_dim, sizes.decoder_mlp
    crossings = 2 * SAM_BLOCKS + 1  # attention between tokens and image, at half the width
    linear = (
        Linear(width, width, 4 * SAM_BLOCKS),
        Linear(width, mlp, SAM_BLOCKS),
        Linear(mlp, width, SAM_BLOCKS),
        Linear(width, width // 2, 3 * crossings),
        Linear(width // 2, width, crossings),
        Linear(width, width, 2 * MASK_TOKENS + 2),
        Linear(width, width // 8, MASK_TOKENS),
        Linear(width, MASK_TOKENS),
    )
    norms = 2 * width * (4 * SAM_BLOCKS + 1) + 2 * (width // 4)
    tokens = width * (1 + MASK_TOKENS)
    return Inventory(
        linear, norms + tokens + sum(upscaling_weights(sizes)) + width // 4 + width // 8
    )


def upscaling_weights(sizes: SamSizes) -> tuple[int, int]:
    """Of the mask decoder's two transposed convolutions, 2 x 2 each."""
    width = sizes.prompt_dim
    return 4 * width * (width // 4), 4 * (width // 4) * (width // 8)
