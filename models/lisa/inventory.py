"""What each part is made of, counted from the sizes: Linear layers and the parameters beside them.

Linear layers are listed one kind at a time, because only they can be quantised and because they
make most of the operations. Counted as the original counts, where SAM's random Gaussian matrix is a
buffer and no parameter. Tests hold the counts against built models. Cheap to import.
"""

from dataclasses import dataclass

from .presets import ClipSizes, LlamaSizes, Preset, SamSizes, upsampling

SAM_MLP = 4  # hidden width of the MLPs in SAM's image encoder, in widths of the encoder
SAM_BLOCKS = 2  # of the mask decoder's two-way transformer
MASK_TOKENS = 4  # one mask for a clear prompt, three for an ambiguous one


@dataclass(frozen=True)
class Linear:
    """`count` Linear layers of one shape."""

    inputs: int
    outputs: int
    count: int = 1
    bias: bool = True

    @property
    def weights(self) -> int:
        """Weights of all these layers, without biases."""
        return self.count * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Weights and biases of all these layers."""
        biases = self.count * self.outputs if self.bias else 0
        return self.weights + biases


@dataclass(frozen=True)
class Inventory:
    """The layers of one part.

    Attributes:
        linear: its Linear layers, except for the language model's head.
        other: parameters of everything else.
        head: the language model's head, or nothing. It is apart because it can be quantised apart,
            and because a forced answer does not need it.
    """

    linear: tuple[Linear, ...]
    other: int = 0
    head: tuple[Linear, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of the Linear layers, without the head and without biases."""
        return sum(layer.weights for layer in self.linear)

    @property
    def parameters(self) -> int:
        """All parameters, the head's included."""
        return sum(layer.parameters for layer in (*self.linear, *self.head)) + self.other


def inventory(
    preset: Preset, vision: str, seg_head: str, bridged: str = "linear"
) -> dict[str, Inventory]:
    """Return the inventory of every part of a variant, by its name in a `LisaModel`.

    The parts are in the order in which the model builds them.

    Args:
        preset: the sizes.
        vision: the variant.
        seg_head: what projects the state of [SEG].
        bridged: the kind of bridge from CLIP to SAM's grid.
    """
    parts = {}
    if vision in ("dual", "clip"):
        parts["clip"] = clip(preset.clip)
        parts["projector"] = projector(preset)
    if vision in ("dual", "sam"):
        parts["sam_encoder"] = sam_encoder(preset.sam)
    if vision == "clip":
        parts["bridge"] = vision_to_sam(preset, bridged)
    if vision == "sam":
        parts["bridge"] = bridge(preset.sam.prompt_dim, preset.clip.hidden)
        parts["projector"] = projector(preset)
    return {
        **parts,
        "llm": llm(preset.llama),
        "seg_projection": seg_projection(preset, seg_head),
        "prompt_encoder": prompt_encoder(preset.sam),
        "mask_decoder": mask_decoder(preset.sam),
    }


def clip(sizes: ClipSizes) -> Inventory:
    """Return the inventory of CLIP's vision tower."""
    hidden, layers = sizes.hidden, sizes.layers
    linear = (
        Linear(hidden, hidden, 4 * layers),  # query, key, value, output
        Linear(hidden, sizes.intermediate, layers),
        Linear(sizes.intermediate, hidden, layers),
    )
    patch_embedding = 3 * sizes.patch_px**2 * hidden
    class_token = hidden
    positions = hidden * (sizes.patches + 1)
    norms = 2 * hidden * (2 * layers + 2)  # two a layer, one before and one after all of them
    return Inventory(linear, patch_embedding + class_token + positions + norms)


def projector(preset: Preset) -> Inventory:
    """Return the inventory of LLaVA's projector."""
    hidden = preset.llama.hidden
    first = Linear(preset.clip.hidden, hidden)
    if preset.projector == "linear":
        return Inventory((first,))
    return Inventory((first, Linear(hidden, hidden)))


def bridge(inputs: int, outputs: int) -> Inventory:
    """Return the inventory of a linear bridge: one layer and a norm."""
    return Inventory((Linear(inputs, outputs),), other=2 * outputs)


def vision_to_sam(preset: Preset, kind: str) -> Inventory:
    """Return the inventory of the bridge from CLIP to SAM's grid: ``linear`` or ``upsampling``."""
    clip_width, sam_width = preset.clip.hidden, preset.sam.prompt_dim
    if kind == "linear":
        return bridge(clip_width, sam_width)
    sizes = upsampling(preset)
    width, layers = sizes.width, len(sizes.layers)
    doubling, sharpening, last = upsampling_weights(preset)
    convolutions = doubling * sizes.doublings + sharpening + last
    biases_and_norms = (
        2 * clip_width * layers  # a norm for each layer that is read
        + 3 * width * sizes.doublings  # a bias and a norm for each doubling
        + 4 * width  # of the sharpening: two biases and a norm
        + 3 * sam_width  # of the last: a bias and a norm
    )
    return Inventory((Linear(clip_width, width, layers),), convolutions + biases_and_norms)


