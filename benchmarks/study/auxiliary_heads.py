"""Heads beside a dual that is trained from scratch: they stand in for the pretraining that the real parts have had.

    clip_places                        which cell a token is of: what CLIP's tokens say
    clip_attributes, sam_attributes    shape, colour and texture of what lies in each cell: what CLIP and SAM know
    sam_outlines                       which places of a cell belong with its middle: what SAM knows
    word_map                           where all is that a word names, from the word's state: what LLaVA knows
    target_map, target_attributes      where the target is and what it looks like, from the state of [SEG]: LLaVA's too
    prompt                             masks of prompts that say both: SAM's, of points and boxes; [SEG] learns to say
                                       what these prompts say

All places are told in CLIP's cells: the language model sees no more of an image than CLIP's view of it, and does not
know where in SAM's frame that lies. The heads are thrown away.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...datasets.scenes.words import SHAPES
from ...models.lisa.network import LisaModel
from ...models.lisa.presets import Preset
from ...models.lisa.tokenizer import load
from .batches import SceneBatch
from .rendered import ATTRIBUTES, LABELS_PX, MOST_OBJECTS, OUTSIDE

WEIGHTS = {
    "clip_places": 0.1,
    "clip_attributes": 0.3,
    "sam_attributes": 0.1,
    "sam_outlines": 0.1,
    "word_map": 0.3,
    "target_map": 0.3,
    "target_attributes": 0.1,
    "prompt": 1.0,
}
KINDS = [len(values) + 1 for values in ATTRIBUTES]


class Helpers(nn.Module):
    """
    Args:
        preset: the dual's sizes.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self._names: Tensor
        self.register_buffer("_names", names_of_attributes(preset.llama.vocabulary))
        self._step, cells = LABELS_PX // preset.sam.grid, preset.clip.image_tokens
        hidden, prompt = preset.llama.hidden, preset.sam.prompt_dim
        self.clip = nn.Linear(hidden, sum(KINDS))
        self.places = nn.Linear(hidden, cells)
        self.sam = nn.Linear(prompt, sum(KINDS))
        self.outlines = nn.Linear(prompt, self._step**2)
        self.map = nn.Linear(hidden, cells)
        self.attributes = nn.Linear(hidden, sum(KINDS))
        self.prompter = nn.Linear(cells + sum(KINDS), prompt)

    def prompts(self, batch: SceneBatch) -> Tensor:
        """Prompts of the mask decoder that say where the targets are and what they look like: [N, C]."""
        return self.prompter(torch.cat([_where(batch), _what(batch)], dim=-1))

    def forward(
        self, looked_at: dict[str, Tensor], batch: SceneBatch, prompts_NC: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What each head costs, by the names of `WEIGHTS`.

        Args:
            looked_at: as `StudyLearner` gives it.
            batch: what was asked.
            prompts_NC: what [SEG] is to say, where that is learned.
        """
        costs = self.of_encoders(looked_at, batch) | self._of_targets(looked_at["seg"], batch)
        costs["word_map"] = self._of_words(looked_at["words"], batch)
        if prompts_NC is not None:
            costs["prompt"] = functional.mse_loss(
                looked_at["said"].float(), prompts_NC.detach().float()
            )
        return costs

    def of_encoders(self, looked_at: dict[str, Tensor], batch: SceneBatch) -> dict[str, Tensor]:
        """What those cost that read no query."""
        cells_BPK, crop_BP = self._cells(batch.labels_BHW), batch.crop_labels_Bhw.flatten(1)
        middle_BP = cells_BPK[..., self._step * (self._step // 2) + self._step // 2]
        sam_BNC = looked_at["sam"].flatten(2).transpose(1, 2)
        places_BPK = self.places(looked_at["clip"]).float()
        own_P = torch.arange(places_BPK.shape[1], device=places_BPK.device)
        return {
            "clip_places": functional.cross_entropy(
                places_BPK.mT, own_P.expand(len(places_BPK), -1)
            ),
            "clip_attributes": _of_cells(self.clip(looked_at["clip"]), crop_BP, batch),
            "sam_attributes": _of_cells(self.sam(sam_BNC), middle_BP, batch),
            "sam_outlines": _of_outlines(self.outlines(sam_BNC).float(), cells_BPK, middle_BP),
        }

    def _of_targets(self, seg_NC: Tensor, batch: SceneBatch) -> dict[str, Tensor]:
        where_NP, what_NK = _where(batch), _what(batch)
        share_NP = where_NP / where_NP.sum(-1, keepdim=True).clamp(
            min=1e-6
        )  # an empty target is nowhere
        parts = zip(
            self.attributes(seg_NC).split(KINDS, dim=-1), what_NK.split(KINDS, dim=-1), strict=True
        )
        return {
            "target_map": _surprise(self.map(seg_NC), share_NP).mean(),
            "target_attributes": torch.stack([_surprise(*part).mean() for part in parts]).sum(),
        }

    def _of_words(self, states_NLC: Tensor, batch: SceneBatch) -> Tensor:
        named_NLO = named(self._names, batch)[:, : states_NLC.shape[1]]
        where_NLP = torch.bmm(named_NLO.float(), _occupied(batch)[batch.scene_N])
        cost_NL = _surprise(
            self.map(states_NLC), where_NLP / where_NLP.sum(-1, keepdim=True).clamp(min=1)
        )
        counts_NL = where_NLP.sum(-1) > 0
        return (cost_NL * counts_NL).sum() / counts_NL.sum().clamp(min=1)

    def _cells(self, labels_BHW: Tensor) -> Tensor:
        """The labels [B, cells, places in a cell]."""
        return (
            labels_BHW.unfold(1, self._step, self._step)
            .unfold(2, self._step, self._step)
            .flatten(3)
            .flatten(1, 2)
        )


def _where(batch: SceneBatch) -> Tensor:
    """1 for each of CLIP's cells that is asked for: [N, cells]."""
    return torch.bmm(_asked(batch)[:, None], _occupied(batch)[batch.scene_N])[:, 0]


def _occupied(batch: SceneBatch) -> Tensor:
    """1 for each of CLIP's cells in whose middle an object is: [B, O, cells]."""
    labels_O = torch.arange(MOST_OBJECTS, device=batch.crop_labels_Bhw.device)
    return (batch.crop_labels_Bhw.flatten(1)[:, None] == labels_O[:, None]).float()


def names_of_attributes(vocabulary: int) -> Tensor:
    """The kind of attribute and its value, from 1 on, that each token names; 0 and 0 where it names none: [V, 2]."""
    tokenizer, names = load("tiny"), torch.zeros(vocabulary, 2, dtype=torch.int64)
    for kind, values in enumerate(ATTRIBUTES):
        for value, word in enumerate(values, start=1):
            for each in {word, SHAPES.get(word, word)}:
                names[tokenizer.token_to_id(each)] = torch.tensor([kind, value])
    return names


def named(names_V2: Tensor, batch: SceneBatch) -> Tensor:
    """Whether an object has the attribute that a word names: bool [N, L, O].

    Args:
        names_V2: as `names_of_attributes` makes them.
        batch: N queries of up to L words.
    """
    kind_NL, value_NL = names_V2[batch.ids_NL].unbind(-1)
    attributes_NO3 = batch.attributes_BO3[batch.scene_N]
    has_NLO = (
        attributes_NO3.gather(2, kind_NL[:, None].expand(-1, MOST_OBJECTS, -1)).mT
        == value_NL[..., None]
    )
    return has_NLO & (value_NL[..., None] > 0)


def _asked(batch: SceneBatch) -> Tensor:
    """1 where an object is asked for: [N, O]."""
    labels_O = torch.arange(MOST_OBJECTS, device=batch.targets_N.device)
    return ((batch.targets_N[:, None] >> labels_O) & 1).float()


def _what(batch: SceneBatch) -> Tensor:
    """The attributes of what is asked for, shares that add up to 1 for each kind: [N, K]. An empty target has none."""
    kinds = zip(batch.attributes_BO3.unbind(-1), KINDS, strict=True)
    attributes_BOK = torch.cat(
        [functional.one_hot(each_BO, count) for each_BO, count in kinds], dim=-1
    ).float()
    asked_NO = _asked(batch)
    asked_NO[:, 0] = asked_NO.sum(-1) == 0
    return torch.bmm(asked_NO[:, None], attributes_BOK[batch.scene_N])[:, 0] / asked_NO.sum(
        -1, keepdim=True
    )


def _surprise(logits_NK: Tensor, share_NK: Tensor) -> Tensor:
    return -(share_NK * logits_NK.float().log_softmax(-1)).sum(-1)


def _of_cells(logits_BPK: Tensor, labels_BP: Tensor, batch: SceneBatch) -> Tensor:
    labels_BP = torch.where(labels_BP == OUTSIDE, 0, labels_BP).long()
    wanted_BP3 = batch.attributes_BO3.gather(1, labels_BP[..., None].expand(-1, -1, 3))
    parts = zip(logits_BPK.float().split(KINDS, dim=-1), wanted_BP3.unbind(-1), strict=True)
    costs = [functional.cross_entropy(x.mT, y, reduction="none") for x, y in parts]
    return torch.stack([_balanced(cost_BP, labels_BP > 0) for cost_BP in costs]).sum()


def _of_outlines(logits_BPK: Tensor, cells_BPK: Tensor, middle_BP: Tensor) -> Tensor:
    same_BPK = (cells_BPK == middle_BP[..., None]).float()
    cost_BPK = functional.binary_cross_entropy_with_logits(logits_BPK, same_BPK, reduction="none")
    return _balanced(cost_BPK.mean(-1), (middle_BP > 0) & (middle_BP < OUTSIDE))


def _balanced(cost_BP: Tensor, object_BP: Tensor) -> Tensor:
    """The mean where objects are, and that elsewhere, added up: most of a picture is background."""
    weights = (object_BP.float(), (~object_BP).float())
    return torch.stack([(cost_BP * w_BP).sum() / w_BP.sum().clamp(min=1) for w_BP in weights]).sum()


SCALE = 0.5  # about that of a patch's embedding


SLOWEST = 0.01  # radians per cell; the fastest wave has 1


@torch.no_grad()
def begin_with_waves(model: LisaModel, parts: Collection[str] = ("clip", "sam_encoder")) -> None:
    """Sets the positions of encoders that begin at random. CLIP's class has none."""
    clip, sam = model.preset.clip, model.preset.sam
    if "clip" in parts:
        positions_NC = model.get_parameter("encoder.clip.embeddings.position_embedding.weight")
        positions_NC[0] = 0
        positions_NC[1:] = waves(clip.grid, clip.hidden).flatten(0, 1)
    if "sam_encoder" in parts:
        model.get_parameter("encoder.sam_encoder.pos_embed").copy_(
            waves(sam.grid, sam.hidden)[None]
        )


def waves(grid: int, width: int) -> Tensor:
    """[grid, grid, width]: a quarter each are sines and cosines of the row, and of the column."""
    rates_C = SLOWEST ** torch.linspace(0, 1, width // 4)
    angles_PC = torch.arange(grid)[:, None] * rates_C
    along_PC = SCALE * math.sqrt(2) * torch.cat([angles_PC.sin(), angles_PC.cos()], dim=-1)
    rows, columns = along_PC[:, None].expand(-1, grid, -1), along_PC[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1)
