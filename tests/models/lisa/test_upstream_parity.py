"""The dual LISA computes what the original computed in a recorded forward pass."""

import json
import zlib
from contextlib import nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from places import GOLDENS

from lisabench.harness.errors import DataError
from lisabench.models.adapters.lisa_stages import LisaModel, Prompt
from lisabench.models.checkpoints import upstream_names
from lisabench.models.lisa.encoders import Features
from lisabench.models.lisa.frames import extent_in_frame
from lisabench.models.lisa.presets import ClipSizes, LlamaSizes, Preset, SamSizes
from lisabench.models.lisa.resampling import logits_at_size
from lisabench.models.lisa.tokenizer import IMAGE_ID, before_seg

pytestmark = pytest.mark.no_clock

TOLERANCE = 2e-5
ARRAYS = ("sam_embedding", "projected", "seg_embedding", "low_res_logits", "iou", "mask_logits")
NO_PROBE = SimpleNamespace(region=lambda _: nullcontext())
WIDE = (
    "embed_tokens",
    "pos_embed",
    "position_embedding",
    "point_embeddings",
    "iou_token",
    "mask_tokens",
    "no_mask",
)


def weight(key: str, shape: list[int], salt: str) -> torch.Tensor:
    """A parameter of the recording, by the rule of its README."""
    rng = np.random.default_rng(zlib.crc32(f"{salt}:{key}".encode()))
    w = rng.standard_normal(shape, dtype=np.float32)
    if key.endswith("inv_freq"):
        w = np.zeros(shape, np.float32)  # follows from the sizes, and must not be read from here
    elif key.endswith("positional_encoding_gaussian_matrix"):
        pass
    elif len(shape) <= 1:
        w = (1 if key.endswith("weight") else 0) + np.float32(0.1) * w
    elif any(name in key for name in (*WIDE, "not_a_point")):
        w = np.float32(0.5) * w
    else:
        w = w * np.float32(1.2 / np.sqrt(prod(shape[1:])))
    return torch.from_numpy(w)


def sizes(config: dict, shapes: dict[str, list[int]]) -> Preset:
    """The recording's sizes, with what its README says of the rest."""
    clip = ClipSizes(
        224,
        14,
        config["clip_hidden"],
        2 * config["clip_hidden"],
        config["clip_layers"],
        config["clip_heads"],
    )
    llama = LlamaSizes(
        config["vocab"],
        config["hidden"],
        config["intermediate"],
        config["layers"],
        config["heads"],
        context=2048,
    )
    sam = SamSizes(
        image_px=1024,
        patch_px=16,
        hidden=config["sam_hidden"],
        layers=config["sam_layers"],
        heads=config["sam_heads"],
        window=14,
        global_layers=tuple(config["sam_global"]),
        relative_positions=True,
        prompt_dim=shapes["model.visual_model.prompt_encoder.no_mask_embed.weight"][1],
        decoder_mlp=shapes["model.visual_model.mask_decoder.transformer.layers.0.mlp.lin1.weight"][
            0
        ],
    )
    return Preset(clip, llama, sam)


