"""Claims against what was measured: each is confirmed, refuted, inconclusive, or not measured for a reason.

A claim is confirmed where the whole 95 % interval keeps its bound, and refuted where none of it does.
"""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from ..harness.contract import STAGES
from ..harness.records import Run
from .card import bytes_on_card
from .comparison import memory_logs, ratio_over, time_logs
from .energy import QUANTITY, energy_logs
from .finding import ON_A_CPU, Finding, NotMeasured, Quantity, Stated, interval_of, verdict_of
from .floors import against_floors
from .peaks import by_resident_set, largest_by_process, log_ratios
from .quality import points
from .readings import Record, of_case, one_per_query, stage_ns
from .schema import ClaimResult
from .training_claims import OF_TRAININGS

LOOKING = ("clip", "sam_encoder", "projector", "bridge")  # the parts that see pixels, or carry what was seen elsewhere


def judge(claim: Stated, run: Run) -> ClaimResult:
    """One claim of ``run.json`` against the run's records."""
    quantity = QUANTITIES.get(claim["quantity"])
    found = _found(claim, quantity, run)
    verdict, reason = found.verdict, found.reason
    if verdict is None:
        verdict, reason = verdict_of(found.interval, claim["at_most"], claim["at_least"])
    reason = "; ".join(part for part in (found.about, reason) if part) or None
    stated = {name: claim[name] for name in ClaimResult.model_fields if name in claim}
    return ClaimResult(
        **stated,
        unit=quantity.unit if quantity else None,
        measured=found.measured,
        interval=found.interval,
        verdict=verdict,
        reason=reason,
    )


def _found(claim: Stated, quantity: Quantity | None, run: Run) -> Finding:
    try:
        if quantity is None:
            raise NotMeasured(f"it needs {claim['needs']}")
        return quantity.find(claim, run)
    except NotMeasured as why:
        return Finding(None, verdict="not measured", reason=textwrap.shorten(str(why), 240, placeholder=" ..."))


def _time(span_ns: Callable[[Record], int], claim: Stated, run: Run) -> Finding:
    entries = _entries(claim, run, "error")
    if len({entry["clock"] for entry in entries if entry["clock"]}) > 1:
        raise NotMeasured("the two cases were timed by different clocks")
    before, after = (of_case(entry["name"], run.samples) for entry in entries)
    return _ratio(time_logs(before, after, span_ns), "no query has this time in both cases")


def _energy(claim: Stated, run: Run) -> Finding:
    """The mean energy of a query in each process, by the GPU's counter."""
    before, after = (of_case(entry["name"], run.samples) for entry in _entries(claim, run, "error"))
    return _ratio(energy_logs(before, after), "no process of both cases has read a GPU's energy counter")


def _peak(claim: Stated, run: Run) -> Finding:
    """The allocator's peak of a query, without the build."""
    before, after = _gpu_memory(claim, run)
    return _ratio(memory_logs(before, after, queries_only=True), _NO_MEMORY)


def _looking(claim: Stated, run: Run) -> Finding:
    """The weights of the parts that look at pixels, and what the vision stage allocates above its start."""
    _gpu_memory(claim, run)
    before, after = (_looking_lines(entry, run.memory) for entry in _entries(claim, run, "memory_error"))
    one_instrument = len({line["instrument"] for line in (*before, *after)}) == 1
    if not one_instrument:
        raise NotMeasured(_NO_MEMORY)
    sides = [largest_by_process(lines, "looking_bytes") for lines in (before, after)]
    return _ratio(log_ratios(*sides), _NO_MEMORY)


def _gpu_memory(claim: Stated, run: Run) -> list[list[Record]]:
    """Return the lines of the memory pass of reference and candidate.

    Raises:
        NotMeasured: they were read on a CPU.
    """
    sides = [of_case(entry["name"], run.memory) for entry in _entries(claim, run, "memory_error")]
    if any(by_resident_set(lines) for lines in sides):
        raise NotMeasured(ON_A_CPU)
    return sides


def _looking_lines(entry: Record, memory: list[Record]) -> list[Record]:
    weights = [size for part, size in (entry.get("weights") or {}).items() if part in LOOKING]
    if not weights:
        raise NotMeasured(f"the bytes of the weights of each part of {entry['name']} were not measured")
    lines = (line for line in of_case(entry["name"], memory) if line["stage"] == "vision")
    known = (line for line in lines if line["start_bytes"] is not None and line["peak_bytes"] is not None)
    return [line | {"looking_bytes": sum(weights) + line["peak_bytes"] - line["start_bytes"]} for line in known]


_NO_MEMORY = "the memory pass has no process of both cases, or read them by different instruments"


def _ratio(logs: Mapping[int, float], why_not: str) -> Finding:
    found = ratio_over(logs)
    if found.ratio is None:
        raise NotMeasured(why_not)
    return Finding(found.ratio, interval_of(found.low, found.high))


