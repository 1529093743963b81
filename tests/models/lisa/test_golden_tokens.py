"""Token ids are those that the original feeds to its language model."""

import json
import os
from pathlib import Path

import pytest
from original_factory import PIECES, write_tokenizer
from places import ROOT
from sentencepiece import SentencePieceProcessor

from lisabench.harness.errors import DataError
from lisabench.models.lisa.llama_tokenizer import LlamaTokenizer, added_tokens, read_model
from lisabench.models.lisa.tokenizer import before_seg

pytestmark = pytest.mark.no_clock

OWN = ROOT / "tests" / "goldens"
PLACES = (
    *map(Path, filter(None, [os.environ.get("LISABENCH_GOLDENS")])),
    OWN,
    ROOT.parent / "shared" / "goldens",
)
MODEL = "llama2_tokenizer.model"


def found(name: str) -> Path | None:
    return next((place / name for place in PLACES if (place / name).exists()), None)


RECORDED = json.loads(
    (found("lisa_tokens.json") or OWN / "lisa_tokens.json").read_text(encoding="utf-8")
)
ROWS = RECORDED["rows"]


@pytest.fixture(scope="module")
def model() -> SentencePieceProcessor:
    file = found(MODEL)
    if file is None:
        pytest.skip(
            f"{MODEL} is Meta's and not in this repository: "
            "put it beside the goldens or set LISABENCH_GOLDENS"
        )
    return read_model(file)


@pytest.fixture(scope="module")
def tokenizer(model: SentencePieceProcessor) -> LlamaTokenizer:
    first = RECORDED["vocabulary"] - len(RECORDED["added"])
    return LlamaTokenizer(model, {token: first + i for i, token in enumerate(RECORDED["added"])})


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row['conversation']}-{row['text'][:12].strip()}"
)
def test_golden_ids_are_the_originals(tokenizer: LlamaTokenizer, row: dict) -> None:
    assert tokenizer.encode(row["prompt"]) == row["input_ids"]


def test_golden_answer_keeps_its_space_if_the_end_is_an_object(
    model: SentencePieceProcessor, tokenizer: LlamaTokenizer
) -> None:
    added = {token: tokenizer.encode(token)[1] for token in RECORDED["added"]}
    spaced = LlamaTokenizer(model, added, spaced=("<s>", "</s>", "<unk>"))
    for row in ROWS:
        expected = row["input_ids"]
        if row["conversation"] == "llava_llama_2":
            # Recorded with transformers 4.31 from a folder whose special_tokens_map.json has
            # objects: "." (869), a space (29871), and </s>.
            expected = [*expected[:-2], 869, 29871, 2]
        assert spaced.encode(row["prompt"]) == expected


def test_golden_vocabulary_is_the_originals(tokenizer: LlamaTokenizer) -> None:
    assert tokenizer.size == RECORDED["vocabulary"]
    assert tokenizer.seg_id == RECORDED["vocabulary"] - 3


def test_golden_ids_end_in_an_answer_of_seg_alone(tokenizer: LlamaTokenizer) -> None:
    ids = tokenizer.encode(ROWS[0]["prompt"])
    assert ids[len(before_seg(ids, tokenizer.seg_id))] == tokenizer.seg_id


@pytest.mark.parametrize("text", ["Sure, the café is here.", "二 two   spaces", "Which ones? 🙂"])
def test_golden_text_survives_the_way_to_ids_and_back(tokenizer: LlamaTokenizer, text: str) -> None:
    ids = tokenizer.encode(f"{text} [SEG]")
    assert tokenizer.decode([i for i in ids if i >= 0]) == f"{text} [SEG]"


def test_golden_answer_shows_every_seg(tokenizer: LlamaTokenizer) -> None:
    seg = tokenizer.seg_id
    assert tokenizer.decode([1, seg, seg, 869, 2]) == "[SEG] [SEG] ."


def test_golden_pieces_without_seg_are_refused(model: SentencePieceProcessor) -> None:
    with pytest.raises(DataError, match=r"splits \[SEG\] into \d tokens"):
        LlamaTokenizer(model, {"<im_start>": 32000, "<im_end>": 32001})


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(200), b"\x0a\x7fshort"])
def test_a_file_that_is_no_sentencepiece_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match="SentencePiece"):
        read_model(tmp_path / "tokenizer.model")


def test_a_model_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Also between two pieces, where what is left is a valid model with other settings."""
    write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.model"
    content = path.read_bytes()
    assert read_model(path).get_piece_size() == PIECES
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="is incomplete: download it again"):
            read_model(path)


def test_a_model_with_a_piece_that_is_not_text_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(path.read_bytes().replace(b"</s>", b"\xff/s>"))
    with pytest.raises(DataError, match="is not a SentencePiece model of LLaMA"):
        read_model(path)


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"[SEG]": "x", "added_tokens_decoder": {"x": {}}}']
)
def test_a_broken_list_of_added_tokens_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name} does not list added tokens"):
        added_tokens(tmp_path)
