"""NVML, the GPU driver's own interface: what it says about the GPU that PyTorch uses.

Without a driver all is None.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def count() -> int:
    """Return how many GPUs the driver has, whatever is visible to CUDA; 0 without a driver."""
    import pynvml

    def gpus() -> int:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()

    return read(gpus) or 0


def names() -> set[str]:
    """Return the names of all GPUs that the driver has, each once; none without a driver."""

    found = set()
    for index in range(count()):
        name = read(partial(_name_at, index))
        if name is not None:
            found.add(name if isinstance(name, str) else name.decode())
    return found


def _name_at(index: int) -> str | bytes:
    import pynvml

    return pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))


def handle() -> Any | None:
    """Return NVML's handle of the GPU that PyTorch calls ``cuda``; None without one.

    It is found by its UUID. NVML counts all GPUs by their place on the bus. CUDA counts those that
    ``CUDA_VISIBLE_DEVICES`` leaves, and the fastest first. So an index may mean two GPUs.
    """
    if not count():
        return None
    import pynvml
    import torch

    if not torch.cuda.is_available():
        return None
    uuid = torch.cuda.get_device_properties(0).uuid
    # The second is a part of a GPU that is split (MIG).
    for name in (f"GPU-{uuid}", f"MIG-{uuid}"):
        gpu = read(partial(pynvml.nvmlDeviceGetHandleByUUID, name))
        if gpu is not None:
            return gpu
    return None


def read(query: Callable[[], T]) -> T | None:
    """Return what a query of NVML returns; None where this GPU or driver does not support it."""
    import pynvml

    try:
        return query()
    except pynvml.NVMLError:
        return None


def used_bytes() -> int | None:
    """Return the memory in use on the GPU, by all programs; None without a driver."""
    import pynvml

    gpu = handle()
    if gpu is None:
        return None
    return read(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(gpu).used))
