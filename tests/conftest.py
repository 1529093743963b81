"""Fixtures that several tests share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from samples import write_sample
from shallow_presets import SHALLOW

from lisabench.models import registry
from lisabench.models.lisa.presets import PRESETS

# By default hypothesis fails an example that takes 200 ms, and examples that are slow to draw. On a
# busy machine any does.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


# A shell that starts the tests in the background has them ignore interrupts, and `nohup` has them
# ignore a hangup. Every program that a test starts inherits that. Tests of what these signals do
# need them to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _forked_from_a_server_that_knows_every_model():
    """Start the server of worker processes once, with all that any session may need of it."""
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


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tiny preset two layers a stack, one of SAM's global, for compiling and learning."""
    monkeypatch.setitem(PRESETS, "tiny", SHALLOW)


@pytest.fixture(scope="module")
def shallow_module() -> Iterator[None]:
    """Do the same for a module whose tests check nothing that depends on the number of layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", SHALLOW)
        yield
