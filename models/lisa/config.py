"""What can be set about a LISA: one frozen value is one case of a suite. Cheap to import: `build` imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from ...harness.errors import UsageError, unknown
from .presets import PRESETS, SAM_SIZES, TINY_SAMS, Preset
from .prompts import TEMPLATES


def _switch(value: Any) -> Any:
    """YAML reads a bare ``on`` as True."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[str, BeforeValidator(_switch)]


@dataclass(frozen=True)
class LisaConfig:
    """The axes of a LISA.

    Attributes:
        preset: the sizes of its parts.
        vision: ``dual`` is the original; ``clip`` and ``sam`` make do with that one encoder for both purposes.
        sam: sizes of SAM's image encoder; ``preset`` takes the preset's own. ``tiny_s``, for the tiny preset alone, has
            half its width and depth.
        clip_px: side of the images that CLIP reads, a multiple of its patch's: a larger one makes a finer grid. 0 takes
            the preset's own. Weights of another side can be started from, their position embeddings interpolated.
        image_tokens: each of CLIP's ``patches`` is a token, so that a finer grid makes a longer prompt; or they are
            ``pooled`` to as many as the preset has, so that the masks alone see the finer grid.
        frame: what CLIP sees where it serves the masks too: the ``whole`` image, or the centre ``crop`` that it sees in
            the original (a control: masks then know nothing of what the crop leaves out).
        bridge: what carries one encoder's features to the other's world: ``linear`` as the modified LISA is described;
            or from CLIP to SAM's grid an ``upsampling`` one, which reads several layers with a small network.
        precision: of weights and activations. With fp16, SAM's neck is computed in fp32, as in the original.
        quantization: of the Linear layers of the parts named by `quantized`, by bitsandbytes: ``nf4`` with double
            quantisation, computing in `precision`; ``int8`` is LLM.int8.
        quantized: ``llm`` is the language model without its head, ``sam`` is SAM's image encoder, and a part that the
            variant lacks is passed over. ``upstream`` is the original's set: the language model with its head, the
            projector and the projection of [SEG], computing in fp16.
        execution: ``upstream`` has the original's habits, as a control. It never has a KV cache.
        answer: ``forced`` gives the model its answer, as the original's validation does; or it is ``generated``.
        max_new_tokens: most tokens of a generated answer.
        kv_cache: of a generated answer.
        reuse: whether queries about one image share its encoding.
        conditioning: how the language model prompts the masks: as the ``original`` does, or as the modified LISA is
            ``described``: the query ends in ``<SEG>``, the only token that is added (a vocabulary of 32,001); the
            state at it is read; and the dense prompt is zeros.
        seg_head: what projects that state: the original's ``text_hidden_fcs``, or the described ``seg_token_to_sam``.
        template: the words around a query.
        weights: a folder, a hub id, ``packaged`` for the trained tiny LISA that comes with the package, or ``random``,
            which measures time and memory only.
        device: ``auto`` takes CUDA where there is one.
        seed: of the random weights.

    Raises:
        UsageError: a value that an axis does not know, or values that contradict each other.
    """

    KNOWN: ClassVar = {
        "preset": tuple(PRESETS),
        "vision": ("dual", "clip", "sam"),
        "sam": ("preset", *SAM_SIZES, *TINY_SAMS),
        "image_tokens": ("patches", "pooled"),
        "frame": ("whole", "crop"),
        "bridge": ("linear", "upsampling"),
        "precision": ("fp32", "bf16", "fp16"),
        "quantization": ("none", "nf4", "int8"),
        "quantized": (
            "llm",
            "clip",
            "sam",
            "llm+clip",
            "llm+sam",
            "clip+sam",
            "llm+clip+sam",
            "upstream",
        ),
        "execution": ("eager", "compiled", "upstream"),
        "answer": ("forced", "generated"),
        "kv_cache": ("on", "off"),
        "reuse": ("off", "on"),
        "conditioning": ("original", "described"),
        "seg_head": ("text_hidden_fcs", "seg_token_to_sam"),
        "template": tuple(TEMPLATES),
        "device": ("auto", "cpu", "cuda"),
    }

    preset: str = "tiny"
    vision: str = "dual"
    sam: str = "preset"
    clip_px: int = 0
    image_tokens: str = "patches"
    frame: str = "whole"
    bridge: str = "linear"
    precision: str = "fp32"
    quantization: str = "none"
    quantized: str = "llm"
    execution: str = "eager"
    answer: str = "forced"
    max_new_tokens: int = 512
    kv_cache: Switch = "on"
    reuse: Switch = "off"
    conditioning: str = "original"
    seg_head: str = "text_hidden_fcs"
    template: str = "llava_v1"
    weights: str = "random"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for axis, known in self.KNOWN.items():
            if getattr(self, axis) not in known:
                raise unknown(axis, getattr(self, axis), known)
        for wrong, message in (*self._contradictory_sizes(), *self._contradictions()):
            if wrong:
                raise UsageError(message)

    def _contradictory_sizes(self) -> tuple[tuple[bool, str], ...]:
        usual, px = PRESETS[self.preset].clip, self.clip_px
        return (
            (
                self.sam in TINY_SAMS and self.preset != "tiny",
                f"sam={self.sam} is for preset=tiny; with preset={self.preset}, take one of {', '.join(SAM_SIZES)}",
            ),
            (
                px < 0 or px % usual.patch_px > 0,
                f"clip_px is {px}; expected a multiple of {usual.patch_px}, a patch's side, or 0 for the preset's own",
            ),
            (
                px > 0 and self.vision == "sam",
                f"clip_px={px} is for CLIP, which vision=sam does without",
            ),
            (
                self.image_tokens == "pooled" and px <= usual.image_px,
                f"image_tokens=pooled pools nothing with clip_px={px}: set clip_px to more than {usual.image_px}",
            ),
        )

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        idle = self.quantization == "none" and self.quantized != "llm"
        missing = self.quantization != "none" and not self.quantized_parts
        described = self.conditioning == "described" and self.answer == "generated"
        return (
            (
                self.max_new_tokens < 1,
                f"max_new_tokens is {self.max_new_tokens}; an answer has at least 1",
            ),
            (not self.weights, "weights is empty; give a folder, a hub id, packaged, or random"),
            (
                self.frame == "crop" and self.vision != "clip",
                f"frame=crop is for vision=clip: with vision={self.vision}, CLIP does not serve the masks",
            ),
            (
                self.bridge == "upsampling" and self.vision != "clip",
                f"bridge=upsampling is for vision=clip: with vision={self.vision}, CLIP does not serve the masks",
            ),
            (
                idle,
                f"quantized={self.quantized} quantises nothing with quantization=none; set it to nf4 or int8",
            ),
            (
                missing,
                f"quantized={self.quantized} names nothing that vision={self.vision} has; add llm to it",
            ),
            (
                described,
                "conditioning=described reads a state of the query and generates nothing; set answer=forced",
            ),
        )

    @property
    def sizes(self) -> Preset:
        """The preset, with the SAM that `sam` names, the CLIP of `clip_px`, and the rows of the tokens added."""
        sizes = PRESETS[self.preset].with_sam(self.sam).with_clip(self.clip_px, self.image_tokens)
        return sizes.with_seg_alone() if self.conditioning == "described" else sizes

    @property
    def quantized_parts(self) -> frozenset[str]:
        """The parts, by their names in a `LisaModel`, that hold quantised layers; ``lm_head`` stands for the head."""
        if self.quantization == "none":
            return frozenset()
        if self.quantized == "upstream":
            return frozenset({"llm", "lm_head", "projector", "seg_projection"})
        absent = {"clip": "sam", "sam": "clip"}.get(self.vision)
        return frozenset(
            {"sam": "sam_encoder"}.get(n, n) for n in self.quantized.split("+") if n != absent
        )

    @classmethod
    def filled(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings with what else they imply: packaged weights bring the axes that they were trained with.

        Raises:
            UsageError: no packaged weights are of such settings.
        """
        from . import packaged, weights_format

        chosen = all(
            given.get(axis, getattr(cls, axis)) in cls.KNOWN[axis] for axis in ("preset", "vision")
        )
        return (
            packaged.filled(given)
            if chosen and given.get("weights") == weights_format.PACKAGED
            else given
        )

    @property
    def checkpoint(self) -> str:
        """What `weights` names, as a folder or a hub id; or ``random``.

        Raises:
            UsageError: the weights are packaged ones, and there are none of this variant.
        """
        from . import packaged, weights_format

        return (
            str(packaged.located(self.preset, self.vision))
            if self.weights == weights_format.PACKAGED
            else self.weights
        )

    @property
    def default_split(self) -> str:
        """The split of ReasonSeg to evaluate the weights on, if none is named."""
        from . import weights_format

        return weights_format.default_split(self.checkpoint)

    def contaminated(self, split: str) -> str | None:
        """The warning that the weights were trained on a split of ReasonSeg; None if nothing is known against it."""
        from . import weights_format

        return weights_format.contaminated(self.checkpoint, split)

    @property
    def caches(self) -> bool:
        """Whether the answer is made with a KV cache."""
        return self.answer == "generated" and self.kv_cache == "on" and self.execution != "upstream"
