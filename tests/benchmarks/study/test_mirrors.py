"""Mirrored scenes: pixels, targets and the words of the queries are turned together."""

import pytest
import torch
from study_lisas import store_of, tiny
from torch import Tensor

from lisabench.benchmarks.study.batches import mirror_words
from lisabench.benchmarks.study.rendered import render
from lisabench.datasets.scenes.words import EDGEMOST
from lisabench.models.lisa.frames import extent_in_frame
from lisabench.models.lisa.tokenizer import load

pytestmark = pytest.mark.no_clock

MIRRORS = ((), (0,), (1,), (0, 1))  # axes along which a picture is turned


def test_a_scene_in_a_mirror_is_asked_about_in_its_words(tmp_path):
    store = store_of(render(tmp_path, 0, {"test": 7}, 1), tiny())
    drawn = store.drawn(torch.Generator().manual_seed(0), 24, 2)
    mirrors = set()
    for query, here, ids_L in zip(drawn.query_N, drawn.scene_N, drawn.ids_NL, strict=True):
        (plain,) = store.walked(query[None], 1)
        size_HW = tuple(store.sizes_N2[store.scene_Q[query]].tolist())
        asked = (drawn.labels_BHW[here], drawn.seen["sam_frame"][here])
        made = {
            axes: turned((plain.labels_BHW[0], plain.seen["sam_frame"][0]), size_HW, axes)
            for axes in MIRRORS
        }
        (axes,) = (axes for axes, pair in made.items() if all(map(torch.equal, pair, asked)))
        crop_hw = plain.crop_labels_Bhw[0].flip(axes) if axes else plain.crop_labels_Bhw[0]
        assert torch.equal(crop_hw, drawn.crop_labels_Bhw[here])
        words_L = plain.ids_NL[0]
        for axis in axes:
            words_L = mirror_words(512, axis)[words_L]
        assert torch.equal(words_L, ids_L)
        mirrors.add(axes)
    assert mirrors == set(MIRRORS)


def turned(
    frames: tuple[Tensor, ...], size_HW: tuple[int, int], axes: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Frames whose image, and not what pads it, was turned."""
    made = []
    for frame in frames:
        height, width = extent_in_frame(size_HW, frame.shape[-1])
        made.append(frame.clone())
        made[-1][..., :height, :width] = frame[..., :height, :width].flip(
            [axis - 2 for axis in axes]
        )
    return tuple(made)


def test_every_word_for_a_side_has_its_opposite_in_a_mirror():
    tokenizer = load("tiny")
    for axis, sides in ((1, ("left", "right")), (0, ("top", "bottom"))):
        for words in (dict(zip(sides, sides, strict=True)), EDGEMOST):
            one, other = (tokenizer.token_to_id(words[side]) for side in sides)
            assert mirror_words(512, axis)[[one, other]].tolist() == [other, one]
    kept = mirror_words(512, 0) == torch.arange(512)
    assert {tokenizer.id_to_token(i) for i in (~kept).nonzero().flatten().tolist()} == {
        *("top", "bottom", "topmost", "lowest", "above", "below", "higher", "lower")
    }
