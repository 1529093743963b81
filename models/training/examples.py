"""From samples to training batches: views of the image, token ids, and the target mask."""

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
from ..lisa.preprocessing import Preprocessor, collated, refuse_narrow
from ..lisa.presets import Preset
from ..lisa.tokenizer import Tokens


@dataclass(frozen=True)
class Example:
    """One query, on the host.

    Attributes:
        views: what the encoders read, by name, float32 [3, side, side].
        prompt: token ids up to the state that prompts the mask.
        answer: the token ids after that, ``[SEG]`` first; empty if no answer is learned.
        target_HW: uint8: 0 background, 1 target, 255 ignored.
    """

    views: dict[str, np.ndarray]
    prompt: list[int]
    answer: list[int]
    target_HW: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Several queries, on the device.

    Attributes:
        encoder_inputs: views [B, 3, side, side] and maps between grids [B, h, w, 2], by name.
        prompts: one per query.
        answers: int64 [T], one per query.
        targets: uint8 [H, W], one per query.
    """

    encoder_inputs: dict[str, Tensor]
    prompts: list[Prompt]
    answers: list[Tensor]
    targets: list[Tensor]


class ExampleReader:
    """Makes an example of a sample, in a worker process of the data loader.

    Args:
        case: the prompt's template and conditioning.
        preset: the sizes of the views, and the language model's context.
        views: names in ``preprocessing.VIEWS``.
        tokens: the tokenizer.
    """

    def __init__(
        self, case: LisaConfig, preset: Preset, views: Sequence[str], tokens: Tokens
    ) -> None:
        self._case = case
        self._tokens = tokens
        self._views = tuple(views)
        self._preprocessor = Preprocessor(preset, views)
        self._context = preset.llama.context
        self._image_tokens = preset.clip.image_tokens

    def __call__(self, sample: Sample) -> Example:
        """Return the sample's example.

        Raises:
            UsageError: prompt and answer exceed the language model's context.
            DataError: the image is too narrow.
        """
        prompt, answer = self.tokens(sample)
        refuse_narrow([sample])
        views = {view: self._preprocessor(view, sample.image) for view in self._views}
        return Example(views, prompt, answer, sample.target_HW)

    def tokens(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Return the token ids of the sample's prompt and of its answer.

        Args:
            sample: it is named if it is too long.

        Raises:
            UsageError: they exceed the language model's context.
        """
        prompt, answer = forced_ids(self._case, self._tokens, sample.query, sample.is_sentence)
        # One id of the prompt stands for all tokens of the image.
        length = len(prompt) - 1 + self._image_tokens + len(answer)
        if length > self._context:
            raise UsageError(
                f"{sample.source}: prompt and answer have {length} tokens, and the model's context "
                f"is {self._context}: shorten the query, or remove it"
            )
        return prompt, answer


def batch_of(
    examples: Sequence[Example], encoder: Encoder, device: str, dtype: torch.dtype
) -> Batch:
    """Return a batch of examples, on the device.

    Args:
        examples: at least one.
        encoder: makes the maps between grids.
        device: "cpu" or "cuda".
        dtype: of the views.
    """
    views = {}
    for name in examples[0].views:
        views[name] = [torch.from_numpy(example.views[name]) for example in examples]
    maps, prompts, answers, targets = [], [], [], []
    for example in examples:
        height, width = example.target_HW.shape
        maps.append(encoder.maps((height, width)))
        prompts.append(split_at_image(example.prompt, device))
        answers.append(torch.tensor(example.answer, dtype=torch.int64, device=device))
        targets.append(torch.from_numpy(example.target_HW).to(device))
    return Batch(collated(views, maps, device, dtype), prompts, answers, targets)
