"""Makes a LISA ready to learn: what a recipe trains gets gradients, in float32, and all else is frozen.

What was trained is kept apart from what it changes (a low-rank change, new rows of an embedding) until it is saved:
`changes` says what becomes of the weights by their plain names.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...harness.errors import UsageError
from ..checkpoints.lora import Lora
from ..lisa.config import LisaConfig
from ..lisa.network import LisaModel
from ..lisa.parts import FREQUENCIES
from ..lisa.prompts import added_tokens
from ..lisa.tokenizer import Tokens, ids_of
from .recipes import EVERYTHING, LORA_ALPHA, LORA_DROPOUT, LORA_RANK, LORA_TARGETS, PARTS

EMBEDDING, HEAD = "llm.model.embed_tokens", "llm.lm_head"
LORA_SIDE = re.compile(r"^(?P<adapted>.+)\.lora_(?P<side>[AB])\.default\.weight$")
Change = Callable[[Tensor], Tensor]


class EmbeddingWithRows(nn.Module):
    """An embedding that learns in a few rows alone: those are parameters of their own, the rest takes no gradient.

    Args:
        frozen: the embedding.
        ids: the rows that learn, int64 [R].
    """

    ids: Tensor

    def __init__(self, frozen: nn.Embedding, ids: Tensor) -> None:
        super().__init__()
        self.frozen = frozen
        self.register_buffer("ids", ids, persistent=False)
        self.rows = nn.Parameter(frozen.weight.detach()[ids].float())

    def forward(self, tokens_L: Tensor) -> Tensor:
        matches_LR = tokens_L[..., None] == self.ids
        own_LC = functional.embedding(matches_LR.int().argmax(-1), self.rows)
        return torch.where(
            matches_LR.any(-1, keepdim=True), own_LC, self.frozen(tokens_L).to(own_LC.dtype)
        )


class HeadWithRows(nn.Module):
    """A head that learns in a few rows alone. The arguments are those of `EmbeddingWithRows`."""

    ids: Tensor

    def __init__(self, frozen: nn.Linear, ids: Tensor) -> None:
        super().__init__()
        self.frozen = frozen
        self.register_buffer("ids", ids, persistent=False)
        self.rows = nn.Parameter(frozen.weight.detach()[ids].float())

    def forward(self, states_LC: Tensor) -> Tensor:
        logits_LV = self.frozen(states_LC)
        own_LR = functional.linear(states_LC, self.rows.to(states_LC.dtype))
        return logits_LV.index_copy(-1, self.ids, own_LR.to(logits_LV.dtype))


def make_trainable(
    model: LisaModel, case: LisaConfig, trains: Iterable[str], tokens: Tokens
) -> None:
    """Freezes all but what is to be trained, in place.

    Args:
        model: as it was built.
        case: what it was built by.
        trains: names in ``recipes.PARTS`` and ``recipes.INSIDE_LLM``, or ``everything``.
        tokens: the tokenizer, which knows the rows of the added tokens.

    Raises:
        UsageError: a part to be trained is quantised.
    """
    trains = tuple(trains)
    _refuse_quantized(case, trains)
    model.requires_grad_(False)
    if "lora" in trains:
        _add_lora(model, case.seed)
    if "token_rows" in trains:
        ids = torch.tensor(
            [i for token in added_tokens(case.conditioning) for i in ids_of(tokens, token)],
            device=model.llm.device,
        )
        model.llm.set_input_embeddings(EmbeddingWithRows(model.llm.model.embed_tokens, ids))
        model.llm.set_output_embeddings(HeadWithRows(model.llm.lm_head, ids))
    if "embeddings" in trains:
        model.llm.model.embed_tokens.requires_grad_(True)
        model.llm.lm_head.requires_grad_(True)
    for part in _parts(model, trains):
        part.requires_grad_(True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not name.endswith(FREQUENCIES))
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _refuse_quantized(case: LisaConfig, trains: tuple[str, ...]) -> None:
    wanted = {part for name in trains for part in PARTS.get(name, ())}
    wanted |= {"lm_head"} if {"embeddings", "token_rows"} & set(trains) else set()
    both = case.quantized_parts if EVERYTHING in trains else wanted & case.quantized_parts
    if both:
        raise UsageError(
            f"{', '.join(sorted(both))} cannot be both trained and quantised: quantise less, or take another recipe"
        )


def _parts(model: LisaModel, trains: tuple[str, ...]) -> list[nn.Module]:
    if EVERYTHING in trains:
        return [model]
    parts = model.parts()
    return [parts[part] for name in trains for part in PARTS.get(name, ()) if part in parts]


def _add_lora(model: LisaModel, seed: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model  # takes a second, and few recipes want it

    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=LORA_DROPOUT,
        target_modules=list(LORA_TARGETS),
        bias="none",
    )
    with torch.random.fork_rng([model.llm.device] if model.llm.device.type == "cuda" else []):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.llm)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def trained_by_part(model: LisaModel) -> dict[str, int]:
    """How many parameters learn in each part that has some."""
    counts = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad)
        for name, part in model.parts().items()
    }
    return {name: count for name, count in counts.items() if count}


def changes(model: LisaModel) -> dict[str, Change]:
    """What training made of each weight that it changed, by the weight's name in an untrained `LisaModel`.

    Each takes the weight as it was, and gives it as it is; what is learned whole does not ask for it.
    """
    learned = {name: parameter.detach() for name, parameter in trained(model).items()}
    low_rank = _low_rank(learned)
    found: dict[str, Change] = {name: partial(low_rank.merged, name) for name in low_rank.down}
    for name, value in learned.items():
        owner, _, last = name.rpartition(".")
        if last == "rows":
            found[f"{owner}.weight"] = partial(_with_rows, model.get_buffer(f"{owner}.ids"), value)
        elif not LORA_SIDE.match(name):
            found[name] = partial(_replaced, value)
    return found


def _low_rank(learned: Mapping[str, Tensor]) -> Lora:
    sides: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for name, tensor in learned.items():
        match = LORA_SIDE.match(name)
        if match:
            sides[match["side"]][f"{match['adapted']}.weight"] = tensor.cpu()
    return Lora(sides["A"], sides["B"], {"lora_alpha": LORA_ALPHA, "r": LORA_RANK})


def _with_rows(ids: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    return weight.index_copy(0, ids.to(weight.device), rows.to(weight))


def _replaced(value: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG001  (it is given up whole)
    return value.cpu()


def plain(model: LisaModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight as it was before training, by its plain name; of what learned whole, the name is what counts."""
    for name, tensor in model.state_dict().items():
        if not (LORA_SIDE.match(name) or name.endswith(".rows")):
            yield name.replace(".base_layer.", ".").replace(".frozen.", "."), tensor
