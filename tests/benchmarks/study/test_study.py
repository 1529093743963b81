"""Tiny LISAs trained from rendered scenes: what is rendered, drawn, learned and evaluated."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command import lisabench
from places import RESULTS
from study_lisas import store_of, tiny
from torch.nn import functional

from lisabench.benchmarks.study.auxiliary_heads import WEIGHTS as AUXILIARY_WEIGHTS
from lisabench.benchmarks.study.auxiliary_heads import (
    AuxiliaryHeads,
    named,
    names_of_attributes,
    waves,
)
from lisabench.benchmarks.study.batches import SceneStore
from lisabench.benchmarks.study.command import study
from lisabench.benchmarks.study.evaluate import Validation, evaluate, ious, labels
from lisabench.benchmarks.study.fit import StudyTrainer, share_of_lr
from lisabench.benchmarks.study.folder import Study, begun, files_of, learning_rate_of
from lisabench.benchmarks.study.jobs import Job
from lisabench.benchmarks.study.learner import StudyLearner
from lisabench.benchmarks.study.rendered import ATTRIBUTES, LABELS_PX, OUTSIDE, VIEWS, chunk, render
from lisabench.benchmarks.study.search import search, table
from lisabench.benchmarks.study.study import carry_out, course_of, fitted, new_lisa
from lisabench.benchmarks.study.variants import VARIANTS
from lisabench.datasets.scenes.generator import Query, Scene, chosen, scene
from lisabench.datasets.scenes.words import SHAPES
from lisabench.harness import metrics
from lisabench.harness.contract import Sample
from lisabench.harness.errors import UsageError
from lisabench.harness.probe import NullProbe
from lisabench.harness.records.pixel_counts import read_pixel_counts
from lisabench.harness.records.study import SEARCH, TRAINING, Course, SearchTrial, read_trials
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.preprocessing import Preprocessor
from lisabench.models.lisa.tokenizer import load
from lisabench.models.training.examples import ExampleReader, batch_of
from lisabench.models.training.learner import Learner
from lisabench.models.training.recipes import LOSSES, PARTS
from lisabench.models.training.trainable import trained

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

SCENES = 7  # of every aspect


@pytest.fixture(scope="module")
def dual() -> Lisa:
    """A dual that tests share: they only read it."""
    return tiny()


def small_study(folder: Path, dual_steps: int, steps: int, scenes: int = 6) -> Study:
    """The settings of a study that takes seconds on a CPU."""
    return Study(
        folder,
        scenes=scenes,
        test_queries=3,
        dual_steps=dual_steps,
        steps=steps,
        batch=2,
        jobs=1,
        device="cpu",
        val_queries=3,
    )


@pytest.fixture(scope="module")
def dual_made(tmp_path_factory) -> Study:
    """A study whose dual is there, and all that its variants look at."""
    folder = tmp_path_factory.mktemp("study")
    how = small_study(folder, scenes=4, dual_steps=1, steps=3)
    carry_out(how, [0], ["dual"])
    with begun(how, [0], list(VARIANTS)):
        return how


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return render(tmp_path_factory.mktemp("scenes"), 0, {"test": SCENES}, 1)


def samples() -> dict[int, Sample]:
    """What a folder of the scenes would ask, by the query's number in the store."""
    scenes = [scene(0, "test", i) for i in range(SCENES)]
    wordings = [
        (made, query, text) for made in scenes for query in made.queries for text in query.texts
    ]
    folder = {(made.index, query.texts[0]) for made in scenes for query in chosen(made)}
    asked = ((number, *each) for number, each in enumerate(wordings))
    return {
        number: sample_of(made, query)
        for number, made, query, text in asked
        if (made.index, text) in folder
    }


def sample_of(made: Scene, query: Query) -> Sample:
    return Sample(
        id=f"{made.index} {query.texts[0]}",
        query=query.texts[0],
        is_sentence=query.is_sentence,
        source=Path("scene.png"),
        pixels=lambda: made.image,
        annotation=lambda: made.target_HW(query).astype(np.uint8),
        identity=lambda: str(made.index),
    )


