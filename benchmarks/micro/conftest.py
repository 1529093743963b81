"""Queries that every benchmark here asks about."""

import pytest

from lisabench.datasets.embedded import embedded
from lisabench.datasets.reasonseg import ReasonSeg


@pytest.fixture(scope="session")
def sample():
    """One query, its image read already."""
    found = ReasonSeg(embedded("val", 48, 0), "val")[0]
    _ = found.image
    return found
