"""What a run that goes on, or is measured again, must have in common with the one that was begun."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..harness.errors import NothingToCompare

SAME_MACHINE = ("os", "cpu", "cpu_count", "gpu", "gpu_count", "driver", "power_limit_w", "ecc", "mig")
SAME_MACHINE += ("threads", "device")
SAME_VERSIONS = ("lisabench", "python", "torch", "transformers", "bitsandbytes")


def must_be_same(folder: Path, what: str, keys: Sequence[str], before: dict[str, Any], now: dict[str, Any]) -> None:
    """Of a folder's run.

    Raises:
        NothingToCompare: something differs.
    """
    pairs = ((key, before.get(key), now.get(key)) for key in keys)
    differing = "; ".join(f"{key} was {then}, is {here}" for key, then, here in pairs if then != here)
    if differing:
        raise NothingToCompare(f"{folder} was begun with another {what} ({differing}); start anew with --out")