def test_labels_in_sams_frame_lie_where_the_image_does():
    made = chunk([scene(0, "test", i) for i in range(SCENES)])
    for labels_HW, size_HW in zip(made.labels_NHW, made.sizes_N2.tolist(), strict=True):
        inside = (labels_HW != OUTSIDE).nonzero()
        height, width = (round(LABELS_PX * side / max(size_HW)) for side in size_HW)
        assert (inside.max(0).values + 1).tolist() == pytest.approx([height, width], abs=1)
        assert len(inside) == pytest.approx(height * width, abs=2 * LABELS_PX)
    assert {view: made.views[view].dtype for view in VIEWS} == dict.fromkeys(VIEWS, torch.uint8)


def test_attributes_are_those_of_the_object_that_is_seen():
    made, drawn = scene(0, "test", 0), chunk([scene(0, "test", 0)])
    for number, thing in enumerate(made.layout.things, start=1):
        places = drawn.attributes_NO3[0, number].tolist()
        values = [kinds[place - 1] for kinds, place in zip(ATTRIBUTES, places, strict=True)]
        assert values == [thing.shape, thing.colour, thing.texture]
    assert drawn.attributes_NO3[0, 0].tolist() == [0, 0, 0]


def test_many_queries_cost_what_the_learner_says_of_each(files, dual):
    """The loss of the answer is the same to the digit; those of the mask nearly.

    One is computed in SAM's frame and the other at the image's size.
    """
    store = store_of(files, dual)
    (batch,) = store.walked(store.chosen_Q.nonzero().flatten(), SCENES)
    many, _ = StudyLearner(dual.model, LOSSES["original-losses"])(batch)
    reader = ExampleReader(dual.case, dual.model.preset, dual.model.encoder.views, dual.tokenizer)
    examples = [reader(sample) for sample in samples().values()]
    few = Learner(dual.model, LOSSES["original-losses"])(
        batch_of(examples, dual.model.encoder, "cpu", torch.float32)
    )
    assert many["ce"].item() == pytest.approx(few["ce"].item() / len(examples), rel=1e-4)
    for name in ("bce", "dice"):
        assert many[name].item() == pytest.approx(few[name].item() / len(examples), rel=0.03)


def test_draws_lean_on_the_families_that_need_a_look(files, dual):
    store, generator = store_of(files, dual), torch.Generator().manual_seed(0)
    families = torch.cat([store.family_Q[store.drawn(generator, 5, 4).query_N] for _ in range(100)])
    assert (families >= 2).float().mean() >= 2 / 3
    batch = store.drawn(generator, 5, 4)
    assert torch.equal(batch.scene_N, torch.arange(5).repeat_interleave(4))
    assert all(len(set(row)) == 4 for row in batch.query_N.view(5, 4).tolist())


def test_training_lowers_the_losses_and_the_auxiliary_losses_fade(files):
    lisa = tiny()
    course = Course(steps=14, lr=1e-3, scenes=1, queries=3, warmup=2, auxiliary_heads=True)
    losses, store = LOSSES["original-losses"], store_of(files, lisa)
    points = list(StudyTrainer(lisa.model, losses, store, course, 0, "cpu").fit())
    assert [point.step for point in points] == [14]
    assert points[0].losses["ce"] < 3
    assert points[0].losses["bce"] < 0.6


def test_positions_of_encoders_that_begin_at_random_tell_every_cell_from_the_others(dual_made):
    for name, fresh in (("dual", {"clip", "sam_encoder"}), ("dual-small", {"sam_encoder"})):
        model = new_lisa(dual_made, Job(name, 0)).model
        clip, sam = model.preset.clip, model.preset.sam
        begun = {
            "clip": model.get_parameter("encoder.clip.embeddings.position_embedding.weight")[1:],
            "sam_encoder": model.get_parameter("encoder.sam_encoder.pos_embed").flatten(0, 2),
        }
        wanted = {"clip": waves(clip.grid, clip.hidden), "sam_encoder": waves(sam.grid, sam.hidden)}
        same = {part for part in begun if torch.equal(begun[part], wanted[part].flatten(0, 1))}
        assert same == fresh
        for part in fresh:
            assert torch.pdist(begun[part].detach()).min() > 0.5


