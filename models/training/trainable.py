"""Make a LISA trainable: what a recipe trains gets gradients, in float32; the rest is frozen.

What is trained may be kept apart from the weight that it changes: a low-rank change (LoRA), or a
few rows of an embedding. `learned_changes` brings both together when the weights are saved, by the
weights' plain names.

Axes: R rows that are trained, L tokens, C channels, V tokens of the vocabulary.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...harness.errors import UsageError
from ..checkpoints.stored_tensors import LORA_MATRIX, ROWS, Change, Read, changes
from ..lisa.config import LisaConfig
from ..lisa.network import LisaModel
from ..lisa.parts import FREQUENCIES
from ..lisa.prompts import added_tokens
from ..lisa.quantize import hush_bitsandbytes
from ..lisa.tokenizer import Tokens, ids_of
from .recipes import EVERYTHING, ORIGINAL_LORA, PARTS, LoraSettings


class EmbeddingWithRows(nn.Module):
    """An embedding of which a few rows are trained, as parameters of their own; the rest is frozen.

    Training the whole embedding would hold a gradient and two optimizer states for each of its
    32,000 rows.

    Args:
        frozen: the embedding.
        ids: the rows that are trained, int64 [R].
    """

    ids: Tensor

    def __init__(self, frozen: nn.Embedding, ids: Tensor) -> None:
        super().__init__()
        self.frozen = frozen
        self.register_buffer("ids", ids, persistent=False)
        self.rows = nn.Parameter(frozen.weight.detach()[ids].float())

    def forward(self, tokens_L: Tensor) -> Tensor:
        matches_LR = tokens_L[..., None] == self.ids
        is_trained_L1 = matches_LR.any(-1, keepdim=True)
        # For a token without a trained row this takes row 0, which `where` then drops.
        row_L = matches_LR.int().argmax(-1)
        trained_LC = functional.embedding(row_L, self.rows)
        frozen_LC = self.frozen(tokens_L).to(trained_LC.dtype)
        return torch.where(is_trained_L1, trained_LC, frozen_LC)


class HeadWithRows(nn.Module):
    """A head of which a few rows are trained. The arguments are those of `EmbeddingWithRows`."""

    ids: Tensor

    def __init__(self, frozen: nn.Linear, ids: Tensor) -> None:
        super().__init__()
        self.frozen = frozen
        self.register_buffer("ids", ids, persistent=False)
        self.rows = nn.Parameter(frozen.weight.detach()[ids].float())

    def forward(self, states_LC: Tensor) -> Tensor:
        logits_LV = self.frozen(states_LC)
        trained_LR = functional.linear(states_LC, self.rows.to(states_LC.dtype))
        return logits_LV.index_copy(-1, self.ids, trained_LR.to(logits_LV.dtype))


def make_trainable(
    model: LisaModel,
    case: LisaConfig,
    trains: Iterable[str],
    tokens: Tokens,
    lora: LoraSettings = ORIGINAL_LORA,
) -> None:
    """Freeze all parameters but those to be trained, in place.

    Args:
        model: as it was built.
        case: the settings that it was built with.
        trains: names in ``recipes.PARTS`` and ``recipes.INSIDE_LLM``, or ``everything``.
        tokens: the tokenizer, which has the ids of the added tokens.
        lora: of the language model, if ``lora`` is trained.

    Raises:
        UsageError: a part to be trained is quantised.
    """
    trains = tuple(trains)
    _refuse_quantized(case, trains)
    model.requires_grad_(False)
    if "lora" in trains:
        _add_lora(model, lora, case.seed)
    if "token_rows" in trains:
        _train_rows_of_added_tokens(model, case, tokens)
    if "embeddings" in trains:
        model.llm.model.embed_tokens.requires_grad_(True)
        model.llm.lm_head.requires_grad_(True)
    for part in _whole_parts(model, trains):
        part.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name.endswith(FREQUENCIES):
            # SAM's random frequencies are a parameter in transformers and a constant in the
            # original.
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            # In bf16, an update of less than about 0.2 % of a weight would be rounded away.
            parameter.data = parameter.data.float()


def _refuse_quantized(case: LisaConfig, trains: tuple[str, ...]) -> None:
    quantized = case.quantized_parts
    if EVERYTHING not in trains:
        trained_parts = set()
        for name in trains:
            trained_parts.update(PARTS.get(name, ()))
        if "embeddings" in trains or "token_rows" in trains:
            trained_parts.add("lm_head")
        quantized = quantized & trained_parts
    if quantized:
        raise UsageError(
            f"{', '.join(sorted(quantized))} cannot be both trained and quantised:"
            " quantise less, or take another recipe"
        )


def _whole_parts(model: LisaModel, trains: tuple[str, ...]) -> list[nn.Module]:
    if EVERYTHING in trains:
        return [model]
    parts_of_model = model.parts()
    trained_parts = []
    for name in trains:
        for part in PARTS.get(name, ()):
            if part in parts_of_model:
                trained_parts.append(parts_of_model[part])
    return trained_parts


def _add_lora(model: LisaModel, lora: LoraSettings, seed: int) -> None:
    hush_bitsandbytes()
    # Imported here: it takes a second, and few recipes use it.
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
    )
    # PEFT draws the matrices A from PyTorch's global random state; what comes after must not depend
    # on that.
    disturbed_gpus = [model.llm.device] if model.llm.device.type == "cuda" else []
    with torch.random.fork_rng(disturbed_gpus):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.llm)


def _train_rows_of_added_tokens(model: LisaModel, case: LisaConfig, tokens: Tokens) -> None:
    ids: list[int] = []
    for token in added_tokens(case.conditioning):
        ids += ids_of(tokens, token)
    ids_R = torch.tensor(ids, device=model.llm.device)
    model.llm.set_input_embeddings(EmbeddingWithRows(model.llm.model.embed_tokens, ids_R))
    model.llm.set_output_embeddings(HeadWithRows(model.llm.lm_head, ids_R))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    parameters = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameters[name] = parameter
    return parameters


def trained_by_part(model: LisaModel) -> dict[str, int]:
    """Return how many parameters are trained in each part that has any."""
    counts = {}
    for name, part in model.parts().items():
        count = sum(parameter.numel() for parameter in trained(part).values())
        if count:
            counts[name] = count
    return counts


def learned_changes(model: LisaModel) -> dict[str, Change]:
    """Return what training did to each weight; see `stored_tensors.changes`."""
    reads: dict[str, Read] = {}
    for name, parameter in trained(model).items():
        reads[name] = partial(_on_host, parameter)
    return changes(reads, lora_alpha(model), row_ids(model), Path("the model"))


def _on_host(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().cpu()


def lora_alpha(model: LisaModel) -> float | None:
    """Return the alpha of a model's low-rank changes; None if it has none."""
    for name in trained(model):
        match = LORA_MATRIX.match(name)
        if match:
            return model.get_submodule(match["adapted"]).lora_alpha["default"]  # type: ignore
    return None


def row_ids(model: LisaModel) -> tuple[int, ...]:
    """Return the tokens of which the rows are trained, if a model has such rows."""
    embedding = model.llm.get_input_embeddings()
    if not isinstance(embedding, EmbeddingWithRows):
        return ()
    return tuple(embedding.ids.tolist())


def plain(model: LisaModel) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight by its name in an untrained `LisaModel`, without what is kept apart.

    The values of weights that were trained whole are the new ones.
    """
    for name, tensor in model.state_dict().items():
        is_kept_apart = LORA_MATRIX.match(name) or name.endswith(ROWS)
        if not is_kept_apart:
            # PEFT and `EmbeddingWithRows` wrap the weight that they change.
            yield name.replace(".base_layer.", ".").replace(".frozen.", "."), tensor
