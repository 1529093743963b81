"""Writes folders as the original LISA lays them out, at a small size."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lisabench.models.checkpoints.convert import weights_of
from lisabench.models.lisa.presets import ClipSizes, LlamaSizes, Preset, SamSizes

WORDS = ("the", "red", "mug", "please", "segment", "Sure", "it", "is")
CHARACTERS = [*sorted({c for word in WORDS for c in word} | set(".,:?!'AUSER")), "\u2581"]
SPECIAL = {"<unk>": 2, "<s>": 3, "</s>": 3}  # and the number that SentencePiece has for their kind
PIECES = len(SPECIAL) + 256 + len(CHARACTERS)
ADDED = {"[SEG]": PIECES, "<im_start>": PIECES + 1, "<im_end>": PIECES + 2}
ROWS = PIECES + len(ADDED)
SMALL = Preset(
    clip=ClipSizes(image_px=56, patch_px=14, hidden=32, intermediate=64, layers=3, heads=2),
    llama=LlamaSizes(vocabulary=ROWS, hidden=64, intermediate=128, layers=2, heads=2, context=512),
    sam=SamSizes(
        image_px=128,
        patch_px=16,
        hidden=32,
        layers=2,
        heads=2,
        window=4,
        global_layers=(1,),
        relative_positions=True,
        prompt_dim=32,
        decoder_mlp=64,
    ),
)
CONFIG = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "vocab_size": ROWS,
    "mm_vision_tower": "openai/clip-vit-large-patch14",
    "mm_vision_select_layer": -2,
    "out_dim": 32,
}
CLIP = "model.vision_tower.vision_tower."
SAM = "model.visual_model."
HEAD = "model.text_hidden_fcs."


def weights(sizes: Preset = SMALL, seed: int = 0) -> dict[str, Tensor]:
    """Parameters by the original's names, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.1 * torch.randn(shape, generator=generator)
        for name, (_, shape) in weights_of(sizes).items()
    }


def without(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


def only(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names start so, without that."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def write_lisa(
    folder: Path,
    tensors: Mapping[str, Tensor],
    kind: str = "bin",
    shards: int = 1,
    sizes: Preset = SMALL,
) -> Path:
    """Write a LISA as it is released: settings, tokenizer and weights.

    CLIP's weights are left out unless `tensors` has them.
    """
    folder.mkdir(parents=True)
    llama = sizes.llama
    own = {
        "hidden_size": llama.hidden,
        "num_attention_heads": llama.heads,
        "max_position_embeddings": llama.context,
    }
    (folder / "config.json").write_text(json.dumps(CONFIG | own))
    (folder / "added_tokens.json").write_text(json.dumps(ADDED))
    write_tokenizer(folder)
    write_weights(folder, tensors, kind, shards)
    return folder


def write_clip(
    folder: Path, tensors: Mapping[str, Tensor], whole: bool = False, sizes: Preset = SMALL
) -> Path:
    """CLIP as it is released, with its half for texts if `whole`."""
    folder.mkdir(parents=True)
    settings = {"num_attention_heads": sizes.clip.heads, "hidden_act": "quick_gelu"}
    text = (
        {"text_model.embeddings.weight": torch.zeros(2, 2), "logit_scale": torch.zeros(())}
        if whole
        else {}
    )
    (folder / "config.json").write_text(
        json.dumps({"vision_config": settings} if whole else settings)
    )
    derived = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    write_weights(folder, {**only(tensors, CLIP), **text, **derived}, "bin", 1)
    return folder


def write_weights(folder: Path, tensors: Mapping[str, Tensor], kind: str, shards: int) -> None:
    stem = {"bin": "pytorch_model", "safetensors": "model"}[kind]
    names = sorted(tensors)
    if shards == 1:
        save(dict(tensors), folder / f"{stem}.{kind}")
        return
    where = {
        name: f"{stem}-{i % shards + 1:05}-of-{shards:05}.{kind}" for i, name in enumerate(names)
    }
    for file in set(where.values()):
        save({name: tensors[name] for name in names if where[name] == file}, folder / file)
    (folder / f"{stem}.{kind}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )


def save(tensors: dict[str, Tensor], file: Path) -> None:
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file)


def in_4_bits() -> dict[str, Tensor]:
    """Return the tensors of a 64 x 64 layer as bitsandbytes saves it, doubly quantised."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "quant_type": "nf4",
        "blocksize": 64,
        "dtype": "float32",
        "shape": [64, 64],
        "nested_blocksize": 256,
        "nested_dtype": "float32",
        "nested_offset": 0.5,
    }
    encoded = torch.tensor([*json.dumps(state).encode()], dtype=torch.uint8)
    packed = torch.randint(256, (2048, 1), generator=generator, dtype=torch.uint8)
    return {
        "layer.weight": packed,
        "layer.weight.absmax": torch.arange(64, dtype=torch.uint8),
        "layer.weight.quant_map": torch.linspace(-1, 1, 16),
        "layer.weight.nested_absmax": torch.ones(1),
        "layer.weight.nested_quant_map": torch.linspace(-1, 1, 256),
        "layer.weight.quant_state.bitsandbytes__nf4": encoded,
    }


def write_tokenizer(folder: Path, count: int = PIECES) -> None:
    """Write a SentencePiece model of single characters and bytes, with LLaMA's settings.

    It has `count` pieces; those beside characters and bytes are of no text.
    """
    pieces = [(text, 0.0, kind) for text, kind in SPECIAL.items()]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [(character, -float(i), 1) for i, character in enumerate(CHARACTERS)]
    pieces += [(f"#{i}#", -float(i), 1) for i in range(len(pieces), count)]
    content = b"".join(_field(1, _piece(*piece)) for piece in pieces)
    # Settings by their number in sentencepiece_model.proto. The trainer's: 3 is the kind of model
    # (2 is BPE), 35 that there are bytes. The normaliser's: 4 is whether repeated spaces are
    # dropped.
    trainer = _field(2, bytes([3 << 3, 2, *_BYTE_FALLBACK, 1]))
    normaliser = _field(3, bytes([4 << 3, 0]))
    (folder / "tokenizer.model").write_bytes(content + trainer + normaliser)


_BYTE_FALLBACK = (35 << 3 & 0x7F | 0x80, 35 << 3 >> 7)  # the key of field 35, in two bytes


def _piece(text: str, score: float, kind: int) -> bytes:
    return (
        _field(1, text.encode())
        + bytes([2 << 3 | 5])
        + struct.pack("<f", score)
        + bytes([3 << 3, kind])
    )


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content
