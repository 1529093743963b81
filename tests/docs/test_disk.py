"""What `docs/records.md` says about disk is what is written, and what arithmetic gives at 7B."""

import json
from math import prod

import pytest
from places import RESULTS, ROOT

from lisabench.models.checkpoints.convert import weights_of
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock

DOCUMENT = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
DISK = " ".join(DOCUMENT.partition("## How much disk it takes")[2].split())
BF16_BYTES = 2
STATE_BYTES = 12  # of a trained parameter: itself and AdamW's two moments, in float32


def weights_gib(preset: str) -> float:
    shapes = [shape for _, shape in weights_of(PRESETS[preset]).values()]
    return BF16_BYTES * sum(prod(shape) for shape in shapes) / 2**30


def trained_parameters() -> int:
    manifest = RESULTS / "training-7b" / "trainings" / "dual-original-0" / "run.json"
    trained = json.loads(manifest.read_text(encoding="utf-8"))["training"]["trained_parameters"]
    return sum(trained.values())


def test_the_sizes_at_7b_are_those_of_the_parameters():
    lisa, llava15 = weights_gib("lisa-7b"), weights_gib("lisa-7b-llava15")
    assert f"`lisa-7b` in bf16: {lisa:.2f} GiB; `lisa-7b-llava15`: {llava15:.2f} GiB" in DISK
    state = STATE_BYTES * trained_parameters() / 2**30
    assert f"{trained_parameters() / 1e6:.1f} M trained: {state:.2f} GiB" in DISK
    kept = llava15 + (llava15 + state)
    most = kept + llava15 + state
    assert f"takes {kept:.2f} GiB, and {most:.2f} GiB at most" in DISK


def test_the_size_of_tiny_is_that_of_its_parameters():
    parameters = sum(prod(shape) for _, shape in weights_of(PRESETS["tiny"]).values())
    assert f"53.3 MB: 4 bytes for each of {parameters / 1e6:.1f} M parameters" in DISK
    assert 4 * parameters == pytest.approx(53.3e6, rel=0.002)