def test_encoders_learn_alone_then_heads_prompt_the_masks_then_seg_does(files):
    lisa = tiny()
    before = {name: weight.clone() for name, weight in lisa.model.named_parameters()}
    course = Course(
        steps=30,
        encoder_steps=26,
        guided_steps=2,
        lr=2e-3,
        scenes=5,
        queries=3,
        masks=1,
        warmup=2,
        weight_decay=0.05,
        auxiliary_heads=True,
    )
    losses, store = LOSSES["original-losses"], store_of(files, lisa)
    steps = StudyTrainer(lisa.model, losses, store, course, 0, "cpu").fit(lambda: 0.0)
    alone = [next(steps) for _ in range(6)]  # up to step 24
    moved = {
        name
        for name, weight in lisa.model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    prompted, own = (point.losses for point in steps)
    costs = [point.losses["clip_attributes"] + point.losses["sam_attributes"] for point in alone]
    assert costs[-1] < 0.8 * costs[0]
    assert not any("bce" in point.losses for point in alone)
    assert {"bce", "dice", "ce", "word_map", "target_map", "prompt"} <= prompted.keys()
    assert {"bce", "dice", "ce", "word_map", "target_map"} <= own.keys() and "prompt" not in own
    assert {name.split(".")[0] for name in moved} == {"encoder"}


def test_prompts_of_the_head_depend_on_what_is_asked_for_alone(files, dual):
    store = store_of(files, dual)
    heads = AuxiliaryHeads(dual.model.preset)
    batch = store.drawn(torch.Generator().manual_seed(0), 3, 4)
    prompts_NC = heads.prompts(batch)
    torch.testing.assert_close(heads.prompts(replace(batch, ids_NL=batch.ids_NL * 0)), prompts_NC)
    assert not torch.equal(
        heads.prompts(replace(batch, targets_N=batch.targets_N.roll(1))), prompts_NC
    )


def test_words_name_the_objects_that_have_the_attribute():
    made = scene(0, "test", 0)
    names, tokenizer = names_of_attributes(512), load("tiny")
    looks = [(thing.shape, thing.colour, thing.texture) for thing in made.layout.things]
    (drawn,) = [chunk([made])]
    words = (
        {word: word for kind in ATTRIBUTES for word in kind}
        | {SHAPES[shape]: shape for shape in SHAPES}
        | {"the": ""}
    )
    ids_NL = torch.tensor([[tokenizer.token_to_id(word) for word in words]])
    batch = SimpleNamespace(
        ids_NL=ids_NL, attributes_BO3=drawn.attributes_NO3.long(), scene_N=torch.tensor([0])
    )
    found_LO = named(names, batch)[0]
    for word, found_O in zip(words.values(), found_LO, strict=True):
        assert found_O.nonzero().flatten().tolist() == [
            i for i, look in enumerate(looks, 1) if word in look
        ]


def test_queries_about_a_scene_are_read_side_by_side_as_each_is_alone(files):
    lisa = tiny()
    for weight in lisa.model.llm.parameters():
        weight.data.mul_(3)  # so that attention matters
    batch = store_of(files, lisa).drawn(torch.Generator().manual_seed(0), 3, 4)
    learner = StudyLearner(lisa.model, LOSSES["original-losses"])
    with torch.no_grad():
        seen = lisa.model.encoder(batch.seen, NullProbe())
        states_NLC = learner._read(batch, seen.image_tokens_BNC)
        embed = lisa.model.llm.model.embed_tokens
        for ids_L, end, place, states_LC in zip(
            batch.ids_NL, batch.ends_N, batch.scene_N, states_NLC, strict=True
        ):
            row = torch.cat([embed(batch.prefix), seen.image_tokens_BNC[place], embed(ids_L)])
            alone_LC = lisa.model.states([row])[0][-len(ids_L) :]
            torch.testing.assert_close(
                states_LC[: end + 3], alone_LC[: end + 3], rtol=1e-4, atol=1e-4
            )


def test_masks_can_be_asked_of_some_of_the_queries_alone(files, dual):
    store = store_of(files, dual)
    batch = store.drawn(torch.Generator().manual_seed(0), 3, 4, 2)
    assert batch.masked_M.tolist() == [0, 1, 4, 5, 8, 9]
    of_all, _ = replace(batch, masked_M=torch.arange(12)).target_and_counts
    assert torch.equal(batch.target_and_counts[0], of_all[batch.masked_M])


def test_the_learning_rate_rises_and_falls():
    course = Course(steps=100, guided_steps=40, lr=1.0, warmup=10)
    shares = [share_of_lr(step, course) for step in range(100)]
    assert shares[0] == pytest.approx(1 / 11) and shares[10] == 1
    assert shares[55] == pytest.approx(0.5) and shares[99] < 0.01


def test_a_training_is_validated_eight_times_and_goes_on_training(files):
    lisa = tiny("sam")
    store, modes = store_of(files, lisa), []

    class Asked(Validation):
        def _ious(self, batch):
            modes.append(lisa.model.training)
            return super()._ious(batch)

    validate = Asked(lisa.model, store, 2, "cpu")
    course = Course(steps=15, lr=1e-3, scenes=1, queries=1, warmup=2)
    trainer = StudyTrainer(lisa.model, LOSSES["described"], store, course, 0, "cpu")
    points = list(trainer.fit(validate))
    assert [point.step for point in points if point.val_gIoU is not None] == [
        2,
        4,
        6,
        8,
        10,
        12,
        14,
        15,
    ]
    assert modes == [False] * 8
    assert lisa.model.training


def test_masks_are_validated_as_the_test_is_evaluated_but_for_the_resolution(files, monkeypatch):
    def shifted(_, batch, features=None):  # noqa: ARG001
        target_NHW = (
            batch.target_and_counts[0].float().unflatten(1, (LABELS_PX, LABELS_PX)).roll(5, dims=2)
        )
        return functional.avg_pool2d(target_NHW[:, None], 2)[:, 0] - 0.5

    monkeypatch.setattr(StudyLearner, "logits", shifted)
    lisa = tiny("sam")
    store = store_of(files, lisa)
    counts = evaluate(lisa.model, store, labels(0, "test", SCENES, 1))
    wanted = counts.iou()[:20].mean()
    assert 0.4 < wanted < 0.9
    assert Validation(lisa.model, store, 20, "cpu", scenes=3)() == pytest.approx(wanted, abs=0.02)


def test_the_clock_stands_still_while_a_training_is_validated_and_in_the_first_step(files):
    lisa = tiny("sam")
    course = Course(steps=3, lr=1e-3, scenes=1, queries=1)
    now = iter(range(0, 10_000, 100))

    def validate() -> float:
        next(now)
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lisabench.benchmarks.study.fit.time.perf_counter", lambda: float(next(now)))
        store = store_of(files, lisa)
        trainer = StudyTrainer(lisa.model, LOSSES["described"], store, course, 0, "cpu")
        points = list(trainer.fit(validate))
    assert [point.first_steps_seconds for point in points] == [100, 100, 100]
    assert [point.seconds for point in points] == [
        200,
        300,
        400,
    ]  # what lies between two readings takes 100


def test_ious_are_those_of_the_metrics_with_empty_masks_too():
    masks = [[0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]]
    pairs = [(a, b) for a in masks for b in masks]
    predicted, target = (np.array(each) for each in zip(*pairs, strict=True))
    wanted = [
        metrics.iou(metrics.count(p[None] > 0, t[None].astype(np.uint8)))
        for p, t in zip(predicted, target, strict=True)
    ]
    found = ious(torch.from_numpy(predicted > 0), torch.from_numpy(target > 0))
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_the_same_seed_makes_the_same_training_again(files):
    course = Course(steps=3, lr=1e-3, scenes=2, queries=2, warmup=1, auxiliary_heads=True)
    made = []
    for disturbance, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(disturbance)
        lisa = tiny()
        losses, store = LOSSES["original-losses"], store_of(files, lisa)
        *_, last = StudyTrainer(lisa.model, losses, store, course, seed, "cpu").fit()
        made.append({name: last.losses[name] for name in ("ce", "bce", "dice")})
    assert made[0] == made[1] != made[2]


def test_the_auxiliary_heads_read_every_feature(files, dual):
    store = store_of(files, dual)
    batch = store.drawn(torch.Generator().manual_seed(0), 3, 2)
    _, features = StudyLearner(dual.model, LOSSES["original-losses"])(batch)
    costs = AuxiliaryHeads(dual.model.preset)(features, batch)
    assert costs.keys() == AUXILIARY_WEIGHTS.keys() - {"prompt"}
    assert all(0 < cost.item() < 20 for cost in costs.values())


def test_a_study_trains_a_dual_then_its_variants_and_keeps_what_is_finished(tmp_path):
    how = small_study(tmp_path, dual_steps=2, steps=1)
    first = carry_out(how, [0], ["sam"])
    assert [(training.name, training.seed, training.queries) for training in first] == [
        ("dual", 0, 3),
        ("sam", 0, 3),
    ]
    stamp = (tmp_path / "dual-0" / TRAINING).stat().st_mtime_ns
    carry_out(how, [0], ["sam"])
    assert (tmp_path / "dual-0" / TRAINING).stat().st_mtime_ns == stamp
    assert (tmp_path / "sam-0" / "counts.npz").exists()
    assert len(read_pixel_counts(tmp_path / "sam-0" / "counts.npz")) == 3
    again = Lisa(
        LisaConfig(device="cpu", vision="sam", weights=str(tmp_path / "sam-0")), NullProbe()
    )
    assert again.has_quality
    curve = [
        json.loads(line) for line in (tmp_path / "dual-0" / "curve.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in curve if "val_gIoU" in row] == [1, 2]
    assert first[0].val_gIoU == curve[-1]["val_gIoU"]
    with pytest.raises(UsageError, match="holds another study \\(steps was 1 and is 5\\)"):
        carry_out(replace(how, steps=5), [0], ["sam"])
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UsageError, match=r"generator was \d+ and is 99"),
    ):
        patch.setattr(
            "lisabench.benchmarks.study.folder.GENERATOR", 99
        )  # its scenes would be others
        carry_out(how, [0], ["sam"])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "dual"])
