"""What a machine can do at best: its rate of matrix products and its memory bandwidth, measured."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from . import environment
from .clock import clock_for
from .environment import cache_folder
from .records.journal import write_json

REPETITIONS = 5
SIDES = {
    "cuda": 8192,
    "cpu": 1024,
}  # of the square matrices; large enough for the rate to level off
COPIED_BYTES = {"cuda": 4 << 30, "cpu": 256 << 20}  # many times any cache
SHORT_S = 0.3  # a product that takes longer is not repeated: some CPUs have no quick bfloat16


def measure_roofline(device: str) -> dict[str, Any]:
    """Measures both on random data, the best of a few repetitions each; takes a second or two.

    Args:
        device: "cpu" or "cuda".

    Returns:
        ``matrix_flops_per_s`` by data type, where a multiplication and an addition are two operations, and
        ``bandwidth_bytes_per_s``, bytes read and written.
    """
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    dtypes |= {"float16": torch.float16} if device == "cuda" else {}
    with torch.inference_mode():
        return {
            "matrix_flops_per_s": {
                name: _matrix_rate(device, dtype) for name, dtype in dtypes.items()
            },
            "bandwidth_bytes_per_s": _bandwidth(device),
        }


def _matrix_rate(device: str, dtype: Any) -> float:
    import torch

    side = SIDES[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: torch.mm(a, b), device)


def _bandwidth(device: str) -> float:
    import torch

    size = COPIED_BYTES[device]
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 8 * size
    source = torch.ones(min(size, free // 4) // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: str) -> float:
    """The shortest of a few repetitions, after one that warms up: other work only ever takes time away."""
    clock = clock_for(device)
    began = time.perf_counter()
    work()
    clock.settle()
    slow = time.perf_counter() - began > SHORT_S
    times_ns = []
    for _ in range(1 if slow else REPETITIONS):
        start = clock.mark()
        work()
        end = clock.mark()
        clock.settle()
        times_ns.append(clock.span_ns(start, end))
    return min(times_ns) / 1e9


DEPENDS_ON = ("os", "cpu", "cpu_count", "gpu", "driver", "power_limit_w", "mig", "threads")


def cached_roofline(device: str) -> dict[str, Any]:
    """Those of a device on this machine, as `measure_roofline` gives them.

    A cache that cannot be written to costs the next run the measurement, and nothing else.
    """
    passport = environment.describe_machine() | environment.conditions()
    owner = {"device": device, "torch": environment.versions()["torch"]} | {
        k: passport[k] for k in DEPENDS_ON
    }
    name = hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache_folder() / f"ceilings-{name}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))["ceilings"]
    found = measure_roofline(device)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"owner": owner, "ceilings": found})
    return found
