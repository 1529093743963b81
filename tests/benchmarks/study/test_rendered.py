"""What is rendered ahead stays the same, to the byte: folders of it are read by later versions."""

import hashlib

import pytest
import torch
from torch import Tensor

from lisabench.benchmarks.study.rendered import chunk, read
from lisabench.datasets.scenes.generator import scene
from lisabench.harness.errors import DataError
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.forced_prompt import forced_ids
from lisabench.models.lisa.tokenizer import IMAGE_ID, PromptTokenizer, load

pytestmark = pytest.mark.no_clock

SCENES = 28  # every aspect with every plan of queries
WORDS = (
    "scene_Q",
    "targets_Q",
    "family_Q",
    "chosen_Q",
    "ids_QL",
    "ends_Q",
    "prefix",
    "attributes_NO3",
)
LABELS = ("sizes_N2", "labels_NHW", "crop_labels_NHW")


def digest(tensors: list[Tensor]) -> str:
    """Pictures are not compared: they follow the machine's arithmetic; `test_render` has them."""
    parts = (
        f"{each.dtype} {list(each.shape)}".encode() + each.contiguous().numpy().tobytes()
        for each in tensors
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@pytest.fixture(scope="module")
def scenes():
    return [scene(0, "train", i) for i in range(SCENES)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(WORDS, "8c63bde93b695553"), (LABELS, "bba3b9f31f898814")],
    ids=["words", "labels"],
)
def test_a_chunk_holds_the_bytes_that_it_always_held(scenes, names, expected):
    made = vars(chunk(scenes))
    assert digest([made[name] for name in names]) == expected


def test_ids_are_those_of_each_prompt_for_itself_filled_up(scenes):
    made, tokens, case = chunk(scenes), PromptTokenizer(load("tiny")), LisaConfig()
    asked = [(query, text) for each in scenes for query in each.queries for text in query.texts]
    for row, end, (query, text) in zip(
        made.ids_QL.tolist(), made.ends_Q.tolist(), asked, strict=True
    ):
        prompt, answer = forced_ids(case, tokens, text, query.is_sentence)
        image = prompt.index(IMAGE_ID)
        assert prompt[:image] == made.prefix.tolist()
        assert end == len(prompt) - image - 1
        expected = [*prompt[image + 1 :], *answer]
        assert row == expected + [0] * (len(row) - len(expected))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unknown": 1}, "does not hold what is rendered"),
        ({"views": None}, "its views are no table"),
        ({"prefix": None}, "prefix is no tensor of torch.int64 with 1 axes"),
        ({"sizes_N2": torch.zeros(2)}, "sizes_N2 is no tensor"),
        ({"views": {"clip_crop": torch.zeros(1)}}, "clip_crop is no tensor of torch.uint8"),
    ],
)
def test_a_file_that_holds_something_else_is_damaged(tmp_path, scenes, changes, reason):
    file = tmp_path / "test.pt"
    torch.save(vars(chunk(scenes[:1])) | changes, file)
    with pytest.raises(DataError, match=f"is damaged .*{reason}.*rendered again"):
        read(file)


def test_a_file_without_a_table_is_damaged(tmp_path):
    torch.save([1, 2], tmp_path / "test.pt")
    with pytest.raises(DataError, match="no table of tensors"):
        read(tmp_path / "test.pt")
