"""Fixtures that several tests share."""

from pathlib import Path

import pytest
from lisabench.models import registry
from samples import write_sample


@pytest.fixture(scope="session", autouse=True)
def _forked_from_a_server_that_knows_every_model():
    """The first session of these tests starts the server of worker processes, and later ones may need more of it."""
    preload = registry.preload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "preload", lambda name: (*preload("lisa"), *preload(name)))
        yield


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Six queries in a split named val."""
    for i in range(6):
        write_sample(tmp_path / "data" / "val", f"q{i}", seed=i)
    return tmp_path / "data"
