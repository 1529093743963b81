"""Tables of what the passes beside the timing found: what memory is made of, and how near a stage is to its ceiling."""

from collections.abc import Mapping

from .. import wording
from .schema import Case, Ceilings, Summary
from .tables import markdown

SHOWN = ("vision", "llm", "decoder")
COLUMNS = {
    "weights_bytes": "weights",
    "paper_weights_bytes": "on paper",
    "kv_cache_bytes": "KV cache",
    "activations_bytes": "activations",
    "slack_bytes": "allocator's slack",
    "outside_bytes": "outside the allocator",
}


def split_table(summary: Summary) -> str:
    """One case a row; only the columns that are known of any."""
    known = [(case, case.memory.split) for case in summary.cases if case.memory.split]
    columns = [name for name in COLUMNS if any(getattr(split, name) is not None for _, split in known)]
    if not known:
        return ""
    unit = wording.memory_unit(getattr(split, name) for _, split in known for name in columns)
    rows = [[case.name, *(wording.memory(getattr(split, name), unit) for name in columns)] for case, split in known]
    return markdown([unit[0], *(COLUMNS[name] for name in columns)], rows)


def ceilings_table(summary: Summary) -> str:
    """One case a row: the GPU's share of work, and of each large stage its floor over its time."""
    cases = [case for case in summary.cases if any(time.floor_ms is not None for time in case.time.stages.values())]
    if not cases:
        return ""
    on_gpu = any(_at_work(case) is not None for case in cases)
    header = ["", *(["GPU at work"] if on_gpu else []), *SHOWN]
    rows = [
        [case.name, *([wording.share(_at_work(case))] if on_gpu else []), *(_reached(case, stage) for stage in SHOWN)]
        for case in cases
    ]
    return markdown(header, rows)


def _at_work(case: Case) -> float | None:
    busy_ms = [time.gpu_busy_ms for time in case.time.stages.values() if time.gpu_busy_ms is not None]
    return sum(busy_ms) / case.time.end_to_end_ms if busy_ms and case.time.end_to_end_ms else None


def _reached(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    if time is None or time.floor_ms is None:
        return wording.NOT_AVAILABLE
    taken_ms = time.by_itself_ms
    share = wording.share(time.floor_ms / taken_ms if taken_ms else None)
    return f"{share} ({wording.milliseconds(time.floor_ms)} of {wording.milliseconds(taken_ms)} ms)"


def described(ceilings: Mapping[str, Ceilings]) -> str:
    """The ceilings in words."""
    return "; ".join(f"{device}: {_in_words(found)}" for device, found in ceilings.items())


def _in_words(found: Ceilings) -> str:
    rates = (f"{rate / 1e12:,.2f} TFLOP/s in {dtype}" for dtype, rate in found.matrix_flops_per_s.items())
    return f"{', '.join(rates)}; {found.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"
