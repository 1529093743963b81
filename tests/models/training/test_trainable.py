"""What recipes train: counted by arithmetic and in the model, kept frozen, saved and read again."""

import pytest
import torch
from trainable_lisas import ORIGIN, learned_from, logits, ready

from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness.errors import DataError, UsageError
from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa import tokenizer, weights_format
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.network import LisaModel
from lisabench.models.lisa.prompts import ADDED
from lisabench.models.lisa.tokenizer import PromptTokenizer, ids_of
from lisabench.models.training.examples import ExampleReader, batch_of
from lisabench.models.training.learner import Learner
from lisabench.models.training.recipes import LOSSES, RECIPES, LossWeights, trainable
from lisabench.models.training.save import Origin, save
from lisabench.models.training.trainable import make_trainable, trained, trained_by_part

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]


@pytest.fixture(scope="module")
def scenes():
    return ReasonSeg(embedded("train", 6, 0), "train")


@pytest.fixture(scope="module")
def dual_folder(tmp_path_factory):
    """The saved weights of a dual of which everything is trained."""
    folder = tmp_path_factory.mktemp("dual")
    save(ready("everything"), folder, ORIGIN)
    return folder


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_as_many_parameters_as_on_paper(recipe, vision):
    lisa = ready(recipe, vision=vision)
    assert trained_by_part(lisa.model) == trainable(lisa.case, RECIPES[recipe].trains)


@pytest.mark.parametrize(
    ("recipe", "vision", "expected"),
    [
        # By hand: LoRA 32 layers x 2 x 2 x 8 x 4096; embedding and head 2 x 32003 x 4096; mask
        # decoder 4,058,340; text_hidden_fcs 4096 x 4097 + 256 x 4097.
        ("original", "dual", 4_194_304 + 262_168_576 + 4_058_340 + 17_830_144),
        # vision_to_sam 1024 x 256 + 256 + 2 x 256; projector 1024 x 4096 + 4096 + 4096 x 4097; rows
        # 2 x 3 x 4096.
        ("lean", "clip", 262_912 + 20_979_712 + 17_830_144 + 24_576),
    ],
)
def test_at_full_size_too(recipe, vision, expected):
    case = LisaConfig(preset="lisa-7b-llava15", vision=vision)
    with torch.device("meta"):
        model = LisaModel(case.sizes, vision, lambda _, build: build())
    make_trainable(model, case, RECIPES[recipe].trains, PromptTokenizer(tokenizer.load("tiny")))
    assert trained_by_part(model) == trainable(case, RECIPES[recipe].trains)
    assert sum(trained_by_part(model).values()) == expected


