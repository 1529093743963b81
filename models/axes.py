"""What can be set about a LISA: one frozen value is one case of a suite. Cheap to import: `build` imports torch."""

from dataclasses import dataclass
from typing import ClassVar

from ..harness.contract import Adapter, Probe
from ..harness.errors import unknown
from .presets import PRESETS
from .prompts import TEMPLATES

PRELOAD = ("lisabench.models.lisa",)  # what `build` imports; takes seconds, so workers are forked with it


@dataclass(frozen=True)
class LisaCase:
    """The axes of a LISA.

    Attributes:
        preset: the sizes of its parts.
        vision: ``dual`` is the original; ``clip`` and ``sam`` make do with that one encoder for both purposes.
        precision: of weights and activations. With fp16, SAM's neck is computed in fp32, as in the original.
        template: the words around a query.
        weights: ``random`` measures time and memory only.
        answer: ``forced`` gives the model its answer, as the original's validation does.
        device: ``auto`` takes CUDA where there is one.
        seed: of the random weights.

    Raises:
        UsageError: a value that an axis does not know.
    """

    KNOWN: ClassVar = {
        "preset": tuple(PRESETS),
        "vision": ("dual", "clip", "sam"),
        "precision": ("fp32", "bf16", "fp16"),
        "template": tuple(TEMPLATES),
        "weights": ("random",),
        "answer": ("forced",),
        "device": ("auto", "cpu", "cuda"),
    }

    preset: str = "tiny"
    vision: str = "dual"
    precision: str = "fp32"
    template: str = "llava_v1"
    weights: str = "random"
    answer: str = "forced"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for axis, known in self.KNOWN.items():
            if getattr(self, axis) not in known:
                raise unknown(axis, getattr(self, axis), known)


def build(case: LisaCase, probe: Probe) -> Adapter:
    """The original LISA and its shared-encoder variants."""
    from .lisa import Lisa

    return Lisa(case, probe)
