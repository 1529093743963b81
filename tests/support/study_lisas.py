"""A tiny LISA of which everything learns, and rendered scenes for it."""

from collections.abc import Sequence
from pathlib import Path

from lisabench.benchmarks.study.batches import SceneStore
from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.training.recipes import RECIPES
from lisabench.models.training.trainable import make_trainable


def tiny(vision: str = "dual") -> Lisa:
    case = LisaConfig(device="cpu", vision=vision)
    lisa = Lisa(case, NullProbe(), for_training=True)
    make_trainable(lisa.model, case, RECIPES["everything"].trains, lisa.tokenizer)
    return lisa


def store_of(files: Sequence[Path], lisa: Lisa) -> SceneStore:
    return SceneStore(files, lisa.model.encoder, lisa.model.preset, "cpu")
