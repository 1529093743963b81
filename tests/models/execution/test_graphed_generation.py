"""Generated answers with a cache of fixed size: the tokens and masks of one that grows."""

from dataclasses import replace

import pytest
import torch
from lisas import Regions, decoded, lisa, noise, uncompiled_resize
from torch._dynamo.utils import counters

from lisabench.models.adapters import graphed_stages
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.execution import compiled, device_preprocessing
from lisabench.models.execution.graphed_generation import ROOM, room_for

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

SHORT = noise("the red circle")
LONG = noise("what stands behind the thing that can fly, and why?", (131, 40), 1)
# In the last one, prompts of two lengths are padded to one.
BATCHES = ([SHORT], [LONG], [SHORT], [SHORT, LONG])


def script(adapter: Lisa, *tokens: int) -> None:
    """Make these tokens the next answers, or let the adapter choose seven of its own."""
    adapter._generation = replace(
        adapter._generation,
        script_T=torch.tensor(tokens) if tokens else None,
        max_new_tokens=len(tokens) or 7,
    )


@pytest.fixture(scope="module")
def pair() -> tuple[Lisa, Lisa]:
    """The same LISA, eager and graphed."""
    settings = {"vision": "clip", "answer": "generated", "max_new_tokens": 12}
    return lisa(**settings), lisa(**settings, execution="graphed")


@pytest.mark.parametrize("is_scripted", [True, False])
def test_a_cache_of_fixed_size_changes_neither_tokens_nor_masks(
    pair: tuple[Lisa, Lisa], is_scripted: bool
) -> None:
    eager, graphed = pair
    seg, end = eager.tokenizer.seg_id, eager.tokenizer.end_id
    for adapter in pair:
        script(adapter, *((40, 50, seg, 60, seg, end) if is_scripted else ()))
    for batch in BATCHES:
        (expected, masks), (found, found_masks) = decoded(eager, *batch), decoded(graphed, *batch)
        assert found.ids == expected.ids
        assert found.prompt_tokens == expected.prompt_tokens
        assert found.seg_counts == expected.seg_counts
        torch.testing.assert_close(found_masks.logits_Mhw, masks.logits_Mhw, rtol=1e-4, atol=1e-5)


def test_the_cache_is_counted_whole(pair: tuple[Lisa, Lisa]) -> None:
    eager, graphed = pair
    for adapter in pair:
        script(adapter, 40, 50)
    kept, _ = decoded(eager, SHORT)
    room, _ = decoded(graphed, SHORT)
    # Of 2 tokens, the last one is not computed any more.
    tokens = kept.prompt_tokens[0] + 1
    assert room.kv_cache_bytes * tokens == kept.kv_cache_bytes * ROOM


@pytest.mark.parametrize(
    ("padded", "new", "expected"), [(32, 16, ROOM), (ROOM, 1, 2 * ROOM), (ROOM, 512, 700)]
)
def test_room_is_a_multiple_and_ends_at_the_context(padded: int, new: int, expected: int) -> None:
    assert room_for(padded, new, context=700) == expected


def test_every_step_is_a_region() -> None:
    probe = Regions()
    adapter = lisa(probe, answer="generated", max_new_tokens=4, execution="graphed")
    decoded(adapter, SHORT)
    assert probe.calls["llm.prefill"] == 1
    assert probe.calls["llm.decode"] == 3
    assert probe.calls["llm.token"] == 4


def test_the_layers_of_a_step_share_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of compiling but the kernels, which take most of the time.
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    monkeypatch.setattr(graphed_stages, "can_compile", lambda _: True)
    monkeypatch.setattr(device_preprocessing, "PillowResize", uncompiled_resize)
    torch._dynamo.reset()
    counters["stats"].clear()
    adapter = lisa(vision="clip", answer="generated", max_new_tokens=3, execution="graphed")
    for query in (SHORT, LONG, SHORT):
        decoded(adapter, query)
    # A layer of CLIP, a layer in the prefill and in a step, and the mask decoder.
    # The mask decoder takes up to three. Without sharing there would be three more.
    assert 4 <= counters["stats"]["unique_graphs"] <= 6
    torch._dynamo.reset()
