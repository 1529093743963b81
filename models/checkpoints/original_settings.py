"""The settings in an original's ``config.json`` that the shapes of its weights do not show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...harness.errors import DataError
from ...harness.records.from_json import from_json, read_from
from ..lisa.presets import Preset

MOST_TOKENS = 1 << 20  # no LLaMA has a longer context
# Our parts are made for these values only. A checkpoint may have others; a missing key means the
# first.
SUPPORTED = {
    "hidden_act": ("silu",),
    "rope_theta": (10000,),
    "rope_type": ("default",),
    "mm_vision_select_layer": (-2,),
    "mm_vision_select_feature": ("patch",),
    "mm_projector_activation": ("gelu",),
    "tie_word_embeddings": (False,),
}
# transformers' settings of a LLaVA under the original's names; "default" leaves out CLIP's class
# token, as "patch" does there.
OF_TRANSFORMERS = {
    "vision_feature_layer": "mm_vision_select_layer",
    "vision_feature_select_strategy": "mm_vision_select_feature",
    "projector_hidden_act": "mm_projector_activation",
}


@dataclass(frozen=True)
class _Lengths:
    """What may be different from the preset's."""

    max_position_embeddings: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)]


def language_settings(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the settings of a LISA or LLaVA as the original has them: in one flat table.

    Args:
        config: of the original, or of transformers' LLaVA, which has the language model's in
            ``text_config``.
        file: where `config` is from.

    Raises:
        DataError: ``text_config`` is no object.
    """
    if "text_config" not in config:
        return dict(config)
    settings = dict(_table(config, "text_config", file))
    for name, original in OF_TRANSFORMERS.items():
        if config.get(name) is not None:
            value = config[name]
            settings[original] = "patch" if value == "default" else value
    return settings


def clip_settings(config: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """Return the settings of CLIP's vision tower: those in ``vision_config``, if there are such.

    Args:
        config: of a vision tower, of a whole CLIP, or of transformers' LLaVA.
        file: where `config` is from.

    Raises:
        DataError: ``vision_config`` is no object.
    """
    if config.get("vision_config") is None:
        return config
    return _table(config, "vision_config", file)


def included_clip_settings(config: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """Return the settings of the CLIP that a LISA or LLaVA includes; empty if it states none.

    Only transformers' LLaVA states them. Arguments and errors are those of `clip_settings`.
    """
    return clip_settings(config, file) if "text_config" in config else {}


def _table(config: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    table = config[key]
    if not isinstance(table, Mapping):
        raise DataError(f"{file}: {key} is no object")
    return table


def with_settings(
    sizes: Preset, config: Mapping[str, Any], clip_config: Mapping[str, Any], file: Path
) -> Preset:
    """Return the sizes with what shapes do not show: the language model's context and epsilon.

    Args:
        sizes: the preset's.
        config: the language model's settings.
        clip_config: those of CLIP's vision tower.
        file: where `config` is from.

    Raises:
        DataError: a setting has a value that our parts are not made for.
    """
    llama, clip = sizes.llama, sizes.clip
    stated = {key: value for key, value in config.items() if value is not None}
    stated |= _rotary(stated, file)
    heads = stated.get("num_attention_heads", llama.heads)
    values = {
        "num_attention_heads": (heads, (llama.heads,)),
        "num_key_value_heads": (stated.get("num_key_value_heads", heads), (llama.heads,)),
        "vision num_attention_heads": (
            clip_config.get("num_attention_heads", clip.heads),
            (clip.heads,),
        ),
        "vision hidden_act": (clip_config.get("hidden_act", "quick_gelu"), ("quick_gelu",)),
    }
    for key, supported in SUPPORTED.items():
        values[key] = (stated.get(key, supported[0]), supported)
    for key, (value, supported) in values.items():
        if value not in supported:
            raise DataError(
                f"{file}: {key} is {value!r:.80}; these weights can be read with "
                f"{supported[0]!r} only"
            )
    default = {"max_position_embeddings": llama.context, "rms_norm_eps": llama.norm_epsilon}
    with read_from(file):
        lengths = from_json(_Lengths, default | stated)
    llama = replace(
        llama, context=lengths.max_position_embeddings, norm_epsilon=lengths.rms_norm_eps
    )
    return replace(sizes, llama=llama)


def _rotary(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the settings of the rotary embedding, under the names in `SUPPORTED`.

    transformers 5 has them in ``rope_parameters``. Before, they were ``rope_theta`` and
    ``rope_scaling``, where the type was called ``type`` at first.

    Raises:
        DataError: they hold a number that changes the embedding, such as a factor.
    """
    rotary: dict[str, Any] = {}
    for table in ("rope_scaling", "rope_parameters"):
        settings = config.get(table, {})
        if not isinstance(settings, Mapping):
            raise DataError(f"{file}: {table} is {settings!r:.80}; expected an object or null")
        for key, value in settings.items():
            name = "rope_type" if key == "type" else key
            if value is None:
                continue
            if name not in SUPPORTED:
                raise DataError(
                    f"{file}: {table} has {key!r:.80}: {value!r:.80}; "
                    "these weights can be read without such a change only"
                )
            rotary[name] = value
    return rotary