def _quality(metric: str, claim: Stated, run: Run) -> Finding:
    """In points, over the queries that both cases have."""
    entries = _entries(claim, run, "error")
    for entry in entries:
        if entry["has_quality"] is not True:
            raise NotMeasured(_NO_QUALITY[entry["has_quality"]].format(entry["name"]))
    for floor in against_floors(replace(run, run=run.run | {"cases": [*entries, *_controls(run)]})):
        if floor.refused:
            raise NotMeasured(f"{floor.case} is no better than the floor {floor.floor}: its checkpoint is refused")
    before, after = (one_per_query(of_case(entry["name"], run.samples)) for entry in entries)
    found = points(before, after)[metric]
    if found is None:
        raise NotMeasured("no query that both cases were asked has this quality")
    return Finding(found.difference, interval_of(found.low, found.high))


def _controls(run: Run) -> list[Record]:
    return [entry for entry in run.run["cases"] if entry["role"] == "control"]


_NO_QUALITY = {False: "random weights have no quality", None: "{} has not been built yet"}


def _fits(claim: Stated, run: Run) -> Finding:
    """By a process that was capped to the card; what is measured is what it took of it."""
    _entry(run, claim["candidate"])
    tried = ((row["case"], row["card"], row) for row in run.fits)
    found = next((row for *pair, row in tried if pair == [claim["candidate"], claim["card"]]), None)
    if found is None:
        raise NotMeasured(f"{claim['candidate']} has not been tried on a card of {claim['card']} yet")
    if found["status"] not in ("ok", "oom"):
        raise NotMeasured(found["reason"])
    return _tried(claim, found, run)


def _tried(claim: Stated, fit: Record, run: Run) -> Finding:
    """Return the verdict on a process that was capped to the card."""
    taken = bytes_on_card(fit["peak_reserved_bytes"], fit["beside_bytes"])
    answered = _answered(fit, run)
    by_driver = fit["device_process_bytes"]
    if fit["status"] == "oom":
        reason = f"{answered}; it ran out of memory: {fit['reason']}"
        return Finding(taken.bytes, verdict="refuted", about=taken.about, reason=reason)
    if by_driver is not None and by_driver > claim["at_most"]:
        reason = f"{answered}; the driver counts {by_driver / 2**30:.2f} GiB for the process"
        return Finding(taken.bytes, verdict="inconclusive", about=taken.about, reason=reason)
    return Finding(taken.bytes, verdict="confirmed", about=taken.about, reason=answered)


def _answered(fit: Record, run: Run) -> str:
    """Return how many queries were answered under the cap, and in which regime.

    Older records do not count them. There, a fit with status ok has answered all queries of the
    plan's memory pass, or all that the data has; how many a failed one answered is not known.
    """
    asked = fit.get("asked")
    answered = fit.get("answered")
    if asked is None:
        plan, data = run.run.get("plan") or {}, run.run.get("data") or {}
        counts = [count for count in (plan.get("memory_queries"), data.get("count")) if count is not None]
        asked = min(counts, default=None)
        answered = asked if fit["status"] == "ok" else None
    settings = _entry(run, fit["case"]).get("settings") or {}
    regime = f" (answers {settings['answer']})" if settings.get("answer") else ""
    if asked is None or answered is None:
        return f"how many queries were answered under the cap{regime} is not recorded"
    return f"answered {answered} of {asked} queries under the cap{regime}"


def _entries(claim: Stated, run: Run, failure: str) -> list[Record]:
    """What is known of reference and candidate, both of which have not failed."""
    entries = [_entry(run, claim[side]) for side in ("reference", "candidate")]
    for entry in entries:
        if entry.get(failure):
            raise NotMeasured(f"{entry['name']} failed: {entry[failure]}")
    return entries


def _entry(run: Run, name: str) -> Record:
    found = next((entry for entry in run.run["cases"] if entry["name"] == name), None)
    if found is None:
        raise NotMeasured(f"{name} is not among the cases of this run")
    return found


QUANTITIES: Mapping[str, Quantity] = {
    "time.end_to_end": Quantity("ratio", partial(_time, lambda record: record["latency_ns"])),
    **{f"time.{stage}": Quantity("ratio", partial(_time, partial(stage_ns, stage=stage))) for stage in STAGES},
    QUANTITY: Quantity("ratio", _energy),
    "memory.peak": Quantity("ratio", _peak),
    "memory.vision": Quantity("ratio", _looking),
    **{f"quality.{metric}": Quantity("points", partial(_quality, metric)) for metric in ("gIoU", "cIoU", "mIoU")},
    "fits": Quantity("bytes", _fits),
    **OF_TRAININGS,
}
