"""Folders that hold what was learned alone: the same weights as whole ones, and their start."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from trainable_lisas import ORIGIN, learned_from, ready

from lisabench.benchmarks.training import command
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness.errors import DataError, UsageError
from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.checkpoints import weights_hash
from lisabench.models.checkpoints.convert import convert
from lisabench.models.checkpoints.stored_tensors import LEARNED, all_tensors
from lisabench.models.lisa import weights_format
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.starts import with_starts
from lisabench.models.lisa.weights_format import CONFIG, Start, WeightsFolder, stated
from lisabench.models.training.recipes import RECIPES, LoraSettings, trainable
from lisabench.models.training.save import save, save_learned
from lisabench.models.training.trainable import make_trainable, trained, trained_by_part

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]


@pytest.fixture(scope="module")
def scenes():
    return ReasonSeg(embedded("train", 6, 0), "train")


@pytest.fixture(scope="module")
def dual_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dual")
    save(ready("everything"), folder, ORIGIN, torch.bfloat16)
    return folder


def learn(recipe: str, start: Path, scenes, **axes) -> Lisa:
    lisa = ready(recipe, weights=str(start), **axes)
    learned_from(lisa, scenes[:2])
    return lisa


def write(lisa: Lisa, folder: Path, start: Path) -> Path:
    folder.mkdir(parents=True)
    save_learned(lisa, folder, ORIGIN, opened(start), str(start))
    return folder


def opened(folder: Path) -> WeightsFolder:
    return with_starts(weights_format.opened(str(folder)))


def tensors_of(folder: Path, lisa: Lisa) -> dict[str, Tensor]:
    return dict(all_tensors(opened(folder), lisa.model.parts()))


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name], other[name]), name


# Low-rank changes; single rows; a new bridge; the described projection; a new encoder that the
# recipe does not train, and positions that are interpolated.
WAYS = {
    "original": ("original", {}),
    "rows and a new bridge": ("lean", {"vision": "clip"}),
    "described": ("described", {"vision": "sam", "conditioning": "described",
                                "seg_head": "seg_token_to_sam"}),
    "another encoder and grid": ("lean", {"sam": "tiny_s", "clip_px": 168}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_was_learned_and_its_start_are_the_whole_weights_bit_for_bit(
    way, dual_folder, scenes, tmp_path
):
    recipe, axes = WAYS[way]
    lisa = learn(recipe, dual_folder, scenes, **axes)
    learned = write(lisa, tmp_path / "learned", dual_folder)
    (tmp_path / "whole").mkdir()
    save(lisa, tmp_path / "whole", ORIGIN)
    assert_same(tensors_of(learned, lisa), tensors_of(tmp_path / "whole", lisa))
    # Both are read in the same way as any other weights, and the hash of their bytes is checked.
    case = LisaConfig(weights=str(learned), device="cpu", **axes)
    read = Lisa(case, NullProbe())
    assert read.has_quality and read.warnings == ()
    whole = convert(learned, tmp_path / "converted")
    assert whole.saved.weights_hash == weights_format.read(tmp_path / "whole").weights_hash
    assert weights_hash.check(opened(tmp_path / "converted")).weights_hash


def test_only_what_was_learned_is_written(dual_folder, scenes, tmp_path):
    lisa = learn("lean", dual_folder, scenes)
    folder = write(lisa, tmp_path / "learned", dual_folder)
    trained = sum(p.numel() for p in lisa.model.parameters() if p.requires_grad)
    tensors = load_file(folder / LEARNED)
    assert sum(tensor.numel() for tensor in tensors.values()) == trained
    whole = sum(path.stat().st_size for path in dual_folder.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < whole / 10


def test_a_training_may_start_from_what_another_one_learned(dual_folder, scenes, tmp_path):
    first = write(learn("lean", dual_folder, scenes), tmp_path / "first", dual_folder)
    lisa = learn("original", first, scenes)
    second = write(lisa, tmp_path / "second", first)
    (tmp_path / "whole").mkdir()
    save(lisa, tmp_path / "whole", ORIGIN)
    assert_same(tensors_of(second, lisa), tensors_of(tmp_path / "whole", lisa))


def test_lora_has_the_rank_alpha_and_layers_that_were_chosen(dual_folder, tmp_path):
    lora = LoraSettings(rank=4, alpha=32, dropout=0, targets=("k_proj", "down_proj"))
    case = LisaConfig(weights=str(dual_folder), device="cpu")
    lisa = Lisa(case, NullProbe(), for_training=True)
    trains = RECIPES["original"].trains
    make_trainable(lisa.model, case, trains, lisa.tokenizer, lora)
    assert trained_by_part(lisa.model) == trainable(case, trains, lora)
    before = dict(all_tensors(opened(dual_folder), ("llm",)))
    for name, parameter in trained(lisa.model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    matrices = {name: tensor.detach() for name, tensor in trained(lisa.model).items()}
    learned = write(lisa, tmp_path / "learned", dual_folder)
    after = tensors_of(learned, lisa)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all(name.endswith(("k_proj.weight", "down_proj.weight")) for name in changed)
    for name in changed:
        module = name.removesuffix(".weight")
        down = matrices[f"{module}.lora_A.default.weight"]
        up = matrices[f"{module}.lora_B.default.weight"]
        # W + alpha / rank B A, as in Hu et al. 2021, in the start's precision.
        expected = (before[name].float() + 32 / 4 * up @ down).to(before[name].dtype)
        assert torch.equal(after[name], expected), name


@pytest.fixture
def pair(dual_folder, scenes, tmp_path) -> tuple[Path, Path]:
    """A folder with what was learned, and its start, which the test may damage."""
    start = tmp_path / "start"
    shutil.copytree(dual_folder, start)
    learned = tmp_path / "checkpoints" / "best"
    learned.mkdir(parents=True)
    save_learned(learn("lean", start, scenes), learned, ORIGIN, opened(start), "../../start")
    return learned, start


def test_a_start_beside_it_is_found_from_any_folder(pair, tmp_path, monkeypatch):
    _, start = pair
    monkeypatch.chdir(tmp_path)
    found = LisaConfig(weights="checkpoints/best").weights_folder
    assert found is not None and found.start is not None
    assert found.start.folder.resolve() == start


def test_a_start_that_is_gone_is_one_line_that_says_where_it_was(pair):
    learned, start = pair
    shutil.rmtree(start)
    with pytest.raises(
        DataError, match=r"weights in \.\./\.\./start, which are gone \(looked for in"
    ) as error:
        _ = LisaConfig(weights=str(learned)).weights_folder
    assert "\n" not in str(error.value) and str(learned / CONFIG) in str(error.value)
    assert f"looked for in {start.resolve()})" in str(error.value)


def test_a_training_is_resumed_from_a_start_that_was_moved_but_from_no_other(dual_folder, tmp_path):
    saved = weights_format.read(dual_folder)
    start = Start("/former/place", saved.weights_hash, "dual")
    checkpoint, moved = tmp_path / "checkpoints" / "checkpoint-2", tmp_path / "moved"
    for folder, content in ((checkpoint, replace(saved, start=start)), (moved, saved)):
        folder.mkdir(parents=True)
        weights_format.write(folder, content)
    given = {"recipe": "lean", "output_dir": tmp_path}
    assert command._has_former_start(resolve_setup({**given, "weights": str(moved)}))
    assert not command._has_former_start(resolve_setup(given)), "random weights"
    weights_format.write(moved, replace(saved, weights_hash="another"))
    assert not command._has_former_start(resolve_setup({**given, "weights": str(moved)}))


def test_the_folder_of_a_training_is_taken_for_its_checkpoint_only_in_a_hint(tmp_path):
    best = tmp_path / "checkpoints" / "best_model_epoch_1"
    best.mkdir(parents=True)
    (best / CONFIG).touch()
    with pytest.raises(DataError) as error:
        stated(str(tmp_path))
    assert str(error.value).endswith(f"half-written ones; did you mean {best}?")


def test_another_start_in_its_place_is_refused(pair):
    learned, start = pair
    content = json.loads((start / CONFIG).read_text())
    (start / CONFIG).write_text(json.dumps(content | {"weights_hash": "sha256:0"}))
    with pytest.raises(DataError, match="which were changed since: their hash is sha256:0"):
        _ = LisaConfig(weights=str(learned)).weights_folder


def test_a_start_whose_bytes_were_changed_is_refused(pair):
    learned, start = pair
    spoil(next(start.glob("*.safetensors")))
    with pytest.raises(DataError, match=f"the weights in .*{start.name} are not those"):
        weights_hash.check(opened(learned))


def test_learned_bytes_that_were_changed_are_refused(pair):
    learned, _ = pair
    spoil(learned / LEARNED)
    with pytest.raises(DataError, match="best are not those that it was written with"):
        weights_hash.check(opened(learned))


def test_half_of_a_low_rank_change_is_refused(dual_folder, scenes, tmp_path):
    lisa = learn("original", dual_folder, scenes)
    folder = write(lisa, tmp_path / "learned", dual_folder)
    tensors = load_file(folder / LEARNED)
    del tensors[next(name for name in tensors if "lora_B" in name)]
    save_file(tensors, folder / LEARNED)
    with pytest.raises(DataError, match="holds half of a low-rank change"):
        tensors_of(folder, lisa)


def test_a_folder_that_is_its_own_start_ends_with_a_message(pair):
    learned, _ = pair
    content = json.loads((learned / CONFIG).read_text())
    content["start"] |= {"weights": ".", "weights_hash": content["weights_hash"]}
    (learned / CONFIG).write_text(json.dumps(content))
    with pytest.raises(DataError, match="more than 32 starts"):
        _ = LisaConfig(weights=str(learned)).weights_folder


def test_whole_weights_of_ours_need_no_conversion(dual_folder, tmp_path):
    with pytest.raises(UsageError, match="layout already and holds whole weights: take it as it"):
        convert(dual_folder, tmp_path / "converted")


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
