"""The tiny preset with fewer layers, for tests in which learning and compiling take the time."""

from dataclasses import replace

from lisabench.models.lisa.presets import PRESETS

_TINY = PRESETS["tiny"]
# Two layers in every stack; one of SAM's two attends globally.
SHALLOW = replace(
    _TINY,
    clip=replace(_TINY.clip, layers=2),
    llama=replace(_TINY.llama, layers=2),
    sam=replace(_TINY.sam, layers=2, global_layers=(1,)),
)
