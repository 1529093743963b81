"""The machine's passport: what must be known of a machine before its figures mean anything."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from . import nvml
from .errors import UsageError

DISTRIBUTIONS = (
    "lisabench", "torch", "transformers", "accelerate", "bitsandbytes", "tokenizers", "numpy", "scipy", "pandas",
    "opencv-python-headless", "pillow", "matplotlib", "nvidia-ml-py",
)  # fmt: skip


def passport() -> dict[str, Any]:
    """What the figures depend on; None for what this platform does not tell. No name of the host or its user."""
    return _host() | _gpu()


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that the figures depend on; None where one is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in DISTRIBUTIONS}


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is a usable GPU, else ``cpu``.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    if device == "cpu":
        return device
    import torch

    usable = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if usable else "cpu"
    if not usable:
        raise UsageError(f"device {device!r}: PyTorch {torch.__version__} sees no GPU here; use --set device=cpu")
    return device


def conditions() -> dict[str, Any]:
    """What else figures depend on that may change between two starts on one machine. Imports torch."""
    import torch

    return {"threads": torch.get_num_threads(), "device": resolve_device("auto")}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host() -> dict[str, Any]:
    import psutil

    return {
        "os": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cpu_count": usable_cpus(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def usable_cpus() -> int:
    """How many cores this process may use."""
    return len(usable_cores())


@cache
def usable_cores() -> Collection[int]:
    """The numbers of the cores that this process may use, whatever one of its threads was held to since."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def online_cores() -> list[int]:
    """The numbers of the cores that are on, in the order in which the system tells what they do."""
    file = Path("/proc/stat")
    if not file.exists():
        return list(range(os.cpu_count() or 1))
    names = (line.split()[0] for line in file.read_text().splitlines() if line.startswith("cpu"))
    return [int(name[3:]) for name in names if name != "cpu"]


def _cpu_model() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or None


def _gpu() -> dict[str, Any]:
    """The first GPU's identity, by NVML; all None without a driver."""
    import pynvml

    names = ("gpu", "gpu_memory_bytes", "driver", "power_limit_w", "ecc", "mig", "compute_capability")
    handle = nvml.handle()
    if handle is None:
        return {"gpu_count": 0} | dict.fromkeys(names)
    queries = {
        "gpu": lambda: _text(pynvml.nvmlDeviceGetName(handle)),
        "gpu_memory_bytes": lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "driver": lambda: _text(pynvml.nvmlSystemGetDriverVersion()),
        "power_limit_w": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
        "ecc": lambda: bool(pynvml.nvmlDeviceGetEccMode(handle)[0]),
        "mig": lambda: bool(pynvml.nvmlDeviceGetMigMode(handle)[0]),
        "compute_capability": lambda: ".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
    }
    return {"gpu_count": pynvml.nvmlDeviceGetCount()} | {name: nvml.ask(query) for name, query in queries.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