def test_a_variant_trains_the_parts_that_it_names_and_leaves_all_else_bit_for_bit(name, dual_made):
    lisa = new_lisa(dual_made, Job(name, 0))
    model, trains = lisa.model, VARIANTS[name].trains
    named = {part for each in trains for part in PARTS.get(each, ()) if part in model.parts()}
    named |= {"llm"} if {"embeddings", "lora"} & set(trains) else set()
    named = set(model.parts()) if "everything" in trains else named
    before = {key: value.clone() for key, value in model.state_dict().items()}
    *_, last = fitted(dual_made, Job(name, 0), lisa, course_of(dual_made, Job(name, 0)))
    assert last.step == 3
    assert last.losses.keys() & {"ce", "bce", "dice", "iou"} == {
        loss for loss, weight in vars(LOSSES[VARIANTS[name].losses]).items() if weight
    }
    changed = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed <= trained(model).keys()
    assert {part for part in model.parts() if any(f"{part}." in key for key in changed)} == named
    if "lora" in trains:
        assert any("lora_B" in key for key in changed)


def test_a_finer_clip_sees_what_its_own_preprocessor_would_show_it(dual_made):
    lisa = new_lisa(dual_made, Job("clip-fine", 0))
    drawn = SceneStore(files_of(dual_made, "val"), lisa.model.encoder, lisa.model.preset, "cpu")
    (batch,) = drawn.walked(drawn.chosen_Q.nonzero().flatten(), 1)
    own = Preprocessor(lisa.model.preset, ["clip_frame"])("clip_frame", scene(0, "val", 0).image)
    assert own.shape == (3, 224, 224)
    torch.testing.assert_close(
        batch.seen["clip_frame"][0], torch.from_numpy(own), rtol=1e-5, atol=1e-5
    )
    assert lisa.model.encoder(batch.seen, NullProbe()).image_tokens_BNC.shape[1] == 64