def upsampling_weights(preset: Preset) -> tuple[int, int, int]:
    """Return the weights of the upsampling bridge's convolutions.

    They are those of one doubling (2 x 2, transposed), of the two sharpening ones (3 x 3) together,
    and of the last (1 x 1).
    """
    width = upsampling(preset).width
    return 4 * width**2, 2 * 9 * width**2, width * preset.sam.prompt_dim


def sam_encoder(sizes: SamSizes) -> Inventory:
    """Return the inventory of SAM's image encoder."""
    hidden, layers, out = sizes.hidden, sizes.layers, sizes.prompt_dim
    linear = (
        Linear(hidden, 3 * hidden, layers),  # query, key and value in one
        Linear(hidden, hidden, layers),
        Linear(hidden, SAM_MLP * hidden, layers),
        Linear(SAM_MLP * hidden, hidden, layers),
    )
    patch_embedding = hidden * (3 * sizes.patch_px**2 + 1)
    positions = hidden * sizes.grid**2
    norms = 2 * hidden * 2 * layers
    neck = neck_weights(sizes) + 4 * out  # two convolutions without bias, two norms
    relative_positions = 0
    if sizes.relative_positions:
        for layer in range(layers):
            side = sizes.grid if layer in sizes.global_layers else sizes.window
            # A vector for each of the 2 * side - 1 distances, along the rows and the columns.
            relative_positions += 2 * (2 * side - 1) * (hidden // sizes.heads)
    return Inventory(linear, patch_embedding + positions + norms + relative_positions + neck)


def neck_weights(sizes: SamSizes) -> int:
    """Return the weights of the neck's two convolutions, 1 x 1 and 3 x 3."""
    return sizes.prompt_dim * sizes.hidden + 9 * sizes.prompt_dim**2


def llm(sizes: LlamaSizes) -> Inventory:
    """Return the inventory of the language model."""
    hidden, layers = sizes.hidden, sizes.layers
    linear = (
        Linear(hidden, hidden, 4 * layers, bias=False),  # query, key, value, output
        Linear(hidden, sizes.intermediate, 2 * layers, bias=False),  # gate, up
        Linear(sizes.intermediate, hidden, layers, bias=False),  # down
    )
    embedding = sizes.vocabulary * hidden
    norms = hidden * (2 * layers + 1)
    head = Linear(hidden, sizes.vocabulary, bias=False)
    return Inventory(linear, embedding + norms, (head,))


def seg_projection(preset: Preset, head: str) -> Inventory:
    """Return the inventory of ``text_hidden_fcs`` or ``seg_token_to_sam``."""
    hidden, prompt_dim = preset.llama.hidden, preset.sam.prompt_dim
    if head == "seg_token_to_sam":
        return bridge(hidden, prompt_dim)
    return Inventory((Linear(hidden, hidden), Linear(hidden, prompt_dim)))


def prompt_encoder(sizes: SamSizes) -> Inventory:
    """Return the inventory of SAM's prompt encoder."""
    width = sizes.prompt_dim
    embeddings = 6 * width  # four kinds of points, "not a point" and "no mask"
    # Masks as prompts: from 1 channel to 4, to 16 (2 x 2 each, with bias), to the width (1 x 1).
    convolutions = (4 * 1 + 1) * 4 + (4 * 4 + 1) * 16 + (16 + 1) * width
    norms = 2 * (4 + 16)
    return Inventory((), other=embeddings + convolutions + norms)


def mask_decoder(sizes: SamSizes) -> Inventory:
    """Return the inventory of SAM's mask decoder.

    `costs.py` relies on the order of the Linear layers.
    """
    width, mlp = sizes.prompt_dim, sizes.decoder_mlp
    # Attention between tokens and image, at half the width: two a block, and a last one.
    crossings = 2 * SAM_BLOCKS + 1
    linear = (
        Linear(width, width, 4 * SAM_BLOCKS),  # the tokens' attention to each other
        Linear(width, mlp, SAM_BLOCKS),
        Linear(mlp, width, SAM_BLOCKS),
        Linear(width, width // 2, 3 * crossings),  # query, key, value
        Linear(width // 2, width, crossings),  # output
        # A head of three layers for each mask and one for the IoU: first their first two layers,
        # then the last one of the masks', then that of the IoU's.
        Linear(width, width, 2 * MASK_TOKENS + 2),
        Linear(width, width // 8, MASK_TOKENS),
        Linear(width, MASK_TOKENS),
    )
    norms = 2 * width * (4 * SAM_BLOCKS + 1) + 2 * (width // 4)
    tokens = width * (1 + MASK_TOKENS)
    upscaling = sum(upscaling_weights(sizes)) + width // 4 + width // 8
    return Inventory(linear, norms + tokens + upscaling)


def upscaling_weights(sizes: SamSizes) -> tuple[int, int]:
    """Return the weights of the mask decoder's two transposed convolutions, 2 x 2 each."""
    width = sizes.prompt_dim
    return 4 * width * (width // 4), 4 * (width // 4) * (width // 8)
