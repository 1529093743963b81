"""Stages as graphs: what they compute, on a CPU, where they are called without graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lisas import Regions, decoded, lisa, noise, predict, uncompiled_resize
from torch._dynamo.utils import counters

from lisabench.harness.errors import UsageError
from lisabench.models.adapters import graphed_stages
from lisabench.models.execution import compiled, device_preprocessing
from lisabench.models.execution.graphed import BUCKET, NO_IMAGE_TOKEN, padded_length, prompt_batch
from lisabench.models.execution.graphs import GraphedFunction, GraphPool
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.tokenizer import IMAGE_ID

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

VARIANTS = [
    {"vision": "dual"},
    {"vision": "clip"},
    {"vision": "clip", "frame": "crop"},
    {"vision": "clip", "bridge": "upsampling"},
    {"vision": "sam"},
    {"vision": "clip", "conditioning": "described", "seg_head": "seg_token_to_sam"},
]
SHORT = noise()
LONG = noise("a longer query than the one before it, about another image", (131, 40), 1)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
def test_graphed_gives_what_eager_gives(variant: dict[str, str]) -> None:
    eager, graphed = lisa(**variant), lisa(**variant, execution="graphed")
    for batch in ([SHORT], [LONG], [SHORT, LONG]):
        (expected, masks), (found, found_masks) = decoded(eager, *batch), decoded(graphed, *batch)
        assert expected.prompt_tokens == found.prompt_tokens
        spread = masks.logits_Mhw.std()
        assert (masks.logits_Mhw - found_masks.logits_Mhw).abs().max() < 1e-4 * spread
        torch.testing.assert_close(masks.iou_M1, found_masks.iou_M1, rtol=1e-4, atol=1e-5)


def test_masks_come_in_the_sizes_of_their_images() -> None:
    eager, graphed = lisa(), lisa(execution="graphed")
    for expected, found in zip(
        predict(eager, SHORT, LONG), predict(graphed, SHORT, LONG), strict=True
    ):
        np.testing.assert_array_equal(expected.mask_HW, found.mask_HW)


def test_the_stages_are_whole_and_have_no_regions_inside_but_the_copies() -> None:
    probe = Regions()
    predict(lisa(probe, execution="graphed"), SHORT)
    assert set(probe.calls) == {"preprocess.image", "postprocess.resize", "postprocess.copy"}


@pytest.mark.parametrize(
    "backend",
    # All of compiling but the kernels, which take most of the time; and all.
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")
def test_compiled_layers_are_shared_and_change_nothing(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    counters["stats"].clear()
    monkeypatch.setattr(compiled, "BACKEND", backend)
    monkeypatch.setattr(graphed_stages, "can_compile", lambda _: True)
    if backend != "inductor":  # which alone makes kernels of the resizing
        monkeypatch.setattr(device_preprocessing, "PillowResize", uncompiled_resize)
    eager, graphed = lisa(vision="clip"), lisa(vision="clip", execution="graphed")
    for query in (SHORT, LONG):
        (_, masks), (_, found) = decoded(eager, query), decoded(graphed, query)
        spread = masks.logits_Mhw.std()
        assert (masks.logits_Mhw - found.logits_Mhw).abs().max() < 1e-4 * spread
    assert graphed.preparation.compile_s > 0
    # One for a layer of CLIP, of the language model and the mask decoder, and up to two for each
    # pass of the resizing: further layers, lengths and sizes are compiled no more.
    assert 3 <= counters["stats"]["unique_graphs"] <= 9
    torch._dynamo.reset()


def test_prompts_are_padded_at_their_end_around_the_image() -> None:
    prompts = prompt_batch([[1, 7, IMAGE_ID, 8], [1, IMAGE_ID, 5, 6, 9]], 3, 64, "cpu")
    assert prompts.lengths == [6, 7]
    assert prompts.ids_BL.shape == (2, BUCKET)
    none = NO_IMAGE_TOKEN
    assert prompts.ids_BL[:, :8].tolist() == [[1, 7, 0, 0, 0, 8, 0, 0], [1, 0, 0, 0, 5, 6, 9, 0]]
    assert prompts.image_at_BL[:, :8].tolist() == [
        [none, none, 0, 1, 2, none, none, none],
        [none, 0, 1, 2, none, none, none, none],
    ]
    assert prompts.last_B.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("tokens", "padded"), [(1, BUCKET), (BUCKET, BUCKET), (BUCKET + 1, 2 * BUCKET), (99, 100)]
)
def test_padding_ends_at_a_multiple_and_at_the_context(tokens: int, padded: int) -> None:
    assert padded_length(tokens, context=100) == padded


def test_a_kind_of_query_is_its_padded_length_and_its_images_size() -> None:
    graphed = lisa(execution="graphed")
    assert graphed.warm_up_key(SHORT) == graphed.warm_up_key(noise("the red square"))
    assert graphed.warm_up_key(SHORT) != graphed.warm_up_key(noise(size_HW=(60, 91)))
    assert graphed.warm_up_key(SHORT) != graphed.warm_up_key(noise("a red circle " * 30))


def test_a_larger_image_leaves_what_was_captured_for_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, graphed = lisa(), lisa(execution="graphed")
    made = []
    original = GraphPool.graphed

    def counted(pool: GraphPool, function: Callable[..., Any]) -> GraphedFunction:
        made.append(function)
        return original(pool, function)

    monkeypatch.setattr(GraphPool, "graphed", counted)
    small, large = noise(size_HW=(40, 50)), noise(size_HW=(131, 90), seed=1)
    for query in (small, large, small):
        (_, expected), (_, found) = decoded(eager, query), decoded(graphed, query)
        torch.testing.assert_close(found.logits_Mhw, expected.logits_Mhw, rtol=1e-4, atol=1e-4)
    assert len(made) == 2  # one for each size


def test_on_a_cpu_nothing_is_captured_with_a_warning_and_queries_do_not_change_that() -> None:
    graphed = lisa(execution="graphed")
    assert graphed_stages.NOT_CAPTURED in graphed.warnings
    assert graphed_stages.NOT_CAPTURED not in lisa().warnings
    before = graphed.preparation
    predict(graphed, SHORT)
    assert graphed.preparation == before
    assert (before.graphs, before.capture_s) == (0, 0.0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"answer": "generated", "kv_cache": "off"}, "kv_cache=off"),
        ({"reuse": "on"}, "reuse=on"),
        ({"quantization": "int8"}, "quantization=int8"),
    ],
)
def test_what_cannot_be_captured_is_refused_and_auto_runs_it_eagerly(
    settings: dict[str, str], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        LisaConfig(execution="graphed", **settings)
    assert LisaConfig(**settings).for_run("cuda", timed=True).execution == "eager"


@pytest.mark.parametrize(
    ("execution", "device", "timed", "expected"),
    [
        ("auto", "cuda", True, "graphed"),
        ("auto", "cuda", False, "eager"),
        ("auto", "cpu", True, "eager"),
        ("graphed", "cpu", True, "graphed"),
        ("graphed", "cuda", False, "eager"),
        ("upstream", "cuda", False, "upstream"),
        ("eager", "cuda", True, "eager"),
    ],
)
def test_timed_cases_on_a_gpu_are_graphed_unless_set_otherwise(
    execution: str, device: str, timed: bool, expected: str
) -> None:
    for answer in ("forced", "generated"):
        config = LisaConfig(execution=execution, answer=answer)
        assert config.for_run(device, timed).execution == expected


def test_auto_is_recorded_as_what_was_built() -> None:
    assert lisa().settings["execution"] == "eager"
    assert lisa(execution="graphed").settings["execution"] == "graphed"