@pytest.mark.parametrize(
    ("name", "lr", "third"), [("clip-distilled", 1e-2, "iou"), ("dual-small", 1e-3, "ce")]
)
def test_distillation_comes_first_and_lowers_what_it_regresses(
    name, lr, third, dual_made, monkeypatch
):
    monkeypatch.setattr("lisabench.benchmarks.study.fit.LOG_EVERY", 1)
    job, lisa = Job(name, 0), new_lisa(dual_made, Job(name, 0))
    course = replace(course_of(dual_made, job), steps=14, guided_steps=12, warmup=1, lr=lr)
    losses = [point.losses for point in fitted(dual_made, job, lisa, course)]
    far = [named["distillation"] for named in losses if "distillation" in named]
    assert len(far) == 12
    assert far[-1] < 0.8 * far[0]
    assert all({"bce", "dice", third} <= named.keys() for named in losses[12:])
    assert course_of(dual_made, job).guided_steps == 1  # of three steps


def test_a_search_tries_three_rates_by_the_validation_split_alone_and_none_twice(
    tmp_path, monkeypatch
):
    how = small_study(tmp_path, dual_steps=1, steps=2)
    carry_out(how, [0], ["dual"])
    for file in (tmp_path / "scenes").glob("test-*"):
        file.unlink()
    # It would render the test again.
    monkeypatch.setattr("lisabench.benchmarks.study.search.begun", lambda *_: nullcontext())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lisabench.benchmarks.study.search.FACTORS", (1 / 3,))
        search(how, [0], ["sam-decoder"])
    fresh, used = [], []

    def noted(how, job, lisa, course):
        used.append(course.lr)
        return fitted(how, job, lisa, course)

    monkeypatch.setattr("lisabench.benchmarks.study.search.fitted", noted)
    trials = search(how, [0], ["sam-decoder"], fresh.append)
    assert [(trial.name, trial.seed, trial.lr, trial.steps) for trial in trials] == [
        ("sam-decoder", 0, 3.3e-4, 2),
        ("sam-decoder", 0, 1e-3, 2),
        ("sam-decoder", 0, 3e-3, 2),
    ]
    assert [trial.lr for trial in fresh] == used == [1e-3, 3e-3]
    assert all(0 <= trial.val_gIoU <= 1 for trial in trials)
    lines = [json.loads(line) for line in (tmp_path / SEARCH).read_text().splitlines()]
    assert lines == [trial.as_json() for trial in trials]
    assert all(line.keys() == {"name", "seed", "lr", "steps", "val_gIoU"} for line in lines)
    assert not (tmp_path / "sam-decoder-0").exists()


