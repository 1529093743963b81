"""The environment of a measurement: the machine, its devices, and the versions of the software.

A time or a peak means something only together with these facts. The records call them the machine's
"passport". They hold no name of a host or a user.
"""

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from . import nvml
from .errors import NothingToCompare, UsageError
from .paths import user_path

# What makes two machines the same, so that their costs may be compared.
SAME_MACHINE = ("gpu", "gpu_count", "driver", "power_limit_w", "ecc", "mig", "cpu", "cpu_count")
# A run that is resumed must also find the same operating system, number of threads and device.
SAME_TO_RESUME = ("os", *SAME_MACHINE, "gpu_memory_bytes", "threads", "device")
DEVICES = ("auto", "cpu", "cuda", "cuda:N")  # N is a number
NUMBERED = re.compile(r"cuda:(0|[1-9][0-9]{0,3})")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
# What the last bits of an answer depend on: machines that share these may evaluate parts of one
# quality pass. On a CPU they also depend on the number of threads, which follows the cores.
SAME_FOR_QUALITY = ("os", "device", "gpu", "compute_capability", "mig")
SAME_FOR_QUALITY_ON_CPU = ("os", "device", "cpu", "cpu_count")
SAME_VERSIONS = ("lisabench", "python", "torch", "transformers", "bitsandbytes")

