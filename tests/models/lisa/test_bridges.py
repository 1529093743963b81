"""The upsampling bridge, a finer grid of CLIP, and a smaller SAM: counted, trained and saved."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lisas import Regions, lisa, noise, on_meta, predict, shared_lisa
from torch.utils.flop_counter import FlopCounterMode
from trainable_lisas import ORIGIN, learned_from, logits, ready

from lisabench.benchmarks.training import command
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness.errors import UsageError
from lisabench.harness.probe import NullProbe
from lisabench.harness.records.training import (
    TRAINING_SCHEMA,
    TrainedModel,
    TrainingManifest,
)
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.checkpoints.loaded_parts import POSITIONS, interpolated
from lisabench.models.lisa import costs, parts, weights_format
from lisabench.models.lisa.bridges import UpsamplingBridge
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.frames import whole_frame
from lisabench.models.lisa.network import LisaModel
from lisabench.models.lisa.presets import PRESETS, TINY_SAMS, upsampling
from lisabench.models.lisa.resampling import grid_map
from lisabench.models.training.recipes import LOSSES, RECIPES, trainable
from lisabench.models.training.save import save
from lisabench.models.training.trainable import trained_by_part

pytestmark = pytest.mark.no_clock

TINY = PRESETS["tiny"]
UPSAMPLING = {"vision": "clip", "bridge": "upsampling"}
FINER = {"clip_px": 224}
POOLED = {**FINER, "image_tokens": "pooled"}


@pytest.fixture(scope="module")
def scenes() -> ReasonSeg:
    return ReasonSeg(embedded("train", 6, 0), "train")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of the dual, and of a sharing with either bridge."""
    root = tmp_path_factory.mktemp("weights")
    axes = {"dual": {}, "linear": {"vision": "clip"}, "upsampling": UPSAMPLING}
    for name, each in axes.items():
        (root / name).mkdir()
        save(ready("everything", **each), root / name, ORIGIN)
    return {name: str(root / name) for name in axes}


def loaded(**axes: object) -> Lisa:
    return Lisa(LisaConfig(device="cpu", **axes), NullProbe())


@pytest.mark.parametrize(
    ("preset", "layers", "doublings"),
    [
        ("tiny", (1, 2, 3, 4), 1),
        ("lisa-7b", (5, 11, 17, 23), 2),
        ("lisa-7b-llava15", (5, 11, 17, 23), 2),
    ],
)
def test_it_reads_four_layers_up_to_the_one_before_the_last_and_reaches_sams_grid(
    preset: str, layers: tuple[int, ...], doublings: int
) -> None:
    sizes = upsampling(PRESETS[preset])
    assert (sizes.layers, sizes.doublings) == (layers, doublings)


def test_every_layer_that_it_reads_counts() -> None:
    torch.manual_seed(0)
    bridge = UpsamplingBridge(TINY).eval()
    clip_to_sam = grid_map(whole_frame((60, 90), 112), whole_frame((60, 90), 256), 16)[None]
    states = list(torch.randn(4, 1, TINY.clip.patches, TINY.clip.hidden))
    with torch.no_grad():
        plain_BChw = bridge(states, clip_to_sam, "nearest")
        others = [
            bridge([*states[:i], -states[i], *states[i + 1 :]], clip_to_sam, "nearest")
            for i in range(4)
        ]
    assert plain_BChw.shape == (1, 256, 16, 16)
    assert all((other_BChw - plain_BChw).abs().mean() > 0.1 for other_BChw in others)


def test_the_language_model_sees_the_same_as_with_the_linear_bridge_and_the_masks_do_not() -> None:
    linear, other = (
        shared_lisa(vision="clip", bridge=bridge) for bridge in ("linear", "upsampling")
    )
    one, two = (each.vision(each.preprocess([noise()])) for each in (linear, other))
    assert torch.equal(one.image_tokens_BNC, two.image_tokens_BNC)
    assert one.mask_embedding_BChw.shape == two.mask_embedding_BChw.shape
    assert (one.mask_embedding_BChw - two.mask_embedding_BChw).abs().mean() > 0.1


@pytest.mark.parametrize(("preset", "most"), [("tiny", 500_000), ("lisa-7b", 10_000_000)])
def test_it_stays_far_below_the_encoder_that_it_replaces(preset: str, most: int) -> None:
    held = costs.parameters(LisaConfig(preset=preset, **UPSAMPLING))["bridge"]
    assert held < most
    assert held < 0.15 * costs.parameters(LisaConfig(preset=preset))["sam_encoder"]


