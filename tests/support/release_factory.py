"""Writes small models in the layouts of their releases, made by the libraries that write these.

LLaVA and SAM are transformers' own, so that the names of their weights are; the modified LISA is
put together as its author's code does it.
"""

import json
from pathlib import Path

import torch
from original_factory import CHARACTERS, PIECES, save, write_tokenizer, write_weights
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, SamConfig, SamModel
from transformers import LlavaForConditionalGeneration as Llava

from lisabench.models.lisa.parts import sam_vision_config
from lisabench.models.lisa.presets import Preset

assert CHARACTERS
LLAVA_TOKENS = {"<image>": PIECES, "<pad>": PIECES + 1}
LLAVA_ROWS = PIECES + 64  # more than tokens, as in llava-hf/llava-1.5-7b-hf: 32,064 and 32,002


def llava(sizes: Preset, seed: int = 0) -> Llava:
    """Return transformers' LLaVA with random weights at these sizes."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=sizes.clip.hidden,
        intermediate_size=sizes.clip.intermediate,
        num_hidden_layers=sizes.clip.layers,
        num_attention_heads=sizes.clip.heads,
        image_size=sizes.clip.image_px,
        patch_size=sizes.clip.patch_px,
    )
    text = LlamaConfig(
        vocab_size=LLAVA_ROWS,
        hidden_size=sizes.llama.hidden,
        intermediate_size=sizes.llama.intermediate,
        num_hidden_layers=sizes.llama.layers,
        num_attention_heads=sizes.llama.heads,
        max_position_embeddings=sizes.llama.context,
        rms_norm_eps=1e-5,
    )
    return Llava(LlavaConfig(vision_config=vision, text_config=text)).eval()


def write_llava(folder: Path, model: Llava, release: int = 4, kind: str = "safetensors") -> Path:
    """Write it as ``llava-hf/llava-1.5-7b-hf``, with the names of release 4 or 5 of transformers.

    Both save the names of release 4; those of 5 are what its model has in memory.
    """
    model.save_pretrained(folder, max_shard_size="100KB")
    if release == 5:
        for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
            file.unlink()
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        write_weights(folder, tensors, kind, 3)
    write_tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps(LLAVA_TOKENS))
    return folder


def llava_weights(model: Llava, kept_rows: int) -> dict[str, Tensor]:
    """Return the weights of a LLaVA by our names, module by module."""
    inner = model.model
    language = {f"llm.model.{name}": t for name, t in inner.language_model.state_dict().items()}
    language["llm.lm_head.weight"] = model.lm_head.weight.detach()
    for name in ("llm.lm_head.weight", "llm.model.embed_tokens.weight"):
        language[name] = language[name][:kept_rows]
    clip = {f"encoder.clip.{name}": t for name, t in inner.vision_tower.state_dict().items()}
    first, second = inner.multi_modal_projector.linear_1, inner.multi_modal_projector.linear_2
    projector = {f"encoder.projector.0.{name}": t for name, t in first.state_dict().items()}
    projector |= {f"encoder.projector.2.{name}": t for name, t in second.state_dict().items()}
    return language | clip | projector


def sam(sizes: Preset, seed: int = 1) -> SamModel:
    """Return transformers' SAM with random weights at these sizes."""
    torch.manual_seed(seed)
    part = sizes.sam
    prompt = {"hidden_size": part.prompt_dim, "image_size": part.image_px}
    decoder = {
        "hidden_size": part.prompt_dim,
        "mlp_dim": part.decoder_mlp,
        "iou_head_hidden_dim": part.prompt_dim,
    }
    vision = sam_vision_config(part).to_dict()
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return SamModel(config).eval()


def sam_weights(model: SamModel, encoder: bool = True) -> dict[str, Tensor]:
    """Return the weights of a SAM by our names, module by module."""
    parts = {"prompt_encoder": model.prompt_encoder, "mask_decoder": model.mask_decoder}
    if encoder:
        parts["encoder.sam_encoder"] = model.vision_encoder
    weights = {}
    for part, module in parts.items():
        weights |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    return weights


class ModifiedLisa(nn.Module):
    """The parts of the modified LISA under the names of its author's code (``train_new.py``).

    Args:
        vlm: its LLaVA.
        segmenter: its SAM.
        vision: ``clip`` or ``sam``.
    """

    def __init__(self, vlm: Llava, segmenter: SamModel, vision: str = "clip") -> None:
        super().__init__()
        inner = vlm.model
        self.vlm_vision_tower = inner.vision_tower
        self.vlm_projector = inner.multi_modal_projector
        self.vlm_llm = inner.language_model
        # <SEG> is added to the tokenizer; the embedding gets a row for each token, and the head,
        # which is no part of the language model there, keeps its rows.
        self.vlm_llm.resize_token_embeddings(PIECES + len(LLAVA_TOKENS) + 1)
        self.vlm_word_embeddings = self.vlm_llm.get_input_embeddings()
        self.vlm_lm_head = vlm.lm_head
        self.sam_vision_encoder = segmenter.vision_encoder
        self.sam_prompt_encoder = segmenter.prompt_encoder
        self.sam_mask_decoder = segmenter.mask_decoder
        clip = inner.vision_tower.config.hidden_size
        hidden = self.vlm_llm.config.hidden_size
        prompt = segmenter.config.mask_decoder_config.hidden_size
        if vision == "clip":
            self.vision_to_sam = projection(clip, prompt)
        else:
            self.vision_to_vlm = projection(prompt, clip)
        self.seg_token_to_sam = projection(hidden, prompt)


def projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.LayerNorm(outputs))


def write_modified(file: Path, model: nn.Module, **options: object) -> Path:
    """Write ``best_model_epoch_3.pt`` as the training does, with the state of its optimizer."""
    optimizer = torch.optim.AdamW(model.seg_token_to_sam.parameters())
    model.seg_token_to_sam(torch.ones(1, model.seg_token_to_sam[0].in_features)).sum().backward()
    optimizer.step()
    giou = torch.tensor(0.25).double().numpy()[()]  # a number of NumPy, as that code computes it
    content = {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": {"last_epoch": 3, "_last_lr": [1e-4]},
        "val_ciou": 0.5,
        "val_giou": giou,
        "args": {"vlm_name": "llava-hf/llava-1.5-7b-hf", "use_vlm_vision": True, **options},
    }
    torch.save(content, file)
    return file


def write_tokenizer_of_llava(folder: Path) -> None:
    write_tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps(LLAVA_TOKENS))


def write_sam(folder: Path, model: SamModel) -> Path:
    """Write it as ``facebook/sam-vit-base``."""
    model.save_pretrained(folder)
    return folder


def write_sam_of_authors(file: Path, tensors: dict[str, Tensor], old: bool = False) -> Path:
    """Write ``sam_vit_h_4b8939.pth``, in the format of PyTorch before 1.6 if `old`."""
    if old:
        torch.save(tensors, file, _use_new_zipfile_serialization=False)
    else:
        save(tensors, file)
    return file
