"""What the original and its releases leave on a disk becomes our layout, and the same model."""

import json
import pickle
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import original_factory as factory
import pytest
import torch
from original_factory import ADDED, CLIP, HEAD, PIECES, ROWS, SAM, SMALL, only, without

from lisabench.harness.errors import DataError, UsageError
from lisabench.models.checkpoints import convert as convert_module
from lisabench.models.checkpoints import shards, upstream_names
from lisabench.models.checkpoints.convert import Conversion, convert
from lisabench.models.checkpoints.source import open_source
from lisabench.models.lisa import llama_tokenizer, presets, weights_format
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.network import LisaModel, Prompt
from lisabench.models.registry import make_case

pytestmark = pytest.mark.no_clock

NO_PROBE = SimpleNamespace(region=lambda _: nullcontext())
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
LORA = {"lora_alpha": 16, "r": 4}


@pytest.fixture(autouse=True)
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tiny preset by one of a megabyte, so that it can be named in a case."""
    monkeypatch.setitem(presets.PRESETS, "tiny", SMALL)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return factory.weights()


@pytest.fixture
def tower(tmp_path: Path, tensors: dict) -> Path:
    return factory.write_clip(tmp_path / "clip", tensors)


@pytest.fixture
def released(tmp_path: Path, tensors: dict) -> Path:
    return factory.write_lisa(tmp_path / "LISA-7B-v1", without(tensors, CLIP))


@pytest.fixture
def converted(tmp_path: Path, released: Path, tower: Path) -> Path:
    return convert(released, tmp_path / "ours", tower).folder


def case(folder: Path, **axes: str) -> LisaConfig:
    return LisaConfig(**{"weights": str(folder), "device": "cpu", **axes})


def loaded(folder: Path, **axes: str) -> LisaModel:
    source = open_source(case(folder, **axes), "cpu")
    return LisaModel(source.preset, axes.get("vision", "dual"), source.make)


@torch.inference_mode()
def outputs(model: LisaModel) -> list[torch.Tensor]:
    """The answer's logits, the mask's logits and the predicted IoU for fixed pixels and ids."""
    generator = torch.Generator().manual_seed(1)
    seen = {
        name: torch.randn(1, 3, px, px, generator=generator)
        for name, px in (("clip_crop", SMALL.clip.image_px), ("sam_frame", SMALL.sam.image_px))
    }
    features = model.encoder(seen, NO_PROBE)
    ids = torch.arange(40, 60)
    embedded = model.embed([Prompt(ids[:5], ids[5:])], features.image_tokens_BNC)[0][None]
    states = model.llm.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    masks = model.mask_decoder(
        image_embeddings=features.mask_embedding_BChw,
        image_positional_embeddings=torch.zeros_like(features.mask_embedding_BChw),
        sparse_prompt_embeddings=model.seg_projection(states[:, -1])[:, None, None],
        dense_prompt_embeddings=torch.zeros_like(features.mask_embedding_BChw),
        multimask_output=False,
    )
    return [model.llm.lm_head(states), *masks[:2]]


def assert_same(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The converted model computes what the original's weights compute."""
    sizes = replace(SMALL, llama=replace(SMALL.llama, norm_epsilon=1e-5))
    expected = outputs(upstream_names.from_upstream(tensors, sizes))
    found = outputs(loaded(folder))
    assert all(tensor.std() > 1e-3 for tensor in expected[:2])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 900
    return text


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_released_checkpoint_gives_the_logits_of_its_weights(
    tmp_path: Path, tensors: dict, tower: Path, kind: str, count: int
) -> None:
    src = factory.write_lisa(tmp_path / "lisa", without(tensors, CLIP), kind, count)
    assert_same(convert(src, tmp_path / "ours", tower).folder, tensors)


@pytest.mark.parametrize("source", ["a release", "a start", "two precisions"])
def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tmp_path, tensors, released, tower, start, monkeypatch, source
):
    src, sam = released, None
    if source == "a start":
        src, sam = start.llava, start.sam
    if source == "two precisions":
        half = {name: tensor.half() for name, tensor in tensors.items() if SAM in name}
        src = factory.write_lisa(tmp_path / "mixed", without(tensors, CLIP) | half)
    needed = convert(src, tmp_path / "first", tower, sam).total_bytes
    there = set(tmp_path.iterdir())

    free = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda _: free)
    with pytest.raises(UsageError, match=r"takes 0\.00 GiB, and its disk has 0\.00 GiB left"):
        convert(src, tmp_path / "new" / "second", tower, sam)
    assert set(tmp_path.iterdir()) == there
    free.free = needed
    assert convert(src, tmp_path / "new" / "second", tower, sam).total_bytes == needed


def test_a_second_conversion_into_a_folder_is_refused_and_leaves_the_first_alone(
    tmp_path, released, tower
):
    folder = tmp_path / "ours"
    refused = []

    def second(*_):
        if not refused:
            with pytest.raises(UsageError, match="another lisabench is writing") as error:
                convert(released, folder, tower)
            refused.append(error)

    convert(released, folder, tower, progress=second)
    assert refused
    assert loaded(folder)
    assert not list(tmp_path.glob(".ours*"))


def test_shards_are_found_without_their_index(tmp_path: Path, tensors: dict, tower: Path) -> None:
    src = factory.write_lisa(tmp_path / "lisa", without(tensors, CLIP), "bin", 3)
    (src / "pytorch_model.bin.index.json").unlink()
    assert_same(convert(src, tmp_path / "ours", tower).folder, tensors)


def test_clip_may_be_a_whole_clip_or_be_among_the_weights(tmp_path: Path, tensors: dict) -> None:
    whole = factory.write_clip(tmp_path / "clip", tensors, whole=True)
    lean = factory.write_lisa(tmp_path / "lean", without(tensors, CLIP))
    full = factory.write_lisa(tmp_path / "full", tensors)
    hashes = {
        convert(lean, tmp_path / "a", whole).saved.weights_hash,
        convert(full, tmp_path / "b").saved.weights_hash,
    }
    assert len(hashes) == 1
    assert_same(tmp_path / "b", tensors)


def lora(seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"A": (4, 64), "B": (64, 4)}
    return {
        f"{layer}.lora_{s}": 0.3 * torch.randn(shapes[s], generator=generator)
        for layer in (Q, V)
        for s in "AB"
    }


