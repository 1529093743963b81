"""From samples to what is learned from: views of the image, the prompt and its answer as ids, and the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...harness.contract import Sample
from ...harness.errors import UsageError
from ..lisa.config import LisaConfig
from ..lisa.encoders import Encoder
from ..lisa.forced_prompt import forced_ids
from ..lisa.network import Prompt, split_at_image
from ..lisa.preprocessing import Preprocessor, collated
from ..lisa.presets import Preset
from ..lisa.tokenizer import Tokens


@dataclass(frozen=True)
class Example:
    """One query, on the host.

    Attributes:
        views: float32 [3, side, side], by name.
        prompt: ids up to the state that prompts the mask.
        answer: ids that follow, ``[SEG]`` first; none where none is learned.
        target_HW: uint8: 0 background, 1 target, 255 ignored.
    """

    views: dict[str, np.ndarray]
    prompt: list[int]
    answer: list[int]
    target_HW: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Several examples on the device.

    Attributes:
        seen: what the encoder wants, by name.
        prompts: one a query.
        answers: int64 [T], one a query.
        targets: uint8 [H, W], one a query.
    """

    seen: dict[str, Tensor]
    prompts: list[Prompt]
    answers: list[Tensor]
    targets: list[Tensor]


class ExampleReader:
    """Makes examples of samples: what a worker process does.

    Args:
        case: says how a query is put.
        preset: the sizes of the views, and the context.
        views: names in ``preprocessing.VIEWS``.
        tokens: the tokenizer.
    """

    def __init__(
        self, case: LisaConfig, preset: Preset, views: Sequence[str], tokens: Tokens
    ) -> None:
        self._case, self._tokens, self._views = case, tokens, tuple(views)
        self._preprocessor = Preprocessor(preset, views)
        self._room = preset.llama.context - preset.clip.image_tokens

    def __call__(self, sample: Sample) -> Example:
        """
        Raises:
            UsageError: the query does not fit the context.
        """
        prompt, answer = forced_ids(self._case, self._tokens, sample.query, sample.is_sentence)
        if len(prompt) + len(answer) - 1 > self._room:
            raise UsageError(
                f"{sample.source}: its query does not fit the model's context: shorten or remove it"
            )
        views = {view: self._preprocessor(view, sample.image) for view in self._views}
        return Example(views, prompt, answer, sample.target_HW)


def batch_of(
    examples: Sequence[Example], encoder: Encoder, device: str, dtype: torch.dtype
) -> Batch:
    """Puts examples onto the device.

    Args:
        examples: at least one.
        encoder: makes the coordinate maps.
        device: "cpu" or "cuda".
        dtype: of the views.
    """
    views = {
        name: [torch.from_numpy(each.views[name]) for each in examples]
        for name in examples[0].views
    }
    maps = [encoder.maps((each.target_HW.shape[0], each.target_HW.shape[1])) for each in examples]
    return Batch(
        collated(views, maps, device, dtype),
        [split_at_image(each.prompt, device) for each in examples],
        [torch.tensor(each.answer, dtype=torch.int64, device=device) for each in examples],
        [torch.from_numpy(each.target_HW).to(device) for each in examples],
    )
