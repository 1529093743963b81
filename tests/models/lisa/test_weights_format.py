"""A folder of weights whose ``config.json`` or tokenizer is damaged is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import original_factory as factory
import pytest

from lisabench.harness.errors import DataError
from lisabench.models.lisa import llama_tokenizer, packaged, tokenizer, weights_format

pytestmark = pytest.mark.no_clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = packaged.folders()["dual"]
    for name in (weights_format.CONFIG, tokenizer.FILE):
        shutil.copyfile(source / name, tmp_path / name)
    return tmp_path


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no sizes": (lambda page: page.pop("sizes"), "no 'sizes'"),
    "sizes of a list": (lambda page: page.update(sizes=[1]), "of another type"),
    "no layers": (lambda page: page["sizes"]["clip"].pop("layers"), "no 'layers'"),
    "layers of text": (lambda page: page["sizes"]["clip"].update(layers="3"), "layers: Input"),
    "too large a vocabulary": (
        lambda page: page["sizes"]["llama"].update(vocabulary=10**12),
        "vocabulary is 1000000000000",
    ),
    "a negative width": (lambda page: page["sizes"]["sam"].update(hidden=-1), "hidden is -1"),
    "global layers of a number": (
        lambda page: page["sizes"]["sam"].update(global_layers=3),
        "of another type",
    ),
    "an unknown preset": (lambda page: page.update(preset="huge"), "preset is 'huge'; known: "),
    "splits of none": (lambda page: page.update(contaminated_splits=None), "of another type"),
    "a hash of a number": (lambda page: page.update(weights_hash=7), "weights_hash: expected text"),
    "a setting of a later release": (lambda page: page.update(gate=1), r"release \(gate\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_config_is_named(name: str, folder: Path) -> None:
    damage, expected = DAMAGES[name]
    file = folder / weights_format.CONFIG
    page = json.loads(file.read_text())
    weights_format.read(folder)
    damage(page)
    file.write_text(json.dumps(page))
    with pytest.raises(DataError, match=expected) as error:
        weights_format.read(folder)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_an_id_beyond_the_rows_shows_in_the_size_of_a_tokenizer(folder: Path) -> None:
    file = folder / tokenizer.FILE
    page = json.loads(file.read_text())
    size = tokenizer.read(folder).size
    assert size <= weights_format.read(folder).sizes.llama.vocabulary
    word = next(word for word, i in page["model"]["vocab"].items() if i == size - 1)
    page["model"]["vocab"][word] = 10**6
    file.write_text(json.dumps(page))
    assert tokenizer.read(folder).size == 10**6 + 1


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": 7}', "<html></html>"])
def test_a_damaged_tokenizer_is_named(folder: Path, content: str) -> None:
    (folder / tokenizer.FILE).write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json") as error:
        tokenizer.read(folder)
    assert "\n" not in str(error.value)


# Added tokens


def test_an_empty_list_of_added_tokens_adds_none_beside_another_list(tmp_path: Path) -> None:
    (tmp_path / "added_tokens.json").write_text("")
    assert llama_tokenizer.added_tokens(tmp_path) == {}
    listed = {"added_tokens_decoder": {"32000": {"content": "[SEG]"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(listed))
    assert llama_tokenizer.added_tokens(tmp_path) == {"[SEG]": 32000}


@pytest.mark.parametrize("i", [10**12, -1, True, 3.0, None, [1]])
def test_an_id_that_no_embedding_has_is_refused(tmp_path: Path, i: object) -> None:
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[SEG]": i}))
    with pytest.raises(DataError, match=r"the id of '\[SEG\]' is .*; expected 0 to 1048575"):
        llama_tokenizer.added_tokens(tmp_path)


def test_a_tokenizer_that_was_not_downloaded_is_told_apart(tmp_path: Path) -> None:
    factory.write_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.model"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 499723\n")
    with pytest.raises(DataError, match=r"is a pointer of Git LFS .*git lfs pull"):
        llama_tokenizer.read_model(file)
    file.write_bytes(b"<html><title>Sign in</title></html>")
    with pytest.raises(DataError, match="is a web page"):
        llama_tokenizer.read_model(file)
