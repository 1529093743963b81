"""The recipe `described` against the trained parts in the modified LISA's document, by name."""

import pytest
import torch

from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa import tokenizer
from lisabench.models.lisa.network import LisaModel
from lisabench.models.lisa.parts import parameters
from lisabench.models.lisa.tokenizer import PromptTokenizer
from lisabench.models.training.examples import ExampleReader, batch_of
from lisabench.models.training.learner import Learner
from lisabench.models.training.recipes import RECIPES, trainable
from lisabench.models.training.trainable import make_trainable, trained

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

HIDDEN, CLIP_WIDTH, SAM_WIDTH, VOCABULARY = 4096, 1024, 256, 32001

# The document's names, with ours in brackets: Linear, then GELU, then LayerNorm.
SEG_TOKEN_TO_SAM = {
    "seg_projection.0.weight": SAM_WIDTH * HIDDEN,
    "seg_projection.0.bias": SAM_WIDTH,
    "seg_projection.2.weight": SAM_WIDTH,
    "seg_projection.2.bias": SAM_WIDTH,
}
EMBEDDINGS_AND_HEAD = {
    "llm.model.embed_tokens.weight": VOCABULARY * HIDDEN,
    "llm.lm_head.weight": VOCABULARY * HIDDEN,
}
VISION_TO_SAM = {
    "encoder.bridge.0.weight": SAM_WIDTH * CLIP_WIDTH,
    "encoder.bridge.0.bias": SAM_WIDTH,
    "encoder.bridge.2.weight": SAM_WIDTH,
    "encoder.bridge.2.bias": SAM_WIDTH,
}
VISION_TO_VLM = {
    "encoder.bridge.0.weight": CLIP_WIDTH * SAM_WIDTH,
    "encoder.bridge.0.bias": CLIP_WIDTH,
    "encoder.bridge.2.weight": CLIP_WIDTH,
    "encoder.bridge.2.bias": CLIP_WIDTH,
}
LISTS = {
    "clip": VISION_TO_SAM | SEG_TOKEN_TO_SAM | EMBEDDINGS_AND_HEAD,
    "sam": VISION_TO_VLM | SEG_TOKEN_TO_SAM | EMBEDDINGS_AND_HEAD,
}


@pytest.mark.parametrize("vision", LISTS)
def test_at_full_size_exactly_the_documents_parts_learn(vision: str) -> None:
    wanted = resolve_setup(
        {
            "recipe": "described",
            "vision": vision,
            "preset": "lisa-7b-llava15",
            "save_strategy": "no",
        }
    )
    case = wanted.case
    with torch.device("meta"):  # no memory is taken: only names and shapes are looked at
        model = LisaModel(
            case.sizes,
            case.vision,
            lambda _, build: build(),
            seg_head=case.seg_head,
            described=True,
        )
    tokens = PromptTokenizer(tokenizer.load("tiny"))
    make_trainable(model, case, wanted.recipe.trains, tokens)
    learned = {name: parameter.numel() for name, parameter in trained(model).items()}
    assert learned == LISTS[vision]
    on_paper = trainable(case, wanted.recipe.trains)
    assert sum(on_paper.values()) == sum(LISTS[vision].values())
    assert "projector" in model.parts(), "LLaVA's projector is there, and frozen"


def losses_of_steps(lisa: Lisa, recipe: str) -> None:
    """Take three steps of AdamW on four scenes."""
    samples = ReasonSeg(embedded("train", 4, 0), "train")
    reader = ExampleReader(lisa.case, lisa.model.preset, lisa.model.encoder.views, lisa.tokenizer)
    batch = batch_of(
        [reader(sample) for sample in samples], lisa.model.encoder, "cpu", torch.float32
    )
    learner = Learner(
        lisa.model, resolve_setup({"recipe": recipe, "vision": lisa.case.vision}).losses
    )
    optimizer = torch.optim.AdamW(trained(lisa.model).values(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        learner.weighted(learner(batch)).backward()
        optimizer.step()


def changed_parts(recipe: str, vision: str) -> set[str]:
    """Return the parts of a tiny LISA whose weights differ after a few steps of the recipe."""
    case = resolve_setup({"recipe": recipe, "vision": vision, "device": "cpu"}).case
    lisa = Lisa(case, NullProbe(), for_training=True)
    make_trainable(lisa.model, case, RECIPES[recipe].trains, lisa.tokenizer)
    before = {name: tensor.clone() for name, tensor in lisa.model.state_dict().items()}
    losses_of_steps(lisa, recipe)
    changed = {
        name
        for name, tensor in lisa.model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    return {name.removeprefix("encoder.").split(".")[0] for name in changed}


@pytest.mark.parametrize("vision", LISTS)
def test_the_projector_does_not_learn(vision: str) -> None:
    assert changed_parts("described", vision) == {"bridge", "seg_projection", "llm"}
    assert "projector" in changed_parts("with-projector", vision), (
        "what would be found if it learned"
    )


@pytest.mark.parametrize("vision", LISTS)
def test_there_is_no_text_hidden_fcs(vision: str) -> None:
    case = resolve_setup({"recipe": "described", "vision": vision, "device": "cpu"}).case
    head = Lisa(case, NullProbe(), for_training=True).model.seg_projection
    assert [type(layer).__name__ for layer in head] == ["Linear", "GELU", "LayerNorm"]
    llama, sam = case.sizes.llama, case.sizes.sam
    linear_and_norm = llama.hidden * sam.prompt_dim + sam.prompt_dim + 2 * sam.prompt_dim
    assert parameters(head) == linear_and_norm
