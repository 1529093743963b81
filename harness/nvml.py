"""The driver's own figures of the GPU that CUDA counts as the first; all unknown (None) without a driver."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def handle() -> Any | None:
    """NVML's handle of CUDA's first GPU, which ``CUDA_VISIBLE_DEVICES`` may have chosen; None without one."""
    import pynvml

    def found() -> Any:
        pynvml.nvmlInit()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if first.startswith("GPU-"):
            return pynvml.nvmlDeviceGetHandleByUUID(first)
        return pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)

    return ask(found)


def ask(query: Callable[[], Answer]) -> Answer | None:
    """One of NVML's answers; None where this GPU or driver does not have it."""
    import pynvml

    try:
        return query()
    except pynvml.NVMLError:
        return None


def used_bytes() -> int | None:
    """Memory that is in use on the GPU, whoever uses it."""
    import pynvml

    found = handle()
    return None if found is None else ask(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(found).used))