def test_a_training_takes_the_best_rate_of_its_studys_search(tmp_path):
    how = small_study(tmp_path, dual_steps=1, steps=2)
    assert course_of(how, Job("clip", 1)).lr == VARIANTS["clip"].lr
    tried = [
        ("clip", 1e-2, None),
        ("clip", 5e-3, 0.4),
        ("clip", 2e-3, 0.5),
        ("sam", 1e-4, 0.9),
        ("dual", 1e-4, 0.9),
    ]
    rows = [
        {"name": name, "seed": 0, "lr": lr, "steps": 2, "val_gIoU": score}
        for name, lr, score in tried
    ]
    (tmp_path / SEARCH).write_text("".join(json.dumps(row) + "\n" for row in rows))
    used = {
        name: course_of(how, Job(name, 1)).lr
        for name in ("clip", "clip-no-dice", "sam", "sam-decoder", "dual")
    }
    assert used == {
        "clip": 2e-3,
        "clip-no-dice": 2e-3,
        "sam": 1e-4,
        "sam-decoder": 1e-3,
        "dual": VARIANTS["dual"].lr,
    }
    assert course_of(how, Job("clip", 1, 7e-3)).lr == 7e-3


def test_the_rates_of_variants_are_the_best_of_the_published_searches(dual_made):
    first, own = (
        replace(dual_made, folder=RESULTS / name) for name in ("tiny-dual-tries", "accuracy-tiny")
    )
    searched = {name for name, variant in VARIANTS.items() if not variant.searched_as} - {"dual"}
    names = [{trial.name for trial in read_trials(each.folder)} for each in (first, own)]
    assert names == [
        searched,
        {"clip-distilled", "sam", "dual-small"},
    ]  # the second looks beyond the first's edges
    best = {name: learning_rate_of(own if name in names[1] else first, name) for name in searched}
    assert {name: VARIANTS[name].lr for name in searched} == best


