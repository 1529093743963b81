"""Encode the images of a batch a few at a time.

The encoders and the language model are fastest at batches of different sizes, and the encoders take
more memory for each query.
"""

from collections.abc import Callable

from torch import Tensor

from ..lisa.encoders import Features

EncoderInputs = dict[str, Tensor]


def encode_in_chunks(
    encode: Callable[[EncoderInputs], Features], encoder_inputs: EncoderInputs, most: int
) -> Features:
    """Return the features of all images of a batch.

    Args:
        encode: returns the features of some images. Its next call may overwrite them, as the replay
            of a CUDA graph does.
        encoder_inputs: views [B, 3, side, side] and maps [B, ...] of all images, by name.
        most: how many images are encoded at once; 0: all of them.
    """
    images = len(next(iter(encoder_inputs.values())))
    if most == 0 or images <= most:
        return encode(encoder_inputs)
    whole: Features | None = None
    for start in range(0, images, most):
        chunk = {name: tensor[start : start + most] for name, tensor in encoder_inputs.items()}
        features = encode(chunk)
        if whole is None:
            whole = Features(
                _room_for(images, features.image_tokens_BNC),
                _room_for(images, features.mask_embedding_BChw),
            )
        end = start + len(features.image_tokens_BNC)
        # Copied before the next chunk is encoded, which may overwrite it.
        whole.image_tokens_BNC[start:end] = features.image_tokens_BNC
        whole.mask_embedding_BChw[start:end] = features.mask_embedding_BChw
    assert whole is not None  # a batch has at least one image
    return whole


def _room_for(images: int, features_B: Tensor) -> Tensor:
    return features_B.new_empty(images, *features_B.shape[1:])
