"""``lisabench doctor``: check what this machine has, and what prevents good measurements on it."""

import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..harness import environment, nvml
from ..harness.environment import cache_folder
from ..harness.errors import UsageError
from ..harness.memory import ResidentSetMeter
from .capabilities import capabilities
from .run.worker_pool import (
    FILES_OF_CASE,
    FILES_OF_SESSION,
    allow_open_files,
    check_temporary,
)

REQUIRED_LIBRARIES = (
    "torch", "transformers", "numpy", "scipy", "opencv-python-headless", "matplotlib",
)  # fmt: skip
MANY_CASES = 20  # side by side: a large suite


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        status: ``ok``; ``note`` if a feature is missing; ``problem`` if something must be fixed.
        name: what was checked.
        detail: what is there, or what to do.
    """

    status: Literal["ok", "note", "problem"]
    name: str
    detail: str


def check_machine() -> list[Check]:
    """Check libraries, machine, GPU, quantisation, memory counters, folders and limits."""
    return [
        *_check_libraries(),
        _check_host(),
        _check_gpu(),
        _check_quantisation(),
        _check_memory_peaks(),
        _check_cache(),
        _check_temporary(),
        _check_open_files(),
        _check_home(),
        _check_umask(),
    ]


def has_problem(checks: list[Check]) -> bool:
    """Return whether something must be fixed."""
    return any(check.status == "problem" for check in checks)


def as_json(checks: list[Check]) -> dict[str, Any]:
    """Return what ``lisabench doctor --json`` prints: version, capabilities and checks."""
    return {
        "version": environment.versions()["lisabench"],
        "capabilities": capabilities(),
        "checks": [asdict(check) for check in checks],
    }


def as_text(checks: list[Check]) -> str:
    """Return one line per check."""
    return "\n".join(f"{check.status:7} {check.name}: {check.detail}" for check in checks)


def _check_libraries() -> list[Check]:
    installed = environment.versions()
    checks = []
    for name in ("python", *REQUIRED_LIBRARIES):
        version = installed.get(name)
        if version is None:
            detail = "not installed; install it with: pip install lisabench"
            checks.append(Check("problem", name, detail))
        else:
            checks.append(Check("ok", name, version))
    return checks


def _check_host() -> Check:
    machine = environment.describe_machine()
    memory_gib = machine["memory_bytes"] / 2**30
    detail = (
        f"{machine['os']}, {machine['cpu']}, {machine['cpu_count']} cores,"
        f" {memory_gib:.0f} GiB of memory"
    )
    return Check("ok", "machine", detail)


def _check_gpu() -> Check:
    import torch

    machine = environment.describe_machine()
    if torch.cuda.is_available():
        memory_gib = (machine["gpu_memory_bytes"] or 0) / 2**30
        detail = (
            f"{machine['gpu']}, {memory_gib:.0f} GiB, driver {machine['driver']},"
            f" CUDA {torch.version.cuda}"
        )
        return Check("ok", "GPU", detail)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if nvml.count() and hidden is not None:
        detail = f"CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs; everything runs on the CPU"
        return Check("note", "GPU", detail)
    if nvml.count():
        detail = (
            f"the driver shows {nvml.count()}, but PyTorch {torch.__version__} can use none;"
            " install a PyTorch build for this driver's CUDA version"
        )
        return Check("problem", "GPU", detail)
    detail = "no GPU; everything runs on the CPU, and memory is the process's resident set"
    return Check("note", "GPU", detail)


def _check_quantisation() -> Check:
    if find_spec("bitsandbytes") is None:
        return Check("note", "bitsandbytes", "not installed; 4-bit and 8-bit cases cannot run")
    version = environment.versions()["bitsandbytes"]
    return Check("ok", "bitsandbytes", version or "installed")


def _check_memory_peaks() -> Check:
    # Linux resets a process's peak through /proc/self/clear_refs. Other systems, and some
    # containers, cannot.
    meter = ResidentSetMeter()
    reading = meter.read(meter.reset())
    if reading.peak_bytes is None:
        detail = "this system cannot reset a process's peak; memory per stage on the CPU is unknown"
        return Check("note", "memory peaks", detail)
    return Check("ok", "memory peaks", "can be read per stage")


def _check_cache() -> Check:
    folder = cache_folder()
    trial_file = folder / ".doctor"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial_file.touch()
        trial_file.unlink()
    except OSError as error:
        detail = (
            f"cannot write to {folder} ({error.strerror}); name another folder in LISABENCH_CACHE"
        )
        return Check("problem", "cache", detail)
    return Check("ok", "cache", str(folder))


def _check_temporary() -> Check:
    folder = tempfile.gettempdir()
    try:
        check_temporary(folder)
    except UsageError as error:
        return Check("problem", "temporary files", str(error))
    return Check("ok", "temporary files", folder)


def _check_open_files() -> Check:
    try:
        allow_open_files(FILES_OF_SESSION + MANY_CASES * FILES_OF_CASE)
    except UsageError as error:
        return Check("problem", "open files", str(error))
    return Check("ok", "open files", f"enough for {MANY_CASES} cases side by side")


def _check_home() -> Check:
    # The command line has settled it; see `door`. Libraries keep their own caches there.
    home = Path.home()
    if not os.access(home, os.W_OK):
        detail = f"cannot write to {home}, where libraries keep caches; name another folder in HOME"
        return Check("note", "home", detail)
    return Check("ok", "home", str(home))


def _check_umask() -> Check:
    umask = os.umask(0)  # it can be read only by setting it
    os.umask(umask)
    if umask & stat.S_IRWXU:
        detail = f"{umask:03o} takes your own rights to the files that you write; run: umask 022"
        return Check("problem", "umask", detail)
    return Check("ok", "umask", f"{umask:03o}")