@pytest.mark.parametrize(
    "axes",
    [
        *({"preset": preset, **UPSAMPLING} for preset in PRESETS),
        {**UPSAMPLING, **FINER},
        {**UPSAMPLING, **POOLED},
        FINER,
        POOLED,
        {"preset": "lisa-7b", "clip_px": 336},
        {"sam": "tiny_s"},
        {"sam": "tiny_s", "vision": "sam"},
    ],
    ids=str,
)
def test_paper_counts_what_is_built(axes: dict[str, object]) -> None:
    case = LisaConfig(**axes)
    built = LisaModel(case.sizes, case.vision, on_meta, bridge=case.bridge).parts()
    assert {name: parts.parameters(part) for name, part in built.items()} == costs.parameters(case)


@pytest.mark.parametrize(
    "axes", [{}, FINER, POOLED, {"preset": "lisa-7b"}, {"preset": "lisa-7b-llava15"}], ids=str
)
def test_torch_counts_the_bridges_operations_that_paper_says(axes: dict[str, object]) -> None:
    case = LisaConfig(**UPSAMPLING, **axes)
    clip, sam = case.sizes.clip, case.sizes.sam
    with torch.device("meta"):
        bridge, clip_to_sam = UpsamplingBridge(case.sizes), torch.zeros(1, sam.grid, sam.grid, 2)
        states = [torch.zeros(1, clip.patches, clip.hidden)] * 4
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        bridge(states, clip_to_sam, "nearest")
    assert costs.flops(case)["vision.bridge"] == pytest.approx(
        counter.get_total_flops(), rel=1e-6, abs=0
    )


@pytest.mark.parametrize(
    "axes", [UPSAMPLING, FINER, {**UPSAMPLING, **POOLED}, {"sam": "tiny_s"}], ids=str
)
def test_the_bytes_in_memory_are_those_on_paper(axes: dict[str, object]) -> None:
    adapter = shared_lisa(**axes)
    paper = adapter.paper(None, None).weight_bytes
    assert {part: adapter.weights[part] for part in paper} == pytest.approx(
        paper, rel=0.01, abs=1 << 16
    )


