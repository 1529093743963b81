"""``lisabench doctor``: what this machine has, and what keeps it from measuring well."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from ..harness import environment
from ..harness.environment import cache_folder
from ..harness.memory import ResidentSetMeter

NEEDED = ("torch", "transformers", "numpy", "scipy", "opencv-python-headless", "matplotlib")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``ok``, ``note`` (fewer features) or ``amiss`` (must be mended)."""

    verdict: Literal["ok", "note", "amiss"]
    what: str
    found: str


def examine() -> list[Finding]:
    return [*_libraries(), *_machine(), _gpu(), _quantisation(), _memory_peaks(), _cache()]


def healthy(findings: Iterable[Finding]) -> bool:
    return all(finding.verdict != "amiss" for finding in findings)


def _libraries() -> list[Finding]:
    found = environment.versions()
    missing = "not installed; run: pip install lisabench"
    return [
        Finding("ok" if found.get(name) else "amiss", name, found.get(name) or missing)
        for name in ("python", *NEEDED)
    ]


def _machine() -> list[Finding]:
    here = environment.describe_machine()
    size = f"{here['memory_bytes'] / 2**30:.0f} GiB of memory"
    return [
        Finding("ok", "machine", f"{here['os']}, {here['cpu']}, {here['cpu_count']} cores, {size}")
    ]


def _gpu() -> Finding:
    import torch

    here = environment.describe_machine()
    if torch.cuda.is_available():
        size = f"{(here['gpu_memory_bytes'] or 0) / 2**30:.0f} GiB"
        return Finding(
            "ok",
            "GPU",
            f"{here['gpu']}, {size}, driver {here['driver']}, CUDA {torch.version.cuda}",
        )
    if here["gpu_count"]:
        return Finding(
            "amiss",
            "GPU",
            f"the driver shows {here['gpu']}, but PyTorch {torch.__version__} cannot use it",
        )
    return Finding(
        "note", "GPU", "none; everything runs on the CPU, and memory is the resident set"
    )


def _quantisation() -> Finding:
    if find_spec("bitsandbytes") is None:
        return Finding("note", "bitsandbytes", "not installed; 4-bit and 8-bit cases cannot run")
    return Finding("ok", "bitsandbytes", environment.versions()["bitsandbytes"] or "present")


def _memory_peaks() -> Finding:
    meter = ResidentSetMeter()
    if meter.read(meter.reset()).peak_bytes is None:
        return Finding(
            "note",
            "memory peaks",
            "this system cannot reset a process's peak; per-stage memory on the CPU is unknown",
        )
    return Finding("ok", "memory peaks", "can be read per stage")


def _cache() -> Finding:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(
            "amiss", "cache", f"cannot write to {folder} ({error.strerror}); set LISABENCH_CACHE"
        )
    return Finding("ok", "cache", str(folder))