DISTRIBUTIONS = (
    "lisabench", "torch", "transformers", "accelerate", "bitsandbytes", "tokenizers", "numpy",
    "scipy", "pandas", "opencv-python-headless", "pillow", "matplotlib", "nvidia-ml-py",
)  # fmt: skip
_GPU_FACTS = (
    "gpu", "gpu_memory_bytes", "driver", "power_limit_w", "ecc", "mig", "compute_capability",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Return the facts about this machine that times and peaks depend on.

    What the machine does not tell is None.
    """
    return _describe_host() | _describe_gpu()


def _describe_host() -> dict[str, Any]:
    import psutil

    return {
        "os": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cpu_count": usable_cpus(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _cpu_model() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or None


def _describe_gpu() -> dict[str, Any]:
    """Return the facts about the GPU that PyTorch uses; all None if it sees none.

    Without a driver that answers, its name, memory and capability are PyTorch's.
    """
    import pynvml
    import torch

    if not torch.cuda.is_available():
        return {"gpu_count": 0} | dict.fromkeys(_GPU_FACTS)
    properties = torch.cuda.get_device_properties(0)
    facts: dict[str, Any] = dict.fromkeys(_GPU_FACTS) | {
        "gpu_count": nvml.count() or torch.cuda.device_count(),
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
    }
    gpu = nvml.handle()
    if gpu is None:
        return facts
    # Each fact by itself: a GPU may lack one, such as ECC, and have the others.
    of_driver = {
        "gpu": nvml.read(lambda: _text(pynvml.nvmlDeviceGetName(gpu))),
        "gpu_memory_bytes": nvml.read(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total)),
        "driver": nvml.read(lambda: _text(pynvml.nvmlSystemGetDriverVersion())),
        "power_limit_w": nvml.read(lambda: pynvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000),
        "ecc": nvml.read(lambda: bool(pynvml.nvmlDeviceGetEccMode(gpu)[0])),
        "mig": nvml.read(lambda: bool(pynvml.nvmlDeviceGetMigMode(gpu)[0])),
    }
    return facts | {name: value for name, value in of_driver.items() if value is not None}


def _text(value: str | bytes) -> str:
    """Return a text of NVML, which older versions of its bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the libraries that results depend on.

    What is not installed is None.
    """
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for distribution in DISTRIBUTIONS:
        try:
            installed[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            installed[distribution] = None
    return installed


def conditions() -> dict[str, Any]:
    """Return what results depend on and may change between two starts on one machine.

    It imports torch.
    """
    import torch

    return {"threads": torch.get_num_threads(), "device": resolve_device("auto")}


def resolve_device(device: str) -> str:
    """Return the device that a setting means: ``cpu`` or ``cuda``.

    ``auto`` is ``cuda`` if there is a usable GPU, else ``cpu``. After ``cuda:1``, this process has
    that GPU alone, which is its ``cuda``; see `choose_gpu`.

    Raises:
        UsageError: the setting is no device that can be measured, or there is no such GPU.
    """
    check_device(device)
    # Without torch, whose import takes seconds.
    if device == "cpu":
        return device
    if is_numbered(device):
        choose_gpu(device)
    import torch

    usable = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if usable else "cpu"
    if not usable:
        raise UsageError(
            f"device {device!r}: PyTorch {torch.__version__} sees no GPU here; take a "
            "machine that has one, or for a tiny model --set device=cpu"
        )
    # By CUDA's own count. It sees all of them where it was asked too early, as at the top of a
    # script that calls lisabench; the first one would then be measured.
    if is_numbered(device) and torch._C._cuda_getDeviceCount() != 1:
        raise UsageError(
            f"device {device!r}: CUDA was in use before it could be left this GPU alone; take "
            f"device=cuda, and set {VISIBLE_GPUS}={os.environ[VISIBLE_GPUS]} before the program "
            "starts"
        )
    return "cuda"


def check_device(device: str) -> None:
    """Refuse a device that cannot be measured.

    Raises:
        UsageError: it is none of `DEVICES`.
    """
    if is_numbered(device) or device in ("auto", "cpu", "cuda"):
        return
    if str(device).startswith("cuda:"):
        raise UsageError(
            f"device {device!r}: expected the number of a GPU after the colon, such as cuda:0"
        )
    raise UsageError(
        f"device {str(device)!r} is not supported; known: {', '.join(DEVICES)} (NVIDIA GPUs)"
    )


def is_numbered(device: object) -> bool:
    """Return whether a device names one of several GPUs, such as ``cuda:1``."""
    return NUMBERED.fullmatch(str(device)) is not None


def visible_gpu(device: str) -> str:
    """Return the id of the GPU that a device such as ``cuda:1`` names, for `VISIBLE_GPUS`.

    The number counts the GPUs that are visible, as in PyTorch.

    Raises:
        UsageError: fewer are visible.
    """
    number = int(device.removeprefix("cuda:"))
    gpus = visible_gpus()
    restricted_to = os.environ.get(VISIBLE_GPUS)
    where = "this machine has"
    if restricted_to is not None:
        where = f"{VISIBLE_GPUS}={restricted_to!r} leaves"
    elif not gpus:
        # No driver answers. Whether there is such a GPU shows once PyTorch looks for it.
        return str(number)
    if not gpus:
        raise UsageError(f"device {device!r}: {where} no GPU; use --set device=cpu")
    if number >= len(gpus):
        known = ", ".join(f"cuda:{index}" for index in range(len(gpus)))
        raise UsageError(f"device {device!r}: {where} {len(gpus)} GPUs; known: {known}")
    return gpus[number]


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that are visible to CUDA, in its order, for `VISIBLE_GPUS`.

    It is empty where there is none, and where no driver answers that could say how many there are.
    """
    restricted_to = os.environ.get(VISIBLE_GPUS)
    if restricted_to is not None:
        return _listed_gpus(restricted_to)
    return [str(index) for index in range(nvml.count())]


def _listed_gpus(restricted_to: str) -> list[str]:
    """Return the ids in a value of `VISIBLE_GPUS`: indices, or UUIDs of GPUs or of parts of one.

    CUDA reads them up to the first that is none, such as -1.
    """
    gpus = []
    for entry in restricted_to.split(","):
        gpu = entry.strip()
        if not gpu or gpu.startswith("-"):
            break
        gpus.append(gpu)
    return gpus


_chosen_gpu: str | None = None  # the device that this process was left


def choose_gpu(device: str, visible: str | None = None) -> None:
    """Leave this process, and those that it starts, one GPU: afterwards it is their ``cuda``.

    To be called before CUDA is asked for anything in this process, since CUDA reads `VISIBLE_GPUS`
    only once. The second call with the same device changes nothing.

    Args:
        device: such as ``cuda:1``.
        visible: id of its GPU, where another process knows it; None: as `visible_gpu` finds it.

    Raises:
        UsageError: there is no such GPU, or this process has been left another one.
    """
    global _chosen_gpu
    if _chosen_gpu == device:
        return
    if _chosen_gpu is not None:
        raise UsageError(f"device {device!r}: this process has {_chosen_gpu} already; name one GPU")
    os.environ[VISIBLE_GPUS] = visible or visible_gpu(device)
    _chosen_gpu = device


def usable_cpus() -> int:
    """Return how many cores this process may use."""
    return len(usable_cores())


@cache
def usable_cores() -> Collection[int]:
    """Return the numbers of the cores that this process may use.

    The answer is kept from the first call on, which comes before any thread is pinned to a core.
    """
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def online_cores() -> list[int]:
    """Return the numbers of the cores that are online, in the order of psutil's times per core.

    A machine may have cores switched off, so that the numbers have gaps.
    """
    file = Path("/proc/stat")
    if not file.exists():
        return list(range(os.cpu_count() or 1))
    cores = []
    for line in file.read_text().splitlines():
        name = line.split()[0] if line.strip() else ""
        # The line named "cpu" is the sum of all cores.
        if name.startswith("cpu") and name != "cpu":
            cores.append(int(name.removeprefix("cpu")))
    return cores


def cache_folder() -> Path:
    """Return the folder LISABENCH_CACHE, or else this package's where the platform keeps caches."""
    chosen = os.environ.get("LISABENCH_CACHE")
    if chosen:
        return user_path(chosen)
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "lisabench"


def facts_of_quality(machine: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the facts that machines must share to evaluate parts of one quality pass.

    Args:
        machine: the facts of one of them.
    """
    return SAME_FOR_QUALITY if machine.get("device") == "cuda" else SAME_FOR_QUALITY_ON_CPU


def must_be_same(
    folder: Path,
    what: str,
    keys: Sequence[str],
    before: Mapping[str, Any],
    now: Mapping[str, Any],
) -> None:
    """Check that a run which is to be resumed finds the facts that it was begun with.

    Args:
        folder: of the run, or of a part of it.
        what: what the facts are about, such as "machine".
        keys: of the facts.
        before: the facts in the manifest.
        now: the facts here and now.

    Raises:
        NothingToCompare: a fact differs.
    """
    changes = []
    for key in keys:
        if before.get(key) != now.get(key):
            changes.append(f"{key} was {before.get(key)}, is {now.get(key)}")
    if changes:
        raise NothingToCompare(
            f"{folder} was begun with another {what} ({'; '.join(changes)}); start anew with --out"
        )


Change = tuple[JsonValue, JsonValue]  # a value before and after


def different_machines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return why the costs of two machines must not be compared; nothing where they may be.

    Args:
        before, after: the facts of `describe_machine`.
    """
    facts = differing(comparable_facts(before), comparable_facts(after))
    if None in facts.get("gpu_memory_gib", ()):  # one of the two does not say
        del facts["gpu_memory_gib"]
    if not facts:
        return []
    named = ", ".join(f"{name} {was} and {is_now}" for name, (was, is_now) in facts.items())
    return [f"measured on different machines ({named})"]


def comparable_facts(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that are the same on two machines whose costs may be compared.

    Of the driver, it is only the major version.
    """
    facts = {name: machine.get(name) for name in SAME_MACHINE}
    # Cards of one name are sold with different memory.
    memory_bytes = machine.get("gpu_memory_bytes")
    facts["gpu_memory_gib"] = None if memory_bytes is None else round(memory_bytes / 2**30)
    facts["driver"] = str(facts["driver"]).split(".")[0]
    return facts


def differing(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> dict[str, Change]:
    """Return the values that differ, by name; None stands for what one of the two does not have."""
    before, after = before or {}, after or {}
    changes: dict[str, Change] = {}
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            changes[name] = (before.get(name), after.get(name))
    return changes
