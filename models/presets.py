"""Sizes of the models' parts. Cheap to import.

Lengths ending in ``_px`` are pixels; a `grid` is the number of patches along one side of a square input.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipSizes:
    """The tower that looks for the language model."""

    image_px: int
    patch_px: int
    hidden: int
    intermediate: int
    layers: int
    heads: int

    @property
    def grid(self) -> int:
        return self.image_px // self.patch_px

    @property
    def image_tokens(self) -> int:
        """What one image takes of the language model's context: a token for every patch, none for the class."""
        return self.grid**2


@dataclass(frozen=True)
class LlamaSizes:
    """The language model. `vocabulary` counts the rows of its embedding, at least one for every token."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    context: int


@dataclass(frozen=True)
class SamSizes:
    """SAM's image encoder, its prompt encoder and its mask decoder."""

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
        return self.image_px // self.patch_px


@dataclass(frozen=True)
class Preset:
    """The sizes of one LISA."""

    clip: ClipSizes
    llama: LlamaSizes
    sam: SamSizes

    def __str__(self) -> str:
        clip, llama, sam = self.clip, self.llama, self.sam
        return (
            f"CLIP {clip.image_px} px, {clip.layers} x {clip.hidden}; LLaMA {llama.layers} x {llama.hidden}; "
            f"SAM {sam.image_px} px, {sam.layers} x {sam.hidden}"
        )


PRESETS = {
    "tiny": Preset(
        clip=ClipSizes(image_px=112, patch_px=14, hidden=192, intermediate=768, layers=5, heads=3),
        llama=LlamaSizes(vocabulary=512, hidden=256, intermediate=640, layers=6, heads=8, context=2048),
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
}
