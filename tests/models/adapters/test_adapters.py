"""Adding an adapter: an entry point of a package outside, or one file and one line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from outside_adapter import CORNER
from samples import sample_of

from lisabench.harness.errors import UsageError
from lisabench.harness.measure import predict
from lisabench.harness.probe import NullProbe
from lisabench.models import registry

pytestmark = pytest.mark.no_clock

SUITE = """
title: a corner and a bigger one
reference: small
plan: {processes: 1, warmup: 0}
defaults: {adapter: corner}
cases: {small: {}, big: {size_px: 9}}
"""


@pytest.fixture
def outside(tmp_path):
    """A package of its own, installed as Python sees it, that registers the adapter `corner`."""
    (tmp_path / "corner_model.py").write_text(CORNER)
    info = tmp_path / "corner_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corner-model\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lisabench.adapters]\ncorner = corner_model:build\n")
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def lisabench(outside, *arguments):
    command = [sys.executable, "-m", "lisabench.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(outside)}
    return subprocess.run(command, env=environment, cwd=outside, capture_output=True, text=True)


def test_a_package_outside_registers_an_adapter_by_entry_point(outside, data_root):
    done = lisabench(outside, "run", "suite.yaml", "--data", data_root, "--out", "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((outside / "out" / "summary.json").read_text())
    small, big = summary["cases"]
    assert (small["settings"]["size_px"], big["settings"]["size_px"]) == (4, 9)
    assert small["quality"]["gIoU"] < big["quality"]["gIoU"]
    assert (
        "corner" in json.loads(lisabench(outside, "list", "adapters", "--json").stdout)["adapters"]
    )


def test_one_broken_package_does_not_hide_the_others(outside):
    (outside / "corner_model.py").write_text("import nowhere")
    done = lisabench(outside, "list", "--json")
    assert done.returncode == 0, done.stderr
    adapters = json.loads(done.stdout)["adapters"]
    assert "cannot be used" in adapters["corner"] and "nowhere" in adapters["corner"]
    assert adapters["lisa"].startswith("The original")


def test_its_settings_are_checked_like_any_others(outside, data_root):
    done = lisabench(
        outside, "run", "suite.yaml", "--data", data_root, "--set", "big.sizes=3", "--out", "out"
    )
    assert done.returncode == 2
    assert "size_px" in done.stderr


def test_an_adapter_that_cannot_be_loaded_says_where_it_was_registered(monkeypatch):
    monkeypatch.setitem(registry.ADAPTERS, "gone", "lisabench.models.gone:build")
    with pytest.raises(
        UsageError, match=r"'gone' is registered as 'lisabench\.models\.gone:build'"
    ):
        registry.find("gone")


@pytest.mark.parametrize(
    ("name", "pixels"), [("whole-image", 80), ("centre-box", 24), ("empty", 0)]
)
def test_the_trivial_baselines_depend_on_the_size_of_the_image_alone(name, pixels):
    baseline = registry.find(name)(registry.make_case(name, {}), NullProbe())
    prediction = predict(baseline, sample_of(np.zeros((8, 10), np.uint8)), NullProbe())
    assert prediction.mask_HW.shape == (8, 10)
    assert prediction.mask_HW.sum() == pixels
