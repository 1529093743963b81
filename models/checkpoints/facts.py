"""How a checkpoint was trained, as its files and the id of its release say.

No weight shows with which prompts it was trained, or on which splits. The folders above a
checkpoint do not count: their names are the user's own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...harness.errors import unknown
from ..lisa.prompts import TEMPLATES

TEMPLATE = "llava_v1"  # what the original's scripts default to, for every checkpoint
# The v1 releases were trained on ReasonSeg's train and val (README of dvlab-research/LISA at
# 3cb2d43); for them, only test is an evaluation.
TRAINED_ON_VAL = re.compile(r"LISA-(7B|13B-llama2)-v1", re.IGNORECASE)
ON_LLAMA_2 = re.compile(r"llama-?2", re.IGNORECASE)


@dataclass(frozen=True)
class Facts:
    """What is known of a checkpoint, and how.

    Attributes:
        source: the id of its release, or the name of its folder.
        template: the words around a query.
        template_is_stated: whether it is known that it was trained with that template.
        contaminated_splits: splits of ReasonSeg meant for evaluation that it was trained on.
        sentences: each fact with where it comes from and how to say otherwise, for the user.
        doubts: what a user of trained weights must know, because no file says it.
    """

    source: str
    template: str
    template_is_stated: bool
    contaminated_splits: tuple[str, ...]
    sentences: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def facts_of(
    folder: Path,
    base: Path,
    config: Mapping[str, Any],
    template: str | None = None,
    trained_on_val: bool | None = None,
) -> Facts:
    """Return what is known of a checkpoint.

    Args:
        folder: of the checkpoint.
        base: of the model that it is an adapter of; else the same folder.
        config: its ``config.json``.
        template: what the user says; None leaves it to the files.
        trained_on_val: likewise, whether it was trained on ReasonSeg's val.

    Raises:
        UsageError: there is no such template.
    """
    names = _names_of_releases(folder, base, config)
    sentences = []
    if template is not None:
        template = checked_template(template)
        is_stated = True
        sentences.append(f"template: {template}, as you say")
    else:
        template = TEMPLATE
        # It is stated nowhere whether LISA-13B-llama2-v1 was trained with `llava_v1` or
        # `llava_llama_2`.
        on_llama_2 = next((name for name in names if ON_LLAMA_2.search(name)), None)
        is_stated = on_llama_2 is None
        reason = "the default of the original's scripts"
        if on_llama_2 is not None:
            reason += f"; of {on_llama_2}, which is on Llama 2, none is stated"
        others = ", ".join(name for name in TEMPLATES if name != template)
        sentences.append(f"template: {template} ({reason}); for {others}: --template")

    doubts = []
    release = next((name for name in names if TRAINED_ON_VAL.search(name)), None)
    if trained_on_val is not None:
        answer = "yes" if trained_on_val else "no"
        sentences.append(f"trained on ReasonSeg's val: {answer}, as you say")
    elif release is not None:
        sentences.append(
            f"trained on ReasonSeg's val: yes, because it is, or starts from, {release}; "
            "if it was not: --no-trained-on-val"
        )
    else:
        doubts.append(
            f"no name of these weights ({', '.join(names)}) says that they are one of the "
            "original's v1 releases; if they are, they were trained on ReasonSeg's val, and only "
            "test is an evaluation: convert with --trained-on-val"
        )
    if trained_on_val is None:
        trained_on_val = release is not None
    return Facts(
        source=hub_id(folder) or folder.absolute().name,
        template=template,
        template_is_stated=is_stated,
        contaminated_splits=("val",) if trained_on_val else (),
        sentences=tuple(sentences),
        doubts=tuple(doubts),
    )


def checked_template(template: str) -> str:
    """Return a template that a user has named.

    Raises:
        UsageError: there is no such template.
    """
    if template not in TEMPLATES:
        raise unknown("template", template, TEMPLATES)
    return template


def _names_of_releases(folder: Path, base: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the names that a checkpoint has, and those of what it was made from, each once."""
    names = []
    for path in (folder, base):
        names.append(hub_id(path) or path.absolute().name)
    # Where transformers has read it from: an id, or a folder, of which only the last part counts.
    named = config.get("_name_or_path")
    if isinstance(named, str) and named:
        names.append(PurePosixPath(named).name)
    return list(dict.fromkeys(names))


def hub_id(folder: Path) -> str | None:
    """Return a folder's id on the Hugging Face hub if it is a snapshot in the hub's cache.

    The cache has it at ``models--OWNER--NAME/snapshots/REVISION``.
    """
    parts = folder.resolve().parts
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
        return None
    return parts[-3].removeprefix("models--").replace("--", "/")
