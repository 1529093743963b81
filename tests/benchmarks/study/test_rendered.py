"""What is rendered ahead stays the same, to the byte: folders of it are read by later versions."""

import hashlib

import pytest
from torch import Tensor

from lisabench.benchmarks.study.rendered import chunk
from lisabench.datasets.scenes.generator import scene
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