def test_the_published_study_is_the_one_that_the_command_makes_by_default(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "lisabench.benchmarks.study.study.carry_out", lambda how, *_: made.append(how)
    )
    study(tmp_path, device="cpu")
    (how,) = made
    monkeypatch.setattr("lisabench.benchmarks.study.folder._render", lambda *_: None)
    with begun(how, [0], ["dual"]):
        pass
    written = [
        json.loads((folder / "study.json").read_text())
        for folder in (tmp_path, RESULTS / "accuracy-tiny")
    ]
    assert written[0] == written[1]


def test_a_search_tries_a_dual_only_if_it_is_named(tmp_path, monkeypatch):
    asked = []

    def noted(_how, _seeds, names, _told):
        asked.append(names)
        return []

    monkeypatch.setattr("lisabench.benchmarks.study.search.search", noted)
    study(tmp_path, search=True, device="cpu")
    study(tmp_path, search=True, device="cpu", variant=["dual"])
    assert asked == [[name for name in VARIANTS if name != "dual"], ["dual"]]


def test_a_table_of_a_search_marks_the_best_rate_and_says_when_it_is_at_the_edge():
    tried = [
        ("clip", 1e-3, 0.5),
        ("clip", 3e-3, None),
        ("clip", 3.3e-4, 0.4),
        ("sam", 1e-3, 0.5),
        ("sam", 3e-3, 0.6),
    ]
    trials = [SearchTrial(name, 0, lr, 600, score) for name, lr, score in tried]
    assert table(trials).splitlines() == [
        "clip             seed 0  0.00033: 0.400  0.001: 0.500 *  0.003: diverged",
        "sam              seed 0  0.001: 0.500  0.003: 0.600 *  (at the edge: try further)",
    ]


def test_a_rate_at_which_the_losses_are_no_numbers_any_more_is_a_result(tmp_path, monkeypatch):
    monkeypatch.setattr("lisabench.benchmarks.study.search.FACTORS", (1e9,))
    how = small_study(tmp_path, dual_steps=9, steps=2)
    (trial,) = search(how, [0], ["dual"])
    assert trial.val_gIoU is None


def test_an_unknown_variant_is_refused_in_one_line(tmp_path):
    done = lisabench("study", tmp_path, "--variant", "clap", "--device", "cpu")
    assert done.returncode == 2
    assert "unknown variant 'clap' (did you mean 'clip'?)" in done.stderr
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
