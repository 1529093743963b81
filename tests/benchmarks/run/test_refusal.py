"""From a checkpoint to an exit code: a trained one passes, one with shuffled tensors is refused."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from raw_runs import raw_run
from safetensors.torch import load_file, save_file
from samples import write_sample
from sessions import QUICK_PLAN
from torch.nn.functional import binary_cross_entropy_with_logits

from lisabench.benchmarks.run.command import Request, carry_out
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.checkpoints import weights_hash
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.weights_format import opened
from lisabench.models.training.save import Origin, save
from lisabench.models.training.trainable import make_trainable, trained

pytestmark = pytest.mark.no_clock

IMAGES, STEPS = 8, 40
LEARNT = 4  # images that the checkpoint is trained on: the square is at the same place in all


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(IMAGES):
        write_sample(folder / "val", f"q{i}", seed=i)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """A dual whose mask decoder has learnt where the square of these images is."""
    case = LisaConfig(device="cpu")
    lisa = Lisa(case, NullProbe(), for_training=True)
    make_trainable(lisa.model, case, ("mask_decoder",), lisa.tokenizer)
    inputs = lisa.preprocess(list(ReasonSeg(data, "val"))[:LEARNT])
    features = lisa.vision(inputs)
    answers = lisa.llm(inputs, features)
    learn(lisa, features.mask_embedding_BChw.clone(), answers.seg_embedding_MC.clone())
    folder = tmp_path_factory.mktemp("trained")
    save(lisa, folder, Origin("trained on eight squares", (), "none"), torch.float16)
    return folder


def learn(lisa: Lisa, embedding_BChw: torch.Tensor, seg_BC: torch.Tensor) -> None:
    square_Bhw = torch.zeros(len(seg_BC), 64, 64)
    square_Bhw[:, 8:32, 8:32] = 1
    optimizer = torch.optim.AdamW(trained(lisa.model).values(), lr=1e-3)
    for _ in range(STEPS):
        logits_Bhw, _ = lisa.model.decode(embedding_BChw, seg_BC, NullProbe())
        binary_cross_entropy_with_logits(logits_Bhw, square_Bhw).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def shuffled(checkpoint, tmp_path):
    """The same numbers, each tensor's in another order, under a hash of their own."""
    folder, generator = tmp_path / "shuffled", torch.Generator().manual_seed(0)
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        mixed = {
            k: t.flatten()[torch.randperm(t.numel(), generator=generator)].view_as(t)
            for k, t in tensors.items()
        }
        save_file(mixed, file, metadata={"format": "pt"})
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    config["weights_hash"] = weights_hash._hash(opened(str(folder))).weights_hash
    config_file.write_text(json.dumps(config))
    return folder


def run(weights: Path, data: Path, folder: Path) -> int:
    plan = QUICK_PLAN | {"processes": 1, "block": 4}
    case = {"adapter": "lisa", "weights": str(weights), "device": "cpu"}
    controls = {"centre-box": {"adapter": "centre-box"}}
    content = {"title": "t", "reference": "dual", "data": {"root": str(data)}, "plan": plan}
    suite = folder.with_suffix(".yaml")
    suite.write_text(yaml.safe_dump(content | {"cases": {"dual": case}, "controls": controls}))
    return carry_out(Request(str(suite), {}, folder, resume=False))


def test_a_trained_checkpoint_passes_the_floors(checkpoint, data, tmp_path, capsys):
    assert run(checkpoint, data, tmp_path / "run") == 0
    assert "refused" not in capsys.readouterr().err + (tmp_path / "run" / "report.md").read_text()


def test_a_shuffled_checkpoint_is_refused_and_its_records_kept(shuffled, data, tmp_path, capsys):
    assert run(shuffled, data, tmp_path / "run") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(
        "lisabench: refused: the checkpoint of dual is no better than the trivial baseline "
    )
    assert "**The checkpoint of dual is refused: " in (tmp_path / "run" / "report.md").read_text()
    kept = raw_run(tmp_path / "run")
    assert kept.run["status"] == "complete" and len(kept.samples) == IMAGES
    assert len(kept.quality) == 2 * IMAGES
