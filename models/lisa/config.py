"""What can be set about a LISA. One `LisaConfig` is one case of a suite.

Cheap to import: no torch here, so that a suite can be checked before anything is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator

from ...harness.environment import DEVICES, check_device
from ...harness.errors import UsageError, unknown
from .presets import PRESETS, SAM_SIZES, TINY_SAMS, Preset
from .prompts import AS_TYPED, TEMPLATES, VALIDATION

if TYPE_CHECKING:
    from .weights_format import Saved, WeightsFolder


def _on_or_off(value: Any) -> Any:
    """Return "on" or "off" for a bool: YAML reads a bare ``on`` as True."""
    if value is True:
        return "on"
    if value is False:
        return "off"
    return value


Switch = Annotated[str, BeforeValidator(_on_or_off)]


@dataclass(frozen=True)
class LisaConfig:
    """The settings of a LISA.

    Attributes:
        preset: the sizes of its parts.
        vision: ``dual`` is the original; ``clip`` and ``sam`` use that one encoder for both
            purposes.
        sam: sizes of SAM's image encoder; ``preset`` takes the preset's own. ``tiny_s``, for the
            tiny preset alone, has half its width and depth.
        clip_px: side in pixels of the images that CLIP reads, a multiple of its patch's side: a
            larger one makes a finer grid. 0 takes the preset's own. Weights trained at another side
            can be a start of training: their position embeddings are interpolated.
        image_tokens: ``patches`` makes a token of each of CLIP's patches, so that a finer grid
            makes a longer prompt; ``pooled`` averages them to as many tokens as the preset has, so
            that only the masks use the finer grid.
        frame: what CLIP sees where it also serves the masks: the ``whole`` image, or the centre
            ``crop`` that it sees in the original (a control: the mask decoder then gets nothing of
            what the crop leaves out).
        bridge: what carries one encoder's features to where the other's are expected: ``linear`` as
            the modified LISA is described; or, from CLIP to SAM's grid, ``upsampling``, a small
            network that reads several layers.
        precision: type of weights and activations. With fp16, SAM's neck is computed in fp32, as in
            the original.
        quantization: how bitsandbytes quantises the Linear layers of the parts that `quantized`
            names: ``nf4`` with double quantisation, computing in `precision`; ``int8`` is LLM.int8.
        quantized: the quantised parts: ``llm`` is the language model without its head, ``sam`` is
            SAM's image encoder; a part that the variant lacks is skipped. ``upstream`` is the
            original's set: the language model with its head, the projector and the projection of
            [SEG], computing in fp16.
        execution: ``graphed`` replays each stage as a CUDA graph, so that the model is measured and
            not its host; ``eager`` launches kernel by kernel; ``compiled`` does so after compiling
            the layers; ``upstream`` runs as the original does, as a control, and never has a KV
            cache. ``auto`` is ``graphed`` where a case is timed on a GPU and can be captured, and
            ``eager`` elsewhere; see `for_run`.
        answer: ``forced`` gives the model its answer, as the original's validation does;
            ``generated`` lets it write one.
        prompt: ``validation`` words a query as the original's validation does: a noun phrase is put
            into a question, and a request for a mask follows. ``as_typed`` sends the words alone,
            as ``chat.py`` does, and takes answer=generated unless an answer is given.
        masks: what is made of an answer with several [SEG]: the ``union`` of their masks, or the
            ``first`` alone, which ``chat.py`` saves; ``separate``, for segment alone, keeps each
            beside their union.
        max_new_tokens: the most tokens of a generated answer.
        kv_cache: whether a generated answer uses a KV cache.
        reuse: whether queries about one image share its encoding.
        encoder_batch: how many images of a batch are encoded at once, at most; 0: all of them. With
            ``reuse=on`` each image is encoded alone.
        conditioning: how the language model prompts the masks: as the ``original`` does, or as the
            modified LISA is ``described``: the query ends in ``<SEG>``, the only token that is
            added (a vocabulary of 32,001); the state at it is read; and the dense prompt is zeros.
        seg_head: what projects that state: the original's ``text_hidden_fcs``, or the described
            ``seg_token_to_sam``.
        template: the words around a query.
        weights: a folder, a hub id, ``packaged`` for the trained tiny LISA that comes with the
            package, or ``random``, which measures time and memory only.
        device: ``auto`` takes CUDA where there is one, and ``cuda:1`` the second GPU of those that
            are visible.
        seed: seed of the random weights.

    Raises:
        UsageError: a setting has an unknown value, or two settings contradict each other.
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
        "execution": ("auto", "graphed", "eager", "compiled", "upstream"),
        "answer": ("forced", "generated"),
        "prompt": (VALIDATION, AS_TYPED),
        "masks": ("union", "first", "separate"),
        "kv_cache": ("on", "off"),
        "reuse": ("off", "on"),
        "conditioning": ("original", "described"),
        "seg_head": ("text_hidden_fcs", "seg_token_to_sam"),
        "template": tuple(TEMPLATES),
        "device": DEVICES,
    }

    # Of these the default is only for weights that do not state them, such as random ones.
    STATED_BY_WEIGHTS: ClassVar = (
        "preset",
        "vision",
        "sam",
        "clip_px",
        "image_tokens",
        "frame",
        "bridge",
        "precision",
        "conditioning",
        "seg_head",
        "template",
    )

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
    execution: str = "auto"
    answer: str = "forced"
    prompt: str = VALIDATION
    masks: str = "union"
    max_new_tokens: int = 512
    kv_cache: Switch = "on"
    reuse: Switch = "off"
    encoder_batch: int = 0
    conditioning: str = "original"
    seg_head: str = "text_hidden_fcs"
    template: str = "llava_v1"
    weights: str = "random"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_device(self.device)
        for setting, known in self.KNOWN.items():
            value = getattr(self, setting)
            # Any number of a GPU is known.
            if value not in known and setting != "device":
                raise unknown(setting, value, known)
        self._check_sizes()
        self._check_vision()
        self._check_quantization()
        self._check_answer()
        if self.encoder_batch < 0:
            raise UsageError(
                f"encoder_batch is {self.encoder_batch}; expected a number of images, or 0 for all "
                "of a batch"
            )
        if self.execution == "graphed" and self._not_captured is not None:
            setting, value = self._not_captured
            raise UsageError(
                f"execution=graphed cannot replay {setting}={value};"
                f" set execution to eager, or change {setting}"
            )
        if not self.weights:
            raise UsageError("weights is empty; give a folder, a hub id, packaged, or random")

    def _check_sizes(self) -> None:
        clip = PRESETS[self.preset].clip
        if self.sam in TINY_SAMS and self.preset != "tiny":
            raise UsageError(
                f"sam={self.sam} is for preset=tiny; "
                f"with preset={self.preset}, take one of {', '.join(SAM_SIZES)}"
            )
        if self.clip_px < 0 or self.clip_px % clip.patch_px != 0:
            raise UsageError(
                f"clip_px is {self.clip_px}; expected a multiple of {clip.patch_px}, "
                "the side of a patch, or 0 for the preset's own"
            )
        if self.clip_px > 0 and self.vision == "sam":
            raise UsageError(f"clip_px={self.clip_px} is for CLIP, and vision=sam has no CLIP")
        if self.image_tokens == "pooled" and self.clip_px <= clip.image_px:
            raise UsageError(
                f"image_tokens=pooled pools nothing with clip_px={self.clip_px}: "
                f"set clip_px to more than {clip.image_px}"
            )

    def _check_vision(self) -> None:
        if self.vision == "clip":
            return
        why = f"with vision={self.vision}, CLIP does not serve the masks"
        if self.frame == "crop":
            raise UsageError(f"frame=crop is for vision=clip: {why}")
        if self.bridge == "upsampling":
            raise UsageError(f"bridge=upsampling is for vision=clip: {why}")

    def _check_quantization(self) -> None:
        if self.quantization == "none" and self.quantized != "llm":
            raise UsageError(
                f"quantized={self.quantized} quantises nothing with quantization=none; "
                "set quantization to nf4 or int8"
            )
        if self.quantization != "none" and not self.quantized_parts:
            raise UsageError(
                f"quantized={self.quantized} names nothing that vision={self.vision} has; "
                "add llm to it"
            )

    def _check_answer(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(
                f"max_new_tokens is {self.max_new_tokens}; an answer has at least 1 token"
            )
        if self.conditioning == "described" and self.answer == "generated":
            raise UsageError(
                "conditioning=described reads a state of the query and generates nothing; "
                "set answer=forced"
            )

    @property
    def _not_captured(self) -> tuple[str, str] | None:
        """The setting for which no graph can be captured, and its value; None if all can.

        Without a KV cache a sequence is longer at each token, an image's encoding is reused or not,
        and LLM.int8 looks for large activations: the host decides while a query runs.
        """
        if self.answer == "generated" and self.kv_cache == "off":
            return "kv_cache", self.kv_cache
        if self.reuse == "on":
            return "reuse", self.reuse
        if self.quantization == "int8":
            return "quantization", self.quantization
        return None

    def for_run(self, device: str, timed: bool) -> "LisaConfig":
        """Return the settings as a process of a run builds them: without ``execution=auto``.

        Args:
            device: where the process runs, ``cpu`` or ``cuda``.
            timed: whether times or memory are measured. The quality pass is not timed: it evaluates
                batches of other sizes, for which capturing graphs would not pay.
        """
        execution = self.execution
        if execution == "auto":
            is_captured = device.startswith("cuda") and self._not_captured is None
            execution = "graphed" if is_captured else "eager"
        if execution == "graphed" and not timed:
            execution = "eager"
        return replace(self, execution=execution)

    @property
    def sizes(self) -> Preset:
        """The sizes of all parts: the preset's, changed as the other settings ask."""
        sizes = PRESETS[self.preset].with_sam(self.sam)
        sizes = sizes.with_clip(self.clip_px, self.image_tokens)
        if self.conditioning == "described":
            sizes = sizes.with_seg_alone()
        return sizes

    @property
    def quantized_parts(self) -> frozenset[str]:
        """The parts that hold quantised layers, by their names in a `LisaModel`.

        ``lm_head`` stands for the language model's head, which ``llm`` does not cover.
        """
        if self.quantization == "none":
            return frozenset()
        if self.quantized == "upstream":
            return frozenset({"llm", "lm_head", "projector", "seg_projection"})
        parts = set(self.quantized.split("+"))
        if self.vision == "clip":
            parts.discard("sam")
        if self.vision == "sam":
            parts.discard("clip")
        if "sam" in parts:
            parts.remove("sam")
            parts.add("sam_encoder")
        return frozenset(parts)

    @classmethod
    def filled(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return settings together with what they imply.

        That is what their weights say of themselves; and an answer that is generated, where words
        are sent as they are typed.

        A preset or vision that is unknown is left as it is: making the `LisaConfig` then refuses
        it.

        Raises:
            UsageError: there are no such weights.
            DataError: they are not of our layout, or the hub cannot be reached.
        """
        from . import stated_settings

        for setting in ("preset", "vision"):
            if given.get(setting, getattr(cls, setting)) not in cls.KNOWN[setting]:
                return given
        settings = stated_settings.filled(given)
        # A described model reads a state of the query, and generates nothing.
        if given.get("prompt") == AS_TYPED and settings.get("conditioning") != "described":
            return {"answer": "generated", **settings}
        return settings

    def check_for_run(self) -> None:
        """Check that a run can score the answers, each of which is one mask.

        Raises:
            UsageError: they are several masks.
        """
        if self.masks == "separate":
            raise UsageError(
                "masks=separate is for `segment`: a run scores one mask of an answer, "
                "set masks to union or first"
            )

    def check_weights(self) -> None:
        """Check by their ``config.json`` that the weights can be used with these settings.

        Raises:
            UsageError: they cannot.
        """
        from . import stated_settings

        if self.saved is None:
            return
        if self.vision != self.saved.vision:
            raise UsageError(
                f"weights={self.weights} are of vision={self.saved.vision}, not {self.vision}: "
                f"set vision={self.saved.vision}, or leave it out"
            )
        stated_settings.refuse_misfit(self, self.saved)

    @property
    def saved(self) -> "Saved | None":
        """What the ``config.json`` of the weights says; None of random weights.

        Of weights on the hub only this file is downloaded.

        Raises:
            UsageError: there are no such weights.
            DataError: they are not of our layout, or the hub cannot be reached.
        """
        from . import packaged, weights_format

        if self.weights == weights_format.RANDOM:
            return None
        if self.weights == weights_format.PACKAGED:
            return packaged.read(packaged.located(self.preset, self.vision))
        return weights_format.stated(self.weights)

    @cached_property
    def weights_folder(self) -> "WeightsFolder | None":
        """The folder of the weights; None of random weights.

        Weights on the hub are downloaded when it is first used.

        Raises:
            UsageError: there are no such weights.
            DataError: they are not of our layout, the hub cannot be reached, or the weights that
                they were learned from are gone or were changed.
        """
        from . import packaged, starts, weights_format

        if self.saved is None:
            return None
        if self.weights == weights_format.PACKAGED:
            folder = packaged.located(self.preset, self.vision)
            return weights_format.WeightsFolder(folder, self.saved)
        return starts.with_starts(weights_format.opened(self.weights))

    @property
    def default_split(self) -> str:
        """The split of ReasonSeg to evaluate the weights on, if none is named."""
        return "val" if self.saved is None else self.saved.default_split

    def contaminated(self, split: str) -> str | None:
        """Return the warning that the weights were trained on a split of ReasonSeg, or None."""
        return None if self.saved is None else self.saved.contamination(split)

    @property
    def caches(self) -> bool:
        """Whether the answer is generated with a KV cache."""
        return self.answer == "generated" and self.kv_cache == "on" and self.execution != "upstream"
