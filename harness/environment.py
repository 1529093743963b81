"""The machine's passport: what must be known of a machine before its figures mean anything."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from . import nvml
from .errors import NothingToCompare, UsageError

DISTRIBUTIONS = (
    "lisabench", "torch", "transformers", "accelerate", "bitsandbytes", "tokenizers", "numpy", "scipy", "pandas",
    "opencv-python-headless", "pillow", "matplotlib", "nvidia-ml-py",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
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
        raise UsageError(
            f"device {device!r}: PyTorch {torch.__version__} sees no GPU here; use --set device=cpu"
        )
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

    names = (
        "gpu",
        "gpu_memory_bytes",
        "driver",
        "power_limit_w",
        "ecc",
        "mig",
        "compute_capability",
    )
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
        "compute_capability": lambda: ".".join(
            map(str, pynvml.nvmlDeviceGetCudaComputeCapability(handle))
        ),
    }
    return {"gpu_count": pynvml.nvmlDeviceGetCount()} | {
        name: nvml.read(query) for name, query in queries.items()
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def cache_folder() -> Path:
    """LISABENCH_CACHE, or else a folder for this package where the platform keeps a user's caches."""
    chosen = os.environ.get("LISABENCH_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lisabench"


# What makes two machines the same, so that their costs may be compared. A run that is resumed
# must also find the same operating system, number of threads and device.
SAME_MACHINE = ("gpu", "gpu_count", "driver", "power_limit_w", "ecc", "mig", "cpu", "cpu_count")
SAME_TO_RESUME = ("os", *SAME_MACHINE, "threads", "device")
SAME_VERSIONS = ("lisabench", "python", "torch", "transformers", "bitsandbytes")


def must_be_same(
    folder: Path, what: str, keys: Sequence[str], before: dict[str, Any], now: dict[str, Any]
) -> None:
    """Of a folder's run.

    Raises:
        NothingToCompare: something differs.
    """
    pairs = ((key, before.get(key), now.get(key)) for key in keys)
    differing = "; ".join(
        f"{key} was {then}, is {here}" for key, then, here in pairs if then != here
    )
    if differing:
        raise NothingToCompare(
            f"{folder} was begun with another {what} ({differing}); start anew with --out"
        )


Sides = tuple[JsonValue, JsonValue]


def different_machines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Why two machines' costs must not be compared, by their passports; nothing where they may."""
    facts = differing(_comparable(before), _comparable(after))
    named = ", ".join(f"{name} {then} and {now}" for name, (then, now) in facts.items())
    return [f"measured on different machines ({named})"] if named else []


def _comparable(passport: dict[str, Any]) -> dict[str, Any]:
    """What must be the same on both machines; of the driver only its major version."""
    facts = {name: passport.get(name) for name in SAME_MACHINE}
    return facts | {"driver": str(facts["driver"]).split(".")[0]}


def differing(before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Sides]:
    """What has another value on either side; of one that does not have it, None."""
    before, after = before or {}, after or {}
    names = dict.fromkeys([*before, *after])
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }
