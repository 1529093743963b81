"""Weights as tools lay them out: what is sound is read, and what is not is told apart."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import original_factory as factory
import pytest
import torch

from lisabench.harness.errors import DataError
from lisabench.models.checkpoints.shards import (
    WeightFiles,
    opened,
    weight_files,
    weight_map,
    write_tensors,
)

pytestmark = pytest.mark.no_clock

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.bias": torch.ones(5).bfloat16()}


def contents(folder: Path) -> dict[str, torch.Tensor]:
    return dict(WeightFiles(weight_files(folder)).tensors())


def assert_whole(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


# Folders


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_folder_of_shards_in_the_place_of_a_file_is_read(
    tmp_path: Path, kind: str, count: int
) -> None:
    inner = tmp_path / {"bin": "pytorch_model.bin", "safetensors": "model.safetensors"}[kind]
    inner.mkdir()
    factory.write_weights(inner, TENSORS, kind, count)
    assert_whole(contents(tmp_path))


def test_an_empty_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").mkdir()
    with pytest.raises(DataError, match=r"pytorch_model\.bin is a folder, and holds no weights"):
        weight_files(tmp_path)


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("content", ["", "{", json.dumps({"weight_map": {"a.weight": "gone.bin"}})])
def test_an_index_of_other_weights_beside_whole_ones_does_not_count(
    tmp_path: Path, index: str, content: str
) -> None:
    factory.write_weights(tmp_path, TENSORS, "safetensors", 1)
    (tmp_path / index).write_text(content)
    assert_whole(contents(tmp_path))


def test_a_shard_of_other_weights_beside_whole_ones_does_not_count(tmp_path: Path) -> None:
    factory.write_weights(tmp_path, TENSORS, "bin", 2)
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "model-00001-of-00007.safetensors")
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    assert_whole(contents(tmp_path))


def test_without_any_whole_set_the_first_one_is_named(tmp_path: Path) -> None:
    factory.write_weights(tmp_path, TENSORS, "bin", 2)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of its 2 shards \(pytorch_model-00002-of-00002"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": ["a"]}, "has no weight_map"),
        ({"weight_map": {"a": 7}}, "the file of 'a' is 7"),
        ({"weight_map": {"a": "x\0y"}}, "no file's name"),
    ],
)
def test_an_index_that_lists_no_files_is_named(
    tmp_path: Path, content: dict, expected: str
) -> None:
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"index\.json.*{expected}"):
        weight_map(tmp_path / "index.json")


# Files


def read_whole(file: Path) -> dict[str, torch.Tensor]:
    content = opened(file)
    assert content.shapes == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    sizes = {name: tensor.element_size() for name, tensor in TENSORS.items()}
    assert content.item_bytes == sizes
    return {name: content.read(name) for name in content.shapes}


def test_the_format_of_torch_before_1_6_is_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert_whole(read_whole(tmp_path / "old.bin"))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "module", "model"])
def test_tensors_in_a_table_beside_other_values_are_read(tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, "lr": [0.1], key: TENSORS}, tmp_path / "x.bin")
    assert_whole(read_whole(tmp_path / "x.bin"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_names_lose_what_wraps_a_whole_model(tmp_path: Path, prefix: str, suffix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in TENSORS.items()}
    factory.save(wrapped, tmp_path / f"x.{suffix}")
    assert_whole(read_whole(tmp_path / f"x.{suffix}"))
    # A part of that name stays what it is.
    factory.save({**wrapped, "other": torch.zeros(1)}, tmp_path / f"y.{suffix}")
    assert opened(tmp_path / f"y.{suffix}").shapes.keys() == {*wrapped, "other"}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>"


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (POINTER, r"is a pointer of Git LFS.*`git lfs pull`"),
        (PAGE, r"is a web page \(HTML\)"),
        (b"", "is cut short, at 0 bytes"),
    ],
    ids=["pointer", "page", "empty"],
)
def test_what_lies_in_the_place_of_weights_is_told_apart(
    tmp_path: Path, suffix: str, content: bytes, expected: str
) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=expected) as error:
        opened(tmp_path / f"x.{suffix}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_file_that_is_cut_is_called_so(tmp_path: Path, kind: str, share: float) -> None:
    large = {"a": torch.randn(1000), "b": torch.randn(1000)}
    file = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.bin")
    if kind == "old":
        torch.save(large, file, _use_new_zipfile_serialization=False)
    else:
        factory.save(large, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"is cut short, at \d+ bytes: get it again"):
        opened(file)


class Code:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


WHOLE_BUT_OTHER = {
    "more than tensors": lambda file: torch.save({"a": Code()}, file),
    "arrays": lambda file: torch.save({"a": np.zeros(3)}, file),
    "numbers among tensors": lambda file: torch.save({**TENSORS, "epoch": 3}, file),
    "a list": lambda file: torch.save([torch.zeros(1)], file),
    "a plain pickle": lambda file: file.write_bytes(pickle.dumps({"a": 1})),
    "text": lambda file: file.write_bytes(b"hello world" * 9),
    "numbers for names": lambda file: torch.save({1: torch.zeros(1)}, file),
}


@pytest.mark.parametrize("content", WHOLE_BUT_OTHER)
def test_nobody_is_told_to_get_a_whole_file_again(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WHOLE_BUT_OTHER[content](tmp_path / "x.bin")
    with pytest.raises(DataError) as error:
        opened(tmp_path / "x.bin")
    message = str(error.value)
    assert "again" not in message and "cut short" not in message and "\n" not in message
    assert str(tmp_path / "x.bin") in message
    assert not (tmp_path / "ran").exists()


def test_a_safetensors_file_of_another_format_is_not_called_cut(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="is no safetensors file") as error:
        opened(tmp_path / "x.safetensors")
    assert "again" not in str(error.value)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_no_damage_of_a_file_ends_in_another_error(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x.{suffix}"
    factory.save(dict(TENSORS), file)
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = whole.copy()
        places = generator.integers(0, min(len(whole), 700), 3)
        damaged[places] = generator.integers(0, 256, 3)
        file.write_bytes(damaged.tobytes())
        try:
            content = opened(file)
            for name in content.shapes:
                content.read(name)
        except DataError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_new_weights_is_as_the_user_has_set_it(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode
