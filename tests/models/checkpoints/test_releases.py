"""Every layout of a release becomes a LISA whose tensors are those of its source, and runs."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import original_factory as factory
import pytest
import release_factory as releases
import torch
from command import lisabench
from lisas import noise, predict
from original_factory import CLIP, HEAD, PIECES, SAM, SMALL, without
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import LlavaForConditionalGeneration as Llava

from lisabench.harness.errors import DataError, UsageError
from lisabench.models.adapters.lisa import build
from lisabench.models.checkpoints import weights_hash
from lisabench.models.checkpoints.convert import convert, weights_of
from lisabench.models.checkpoints.release_names import language_model_name, sam_rename
from lisabench.models.checkpoints.shards import WeightFiles, opened, weight_files
from lisabench.models.lisa import presets, weights_format
from lisabench.models.lisa.config import LisaConfig

pytestmark = pytest.mark.no_clock

SMALL_15 = replace(SMALL, projector="mlp2x_gelu")
NO_PROBE = SimpleNamespace(region=lambda _: nullcontext())
START_TOKENS = 3  # [SEG], <im_start>, <im_end>


@pytest.fixture(autouse=True)
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tiny preset by one of a megabyte with LLaVA-1.5's projector."""
    monkeypatch.setitem(presets.PRESETS, "tiny", SMALL_15)


@pytest.fixture(scope="module")
def llava() -> Llava:
    return releases.llava(SMALL_15)


@pytest.fixture(scope="module")
def sam():
    return releases.sam(SMALL_15)


def converted(*words: object) -> Path:
    """Convert through the command line, and return the folder."""
    done = lisabench("convert", *words)
    assert done.returncode == 0, done.stderr
    return Path(str(words[1]))


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(WeightFiles(weight_files(folder)).tensors())