def merged(tensors: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    pairs = lora()
    changes = {
        f"{layer}.weight": scale * pairs[f"{layer}.lora_B"] @ pairs[f"{layer}.lora_A"]
        for layer in (Q, V)
    }
    return {name: tensor + changes.get(name, 0) for name, tensor in tensors.items()}


def unmerged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As DeepSpeed's script gathers what PEFT has wrapped."""
    wrapped = {
        name.replace(f"{Q}.", f"{Q}.base_layer."): tensor for name, tensor in tensors.items()
    }
    pairs = {f"{name}.default.weight": tensor for name, tensor in lora().items()}
    return {f"base_model.model.{name}": tensor for name, tensor in {**wrapped, **pairs}.items()}


def test_unmerged_lora_weights_are_merged(tmp_path: Path, tensors: dict) -> None:
    src = factory.write_lisa(tmp_path / "lisa", unmerged(tensors), "bin", 2)
    (src / "adapter_config.json").write_text(json.dumps(LORA))
    assert_same(convert(src, tmp_path / "ours").folder, merged(tensors, scale=4))


def test_unmerged_lora_weights_without_their_settings_are_refused(
    tmp_path: Path, tensors: dict
) -> None:
    src = factory.write_lisa(tmp_path / "lisa", unmerged(tensors))
    with pytest.raises(DataError, match=r"unmerged LoRA.*q_proj.*lora_alpha and r") as error:
        convert(src, tmp_path / "ours")
    one_line(error)


@pytest.mark.parametrize("beside", [True, False], ids=["beside its model", "alone"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_peft_adapter_is_merged_into_its_model(
    tmp_path: Path, tensors: dict, beside: bool, suffix: str
) -> None:
    base = factory.write_lisa(tmp_path / "base", tensors)
    src = base if beside else tmp_path / "adapter"
    src.mkdir(exist_ok=True)
    head = tensors["lm_head.weight"] + 1
    pairs = {f"base_model.model.{name}.weight": tensor for name, tensor in lora().items()}
    adapter = {**pairs, "base_model.model.lm_head.weight": head}
    factory.save(adapter, src / f"adapter_model.{suffix}")
    settings = {**LORA, "use_rslora": True, "base_model_name_or_path": str(base)}
    (src / "adapter_config.json").write_text(json.dumps(settings))
    assert_same(
        convert(src, tmp_path / "ours").folder, {**merged(tensors, scale=8), "lm_head.weight": head}
    )


def test_an_adapter_that_cannot_be_merged_right_is_refused(tmp_path: Path, tensors: dict) -> None:
    src = factory.write_lisa(tmp_path / "lisa", unmerged(tensors))
    (src / "adapter_config.json").write_text(json.dumps({**LORA, "use_dora": True}))
    with pytest.raises(DataError, match=r"use_dora.*PEFT"):
        convert(src, tmp_path / "ours")
    (src / "adapter_config.json").write_text(json.dumps({"r": 4}))
    with pytest.raises(DataError, match="lacks lora_alpha"):
        convert(src, tmp_path / "ours")


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 2000, "a\0b", None])
def test_an_adapter_whose_base_cannot_be_a_folder_is_one_line(tmp_path, name) -> None:
    src = tmp_path / "adapter"
    src.mkdir()
    factory.save({f"base_model.model.{key}.weight": t for key, t in lora().items()},
                 src / "adapter_model.safetensors")  # fmt: skip
    settings = {**LORA, "base_model_name_or_path": name}
    (src / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"the model that it was made for \(of no name\)"):
        convert(src, tmp_path / "ours")


def test_an_adapter_of_other_weights_is_refused(tmp_path: Path, tensors: dict) -> None:
    extra = {"model.layers.9.self_attn.q_proj.lora_A.weight": torch.zeros(4, 64)}
    half = factory.write_lisa(tmp_path / "half", {**tensors, **extra})
    with pytest.raises(DataError, match=r"half of a LoRA pair.*layers\.9"):
        convert(half, tmp_path / "ours")
    extra["model.layers.9.self_attn.q_proj.lora_B.weight"] = torch.zeros(64, 4)
    other = factory.write_lisa(tmp_path / "other", {**tensors, **extra})
    (other / "adapter_config.json").write_text(json.dumps(LORA))
    with pytest.raises(DataError, match=r"LoRA of model\.layers\.9.*no weight of that name"):
        convert(other, tmp_path / "ours")


def test_deepspeed_pieces_are_recognised(tmp_path: Path, tensors: dict) -> None:
    src = factory.write_lisa(tmp_path / "lisa", tensors)
    (src / "pytorch_model.bin").unlink()
    (src / "latest").write_text("global_step5000")
    (src / "global_step5000").mkdir()
    (src / "global_step5000" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    with pytest.raises(DataError, match=r"DeepSpeed.*zero_to_fp32\.py") as error:
        convert(src, tmp_path / "ours")
    one_line(error)


class Start:
    """A LLaVA and a SAM, as they are released."""

    def __init__(self, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        rows = {
            name: tensors[name][: PIECES + 1]
            for name in ("model.embed_tokens.weight", "lm_head.weight")
        }
        language = {**without(tensors, CLIP, SAM, HEAD), **rows}
        self.llava = factory.write_lisa(
            folder / "llava", {name: each.half() for name, each in language.items()}
        )
        (self.llava / "added_tokens.json").write_text(json.dumps({"[PAD]": PIECES}))
        self.sam = folder / "sam_vit_h.pth"
        torch.save(only(tensors, SAM), self.sam)


@pytest.fixture
def start(tmp_path: Path, tensors: dict) -> Start:
    return Start(tmp_path, tensors)


def test_a_start_from_llava_has_one_token_for_each_new_mark(
    tmp_path: Path, start: Start, tower: Path
) -> None:
    done = convert(start.llava, tmp_path / "ours", tower, start.sam)
    tokenizer = llama_tokenizer.load(done.folder)
    new = (PIECES + 1, PIECES + 2, PIECES + 3)
    assert done.saved.new_rows == new
    assert tokenizer.encode("<im_start><image><im_end>it is [SEG].")[1] == new[1]
    assert tokenizer.seg_id == new[0]
    assert tokenizer.decode([tokenizer.seg_id]) == "[SEG]"
    assert not done.saved.trained
    assert any("projection of [SEG] is random" in warning for warning in done.warnings)


def test_a_start_from_llava_keeps_every_old_row_and_weight(
    tmp_path: Path, tensors: dict, start: Start, tower: Path
) -> None:
    model = loaded(convert(start.llava, tmp_path / "ours", tower, start.sam).folder)
    for weight, name in (
        (model.llm.model.embed_tokens.weight, "model.embed_tokens"),
        (model.llm.lm_head.weight, "lm_head"),
    ):
        assert weight.shape == (PIECES + 4, SMALL.llama.hidden)
        assert torch.equal(
            weight[: PIECES + 1], tensors[f"{name}.weight"][: PIECES + 1].half().float()
        )
        assert 0.005 < weight[PIECES + 1 :].std() < 0.05
    assert not torch.equal(model.llm.lm_head.weight[-3:], model.llm.model.embed_tokens.weight[-3:])
    blocks = tensors["model.visual_model.image_encoder.patch_embed.proj.weight"]
    assert torch.equal(model.encoder.sam_encoder.patch_embed.projection.weight, blocks)


def test_a_start_depends_on_its_seed_alone(tmp_path: Path, start: Start, tower: Path) -> None:
    hashes = [
        convert(start.llava, tmp_path / f"{i}", tower, start.sam, seed=s).saved.weights_hash
        for i, s in enumerate((0, 0, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_start_of_the_described_model_has_its_one_new_token(
    tmp_path: Path, start: Start, tower: Path
) -> None:
    done = convert(start.llava, tmp_path / "ours", tower, start.sam, conditioning="described")
    assert done.saved.new_rows == (PIECES + 1,)
    assert done.saved.conditioning == "described"
    assert loaded(done.folder, conditioning="described").llm.lm_head.weight.shape[0] == PIECES + 2
    with pytest.raises(DataError, match="splits <im_start> into") as error:
        loaded(done.folder, conditioning="original")
    one_line(error)


def test_a_lisa_keeps_its_own_tokens(tmp_path: Path, released: Path, tower: Path) -> None:
    with pytest.raises(UsageError, match="is a LISA and keeps its own tokens") as error:
        convert(released, tmp_path / "ours", tower, conditioning="described")
    one_line(error)
    with pytest.raises(UsageError, match="unknown conditioning 'discribed'"):
        convert(released, tmp_path / "ours", tower, conditioning="discribed")


def test_a_lisa_needs_no_sam_and_a_llava_does(
    tmp_path: Path, released: Path, start: Start, tower: Path
) -> None:
    with pytest.raises(DataError, match=r"holds no SAM.*LLaVA"):
        convert(start.llava, tmp_path / "ours", tower)
    with pytest.raises(UsageError, match="SAM of its own"):
        convert(released, tmp_path / "ours", tower, start.sam)


def broken(tmp_path: Path, tensors: dict, tower: Path, **changes: torch.Tensor | None) -> str:
    """The message for weights with these changes; None takes a weight away."""
    changed = {
        **without(tensors, CLIP),
        **{name.replace("__", "."): each for name, each in changes.items()},
    }
    src = factory.write_lisa(
        tmp_path / "broken", {name: each for name, each in changed.items() if each is not None}
    )
    with pytest.raises(DataError) as error:
        convert(src, tmp_path / "ours", tower)
    assert not (tmp_path / "ours").exists()
    return one_line(error)


def test_missing_weights_are_named(tmp_path: Path, tensors: dict, tower: Path) -> None:
    message = broken(
        tmp_path, tensors, tower, model__norm__weight=None, model__mm_projector__bias=None
    )
    assert "nearest is tiny" in message
    assert "2 missing: model.mm_projector.bias, model.norm.weight" in message


def test_unknown_weights_are_named(tmp_path: Path, tensors: dict, tower: Path) -> None:
    assert "1 unknown: model.extra" in broken(tmp_path, tensors, tower, model__extra=torch.zeros(1))


def test_a_projection_of_seg_that_is_missing_is_not_made_up(
    tmp_path: Path, tensors: dict, tower: Path
) -> None:
    gone = {name.replace(".", "__"): None for name in tensors if name.startswith(HEAD)}
    assert "4 missing: model.text_hidden_fcs.0.0.bias" in broken(tmp_path, tensors, tower, **gone)


def test_weights_of_another_size_are_refused(tmp_path: Path, tensors: dict, tower: Path) -> None:
    message = broken(tmp_path, tensors, tower, model__norm__weight=torch.ones(48))
    assert "1 of another shape: model.norm.weight" in message


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_truncated_shard_is_refused(
    tmp_path: Path, tensors: dict, tower: Path, kind: str
) -> None:
    src = factory.write_lisa(tmp_path / "lisa", without(tensors, CLIP), kind, 3)
    shard = next(src.glob(f"*-00002-of-00003.{kind}"))
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"00002-of-00003.*cut short") as error:
        convert(src, tmp_path / "ours", tower)
    one_line(error)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_missing_shard_is_refused(
    tmp_path: Path, tensors: dict, tower: Path, indexed: bool
) -> None:
    src = factory.write_lisa(tmp_path / "lisa", without(tensors, CLIP), "bin", 3)
    (src / "pytorch_model-00003-of-00003.bin").unlink()
    if not indexed:
        (src / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of its 3 shards \(pytorch_model-00003") as error:
        convert(src, tmp_path / "ours", tower)
    one_line(error)


class Payload:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_could_run_code_is_not_read(
    tmp_path: Path, released: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model.norm.weight": Payload()}, released / "pytorch_model.bin")
    with pytest.raises(DataError, match="could run code") as error:
        convert(released, tmp_path / "ours", tower)
    one_line(error)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Payload()))
    assert (tmp_path / "ran").exists()  # so it would have


def test_a_missing_tokenizer_is_refused(tmp_path: Path, released: Path, tower: Path) -> None:
    (released / "tokenizer.model").unlink()
    with pytest.raises(DataError, match=r"no .*tokenizer\.model") as error:
        convert(released, tmp_path / "ours", tower)
    one_line(error)


def test_a_tokenizer_without_the_added_tokens_is_refused(
    tmp_path: Path, released: Path, tower: Path
) -> None:
    (released / "added_tokens.json").unlink()
    with pytest.raises(DataError, match=r"added_tokens\.json.*\[SEG\]"):
        convert(released, tmp_path / "ours", tower)


def test_a_tokenizer_of_another_model_is_refused(
    tmp_path: Path, released: Path, tower: Path
) -> None:
    (released / "added_tokens.json").write_text(json.dumps({**ADDED, "<more>": ROWS}))
    with pytest.raises(DataError, match=rf"{ROWS + 1} tokens.*{ROWS} rows"):
        convert(released, tmp_path / "ours", tower)


def test_a_missing_clip_is_refused(
    tmp_path: Path, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "model_info", offline)
    with pytest.raises(DataError, match=r"leaves out CLIP.*openai/clip-vit-large-patch14") as error:
        convert(released, tmp_path / "ours")
    one_line(error)


def test_a_clip_of_another_size_is_refused(tmp_path: Path, released: Path) -> None:
    wider = factory.weights(replace(SMALL, clip=replace(SMALL.clip, image_px=84)))
    other = factory.write_clip(tmp_path / "other", wider)
    with pytest.raises(
        DataError, match=r"1 of another shape: model\.vision_tower.*position_embedding"
    ):
        convert(released, tmp_path / "ours", other)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_attention_heads", 4), ("rope_theta", 1e6), ("mm_vision_select_layer", -1)],
)
def test_settings_that_shapes_do_not_show_are_checked(
    tmp_path: Path, released: Path, tower: Path, key: str, value: float
) -> None:
    (released / "config.json").write_text(json.dumps({**factory.CONFIG, key: value}))
    with pytest.raises(DataError, match=f"{key} is {value}"):
        convert(released, tmp_path / "ours", tower)


def test_folders_that_are_none_or_exist_are_refused(
    tmp_path: Path, released: Path, converted: Path, tower: Path
) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        convert(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(UsageError, match="exists already"):
        convert(released, converted, tower)
    with pytest.raises(UsageError, match="lisabench's layout already"):
        convert(converted, tmp_path / "new")


def test_the_hash_is_of_the_weights_and_not_of_the_files(
    tmp_path: Path, tensors: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hash_of(name: str, weights: dict, kind: str, count: int) -> str:
        return convert(
            factory.write_lisa(tmp_path / f"{name}-src", weights, kind, count), tmp_path / name
        ).saved.weights_hash

    one = hash_of("one", tensors, "bin", 1)
    monkeypatch.setattr(shards.ShardWriter.__init__, "__defaults__", (100_000,))
    assert hash_of("two", tensors, "safetensors", 3) == one
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 3
    changed = {**tensors, "model.norm.weight": tensors["model.norm.weight"].clone()}
    changed["model.norm.weight"][3] += 1e-6
    assert hash_of("three", changed, "bin", 1) != one


def test_a_v1_release_is_known_to_have_seen_val(converted: Path) -> None:
    source = open_source(case(converted), "cpu")
    assert source.has_quality
    assert source.weights_hash == weights_format.read(converted).weights_hash
    (warning,) = weights_format.read(converted).contaminations
    assert "trained on ReasonSeg's val" in warning and "use the split test" in warning
    assert case(converted).default_split == "test"
    assert case(converted).contaminated("val")
    assert case(converted).contaminated("test") is None


def test_other_weights_default_to_val_and_carry_a_doubt(tmp_path: Path, tensors: dict) -> None:
    done: Conversion = convert(factory.write_lisa(tmp_path / "mine", tensors), tmp_path / "ours")
    assert case(done.folder).default_split == "val"
    assert LisaConfig().default_split == "val"
    assert any("v1 releases" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    ("weight", "value"),
    [
        ("model.norm.weight", float("nan")),
        ("model.embed_tokens.weight", float("-inf")),
        (f"{SAM}image_encoder.pos_embed", float("inf")),
    ],
)
def test_weights_that_are_not_finite_are_named(tmp_path, tensors, weight, value):
    broken = dict(tensors)
    broken[weight] = tensors[weight].clone()
    broken[weight].view(-1)[3] = value
    source = factory.write_lisa(tmp_path / "LISA-7B-v1", broken)
    (warning,) = [line for line in convert(source, tmp_path / "ours").warnings if "NaN" in line]
    assert f"1 of {len(tensors)} weights have values that are NaN or infinite" in warning
    assert f"such as {weight}:" in warning


def test_finite_weights_are_converted_without_such_a_warning(tmp_path, released, tower):
    assert not [
        line for line in convert(released, tmp_path / "ours", tower).warnings if "NaN" in line
    ]


def test_weights_of_another_preset_are_refused_by_their_preset(converted: Path) -> None:
    with pytest.raises(UsageError, match=r"not of preset=lisa-7b.*set preset=tiny") as error:
        open_source(case(converted, preset="lisa-7b"), "cpu")
    one_line(error)


def test_a_variant_that_the_weights_lack_is_refused(converted: Path) -> None:
    with pytest.raises(DataError, match="no bridge, which vision=clip needs") as error:
        loaded(converted, vision="clip")
    one_line(error)


def test_parts_that_a_variant_does_not_use_are_not_read(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = shards._opened_safetensors

    def watched(file: Path) -> shards.Opened:
        content = plain(file)
        return content._replace(read=lambda name: read.append(name) or content.read(name))

    monkeypatch.setattr(shards, "_opened_safetensors", watched)
    with pytest.raises(DataError, match="no bridge"):
        loaded(converted, vision="clip")
    assert any(name.startswith("encoder.clip.") for name in read)
    assert not [name for name in read if "sam_encoder" in name]


def test_saved_weights_that_do_not_fit_are_refused_by_name(converted: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = converted / "model-00001.safetensors"
    right = load_file(file)
    save_file({name: each for name, each in right.items() if name != "llm.model.norm.weight"}, file)
    with pytest.raises(DataError, match=r"1 missing: llm\.model\.norm\.weight"):
        loaded(converted)
    save_file({**right, "llm.extra": torch.zeros(1)}, file)
    with pytest.raises(DataError, match=r"1 unknown: llm\.extra"):
        loaded(converted)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="cut short"):
        loaded(converted)


def test_precision_and_quantisation_are_those_of_the_case(converted: Path) -> None:
    half = loaded(converted, precision="bf16", quantization="nf4")
    kinds = {type(module).__name__ for module in half.llm.model.modules()}
    assert "Linear4bit" in kinds
    assert "Linear" not in kinds
    assert half.encoder.clip.dtype == torch.bfloat16
    assert half.llm.lm_head.weight.dtype == torch.bfloat16
    assert half.llm.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(torch.bfloat16, "bf16"), (torch.float16, "fp16"), (torch.float32, "fp32")],
)
def test_converted_weights_alone_make_the_case_that_they_were_published_for(
    tmp_path: Path, tensors: dict, tower: Path, dtype: torch.dtype, precision: str
) -> None:
    """As the v1 releases: the language model is in half precision, CLIP in single precision."""
    published = {name: tensor.to(dtype) for name, tensor in without(tensors, CLIP).items()}
    src = factory.write_lisa(tmp_path / "LISA-7B-v1", published)
    folder = convert(src, tmp_path / "ours", tower, template="llava_llama_2").folder
    made = make_case("lisa", {"weights": str(folder), "device": "cpu"})
    assert (made.preset, made.vision) == ("tiny", "dual")
    assert (made.precision, made.template) == (precision, "llava_llama_2")
    made.check_weights()
    card = (folder / "README.md").read_text()
    assert all(f"`{name}={value}`" in card for name, value in made.saved.settings.items())


def test_weights_that_are_nowhere_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(DataError, match=r"someone/lisa.*hub \(no network\)") as error:
        open_source(LisaConfig(weights="someone/lisa"), "cpu")
    one_line(error)
    with pytest.raises(UsageError, match="is no folder"):
        open_source(LisaConfig(weights=str(tmp_path / "a" / "b")), "cpu")


def test_a_folder_of_the_originals_is_told_to_be_converted(released: Path) -> None:
    with pytest.raises(DataError, match="lisabench convert"):
        open_source(case(released), "cpu")


def test_a_template_that_the_weights_do_not_know_is_said(converted: Path) -> None:
    source = open_source(case(converted, template="llava_llama_2"), "cpu")
    assert any(
        "template=llava_v1 and are used with llava_llama_2" in warning
        for warning in source.warnings
    )


@pytest.mark.parametrize("template", ["llava_v1", "llava_llama_2"])
def test_of_a_checkpoint_on_llama_2_no_template_is_warned_about(
    released: Path, tower: Path, tmp_path: Path, template: str
) -> None:
    """It is stated nowhere which of the two LISA-13B-llama2-v1 was trained with."""
    named = tmp_path / "LISA-13B-llama2-v1"
    released.rename(named)
    convert(named, tmp_path / "converted", tower)
    known = weights_format.read(tmp_path / "converted")
    assert (known.template, known.template_is_stated) == ("llava_v1", False)
    source = open_source(case(tmp_path / "converted", template=template), "cpu")
    assert not [warning for warning in source.warnings if "template" in warning]
    assert "it is not stated which template" in (tmp_path / "converted" / "README.md").read_text()


STREAMS = """
import resource, sys, torch
from pathlib import Path
from lisabench.models.checkpoints import shards
from lisabench.models.checkpoints.shards import ShardWriter, WeightFiles, weight_files
shards.MOST_MAPPED_BYTES = 16 << 20
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
writer = ShardWriter(out, 8 << 20)
before = peak()
for name, tensor in WeightFiles(weight_files(folder)).tensors():
    writer.add(name, tensor)
writer.close()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("count", [1, 16])
def test_conversion_streams(tmp_path: Path, count: int) -> None:
    many = {f"{i:03}": torch.ones(1 << 20) for i in range(64)}  # 256 MiB
    factory.write_weights(tmp_path, many, "bin", count)
    (tmp_path / "out").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", STREAMS, str(tmp_path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 80 << 20
