"""Fixtures that several tests share."""

from pathlib import Path

import pytest
from samples import write_sample


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Six queries in a split named val."""
    for i in range(6):
        write_sample(tmp_path / "data" / "val", f"q{i}", seed=i)
    return tmp_path / "data"
