"""Queries that every benchmark here asks about."""

import pytest

from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded


@pytest.fixture(scope="session")
def sample():
    """One query, its image read already."""
    found = ReasonSeg(embedded("val", 48, 0), "val")[0]
    _ = found.image
    return found
