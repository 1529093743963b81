"""The data of a training: one source or several, each with a weight.

A weight is the share of the queries that are drawn from a source. The original draws from its
data sets likewise (``HybridDataset`` in ``utils/dataset.py`` of dvlab-research/LISA at 3cb2d43,
whose ``--sample_rates`` are 9, 3, 3 and 1).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import UsageError
from ...harness.paths import user_path, user_source

WEIGHT = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Source:
    """One source of a training's data.

    Attributes:
        location: a folder, or data by name.
        weight: its share, relative to those of the others; None: each query has the same chance.
    """

    location: str
    weight: float | None = None

    @property
    def name(self) -> str:
        """A short name, for cards and tables."""
        if "://" in self.location:
            return self.location
        return Path(self.location).name


def sources_of(data: Sequence[str]) -> tuple[Source, ...]:
    """Return the sources that ``--data`` names, such as ``FOLDER`` or ``FOLDER:9``.

    Raises:
        UsageError: a weight is 0, or some sources have a weight and others have none.
    """
    sources = tuple(_source(text) for text in data)
    unweighted = [source.location for source in sources if source.weight is None]
    if unweighted and len(unweighted) < len(sources):
        raise UsageError(
            f"--data {unweighted[0]} has no weight and other sources have one: give it one too, "
            f"such as --data {unweighted[0]}:1, or leave all weights out"
        )
    return sources


def _source(text: str) -> Source:
    location, colon, weight = text.rpartition(":")
    # A path may end in a colon and a number itself.
    is_path = "://" not in text and user_path(text).exists()
    if not colon or not WEIGHT.fullmatch(weight) or is_path:
        return Source(user_source(text))
    if float(weight) == 0:
        raise UsageError(f"--data {text}: the weight is 0; expected more, or leave the source out")
    return Source(user_source(location), float(weight))
