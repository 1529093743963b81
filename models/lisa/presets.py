"""The sizes of the models' parts, and the presets that combine them. Cheap to import: no torch.

Lengths that end in ``_px`` are in pixels. A `grid` is the number of patches along one side of a
square input.
"""

from dataclasses import dataclass, replace

from ...harness.errors import unknown


@dataclass(frozen=True)
class ClipSizes:
    """CLIP's vision tower, from which the language model's image tokens are made.

    Attributes:
        token_grid: side of the grid of tokens that patches are averaged to before the language
            model reads them; None makes a token of every patch.
    """

    image_px: int
    patch_px: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    token_grid: int | None = None

    @property
    def grid(self) -> int:
        """Patches along a side of an image."""
        return self.image_px // self.patch_px

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.grid**2

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the language model's prompt; CLIP's class token is dropped."""
        if self.token_grid is None:
            return self.patches
        return self.token_grid**2


@dataclass(frozen=True)
class LlamaSizes:
    """The language model.

    Attributes:
        vocabulary: rows of the embedding and of the head, at least one for every token.
        context: the most tokens of a prompt and its answer.
    """

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    context: int
    norm_epsilon: float = 1e-6


@dataclass(frozen=True)
class SamSizes:
    """SAM's image encoder, its prompt encoder and its mask decoder.

    Attributes:
        window: side in patches of the windows that most layers attend within.
        global_layers: the layers that attend over the whole grid.
        relative_positions: whether attention adds learned relative positions.
        prompt_dim: channels of prompts and of the image embedding.
        decoder_mlp: hidden width of the mask decoder's MLPs.
    """

    image_px: int
    patch_px: int
    hidden: int
    layers: int
    heads: int
    window: int
    global_layers: tuple[int, ...]
    relative_positions: bool
    prompt_dim: int
    decoder_mlp: int

    @property
    def grid(self) -> int:
        """Cells along a side of the image embedding."""
        return self.image_px // self.patch_px


@dataclass(frozen=True)
class Preset:
    """The sizes of one LISA.

    Attributes:
        projector: between CLIP and the language model: ``linear``, or LLaVA-1.5's
            ``mlp2x_gelu``.
    """

    clip: ClipSizes
    llama: LlamaSizes
    sam: SamSizes
    projector: str = "linear"

    def with_clip(self, image_px: int, image_tokens: str) -> "Preset":
        """Return the same sizes with a CLIP that reads images of another side.

        Args:
            image_px: that side; 0 keeps the preset's own.
            image_tokens: ``patches`` makes a token of every patch; ``pooled`` makes as many tokens
                as the preset has.
        """
        if image_px == 0:
            return self
        token_grid = self.clip.grid if image_tokens == "pooled" else None
        clip = replace(self.clip, image_px=image_px, token_grid=token_grid)
        return replace(self, clip=clip)

    def with_seg_alone(self) -> "Preset":
        """Return the same sizes with ``[SEG]`` as the only added token.

        The modified LISA's document adds it alone, without ``<im_start>`` and ``<im_end>``: 32,001
        rows where LLaVA-1.5 has 32,000. The tiny preset stays as it is: its vocabulary is not a
        LLaVA's, and has spare rows.
        """
        if self.llama == PRESETS["tiny"].llama:
            return self
        rows = self.llama.vocabulary - IMAGE_MARKS
        return replace(self, llama=replace(self.llama, vocabulary=rows))

    def with_sam(self, name: str) -> "Preset":
        """Return the same sizes with another SAM.

        Args:
            name: in `SAM_SIZES` or `TINY_SAMS`; ``preset`` keeps the preset's own.

        Raises:
            UsageError: there is no such name.
        """
        if name == "preset":
            return self
        named = SAM_SIZES | TINY_SAMS
        if name not in named:
            raise unknown("sam", name, ("preset", *named))
        return replace(self, sam=named[name])

    def __str__(self) -> str:
        clip, llama, sam = self.clip, self.llama, self.sam
        return (
            f"CLIP {clip.image_px} px, {clip.layers} x {clip.hidden}; "
            f"LLaMA {llama.layers} x {llama.hidden}; "
            f"SAM {sam.image_px} px, {sam.layers} x {sam.hidden}"
        )


@dataclass(frozen=True)
class UpsamplingSizes:
    """The bridge of ``bridge=upsampling``, from CLIP's patches to SAM's grid.

    Attributes:
        layers: hidden states of CLIP that it reads, 0 being the patch embedding.
        width: channels inside the bridge.
        doublings: how often the grid is doubled.
    """

    layers: tuple[int, ...]
    width: int
    doublings: int


def upsampling(preset: Preset, most_layers: int = 4) -> UpsamplingSizes:
    """Return the sizes of the upsampling bridge, which follow from what it joins.

    It reads up to `most_layers` layers of CLIP, evenly spaced and ending with the one before the
    last, which LLaVA reads too. Half the mask decoder's channels keep it small.
    """
    clip, sam = preset.clip, preset.sam
    last = clip.layers - 1
    count = min(most_layers, last)
    layers = tuple(last * (i + 1) // count for i in range(count))
    doublings = 0
    while clip.grid * 2**doublings < sam.grid:
        doublings += 1
    return UpsamplingSizes(layers, sam.prompt_dim // 2, doublings)


def _published_sam(
    hidden: int, layers: int, heads: int, global_layers: tuple[int, ...]
) -> SamSizes:
    """Return one of the three SAMs that were published (``build_sam.py`` of segment-anything)."""
    return SamSizes(
        image_px=1024,
        patch_px=16,
        hidden=hidden,
        layers=layers,
        heads=heads,
        window=14,
        global_layers=global_layers,
        relative_positions=True,
        prompt_dim=256,
        decoder_mlp=2048,
    )


SAM_SIZES = {
    "vit_b": _published_sam(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _published_sam(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _published_sam(1280, 32, 16, (7, 15, 23, 31)),
}

# A smaller SAM is the rival of a shared encoder. This one is the tiny preset's with half its width
# and depth: an eighth of its blocks' weights, about what ViT-B has of ViT-H's. All that the mask
# decoder depends on is the preset's.
TINY_SAMS = {
    "tiny_s": SamSizes(
        image_px=256,
        patch_px=16,
        hidden=96,
        layers=3,
        heads=3,
        window=8,
        global_layers=(2,),
        relative_positions=False,
        prompt_dim=256,
        decoder_mlp=512,
    ),
}

CLIP_224 = ClipSizes(image_px=224, patch_px=14, hidden=1024, intermediate=4096, layers=24, heads=16)
CLIP_336 = replace(CLIP_224, image_px=336)

# Vocabularies: LLaMA has 32000 tokens. The base of LISA-7B-v1 had a padding token besides, that of
# LISA-13B-llama2-v1 had not. The original adds [SEG], <im_start> and <im_end> to either. The
# modified LISA adds [SEG] alone: see `Preset.with_seg_alone`.
IMAGE_MARKS = 2  # <im_start> and <im_end>
LLAMA_7B = LlamaSizes(
    vocabulary=32004, hidden=4096, intermediate=11008, layers=32, heads=32, context=2048
)
LLAMA2_7B = replace(LLAMA_7B, vocabulary=32003, context=4096, norm_epsilon=1e-5)
LLAMA2_13B = replace(LLAMA2_7B, hidden=5120, intermediate=13824, layers=40, heads=40)

PRESETS = {
    "tiny": Preset(
        clip=ClipSizes(image_px=112, patch_px=14, hidden=192, intermediate=768, layers=5, heads=3),
        llama=LlamaSizes(
            vocabulary=512, hidden=256, intermediate=640, layers=6, heads=8, context=2048
        ),
        sam=SamSizes(
            image_px=256,
            patch_px=16,
            hidden=192,
            layers=6,
            heads=3,
            window=8,
            global_layers=(2, 5),
            relative_positions=False,
            prompt_dim=256,
            decoder_mlp=512,
        ),
    ),
    "lisa-7b": Preset(CLIP_224, LLAMA_7B, SAM_SIZES["vit_h"]),
    "lisa-13b": Preset(CLIP_224, LLAMA2_13B, SAM_SIZES["vit_h"]),
    "lisa-7b-llava15": Preset(CLIP_336, LLAMA2_7B, SAM_SIZES["vit_h"], "mlp2x_gelu"),
    "lisa-13b-llava15": Preset(CLIP_336, LLAMA2_13B, SAM_SIZES["vit_h"], "mlp2x_gelu"),
}