class Recording:
    """A recorded forward pass, and ours from the same weights and inputs."""

    def __init__(self, folder: Path) -> None:
        self.json = json.loads((folder / "lisa_forward.json").read_text())
        self.arrays = np.load(folder / "lisa_forward.npz")
        shapes, salt = self.json["state_dict"], self.json["salt"]
        self.sizes = sizes(self.json["config"], shapes)
        self.state_dict = {key: weight(key, shape, salt) for key, shape in shapes.items()}
        self.model = upstream_names.from_upstream(self.state_dict, self.sizes)
        rng = np.random.default_rng(zlib.crc32(f"{salt}:inputs".encode()))
        self.seen = {
            "sam_frame": torch.from_numpy(
                rng.standard_normal((1, 3, 1024, 1024), dtype=np.float32)
            ),
            "clip_crop": torch.from_numpy(rng.standard_normal((1, 3, 224, 224), dtype=np.float32)),
        }
        with torch.inference_mode():
            self.features: Features = self.model.encoder(self.seen, NO_PROBE)
        self.seg_embedding = self.embed(self.model, self.features.image_tokens_BNC)
        self.logits, self.iou = self.decode(self.model)

    def prompts(self, extra: int = 0) -> list[Prompt]:
        """The recorded ids up to where [SEG] is predicted, and `extra` more."""
        prompts = []
        for ids in self.json["input_ids"]:
            ids = ids[: len(before_seg(ids, self.json["config"]["seg"])) + extra]
            image = ids.index(IMAGE_ID)
            prompts.append(Prompt(torch.tensor(ids[:image]), torch.tensor(ids[image + 1 :])))
        return prompts

    @torch.inference_mode()
    def embed(
        self, model: LisaModel, image_tokens_BNC: torch.Tensor, extra: int = 0
    ) -> torch.Tensor:
        prompts = self.prompts(extra)
        return model.seg_embedding(prompts, image_tokens_BNC.expand(len(prompts), -1, -1), NO_PROBE)

    @torch.inference_mode()
    def decode(self, model: LisaModel) -> tuple[torch.Tensor, torch.Tensor]:
        mask_embedding = self.features.mask_embedding_BChw.expand(
            len(self.seg_embedding), -1, -1, -1
        )
        return model.decode(mask_embedding, self.seg_embedding, NO_PROBE)

    def ours(self) -> dict[str, torch.Tensor]:
        size_HW = tuple(self.json["original_size"])
        assert extent_in_frame(size_HW, 1024) == tuple(self.json["resize"])
        return {
            "sam_embedding": self.features.mask_embedding_BChw[0, ::16, ::8, ::8],
            "projected": self.features.image_tokens_BNC[0, ::16],
            "seg_embedding": self.seg_embedding,
            "low_res_logits": self.logits[:, ::2, ::2],
            "iou": self.iou,
            "mask_logits": logits_at_size(self.logits, size_HW, 1024),
        }

    def error(self, name: str, array: torch.Tensor) -> float:
        """Largest absolute error over the recorded array's standard deviation."""
        recorded = self.arrays[name]
        assert array.shape == recorded.shape
        return float(np.abs(array.numpy() - recorded).max() / recorded.std())


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording(GOLDENS)


@pytest.fixture
def model(recording: Recording) -> LisaModel:
    """The recording's model, to be broken."""
    return upstream_names.from_upstream(recording.state_dict, recording.sizes)


@pytest.mark.parametrize("name", ARRAYS)
def test_golden_forward_pass_is_reproduced(recording: Recording, name: str) -> None:
    assert recording.error(name, recording.ours()[name]) <= TOLERANCE


def test_golden_notices_the_state_at_seg_itself(recording: Recording) -> None:
    embedding = recording.embed(recording.model, recording.features.image_tokens_BNC, extra=1)
    assert recording.error("seg_embedding", embedding) > 1000 * TOLERANCE


@pytest.mark.parametrize("tokens", [slice(1, None), slice(None, -1)])
def test_golden_notices_a_missing_image_token(recording: Recording, tokens: slice) -> None:
    embedding = recording.embed(recording.model, recording.features.image_tokens_BNC[:, tokens])
    assert recording.error("seg_embedding", embedding) > 1000 * TOLERANCE


def test_golden_notices_a_missing_no_mask_embed(recording: Recording, model: LisaModel) -> None:
    torch.nn.init.zeros_(model.prompt_encoder.no_mask_embed.weight)
    logits, _ = recording.decode(model)
    assert recording.error("low_res_logits", logits[:, ::2, ::2]) > 1000 * TOLERANCE


def test_golden_notices_another_epsilon_in_the_mask_decoder(
    recording: Recording, model: LisaModel
) -> None:
    for layer in model.mask_decoder.transformer.layers:
        for norm in (layer.layer_norm1, layer.layer_norm2, layer.layer_norm3, layer.layer_norm4):
            norm.eps = 1e-6
    logits, _ = recording.decode(model)
    right, wrong = (
        recording.error("low_res_logits", each[:, ::2, ::2]) for each in (recording.logits, logits)
    )
    assert wrong > 4 * right


def test_golden_notices_the_last_layer_of_clip(recording: Recording) -> None:
    encoder = recording.model.encoder
    with torch.inference_mode():
        last = encoder.clip(recording.seen["clip_crop"]).last_hidden_state[:, 1:]
        projected = encoder.projector(last)
    assert recording.error("projected", projected[0, ::16]) > 1000 * TOLERANCE


