"""Auxiliary heads beside a dual that is trained from scratch.

They stand in for the pretraining that the real parts have had:

    clip_places           which cell a token is of: what CLIP's tokens tell
    clip_attributes       shape, colour and texture of the object in each cell: what CLIP learned
    sam_attributes        the same from SAM's features
    sam_outlines          which places of a cell belong with its middle: what SAM learned
    word_map              where the objects are that a word names, from its state: what LLaVA knows
    target_map            where the target is, from the state of [SEG]: what LLaVA learned
    target_attributes     what the target looks like, likewise
    prompt                masks of prompts that hold both: what SAM learned of points and boxes; the
                          projection of [SEG] learns to give what these prompts hold

All places are in CLIP's cells: the language model sees no more of an image than CLIP's view of it,
and does not know where in SAM's frame that lies. The heads are thrown away after the training.

Suffixes: B scenes, N queries, L words, O objects (0 is background), P cells, K values of all
attributes, C channels.
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
# How many values each kind of attribute has, with 0 for "no object".
VALUES_OF_KINDS = [len(values) + 1 for values in ATTRIBUTES]
# Positions of encoders that begin at random, see `waves`.
WAVE_SCALE = 0.5  # root mean square, about that of a patch's embedding
SLOWEST_WAVE = 0.01  # radians per cell; the fastest wave has 1


class AuxiliaryHeads(nn.Module):
    """Linear heads on the features of a dual.

    Args:
        preset: the dual's sizes.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self._names: Tensor
        self.register_buffer("_names", names_of_attributes(preset.llama.vocabulary))
        self._places_along_cell = LABELS_PX // preset.sam.grid
        cells, values = preset.clip.image_tokens, sum(VALUES_OF_KINDS)
        hidden, prompt = preset.llama.hidden, preset.sam.prompt_dim
        # The order is that of the random weights, which a seed fixes.
        self.clip = nn.Linear(hidden, values)
        self.places = nn.Linear(hidden, cells)
        self.sam = nn.Linear(prompt, values)
        self.outlines = nn.Linear(prompt, self._places_along_cell**2)
        self.map = nn.Linear(hidden, cells)
        self.attributes = nn.Linear(hidden, values)
        self.prompter = nn.Linear(cells + values, prompt)

    def prompts(self, batch: SceneBatch) -> Tensor:
        """Return prompts of the mask decoder, of the targets' places and attributes: [N, C]."""
        return self.prompter(torch.cat([_target_cells(batch), _target_values(batch)], dim=-1))

    def forward(
        self, features: dict[str, Tensor], batch: SceneBatch, prompts_NC: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the loss of each head, by the names of `WEIGHTS`.

        Args:
            features: as `StudyLearner` returns them.
            batch: the scenes and queries.
            prompts_NC: what the projection of [SEG] is to give, in the steps in which that is
                learned.
        """
        losses = self.encoder_losses(features, batch)
        losses |= self._target_losses(features["seg"], batch)
        losses["word_map"] = self._word_loss(features["words"], batch)
        if prompts_NC is not None:
            # The prompts are the target here: detached, so that they do not move towards [SEG].
            target_NC = prompts_NC.detach().float()
            losses["prompt"] = functional.mse_loss(features["projected"].float(), target_NC)
        return losses

    def encoder_losses(self, features: dict[str, Tensor], batch: SceneBatch) -> dict[str, Tensor]:
        """Return the losses of the heads that read no query."""
        labels_BPk = self._labels_by_cell(batch.labels_BHW)
        middle = self._places_along_cell // 2
        middle_labels_BP = labels_BPk[..., self._places_along_cell * middle + middle]
        crop_labels_BP = batch.crop_labels_Bhw.flatten(1)
        clip_BPC = features["clip"]
        sam_BPC = features["sam"].flatten(2).transpose(1, 2)
        logits_BPP = self.places(clip_BPC).float()
        own_cell_P = torch.arange(logits_BPP.shape[1], device=logits_BPP.device)
        own_cell_BP = own_cell_P.expand(len(logits_BPP), -1)
        return {
            "clip_places": functional.cross_entropy(logits_BPP.mT, own_cell_BP),
            "clip_attributes": _attributes_loss(self.clip(clip_BPC), crop_labels_BP, batch),
            "sam_attributes": _attributes_loss(self.sam(sam_BPC), middle_labels_BP, batch),
            "sam_outlines": _outlines_loss(
                self.outlines(sam_BPC).float(), labels_BPk, middle_labels_BP
            ),
        }

    def _labels_by_cell(self, labels_BHW: Tensor) -> Tensor:
        """Return the labels by SAM's cells: [B, cells, places in a cell]."""
        side = self._places_along_cell
        return labels_BHW.unfold(1, side, side).unfold(2, side, side).flatten(3).flatten(1, 2)

    def _target_losses(self, seg_NC: Tensor, batch: SceneBatch) -> dict[str, Tensor]:
        """Return the losses of the heads that read the state of [SEG]."""
        cells_NP = _target_cells(batch)
        # An empty target is in no cell: its shares are all 0, and so is its loss.
        share_NP = cells_NP / cells_NP.sum(-1, keepdim=True).clamp(min=1e-6)
        logits_by_kind = self.attributes(seg_NC).split(VALUES_OF_KINDS, dim=-1)
        share_by_kind = _target_values(batch).split(VALUES_OF_KINDS, dim=-1)
        of_kinds = []
        for logits_NK, share_NK in zip(logits_by_kind, share_by_kind, strict=True):
            of_kinds.append(_cross_entropy(logits_NK, share_NK).mean())
        return {
            "target_map": _cross_entropy(self.map(seg_NC), share_NP).mean(),
            "target_attributes": torch.stack(of_kinds).sum(),
        }

    def _word_loss(self, states_NLC: Tensor, batch: SceneBatch) -> Tensor:
        """Return the loss of the words' maps, mean over the words that name an object."""
        named_NLO = named(self._names, batch)[:, : states_NLC.shape[1]]
        cells_NLP = torch.bmm(named_NLO.float(), _occupied_cells(batch)[batch.scene_N])
        share_NLP = cells_NLP / cells_NLP.sum(-1, keepdim=True).clamp(min=1)
        loss_NL = _cross_entropy(self.map(states_NLC), share_NLP)
        counts_NL = cells_NLP.sum(-1) > 0
        return (loss_NL * counts_NL).sum() / counts_NL.sum().clamp(min=1)


def names_of_attributes(vocabulary: int) -> Tensor:
    """Return the kind and the value of the attribute that each token names: int64 [V, 2].

    Values count from 1; a token that names no attribute has 0 and 0.
    """
    tokenizer = load("tiny")
    names_V2 = torch.zeros(vocabulary, 2, dtype=torch.int64)
    for kind, values in enumerate(ATTRIBUTES):
        for value, word in enumerate(values, start=1):
            # A shape has a plural too, as in "the leftmost of the circles".
            for spelling in {word, SHAPES.get(word, word)}:
                names_V2[tokenizer.token_to_id(spelling)] = torch.tensor([kind, value])
    return names_V2


def named(names_V2: Tensor, batch: SceneBatch) -> Tensor:
    """Return whether an object has the attribute that a word names: bool [N, L, O].

    Args:
        names_V2: as `names_of_attributes` makes them.
        batch: N queries of up to L words.
    """
    kind_NL, value_NL = names_V2[batch.ids_NL].unbind(-1)
    attributes_NO3 = batch.attributes_BO3[batch.scene_N]
    kind_NOL = kind_NL[:, None].expand(-1, MOST_OBJECTS, -1)
    value_of_object_NLO = attributes_NO3.gather(2, kind_NOL).mT
    names_a_value_NL1 = value_NL[..., None] > 0
    return (value_of_object_NLO == value_NL[..., None]) & names_a_value_NL1


def _target_cells(batch: SceneBatch) -> Tensor:
    """Return 1 for each of CLIP's cells in whose middle a target is: [N, P]."""
    is_target_N1O = _is_target(batch)[:, None]
    return torch.bmm(is_target_N1O, _occupied_cells(batch)[batch.scene_N])[:, 0]


def _occupied_cells(batch: SceneBatch) -> Tensor:
    """Return 1 for each of CLIP's cells in whose middle an object is: [B, O, P]."""
    labels_O = torch.arange(MOST_OBJECTS, device=batch.crop_labels_Bhw.device)
    return (batch.crop_labels_Bhw.flatten(1)[:, None] == labels_O[:, None]).float()


def _is_target(batch: SceneBatch) -> Tensor:
    """Return 1 for each object that is a target: [N, O].

    Targets are kept as the bits of one number.
    """
    labels_O = torch.arange(MOST_OBJECTS, device=batch.targets_N.device)
    return ((batch.targets_N[:, None] >> labels_O) & 1).float()


def _target_values(batch: SceneBatch) -> Tensor:
    """Return the attributes of the targets, shares that add up to 1 for each kind: [N, K].

    An empty target has the attributes of the background, which are "no object".
    """
    of_kinds = []
    for values_BO, count in zip(batch.attributes_BO3.unbind(-1), VALUES_OF_KINDS, strict=True):
        of_kinds.append(functional.one_hot(values_BO, count))
    values_BOK = torch.cat(of_kinds, dim=-1).float()
    is_target_NO = _is_target(batch)
    is_target_NO[:, 0] = is_target_NO.sum(-1) == 0
    sums_NK = torch.bmm(is_target_NO[:, None], values_BOK[batch.scene_N])[:, 0]
    return sums_NK / is_target_NO.sum(-1, keepdim=True)


def _cross_entropy(logits_NK: Tensor, share_NK: Tensor) -> Tensor:
    """Return the cross entropy of shares that may all be 0, over the last axis: [N]."""
    return -(share_NK * logits_NK.float().log_softmax(-1)).sum(-1)


def _attributes_loss(logits_BPK: Tensor, labels_BP: Tensor, batch: SceneBatch) -> Tensor:
    """Return the loss of the attributes of the object in each cell, summed over the kinds."""
    labels_BP = torch.where(labels_BP == OUTSIDE, 0, labels_BP).long()
    values_BP3 = batch.attributes_BO3.gather(1, labels_BP[..., None].expand(-1, -1, 3))
    logits_by_kind = logits_BPK.float().split(VALUES_OF_KINDS, dim=-1)
    of_kinds = []
    for logits_BPk, values_BP in zip(logits_by_kind, values_BP3.unbind(-1), strict=True):
        loss_BP = functional.cross_entropy(logits_BPk.mT, values_BP, reduction="none")
        of_kinds.append(_balanced_mean(loss_BP, labels_BP > 0))
    return torch.stack(of_kinds).sum()


def _outlines_loss(logits_BPk: Tensor, labels_BPk: Tensor, middle_labels_BP: Tensor) -> Tensor:
    """Return the loss of which places of a cell have the label of its middle."""
    same_BPk = (labels_BPk == middle_labels_BP[..., None]).float()
    loss_BPk = functional.binary_cross_entropy_with_logits(logits_BPk, same_BPk, reduction="none")
    is_object_BP = (middle_labels_BP > 0) & (middle_labels_BP < OUTSIDE)
    return _balanced_mean(loss_BPk.mean(-1), is_object_BP)


def _balanced_mean(loss_BP: Tensor, is_object_BP: Tensor) -> Tensor:
    """Return the mean over cells with an object plus the mean over the others.

    Most cells are background: one mean over all would be of the background.
    """
    means = []
    for chosen_BP in (is_object_BP.float(), (~is_object_BP).float()):
        means.append((loss_BP * chosen_BP).sum() / chosen_BP.sum().clamp(min=1))
    return torch.stack(means).sum()


@torch.no_grad()
def begin_with_waves(model: LisaModel, parts: Collection[str] = ("clip", "sam_encoder")) -> None:
    """Set the position embeddings of encoders that begin at random.

    CLIP's class token has no position.
    """
    clip, sam = model.preset.clip, model.preset.sam
    if "clip" in parts:
        positions_NC = model.get_parameter("encoder.clip.embeddings.position_embedding.weight")
        positions_NC[0] = 0
        positions_NC[1:] = waves(clip.grid, clip.hidden).flatten(0, 1)
    if "sam_encoder" in parts:
        positions_1hwC = model.get_parameter("encoder.sam_encoder.pos_embed")
        positions_1hwC.copy_(waves(sam.grid, sam.hidden)[None])


def waves(grid: int, width: int) -> Tensor:
    """Return position embeddings, different for every cell of a grid: [grid, grid, width].

    A quarter each are sines and cosines of the row, and of the column, as in Vaswani et al. 2017,
    "Attention Is All You Need", section 3.5; the slowest wave is faster, because grids are short.
    """
    rates_C = SLOWEST_WAVE ** torch.linspace(0, 1, width // 4)
    angles_PC = torch.arange(grid)[:, None] * rates_C
    # The root mean square of a sine is 1 / sqrt(2).
    amplitude = WAVE_SCALE * math.sqrt(2)
    along_PC = amplitude * torch.cat([angles_PC.sin(), angles_PC.cos()], dim=-1)
    rows_hwC = along_PC[:, None].expand(-1, grid, -1)
    columns_hwC = along_PC[None].expand(grid, -1, -1)
    return torch.cat([rows_hwC, columns_hwC], dim=-1)
