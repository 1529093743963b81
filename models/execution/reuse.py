"""One encoding for all queries about an image."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...harness.contract import Probe
from ..lisa.encoders import Encoder, Features


class ReusingEncoder:
    """An encoder that keeps the features of the last image, for further queries about it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[str, Features] | None = None

    def __call__(
        self, encoder_inputs: Mapping[str, Tensor], image_ids: Sequence[str], probe: Probe
    ) -> Features:
        """Return the features of a batch; an image equal to the one before is not encoded again.

        Args:
            encoder_inputs: views and maps of every sample, by name.
            image_ids: by which equal images are recognised, one a sample.
            probe: times the regions of what is encoded.
        """
        features = []
        for i, image_id in enumerate(image_ids):
            if self._last is None or self._last[0] != image_id:
                self._last = None  # frees the last features before the next are made
                single = {name: batch[i : i + 1] for name, batch in encoder_inputs.items()}
                self._last = image_id, self._encoder(single, probe)
            features.append(self._last[1])
        if len(features) == 1:
            return features[0]
        image_tokens_BNC = torch.cat([single.image_tokens_BNC for single in features])
        mask_embedding_BChw = torch.cat([single.mask_embedding_BChw for single in features])
        return Features(image_tokens_BNC, mask_embedding_BChw)
