"""Records as a table, for notebooks."""

from pathlib import Path

import pandas as pd

from ..harness.records import read_run


def load(folder: str | Path) -> pd.DataFrame:
    """The queries of a run, a row per line of its journal that counts.

    Nested fields become columns with dots: ``regions.vision.clip.exclusive_ns``, ``tags.family``.

    Raises:
        UsageError: the folder holds no run.
    """
    return pd.json_normalize(read_run(Path(folder)).samples)