def assert_holds(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    """The folder holds these tensors, bit for bit, and the hash in its settings is right."""
    found = tensors_of(folder)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    weights_hash.check(weights_format.WeightsFolder(folder, weights_format.read(folder)))


def runs(folder: Path) -> None:
    """A model of the folder, with the settings that it says, answers with a mask."""
    settings = LisaConfig.filled({"weights": str(folder), "device": "cpu"})
    case = LisaConfig(**settings)
    (prediction,) = predict(build(case, NO_PROBE), noise())
    assert prediction.mask_HW.shape == (60, 90)
    assert prediction.nonfinite is None


# LLaVA


@pytest.mark.parametrize("release", [4, 5])
def test_transformers_llava_and_sam_become_a_start(tmp_path, llava, sam, release):
    src = releases.write_llava(tmp_path / "llava", llava, release)
    names = set(WeightFiles(weight_files(src)).shapes)
    assert any(name.startswith("language_model.model.") for name in names) == (release == 4)
    assert any(name.startswith("model.language_model.") for name in names) == (release == 5)
    segmenter = releases.write_sam(tmp_path / "sam", sam)
    folder = converted(src, tmp_path / "ours", "--sam", segmenter)

    found = tensors_of(folder)
    tokens = PIECES + len(releases.LLAVA_TOKENS)
    for name in ("llm.lm_head.weight", "llm.model.embed_tokens.weight"):
        assert found[name].shape[0] == tokens + START_TOKENS
    expected = releases.llava_weights(llava, kept_rows=tokens) | releases.sam_weights(sam)
    new_rows = {}
    for name in ("llm.lm_head.weight", "llm.model.embed_tokens.weight"):
        kept = expected.pop(name)
        assert torch.equal(found[name][:tokens], kept)
        new_rows[name] = found[name][tokens:]
        # New rows are new: those that fill up LLaVA's embedding belong to no token.
        filler = llava.get_input_embeddings().weight[tokens : tokens + START_TOKENS]
        assert not torch.equal(new_rows[name], filler)
    assert_holds(folder, expected)
    left = found.keys() - expected.keys() - new_rows.keys()
    assert left == {f"seg_projection.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    saved = weights_format.read(folder)
    assert (saved.trained, saved.sizes.llama.norm_epsilon) == (False, 1e-5)
    assert saved.new_rows == tuple(range(tokens, tokens + START_TOKENS))
    runs(folder)


def test_the_names_of_llava_at_full_size_are_those_of_the_preset():
    sizes = presets.PRESETS["lisa-7b-llava15"]
    with torch.device("meta"):
        model = releases.llava(sizes)
    renamed = {language_model_name(name) for name in model.state_dict()}
    needed = {name for name in weights_of(sizes) if not name.startswith((SAM, HEAD))}
    assert renamed == needed


@pytest.mark.parametrize("name", presets.SAM_SIZES)
def test_the_names_of_sam_at_full_size_are_those_of_the_preset(name):
    sizes = presets.PRESETS["lisa-7b"].with_sam(name)
    with torch.device("meta"):
        names = set(releases.sam(sizes).state_dict())
    rename = sam_rename(names)
    renamed = {rename(file_name) for file_name in names} - {None}
    assert renamed == {name for name in weights_of(sizes) if name.startswith(SAM)}


@pytest.mark.parametrize(
    ("key", "value"), [("vision_feature_layer", -1), ("projector_hidden_act", "relu")]
)
def test_settings_of_llava_that_shapes_do_not_show_are_checked(tmp_path, llava, sam, key, value):
    src = releases.write_llava(tmp_path / "llava", llava)
    config = json.loads((src / "config.json").read_text())
    (src / "config.json").write_text(json.dumps(config | {key: value}))
    segmenter = releases.write_sam(tmp_path / "sam", sam)
    with pytest.raises(DataError, match=rf"config\.json: mm_\w+ is {value!r}"):
        convert(src, tmp_path / "ours", sam=segmenter)


@pytest.mark.parametrize("sizes", [SMALL, SMALL_15], ids=["v1", "v1.5"])
def test_liuhaotians_llava_becomes_a_start(tmp_path, sam, sizes, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", sizes)
    tensors = {name: t.half() for name, t in factory.weights(sizes).items()}
    language = without(tensors, CLIP, SAM, HEAD)
    embedding_and_head = ("model.embed_tokens.weight", "lm_head.weight")
    rows = {name: language[name][:PIECES] for name in embedding_and_head}
    src = factory.write_lisa(tmp_path / "llava", {**language, **rows}, "bin", 2)
    (src / "added_tokens.json").unlink()
    (src / "mm_projector.bin").write_bytes(b"also in the shards")
    tower = factory.write_clip(tmp_path / "clip", tensors)
    segmenter = releases.write_sam(tmp_path / "sam", sam)
    folder = converted(src, tmp_path / "ours", "--sam", segmenter, "--vision-tower", tower)
    assert weights_format.read(folder).new_rows == (PIECES, PIECES + 1, PIECES + 2)
    our_name = {original: ours for original, (ours, _) in weights_of(sizes).items()}
    kept = {name: t for name, t in tensors.items() if name in language and name not in rows}
    kept |= {name: t for name, t in tensors.items() if name.startswith(CLIP)}
    expected = {our_name[name]: tensor for name, tensor in kept.items()}
    assert_holds(folder, expected | releases.sam_weights(sam))
    runs(folder)


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [("LLaVA-7b-delta-v1", 1.0, "its name"), ("LLaVA-7b", 0.001, "model.norm.weight is 0.00")],
)
def test_delta_weights_are_refused_with_the_command_that_helps(tmp_path, name, size, reason):
    tensors = factory.weights(SMALL_15)
    tensors["model.norm.weight"] = size * torch.ones(64)
    src = factory.write_lisa(tmp_path / name, without(tensors, SAM, HEAD))
    done = lisabench("convert", src, tmp_path / "ours", "--sam", "sam.pth")
    assert done.returncode == 2
    assert reason in done.stderr
    assert f"--delta {src}` of haotian-liu/LLaVA" in done.stderr
    assert "lisabench convert MERGED DST --sam SAM" in done.stderr


# LISA++ and LISA


def test_a_lisa_on_llava_15_keeps_every_tensor(tmp_path):
    """`Senqiao/LISA_Plus_7b` is said to be one: LISA's parts with two layers in the projector."""
    tensors = factory.weights(SMALL_15)
    src = factory.write_lisa(tmp_path / "LISA_Plus_7b", without(tensors, CLIP), "bin", 3)
    tower = factory.write_clip(tmp_path / "clip", tensors)
    folder = converted(src, tmp_path / "ours", "--vision-tower", tower)
    our_name = {original: ours for original, (ours, _) in weights_of(SMALL_15).items()}
    assert tensors_of(folder).keys() == set(our_name.values())
    assert_holds(folder, {our_name[name]: tensor for name, tensor in tensors.items()})
    assert weights_format.read(folder).trained
    runs(folder)


def test_a_tensor_under_two_names_is_refused(tmp_path):
    tensors = factory.weights(SMALL_15)
    twice = {"language_model.lm_head.weight": tensors["lm_head.weight"]}
    src = factory.write_lisa(tmp_path / "LISA", tensors | twice)
    with pytest.raises(DataError, match=r"lm_head\.weight is there twice, once as"):
        convert(src, tmp_path / "ours")


# SAM


@pytest.mark.parametrize("layout", ["pth", "old pth", "folder of pth", "safetensors", "bin"])
def test_every_layout_of_sam_gives_the_same_weights(tmp_path, llava, sam, layout):
    src = releases.write_llava(tmp_path / "llava", llava)
    place = tmp_path / "sam"
    upstream = {}
    our_name = {ours: original for original, (ours, _) in weights_of(SMALL_15).items()}
    for name, tensor in releases.sam_weights(sam).items():
        upstream[our_name[name].removeprefix(SAM)] = tensor
    if layout == "safetensors":
        releases.write_sam(place, sam)
    elif layout == "bin":
        # transformers 4 saved both names of the tied matrix.
        place.mkdir()
        torch.save(sam.state_dict(), place / "pytorch_model.bin")
    else:
        place.mkdir()
        file = place / "sam_vit_h_4b8939.pth"
        releases.write_sam_of_authors(file, upstream, old=layout == "old pth")
        place = place if layout == "folder of pth" else file
    folder = converted(src, tmp_path / "ours", "--sam", place)
    assert_holds(folder, releases.sam_weights(sam))


def test_a_folder_without_a_sam_is_named(tmp_path, llava):
    src = releases.write_llava(tmp_path / "llava", llava)
    empty = tmp_path / "sam"
    empty.mkdir()
    with pytest.raises(DataError, match=r"sam holds no SAM .* as facebook/sam-vit-huge has it"):
        convert(src, tmp_path / "ours", sam=empty)
    for name in ("a.pth", "b.pth"):
        (empty / name).touch()
    with pytest.raises(DataError, match=r"sam holds several \(a\.pth, b\.pth\): give one file"):
        convert(src, tmp_path / "ours", sam=empty)


def test_a_llava_without_a_sam_is_told_the_command(tmp_path, llava):
    src = releases.write_llava(tmp_path / "llava", llava)
    done = lisabench("convert", src, tmp_path / "ours")
    assert f"lisabench convert {src} DST --sam facebook/sam-vit-huge" in done.stderr


def test_a_part_in_the_place_of_the_whole_is_named(tmp_path, sam):
    place = releases.write_sam(tmp_path / "sam", sam)
    done = lisabench("convert", place, tmp_path / "ours")
    assert f"{place} is no LISA and no LLaVA: it holds no language model" in done.stderr


# The modified LISA


def modified(vision: str = "clip") -> releases.ModifiedLisa:
    return releases.ModifiedLisa(releases.llava(SMALL_15), releases.sam(SMALL_15), vision)


def modified_weights(model: releases.ModifiedLisa, vision: str) -> dict[str, torch.Tensor]:
    """Its weights by our names, module by module."""
    rows = model.vlm_word_embeddings.num_embeddings
    bridge = model.vision_to_sam if vision == "clip" else model.vision_to_vlm
    projector = {"0": model.vlm_projector.linear_1, "2": model.vlm_projector.linear_2}
    weights = {"llm.lm_head.weight": model.vlm_lm_head.weight.detach()[:rows]}
    parts = {"llm.model": model.vlm_llm, "encoder.bridge": bridge}
    parts["seg_projection"] = model.seg_token_to_sam
    parts["prompt_encoder"] = model.sam_prompt_encoder
    parts["mask_decoder"] = model.sam_mask_decoder
    parts |= {f"encoder.projector.{i}": layer for i, layer in projector.items()}
    if vision == "clip":
        parts["encoder.clip"] = model.vlm_vision_tower
    else:
        parts["encoder.sam_encoder"] = model.sam_vision_encoder
    for part, module in parts.items():
        weights |= {f"{part}.{name}": t.clone() for name, t in module.state_dict().items()}
    return weights


@pytest.mark.parametrize("vision", ["clip", "sam"])
def test_the_modified_lisas_checkpoint_keeps_every_tensor(tmp_path, vision):
    model = modified(vision)
    file = releases.write_modified(tmp_path / "best_model_epoch_3.pt", model)
    releases.write_tokenizer_of_llava(tmp_path)
    done = lisabench("convert", file, tmp_path / "ours")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "ours"
    expected = modified_weights(model, vision)
    assert tensors_of(folder).keys() == expected.keys()
    assert_holds(folder, expected)
    saved = weights_format.read(folder)
    assert (saved.vision, saved.seg_head, saved.conditioning, saved.frame, saved.trained) == (
        vision, "seg_token_to_sam", "described", {"clip": "crop", "sam": "whole"}[vision], True,
    )  # fmt: skip
    tokens = json.loads((folder / "added_tokens.json").read_text())
    assert tokens["[SEG]"] == PIECES + 2
    assert "its author's code" in (folder / "README.md").read_text()
    for words in ("epoch 3", "val_ciou 0.500, val_giou 0.250", "optimizer_state_dict",
                  "its author's code"):  # fmt: skip
        assert words in done.stderr
    runs(folder)


def test_the_modified_lisa_in_4_bits_is_written_with_the_values_that_it_computed_with(tmp_path):
    bnb = pytest.importorskip("bitsandbytes")
    model = modified()
    layers = [(name, module) for name, module in model.vlm_llm.named_modules()
              if isinstance(module, torch.nn.Linear)]  # fmt: skip
    values = {}
    for name, layer in layers:
        quantized = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False,
                                      compress_statistics=True, quant_type="nf4")  # fmt: skip
        weight = layer.weight.detach().bfloat16()
        quantized.weight = bnb.nn.Params4bit(
            weight, compress_statistics=True, quant_type="nf4", requires_grad=False
        ).to("cpu")
        state = quantized.weight.quant_state
        values[name] = bnb.functional.dequantize_4bit(quantized.weight.data, state)
        parent, _, child = name.rpartition(".")
        setattr(model.vlm_llm.get_submodule(parent), child, quantized)
    file = releases.write_modified(tmp_path / "best_model_epoch_3.pt", model)
    releases.write_tokenizer_of_llava(tmp_path)
    done = convert(file, tmp_path / "ours")
    assert_holds(done.folder, {f"llm.model.{name}.weight": value for name, value in values.items()})
    assert any(f"{len(values)} weights are kept in 4 bits" in fact for fact in done.facts)
    runs(done.folder)


STATE = "quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("absmax", [0], "absmax has 1 elements"),
        (STATE, [*b"{}"], "no 'shape'"),
        (STATE, [7], "4-bit state of"),
        (STATE, [*b'{"shape": [99999999, 9], "dtype": "float32", "blocksize": 64}'], "has 2048 el"),
        (STATE, [*b'{"shape": [64, 64], "dtype": "load", "blocksize": 64}'], "dtype is 'load'"),
        (STATE, [*b'{"shape": [64, 64], "dtype": "float32", "blocksize": 0}'], "blocksize"),
    ],
)
def test_a_damaged_4_bit_weight_is_one_line(tmp_path, part, content, message):
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(64, 64, bias=False, compress_statistics=True, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(torch.randn(64, 64), compress_statistics=True,
                                     quant_type="nf4", requires_grad=False).to("cpu")  # fmt: skip
    tensors = dict(layer.state_dict())
    assert opened_weight(tmp_path, tensors).shape == (64, 64)
    tensors[f"weight.{part}"] = torch.tensor(content, dtype=torch.uint8)
    with pytest.raises(DataError, match=message) as error:
        opened_weight(tmp_path, tensors)
    assert "\n" not in str(error.value)


def opened_weight(folder: Path, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    file = folder / "weight.bin"
    torch.save(tensors, file)
    return opened(file).read("weight")


def test_the_modified_lisas_lora_is_merged_with_the_options_in_its_file(tmp_path):
    model = modified()
    whole = modified_weights(model, "clip")
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj"], init_lora_weights=False)
    model.vlm_llm = get_peft_model(model.vlm_llm, config)
    options = {"lora_r": 4, "lora_alpha": 16}
    file = releases.write_modified(tmp_path / "best_model_epoch_3.pt", model, **options)
    releases.write_tokenizer_of_llava(tmp_path)
    folder = converted(file, tmp_path / "ours")
    adapted = model.vlm_llm.merge_and_unload().state_dict()
    name = "layers.0.self_attn.q_proj.weight"
    assert not torch.equal(adapted[name], whole[f"llm.model.{name}"])
    torch.testing.assert_close(tensors_of(folder)[f"llm.model.{name}"], adapted[name])

    file = releases.write_modified(tmp_path / "best_model_epoch_4.pt", modified_with_lora())
    with pytest.raises(DataError, match=r"options of its training: there is no 'lora_alpha'"):
        convert(file, tmp_path / "other")


def modified_with_lora() -> releases.ModifiedLisa:
    model = modified()
    model.vlm_llm = get_peft_model(model.vlm_llm, LoraConfig(target_modules=["q_proj"]))
    return model


class Payload:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_in_the_modified_lisas_checkpoint_is_not_carried_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    releases.write_tokenizer_of_llava(tmp_path)
    file = releases.write_modified(tmp_path / "best_model_epoch_3.pt", modified(), note=Payload())
    with pytest.raises(DataError, match="could run code"):
        convert(file, tmp_path / "ours")
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_of_another_model_beside_the_modified_lisa_is_refused(tmp_path):
    file = releases.write_modified(tmp_path / "best_model_epoch_3.pt", modified())
    releases.write_tokenizer_of_llava(tmp_path)
    (tmp_path / "added_tokens.json").write_text("{}")
    with pytest.raises(DataError, match=rf"{PIECES + 1} tokens and .* {PIECES + 3} rows"):
        convert(file, tmp_path / "ours")


def test_another_file_of_weights_is_told_to_be_given_with_its_folder(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    torch.save(factory.weights(SMALL_15), file)
    done = lisabench("convert", file, tmp_path / "ours")
    assert f"lisabench convert {tmp_path} DST" in done.stderr
    both = releases.write_modified(tmp_path / "best.pt", modified())
    for option in ("--sam", "--vision-tower"):
        with pytest.raises(UsageError, match=f"holds all parts: leave out {option} x"):
            convert(both, tmp_path / "ours", **{option[2:].replace("-", "_"): Path("x")})


def test_a_start_is_segmented_through_the_command_line(tmp_path, llava, sam):
    src = releases.write_llava(tmp_path / "llava", llava)
    segmenter = releases.write_sam(tmp_path / "sam", sam)
    folder = converted(src, tmp_path / "ours", "--sam", segmenter)
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(image)
    done = lisabench("segment", image, "the mug", "--out", tmp_path / "mask.png", "--set",
                     f"weights={folder}", "--set", "device=cpu", "--allow-random")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "mask.png").size == (90, 60)
