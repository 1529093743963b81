"""Weights are what was read: a folder whose bytes are not those of its hash is refused."""

import shutil
from pathlib import Path

import numpy as np
import original_factory as factory
import pytest
import torch
from command import lisabench
from places import ROOT
from safetensors.torch import load_file, save_file

from lisabench.benchmarks import suite_file
from lisabench.harness.errors import DataError
from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa import build
from lisabench.models.checkpoints import shards, weights_hash
from lisabench.models.checkpoints.convert import convert
from lisabench.models.lisa import packaged, presets, weights_format
from lisabench.models.lisa.config import LisaConfig

pytestmark = pytest.mark.no_clock


@pytest.fixture
def dual(tmp_path: Path) -> Path:
    """A copy of the packaged LISAs; the folder of the dual."""
    shutil.copytree(packaged.FAMILY, tmp_path / "tiny")
    return tmp_path / "tiny" / "dual"


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(presets.PRESETS, "tiny", factory.SMALL)
    source = factory.write_lisa(tmp_path / "lisa", factory.weights())
    return convert(source, tmp_path / "ours").folder


def checked(folder: Path) -> weights_hash.HashedWeights:
    return weights_hash.check(weights_format.opened(str(folder)))


def flip_bit_6(file: Path, every: int = 2000) -> None:
    """Flip a bit of every so many bytes, behind the header, so that the file still loads."""
    content = np.fromfile(file, np.uint8)
    header_bytes = 8 + int(content[:8].view(np.uint64)[0])
    content[header_bytes::every] ^= 1 << 6
    content.tofile(file)


def test_the_packaged_dual_with_flipped_bits_is_refused_where_it_is_built(dual: Path) -> None:
    case = LisaConfig(weights=str(dual), device="cpu")
    build(case, NullProbe())
    for file in sorted(dual.parent.glob("weights/*.safetensors")):
        if "dual" in file.name:
            flip_bit_6(file)
    with pytest.raises(DataError, match=r"their hash is sha256:\w+, and config\.json says sha256"):
        build(LisaConfig(weights=str(dual), device="cpu"), NullProbe())


def test_one_changed_number_of_a_converted_checkpoint_is_refused(converted: Path) -> None:
    checked(converted)
    file = converted / "model-00001.safetensors"
    tensors = load_file(file)
    tensors["llm.model.norm.weight"][3] += 1e-6
    save_file(tensors, file)
    with pytest.raises(DataError, match="A file is damaged or was changed") as error:
        checked(converted)
    assert str(converted) in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_other_weights_in_its_place_is_refused(dual: Path) -> None:
    file = dual.parent / "weights" / "dual.safetensors"
    tensors = load_file(file)
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, file)
    with pytest.raises(DataError, match="are not those that it was written with"):
        checked(dual)


def exchange(tensors: dict[str, torch.Tensor]) -> None:
    first, second = "llm.model.norm.weight", "llm.model.layers.0.input_layernorm.weight"
    tensors[first], tensors[second] = tensors[second], tensors[first]


def add_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["another"] = torch.zeros(3)


def change_type(tensors: dict[str, torch.Tensor]) -> None:
    name = "llm.model.norm.weight"
    tensors[name] = tensors[name].double()


def change_shape(tensors: dict[str, torch.Tensor]) -> None:
    name = "llm.model.norm.weight"
    tensors[name] = tensors[name][None].contiguous()


@pytest.mark.parametrize("change", [exchange, add_one, change_type, change_shape])
def test_names_types_and_shapes_count_as_bytes_do(converted: Path, change) -> None:
    (file,) = converted.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(DataError, match="are not those that it was written with"):
        checked(converted)


@pytest.mark.parametrize(
    "words",
    [
        ["segment", "{image}", "the square", "--out", "{folder}/m.png", "--set", "weights={dual}"],
        ["train", "--device", "cpu", "--weights", "{dual}", "--max_train_samples", "1",
         "--max_val_samples", "1", "--max_steps", "1", "--out", "{folder}/out"],
        ["run", "tiny", "--set", "weights={dual}", "--limit", "1", "--out", "{folder}/out"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_every_command_refuses_flipped_bits_and_leaves_nothing(
    dual: Path, tmp_path: Path, words: list[str]
) -> None:
    flip_bit_6(dual.parent / "weights" / "dual.safetensors")
    image = ROOT / "docs" / "masks.png"
    there = set(tmp_path.iterdir())
    filled = [word.format(image=image, folder=tmp_path, dual=dual) for word in words]
    done = lisabench(*filled)
    assert (done.returncode, done.stdout) == (2, "")
    assert "are not those that it was written with" in done.stderr.splitlines()[-1]
    assert set(tmp_path.iterdir()) == there


def test_a_hash_of_another_folder_is_refused(dual: Path) -> None:
    settings = dual / weights_format.CONFIG
    own_hash = weights_format.read(dual).weights_hash
    settings.write_text(settings.read_text().replace(own_hash, "sha256:0"))
    with pytest.raises(DataError, match=f"their hash is {own_hash}, and .* says sha256:0"):
        checked(dual)


def test_a_later_process_reads_no_byte_and_sees_that_a_file_was_changed(
    dual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_hash, "_remembered", {})
    weights_hash.remember([checked(dual)])

    def hashed_again(_: torch.Tensor) -> str:
        raise AssertionError("the weights were hashed twice")

    monkeypatch.setattr(shards, "digest", hashed_again)
    checked(dual)

    file = dual.parent / "weights" / "dual.safetensors"
    flip_bit_6(file)
    with pytest.raises(DataError, match="were changed after this run had read them"):
        checked(dual)
    file.unlink()
    with pytest.raises(DataError, match="were changed after this run had read them"):
        checked(dual)


def test_a_suite_names_each_folder_of_weights_once() -> None:
    tiny = suite_file.load("tiny", {"weights": "packaged"})
    assert len(tiny.models) > 1
    folders = [weights.folder for weights in tiny.weights_folders]
    assert folders == list(dict.fromkeys(folders))
    assert set(folders) == {case.config.weights_folder.folder for case in tiny.models}
    assert suite_file.load("tiny", {"weights": "random"}).weights_folders == []
