"""What a machine can do at best, as measured here.

That is its rate of matrix products, and its memory bandwidth.

A stage's time can be compared with them, as in the roofline model (Williams, Waterman and Patterson
2009): no stage is faster than its operations at the peak rate, or its bytes at the peak bandwidth.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import environment
from .clock import clock_for
from .environment import SAME_TO_RESUME, cache_folder
from .errors import DataError
from .json_file import read_object
from .records.from_json import read_from
from .records.journal import write_json
from .records.machine import checked_rates

REPETITIONS = 5
SIDES = {
    "cuda": 8192,
    "cpu": 1024,
}  # of the square matrices; large enough for the rate to level off
COPIED_BYTES = {"cuda": 4 << 30, "cpu": 256 << 20}  # many times any cache
SHORT_S = 0.3  # work that takes longer is not repeated: on some CPUs bfloat16 products are slow


def measure_roofline(device: str) -> dict[str, Any]:
    """Measure the peak rates of a device on random data; this takes a second or two.

    Args:
        device: "cpu" or "cuda".

    Returns:
        ``matrix_flops_per_s`` by data type, where a multiplication and an addition are two
        operations, and ``bandwidth_bytes_per_s``, bytes read and written.
    """
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if device == "cuda":
        dtypes["float16"] = torch.float16
    with torch.inference_mode():
        rates = {name: _matrix_rate(device, dtype) for name, dtype in dtypes.items()}
        bandwidth = _bandwidth(device)
    return {"matrix_flops_per_s": rates, "bandwidth_bytes_per_s": bandwidth}


def _matrix_rate(device: str, dtype: Any) -> float:
    """Return the operations a second of a product of two square matrices.

    Such a product takes 2 n^3 operations.
    """
    import torch

    n = SIDES[device]
    a = torch.randn(n, n, device=device, dtype=dtype)
    b = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / _shortest_s(lambda: torch.mm(a, b), device)


def _bandwidth(device: str) -> float:
    """Return the bytes a second of a copy, which reads and writes each byte once."""
    import torch

    copied_bytes = COPIED_BYTES[device]
    if device == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info()
        copied_bytes = min(copied_bytes, free_bytes // 4)  # source and target must both fit
    source = torch.ones(copied_bytes // 4, device=device)  # float32: four bytes a number
    target = torch.empty_like(source)
    return 2 * source.nbytes / _shortest_s(lambda: target.copy_(source), device)


def _shortest_s(work: Callable[[], object], device: str) -> float:
    """Return the shortest time of a few repetitions, in seconds, after one that warms up.

    The shortest, because whatever else the machine does can only make a repetition longer.
    """
    clock = clock_for(device)
    began_s = time.perf_counter()
    work()
    clock.synchronize()
    is_long = time.perf_counter() - began_s > SHORT_S
    times_ns = []
    for _ in range(1 if is_long else REPETITIONS):
        start = clock.mark()
        work()
        end = clock.mark()
        clock.synchronize()
        times_ns.append(clock.span_ns(start, end))
    return min(times_ns) / 1e9


def cached_roofline(device: str) -> dict[str, Any]:
    """Return the peak rates of a device of this machine, measured once and then kept.

    A cache that cannot be written to costs the next run the measurement, and nothing else.

    Args:
        device: "cpu" or "cuda".

    Returns:
        What `measure_roofline` returns.
    """
    machine = environment.describe_machine() | environment.conditions()
    owner = {name: machine[name] for name in SAME_TO_RESUME}
    owner |= {"device": device, "torch": environment.versions()["torch"]}
    digest = hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()
    file = cache_folder() / f"ceilings-{digest[:16]}.json"
    with suppress(DataError):  # it is missing, was cut short, or is of another version
        return _kept_rates(file)
    rates = measure_roofline(device)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"owner": owner, "ceilings": rates})
    return rates


def _kept_rates(file: Path) -> dict[str, Any]:
    """Return the rates in a file of the cache.

    Raises:
        DataError: it is missing, or does not hold what was written.
    """
    rates = read_object(file).get("ceilings", {})
    with read_from(file):
        return dict(checked_rates(rates))
