"""What the benchmarks here share: a query, and a clock with a budget."""

import pytest

from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded


@pytest.fixture(scope="session")
def sample():
    """One query, its image read already."""
    found = ReasonSeg(embedded("val", 48, 0), "val")[0]
    _ = found.image
    return found


@pytest.fixture
def fastest(benchmark):
    """Times a call, and holds its fastest round to a budget in seconds."""

    def timed(call, budget_s, rounds=20, divided_by=1):
        found = benchmark.pedantic(call, rounds=rounds, warmup_rounds=1)
        if benchmark.stats is not None:  # None where benchmarks are disabled
            assert benchmark.stats.stats.min / divided_by < budget_s
        return found

    return timed