def test_a_step_of_a_recipe_with_the_bridge_trains_all_of_it_and_it_is_saved_and_found_again(
    scenes: ReasonSeg, tmp_path: Path
) -> None:
    case = resolve_setup(
        {"recipe": "with-projector", "use_vlm_vision": True, "changes": {"bridge": "upsampling"}}
    ).case
    trains = RECIPES["with-projector"].trains
    student = ready("with-projector", **UPSAMPLING)
    assert trained_by_part(student.model) == trainable(case, trains)
    assert trainable(case, trains)["bridge"] == 495_232
    bridge = student.model.encoder.bridge
    before = {name: tensor.clone() for name, tensor in bridge.named_parameters()}
    learned_from(student, scenes[:2], LOSSES["described"])
    assert all(not torch.equal(tensor, before[name]) for name, tensor in bridge.named_parameters())
    student.model.eval()
    known = save(student, tmp_path, ORIGIN)
    assert weights_format.read(tmp_path).bridge == known.bridge == "upsampling"
    assert "`bridge=upsampling`" in (tmp_path / "README.md").read_text()
    again = loaded(**UPSAMPLING, weights=str(tmp_path))
    torch.testing.assert_close(
        logits(student, scenes[:2]), logits(again, scenes[:2]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("theirs", "asked"), [("linear", "upsampling"), ("upsampling", "linear")])
def test_the_weights_of_one_bridge_are_refused_for_another_and_may_be_started_from(
    weights: dict[str, str], theirs: str, asked: str
) -> None:
    axes = {"vision": "clip", "bridge": asked, "weights": weights[theirs]}
    with pytest.raises(
        UsageError, match=f"have bridge={theirs}, not {asked}: set bridge={theirs}"
    ) as error:
        loaded(**axes)
    assert "\n" not in str(error.value)
    assert ready("with-projector", **axes).new_parts == {"bridge"}


def test_weights_that_were_saved_before_there_was_a_choice_are_read_as_the_linear_bridges(
    weights: dict[str, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(weights["linear"], tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["bridge"], config["sizes"]["clip"]["token_grid"]
    (folder / "config.json").write_text(json.dumps(config))
    assert loaded(vision="clip", weights=str(folder)).settings["bridge"] == "linear"


def test_a_finer_grid_makes_a_longer_prompt_unless_its_tokens_are_pooled() -> None:
    usual, finer, pooled = (shared_lisa(vision="clip", **axes) for axes in ({}, FINER, POOLED))
    tokens = [predict(each, noise())[0].prompt_tokens for each in (usual, finer, pooled)]
    assert tokens == [tokens[0], tokens[0] + 256 - 64, tokens[0]]
    assert tokens == [each.prompt_tokens(noise()) for each in (usual, finer, pooled)]
    for each, image_tokens in ((usual, 64), (finer, 256), (pooled, 64)):
        assert each.settings["image_tokens"] == image_tokens
        assert each.settings["clip_px"] == (112 if each is usual else 224)
    prefill = [costs.flops(each.case)["llm.prefill"] for each in (usual, finer, pooled)]
    assert prefill[0] == prefill[2] < prefill[1] / 2
    clip = [costs.flops(each.case)["vision.clip"] for each in (usual, finer, pooled)]
    assert 4 * clip[0] < clip[1] == clip[2]


def test_pooled_tokens_are_averages_of_the_patches_that_the_masks_are_made_from() -> None:
    finer, pooled = (shared_lisa(vision="clip", **axes) for axes in (FINER, POOLED))
    one, two = (each.vision(each.preprocess([noise()])) for each in (finer, pooled))
    assert torch.equal(one.mask_embedding_BChw, two.mask_embedding_BChw)
    by_four_BNC = one.image_tokens_BNC.unflatten(1, (8, 2, 8, 2)).mean((2, 4)).flatten(1, 2)
    # Averaging before the projector or after it is the same, because the projector is linear.
    torch.testing.assert_close(two.image_tokens_BNC, by_four_BNC, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("vision", ["dual", "clip"])
def test_the_originals_habits_make_pooled_tokens_anew_too(vision: str) -> None:
    axes = {"answer": "generated", "max_new_tokens": 3, "execution": "upstream"}
    probe = Regions()
    upstream = lisa(probe, vision=vision, **POOLED, **axes)
    plain = lisa(vision=vision, **POOLED, **axes | {"execution": "eager"})
    ((said,), (expected,)) = predict(upstream, noise()), predict(plain, noise())
    assert probe.calls["vision.clip"] == 3
    assert said.predicted_iou == pytest.approx(expected.predicted_iou, rel=0, abs=1e-4)


def test_position_embeddings_are_interpolated_as_transformers_does() -> None:
    tower = shared_lisa().model.encoder.clip.embeddings
    with torch.no_grad():
        theirs_1NC = tower.interpolate_pos_encoding(
            torch.zeros(1, 1 + 256, TINY.clip.hidden), 224, 224
        )
        ours_NC = interpolated(tower.position_embedding.weight, 16)
    torch.testing.assert_close(ours_NC, theirs_1NC[0], rtol=0, atol=1e-6)
    assert torch.equal(ours_NC[0], tower.position_embedding.weight[0])


@pytest.mark.parametrize("axes", [FINER, POOLED], ids=str)
def test_training_starts_from_a_coarser_grid_and_what_is_saved_is_of_the_finer_one(
    weights: dict[str, str], scenes: ReasonSeg, tmp_path: Path, axes: dict[str, object]
) -> None:
    student = ready("described", vision="clip", weights=weights["dual"], **axes)
    positions = loaded(weights=weights["dual"]).model.state_dict()[POSITIONS]
    assert torch.equal(student.model.state_dict()[POSITIONS], interpolated(positions, 16))
    assert student.new_parts == {"bridge"}
    learned_from(student, scenes[:2])
    student.model.eval()
    known = save(student, tmp_path, ORIGIN)
    assert known.settings == {
        "preset": "tiny",
        "vision": "clip",
        "sam": "preset",
        "bridge": "linear",
        "frame": "whole",
        "seg_head": "text_hidden_fcs",
        "conditioning": "original",
        "template": "llava_v1",
        "precision": "fp32",
    } | ({"image_tokens": "patches"} | axes)
    again = loaded(vision="clip", weights=str(tmp_path), **axes)
    torch.testing.assert_close(
        logits(student, scenes[:2]), logits(again, scenes[:2]), rtol=1e-4, atol=1e-4
    )
    assert ready("described", vision="clip", weights=str(tmp_path), **axes).weight_transforms == {}


def test_the_weights_of_another_grid_are_refused_unless_they_are_to_be_trained(
    weights: dict[str, str],
) -> None:
    with pytest.raises(
        UsageError, match=r"not of .*clip_px=224.*: set .*sam=preset, clip_px=0"
    ) as error:
        loaded(weights=weights["dual"], **FINER)
    assert "\n" not in str(error.value)


def test_the_smaller_sam_has_half_the_width_and_depth_and_all_that_the_decoder_depends_on() -> None:
    small, usual = TINY_SAMS["tiny_s"], TINY.sam
    assert (2 * small.hidden, 2 * small.layers) == (usual.hidden, usual.layers)
    own = {
        "hidden": small.hidden,
        "layers": 3,
        "heads": small.heads,
        "global_layers": small.global_layers,
    }
    assert small == replace(usual, **own)
    assert shared_lisa(sam="tiny_s").settings["sam"] == "tiny_s"
    assert shared_lisa().settings["sam"] != "tiny_s"


def test_a_smaller_sam_starts_at_random_beside_the_rest_of_a_dual(
    weights: dict[str, str], tmp_path: Path
) -> None:
    axes = {"sam": "tiny_s", "weights": weights["dual"]}
    with pytest.raises(UsageError, match=r"not of .*sam=tiny_s.*: set .*sam=preset"):
        loaded(**axes)
    student = ready("everything", **axes)
    assert student.new_parts == {"sam_encoder"}
    assert any("SAM's encoder is new and random" in warning for warning in student.warnings)
    assert not ready("everything", weights=weights["dual"]).warnings
    dual = loaded(weights=weights["dual"]).model.state_dict()
    kept = {
        name: tensor
        for name, tensor in student.model.state_dict().items()
        if "sam_encoder" not in name
    }
    assert all(torch.equal(tensor, dual[name]) for name, tensor in kept.items())
    save(student, tmp_path, ORIGIN)
    again = loaded(sam="tiny_s", weights=str(tmp_path))
    assert (
        again.parameters["sam_encoder"] == costs.parameters(LisaConfig(sam="tiny_s"))["sam_encoder"]
    )


def test_a_sam_that_the_mask_decoder_does_not_fit_is_no_start(weights: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"not of .*sam=vit_b.*: set .*sam=preset"):
        ready("everything", sam="vit_b", weights=weights["dual"])


def test_the_command_on_a_card_has_what_was_set_beside_the_options() -> None:
    said = {"recipe": "with-projector", "use_vlm_vision": True, "output_dir": Path("out")}
    wanted = resolve_setup({**said, "changes": {"bridge": "upsampling"}})
    assert command.command_of(wanted.options, wanted.case).endswith("--set=bridge=upsampling")
    assert "--set" not in command.command_of(
        resolve_setup({"output_dir": Path("out"), "seed": 3}).options, LisaConfig(seed=3)
    )


def test_the_teacher_of_a_distillation_is_a_plain_dual_whatever_the_student_is(
    weights: dict[str, str],
) -> None:
    said = {
        "use_vlm_vision": True,
        "recipe": "distilled",
        "weights": weights["dual"],
        "device": "cpu",
    }
    student = {"bridge": "upsampling", "frame": "crop", **POOLED}
    teacher = command._teacher(resolve_setup({**said, "changes": student})).state_dict()
    sam = loaded(weights=weights["dual"]).model.get_submodule("encoder.sam_encoder").state_dict()
    assert all(torch.equal(tensor, sam[name]) for name, tensor in teacher.items())
    with pytest.raises(UsageError, match="has another SAM than sam=tiny_s"):
        command._teacher(resolve_setup({**said, "changes": {"sam": "tiny_s"}}))


def test_a_training_that_was_begun_before_there_was_a_choice_is_resumed_as_it_was(
    tmp_path: Path,
) -> None:
    said = {
        "recipe": "with-projector",
        "use_vlm_vision": True,
        "resume": True,
        "output_dir": tmp_path,
    }
    setup = resolve_setup(said)
    model = TrainedModel("with-projector", setup.case.preset, setup.case.vision)
    manifest = TrainingManifest(
        TRAINING_SCHEMA,
        status="running",
        started="2026-11-01T00:00:00+00:00",
        setup=setup.recorded(),
        configuration=setup.configuration(),
        model=model,
        environment={},
        versions={},
    )
    older = json.loads(json.dumps(manifest.as_json()))
    for axis in ("bridge", "clip_px", "image_tokens"):
        del older["configuration"]["case"][axis]
    (tmp_path / "run.json").write_text(json.dumps(older))
    (tmp_path / "training.jsonl").touch()
    command._open_folder(setup, manifest)
    other = resolve_setup({**said, "changes": {"bridge": "upsampling"}})
    with pytest.raises(
        UsageError, match=r"another configuration .*bridge was linear and is upsampling"
    ):
        command._open_folder(other, replace(manifest, configuration=other.configuration()))