def test_frozen_parameters_get_no_gradient_and_no_state(scenes):
    lisa = ready("lean", vision="clip")
    before = {name: p.detach().clone() for name, p in lisa.model.named_parameters()}
    learned_from(lisa, scenes[:2])
    for name, parameter in lisa.model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            assert torch.equal(parameter, before[name]), name
    changed = {
        name.split(".")[0]
        for name, p in lisa.model.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert changed == {"encoder", "llm", "seg_projection"}


def test_the_rows_of_new_tokens_learn_alone(scenes, tmp_path):
    lisa = ready("lean", vision="clip")
    embedding = lisa.model.llm.model.embed_tokens.frozen.weight.clone()
    learned_from(lisa, scenes[:2])
    save(lisa, tmp_path, ORIGIN)
    after = Lisa(
        LisaConfig(device="cpu", vision="clip", weights=str(tmp_path)), NullProbe()
    ).model.llm
    rows = sorted(i for token in ADDED for i in ids_of(lisa.tokenizer, token))
    assert len(set(rows)) == 3
    assert (after.model.embed_tokens.weight != embedding).any(
        1
    ).nonzero().flatten().tolist() == rows
    assert (after.lm_head.weight != lisa.model.llm.lm_head.frozen.weight).any(
        1
    ).nonzero().flatten().tolist() == rows


@pytest.mark.parametrize(
    ("recipe", "vision"), [("original", "dual"), ("lean", "clip"), ("everything", "sam")]
)
def test_what_is_saved_answers_as_what_was_trained(recipe, vision, scenes, tmp_path):
    lisa = ready(recipe, vision=vision)
    learned_from(lisa, scenes[:2], steps=2)
    lisa.model.eval()
    known = save(lisa, tmp_path, ORIGIN)
    again = Lisa(LisaConfig(device="cpu", vision=vision, weights=str(tmp_path)), NullProbe())
    assert again.has_quality
    assert again.settings["weights_hash"] == known.weights_hash
    for mine, theirs in zip(logits(lisa, scenes[:3]), logits(again, scenes[:3]), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("vision", ["clip", "sam"])
def test_a_shared_variant_starts_from_a_dual_with_a_new_bridge_alone(vision, dual_folder):
    start = ready("described", vision=vision, weights=str(dual_folder), seed=5)
    dual = Lisa(LisaConfig(device="cpu", weights=str(dual_folder)), NullProbe())
    assert start.new_parts == {"bridge"}
    same = {
        name: tensor for name, tensor in start.model.state_dict().items() if ".bridge." not in name
    }
    assert same.keys() < dual.model.state_dict().keys() | same.keys()
    for name, tensor in same.items():
        assert torch.equal(tensor, dual.model.state_dict()[name]), name


def test_a_dual_is_not_evaluated_as_a_shared_variant(dual_folder):
    with pytest.raises(DataError, match="no bridge, which vision=clip needs"):
        Lisa(LisaConfig(device="cpu", vision="clip", weights=str(dual_folder)), NullProbe())


def test_weights_saved_from_a_start_name_what_they_were_trained_on_beside_what_the_start_was(
    tmp_path,
):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    save(ready("everything"), first, Origin("a test", ("val",), "pytest"))
    save(ready("lean", weights=str(first)), second, Origin("another", ("test",), "pytest"))
    assert weights_format.read(second).contaminated_splits == ("val", "test")
    assert "another" in (second / "README.md").read_text()


def test_the_weights_of_another_preset_are_refused(dual_folder):
    with pytest.raises(UsageError, match="not of preset=lisa-7b"):
        Lisa(LisaConfig(preset="lisa-7b", device="cpu", weights=str(dual_folder)), NullProbe())


def test_what_is_quantised_is_not_trained():
    case = LisaConfig(quantization="nf4", quantized="upstream")
    with pytest.raises(
        UsageError, match="lm_head, projector, seg_projection cannot be both trained and quantised"
    ):
        make_trainable(
            ready("lean").model,
            case,
            RECIPES["lean"].trains,
            PromptTokenizer(tokenizer.load("tiny")),
        )


def test_without_a_loss_on_the_answer_only_the_prompt_is_read_and_masks_cost_the_same(scenes):
    """With causal attention, what follows the state that prompts the mask does not change it."""
    lisa, samples = ready("everything"), scenes[:3]
    reader = ExampleReader(lisa.case, lisa.model.preset, lisa.model.encoder.views, lisa.tokenizer)
    batch = batch_of(
        [reader(sample) for sample in samples], lisa.model.encoder, "cpu", torch.float32
    )
    with_answer = Learner(lisa.model, LossWeights(ce=1, bce=1, dice=1))(batch)
    without = Learner(lisa.model, LossWeights(bce=1, dice=1))(batch)
    assert "ce" not in without
    for name, loss in without.items():
        torch.testing.assert_close(loss, with_answer[name], rtol=1e-5, atol=1e-6)


def test_a_batch_costs_what_its_queries_cost_one_by_one(scenes):
    lisa = ready("everything", vision="clip")
    learner = Learner(lisa.model, LOSSES["original-losses"])
    reader = ExampleReader(lisa.case, lisa.model.preset, lisa.model.encoder.views, lisa.tokenizer)
    examples = [reader(sample) for sample in scenes[:4]]
    together = learner(batch_of(examples, lisa.model.encoder, "cpu", torch.float32))
    alone = [
        learner(batch_of([each], lisa.model.encoder, "cpu", torch.float32)) for each in examples
    ]
    for name, loss in together.items():
        torch.testing.assert_close(loss, sum(each[name] for each in alone), rtol=1e-5, atol=1e-5)


def test_the_described_prompt_has_no_answer_to_learn(scenes):
    case = LisaConfig(device="cpu", conditioning="described")
    lisa = Lisa(case, NullProbe(), for_training=True)
    reader = ExampleReader(case, lisa.model.preset, lisa.model.encoder.views, lisa.tokenizer)
    example = reader(scenes[0])
    assert example.answer == []
    assert example.prompt[-1] == lisa.tokenizer.seg_id


def test_distillation_has_the_bridge_alone_learn_what_sam_gives(scenes):
    lisa = ready("distilled", vision="clip")
    learner = Learner(lisa.model, LOSSES["described"])
    learner.teacher = Lisa(LisaConfig(device="cpu"), NullProbe()).model.encoder.sam_encoder
    reader = ExampleReader(
        lisa.case, lisa.model.preset, ("clip_frame", "sam_frame"), lisa.tokenizer
    )
    batch = batch_of(
        [reader(sample) for sample in scenes[:4]], lisa.model.encoder, "cpu", torch.float32
    )
    own, costs = torch.optim.AdamW(trained(lisa.model).values(), lr=1e-2), []
    for _ in range(8):
        own.zero_grad()
        loss = learner(batch)["distillation"]
        loss.backward()
        own.step()
        costs.append(loss.item())
    assert costs[-1] < 0.8 * costs[0]
    assert {n for n, p in trained(lisa.model).items() if p.grad is not None} == {
        name for name in trained(lisa.model) if ".bridge." in name
    }
