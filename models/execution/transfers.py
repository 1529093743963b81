"""Copies between the host and a GPU that do not make the host wait."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: str) -> Tensor:
    """Return an array on a device."""
    tensor = torch.empty(array.shape, dtype=torch.from_numpy(array).dtype, device=device)
    copy_to_device(array, tensor)
    return tensor


def copy_to_device(array: np.ndarray, target: Tensor) -> None:
    """Copy an array to a tensor of its shape on a device, without blocking the host.

    Only a copy from pinned memory does not block; PyTorch keeps pinned memory for the next call.
    """
    source = torch.from_numpy(array)
    if target.is_cuda:
        source = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        # By NumPy, in this thread: PyTorch would wake a thread on every core, which takes
        # milliseconds on a busy host.
        np.copyto(source.numpy(), array)
    target.copy_(source, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Return tensors as arrays on the host, which waits for the GPU once for all of them."""
    if not tensors or not tensors[0].is_cuda:
        return [tensor.numpy() for tensor in tensors]
    on_host = []
    for tensor in tensors:
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        on_host.append(pinned.copy_(tensor, non_blocking=True))
    torch.cuda.current_stream().synchronize()
    return [pinned.numpy() for pinned in on_host]
