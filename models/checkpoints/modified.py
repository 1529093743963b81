"""The checkpoint of the modified LISA, as its author's training saves it.

``best_model_epoch_N.pt`` (``train_new.py`` of BhavyaShah1234/EEE598-DLFA) is a table with
``model_state_dict``, the states of optimizer and scheduler, scores and options (``args``). It has
all weights and no tokenizer: that is the one of the LLaVA that the training began with, to which
the training adds ``<SEG>`` as the last token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...harness.errors import DataError
from ...harness.paths import is_path
from . import release_names
from .facts import TEMPLATE, Facts, checked_template
from .shards import opened

SEG_TOKEN = "<SEG>"  # its spelling of [SEG]
LLAVA = "llava-hf/llava-1.5-7b-hf"  # that its training begins with, unless told otherwise
# Where releases of its code keep the options of a training.
OPTIONS = ("args", "hyperparameters", "config")
# What its code computes in another way than lisabench.
DIFFERENCES = {
    "clip": "lays CLIP's centre crop over the whole grid of SAM",
    "sam": "reads the first 576 of SAM's 4,096 features, which lisabench pools",
}


@dataclass(frozen=True)
class Modified:
    """What a checkpoint of the modified LISA says of itself.

    Attributes:
        file: the checkpoint.
        vision: ``clip`` or ``sam``: the encoder that serves both.
        llava: the name of the LLaVA that the training began with: a folder or an id.
        beside: what the file holds beside the weights.
    """

    file: Path
    vision: str
    llava: str
    beside: Mapping[str, Any]

    @property
    def frame(self) -> str:
        """What CLIP saw: LLaVA's processor cuts out the centre."""
        return "crop" if self.vision == "clip" else "whole"

    @property
    def lora_settings(self) -> dict[str, Any]:
        """The settings of its LoRA under PEFT's names; empty if the file states none."""
        options = _options(self.beside)
        settings = {"r": options.get("lora_r"), "lora_alpha": options.get("lora_alpha")}
        return {key: value for key, value in settings.items() if value is not None}

    def rename(self, name: str) -> str | None:
        """Return the original's name of a weight; None for one that is left out."""
        return release_names.modified_name(name, self.vision)

    def facts(self, template: str | None, trained_on_val: bool | None) -> Facts:
        """Return what is known of the weights; see `facts.facts_of`.

        Raises:
            UsageError: there is no such template.
        """
        epoch = self.beside.get("epoch")
        at_epoch = f", epoch {epoch}" if isinstance(epoch, int) else ""
        source = f"modified LISA, {self.file.name}{at_epoch}"
        scores = []
        for name, value in self.beside.items():
            if name.startswith("val_") and isinstance(value, float):
                scores.append(f"{name} {value:.3f}")
        left_out = [name for name in self.beside if name.endswith("state_dict")]
        sentences = [
            f"{source}: vision={self.vision}, seg_head=seg_token_to_sam, "
            f"conditioning=described, frame={self.frame}",
            f"scores in the file, by its author's definitions: {', '.join(scores) or 'none'}",
            f"not converted: {', '.join(left_out) or 'nothing'}",
        ]
        if trained_on_val is None:
            sentences.append(
                "trained on ReasonSeg's val: no, but its epoch was chosen there; "
                "if it was trained on it: --trained-on-val"
            )
        doubt = (
            "the modified LISA's own code gives the mask decoder the state of <SEG> twice, begins "
            f"a prompt with `USER:` alone, and {DIFFERENCES[self.vision]}: "
            "masks of these weights differ from those of its author's code"
        )
        return Facts(
            source=source,
            template=checked_template(template) if template else TEMPLATE,
            template_is_stated=template is not None,
            contaminated_splits=("val",) if trained_on_val else (),
            sentences=tuple(sentences),
            doubts=(doubt,),
        )


def checkpoint_of(file: Path) -> Modified:
    """Return what a checkpoint of the modified LISA says of itself. Its weights are not read.

    Raises:
        DataError: the file is broken, or is no such checkpoint.
    """
    content = opened(file)
    names = content.shapes.keys()
    if not any(name.startswith("vlm_llm.") for name in names):
        raise DataError(
            f"{file} is a file of weights without their settings (no checkpoint of the modified "
            f"LISA, which has vlm_llm.*): give the folder with config.json, tokenizer.model and "
            f"this file: lisabench convert {file.parent} DST"
        )
    bridges = {"vision_to_sam.": "clip", "vision_to_vlm.": "sam"}
    visions = set()
    for prefix, vision in bridges.items():
        if any(name.startswith(prefix) for name in names):
            visions.add(vision)
    if len(visions) != 1:
        raise DataError(
            f"{file} has {'both' if visions else 'neither'} of vision_to_sam and vision_to_vlm; "
            "a checkpoint of the modified LISA has one of them: save it again"
        )
    llava = _options(content.beside).get("vlm_name")
    if not isinstance(llava, str) or not llava or not is_path(llava):
        llava = LLAVA
    return Modified(file, visions.pop(), llava, content.beside)


def _options(beside: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in OPTIONS:
        if isinstance(beside.get(key), Mapping):
            return beside[key]
    return {}
