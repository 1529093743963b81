"""NVML, the GPU driver's own interface: what it says about CUDA's first GPU.

Without a driver all is None.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def handle() -> Any | None:
    """Return NVML's handle of CUDA's first GPU; None without a driver or a GPU.

    NVML counts all GPUs of the machine, whatever ``CUDA_VISIBLE_DEVICES`` leaves visible to CUDA.
    So the first entry of that variable, an index or an UUID, decides.
    """
    import pynvml

    def first_gpu() -> Any:
        pynvml.nvmlInit()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if first.startswith("GPU-"):
            return pynvml.nvmlDeviceGetHandleByUUID(first)
        return pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)

    return read(first_gpu)


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