LLAMA, DECODER = "model.layers.0.", "model.visual_model.mask_decoder.transformer.layers.0."


@pytest.mark.parametrize(
    ("array", "one", "other"),
    [
        ("seg_embedding", f"{LLAMA}self_attn.q_proj.", f"{LLAMA}self_attn.k_proj."),
        ("seg_embedding", f"{LLAMA}input_layernorm.", f"{LLAMA}post_attention_layernorm."),
        ("low_res_logits", f"{DECODER}norm1.", f"{DECODER}norm2."),
    ],
)
def test_golden_notices_two_exchanged_weights(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, array: str, one: str, other: str
) -> None:
    right, exchange = upstream_names.upstream_name, {one: other, other: one}

    def wrong(name: str) -> str:
        theirs = right(name)
        return next((theirs.replace(a, b) for a, b in exchange.items() if a in theirs), theirs)

    monkeypatch.setattr(upstream_names, "upstream_name", wrong)
    broken = upstream_names.from_upstream(recording.state_dict, recording.sizes)
    embedding = recording.embed(broken, recording.features.image_tokens_BNC)
    found = {"seg_embedding": embedding, "low_res_logits": recording.decode(broken)[0][:, ::2, ::2]}
    assert recording.error(array, found[array]) > 1000 * TOLERANCE


@pytest.mark.parametrize("rule", upstream_names.IN_SAM, ids=lambda rule: rule[0])
def test_golden_checkpoint_is_refused_without_any_one_of_the_renames(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, rule: tuple[str, str]
) -> None:
    monkeypatch.setattr(
        upstream_names, "IN_SAM", tuple(each for each in upstream_names.IN_SAM if each != rule)
    )
    with pytest.raises(DataError, match=r"\d+ unknown: model\.visual_model\."):
        upstream_names.from_upstream(recording.state_dict, recording.sizes)


def test_golden_checkpoint_with_wrong_keys_is_refused_by_their_names(recording: Recording) -> None:
    without = {k: v for k, v in recording.state_dict.items() if k != "model.mm_projector.bias"}
    with pytest.raises(DataError, match=r"1 missing: model\.mm_projector\.bias"):
        upstream_names.from_upstream(without, recording.sizes)
    with pytest.raises(DataError, match=r"1 unknown: model\.visual_model\.extra"):
        upstream_names.from_upstream(
            {**recording.state_dict, "model.visual_model.extra": torch.zeros(1)}, recording.sizes
        )
    larger = replace(recording.sizes, llama=replace(recording.sizes.llama, vocabulary=7))
    with pytest.raises(
        DataError, match=r"2 of another shape: lm_head\.weight, model\.embed_tokens\.weight"
    ):
        upstream_names.from_upstream(recording.state_dict, larger)


def test_golden_checkpoint_may_leave_clip_to_another_file_but_not_out(recording: Recording) -> None:
    prefix = "model.vision_tower.vision_tower."
    released = {k: v for k, v in recording.state_dict.items() if not k.startswith(prefix)}
    tower = {
        k.removeprefix(prefix): v for k, v in recording.state_dict.items() if k.startswith(prefix)
    }
    read = upstream_names.from_upstream(released, recording.sizes, vision_tower=tower)
    assert all(
        torch.equal(read.state_dict()[name], value)
        for name, value in recording.model.state_dict().items()
    )
    with pytest.raises(DataError, match=r"vision_tower"):
        upstream_names.from_upstream(released, recording.sizes)


def test_golden_checkpoint_may_hold_or_lack_what_follows_from_the_sizes(
    recording: Recording,
) -> None:
    lean = {k: v for k, v in recording.state_dict.items() if not k.endswith("inv_freq")}
    derived = {f"{LLAMA}self_attn.rotary_emb.inv_freq": torch.zeros(2)}
    for state_dict in (lean, {**lean, **derived}):
        read = upstream_names.from_upstream(state_dict, recording.sizes)
        assert torch.equal(
            read.llm.model.rotary_emb.inv_freq, recording.model.llm.model.rotary_emb.inv_freq
        )
