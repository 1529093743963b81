"""Claims against what was measured: each is confirmed, refuted, inconclusive, or not measured for a reason.

A claim is confirmed where the whole 95 % interval keeps its bound, and refuted where none of it does.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import median

from ...harness.contract import STAGES
from ...harness.records.readings import Record, latency_ns, of_case, stage_ns, timed
from ...harness.records.run import Run
from ...harness.statistics.verdicts import claim_verdict, ends_of
from ..card import bytes_on_card
from ..energy import QUANTITY, energy_ratio
from ..formatting import listed, ratio_with_interval
from ..peaks import by_resident_set, largest_by_process, log_ratios
from ..quality import points
from ..ratios import (
    END_TO_END,
    PREPROCESS,
    WITHOUT_PREPROCESS,
    Span,
    memory_logs,
    of_stage,
    ratio_over,
    time_ratios,
    were_synchronised,
)
from ..schema_base import NO_RATIO, Ratio, Twin
from ..twins import no_narrower
from .comparison import team_with, twins_of
from .finding import ON_A_CPU, Finding, NotMeasured, Quantity, Stated
from .schema import ClaimResult
from .training_claims import OF_TRAININGS
from .trivial_baselines import against_floors

LOOKING = (
    "clip",
    "sam_encoder",
    "projector",
    "bridge",
)  # the parts that see pixels, or carry what was seen elsewhere


def judge(claim: Stated, run: Run) -> ClaimResult:
    """One claim of ``run.json`` against the run's records."""
    quantity = QUANTITIES.get(claim["quantity"])
    found = _found(claim, quantity, run)
    verdict, reason = found.verdict, found.reason
    if verdict is None:
        verdict, reason = claim_verdict(found.interval, claim["at_most"], claim["at_least"])
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
        return Finding(
            None, verdict="not measured", reason=textwrap.shorten(str(why), 240, placeholder=" ...")
        )


def _end_to_end(claim: Stated, run: Run) -> Finding:
    """The ratio of the time of a query, and beside it what of the change is preprocessing."""
    ratios, twins = _times(claim, run)
    finding = _of_time(ratios.get(END_TO_END, NO_RATIO))
    without_preprocess = ratios.get(WITHOUT_PREPROCESS, NO_RATIO)
    remarks = [
        _answers(claim, run),
        _preprocessing(claim, run, without_preprocess),
        _widened_by(twins),
    ]
    return replace(finding, about="; ".join(remark for remark in remarks if remark) or None)


def _stage(stage: str, claim: Stated, run: Run) -> Finding:
    """The ratio of the time of a stage, by the same pass as in the tables."""
    ratios, twins = _times(claim, run)
    finding = _of_time(ratios.get(of_stage(stage), NO_RATIO))
    passes = [of_case(entry["name"], run.passes) for entry in _entries(claim, run, "error")]
    remarks = [_WAITED if were_synchronised(passes) else _TIMED, _widened_by(twins)]
    return replace(finding, about="; ".join(remark for remark in remarks if remark))


_WAITED = "by the pass that waits for the GPU at the end of each stage"
_TIMED = "by the timing, in which no stage waits for a GPU: this run has no synchronised pass"


def _times(claim: Stated, run: Run) -> tuple[dict[str, Ratio], list[Twin]]:
    """Return the ratio of each time, no interval narrower than those of the team's twins, and these twins."""
    entries = _entries(claim, run, "error")
    if len({entry["clock"] for entry in entries if entry["clock"]}) > 1:
        raise NotMeasured("the two cases were timed by different clocks")
    names = [entry["name"] for entry in entries]
    samples = [of_case(name, run.samples) for name in names]
    passes = [of_case(name, run.passes) for name in names]
    ratios = time_ratios(samples, passes)
    twins = _twins_beside(entries, run)
    return {
        quantity: no_narrower(ratio, quantity, twins) for quantity, ratio in ratios.items()
    }, twins


def _twins_beside(entries: list[Record], run: Run) -> list[Twin]:
    """Return the twins of the team of two cases; none for two measurements of one model, which are twins themselves."""
    if entries[0].get("settings") == entries[1].get("settings"):
        return []
    team = team_with({entry["name"] for entry in entries}, run.run)
    return twins_of(team, run) if team else []


def _of_time(ratio: Ratio) -> Finding:
    if ratio.ratio is None:
        raise NotMeasured("no query has this time in both cases")
    return Finding(ratio.ratio, ends_of(ratio))


def _widened_by(twins: list[Twin]) -> str | None:
    if not twins:
        return None
    names = listed([f"{twin.candidate} against {twin.reference}" for twin in twins])
    return f"its interval is no narrower than that of {names}, two measurements of one model"


def _answers(claim: Stated, run: Run) -> str | None:
    """Return for which kind of answers a time is: a generated one takes a pass of the language model for each token."""
    settings = [entry.get("settings") or {} for entry in _entries(claim, run, "error")]
    kinds = {str(of_side.get("answer")) for of_side in settings}
    return _KINDS_OF_ANSWERS.get(kinds.pop()) if len(kinds) == 1 else None


_KINDS_OF_ANSWERS = {
    "forced": "for teacher-forced answers only",
    "generated": "for generated answers only",
}


def _preprocessing(claim: Stated, run: Run, without: Ratio) -> str | None:
    """Return what preprocessing makes of a change of time, in milliseconds of medians, and the ratio without it."""
    if without.ratio is None:
        return None
    sides = [timed(of_case(claim[side], run.samples)) for side in ("reference", "candidate")]
    change_ms = _difference_of_medians_ms(sides, latency_ns)
    preprocess_ms = _difference_of_medians_ms(sides, partial(stage_ns, stage=PREPROCESS))
    verdict, _ = claim_verdict(ends_of(without), claim["at_most"], claim["at_least"])
    return (
        f"the medians differ by {change_ms:+.1f} ms, of which {preprocess_ms:+.1f} ms are preprocessing; "
        f"without preprocessing the ratio is {ratio_with_interval(without)}, which alone would be {verdict}"
    )


def _difference_of_medians_ms(sides: list[list[Record]], span_ns: Span) -> float:
    before, after = [median(span_ns(record) for record in side) for side in sides]
    return (after - before) / 1e6


def _energy(claim: Stated, run: Run) -> Finding:
    """The mean energy of a query in each process, by the GPU's counter."""
    entries = _entries(claim, run, "error")
    before, after = [of_case(entry["name"], run.samples) for entry in entries]
    twins = _twins_beside(entries, run)
    ratio = no_narrower(energy_ratio(before, after), QUANTITY, twins)
    if ratio.ratio is None:
        raise NotMeasured("no process of both cases has read a GPU's energy counter")
    return Finding(ratio.ratio, ends_of(ratio), about=_widened_by(twins))


def _peak(claim: Stated, run: Run) -> Finding:
    """The allocator's peak of a query, without the build."""
    before, after = _gpu_memory(claim, run)
    return _ratio(memory_logs(before, after, queries_only=True), _NO_MEMORY)


def _looking(claim: Stated, run: Run) -> Finding:
    """The weights of the parts that look at pixels, and what the vision stage allocates above its start.

    The stage's own peak is another definition of the memory of vision, and stands beside it. The weights of all other
    parts are in that peak, too.
    """
    _gpu_memory(claim, run)
    before, after = (
        _looking_lines(entry, run.memory) for entry in _entries(claim, run, "memory_error")
    )
    one_instrument = len({line["instrument"] for line in (*before, *after)}) == 1
    if not one_instrument:
        raise NotMeasured(_NO_MEMORY)
    finding = _ratio(_log_ratios_of(before, after, "looking_bytes"), _NO_MEMORY)
    peaks = ratio_over(_log_ratios_of(before, after, "peak_bytes"))
    return replace(
        finding,
        about=f"{_LOOKING_BYTES}; the peak of the vision stage is {ratio_with_interval(peaks)}",
    )


def _log_ratios_of(before: list[Record], after: list[Record], name: str) -> Mapping[int, float]:
    return log_ratios(largest_by_process(before, name), largest_by_process(after, name))


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
        raise NotMeasured(
            f"the bytes of the weights of each part of {entry['name']} were not measured"
        )
    lines = (line for line in of_case(entry["name"], memory) if line["stage"] == "vision")
    known = (
        line for line in lines if line["start_bytes"] is not None and line["peak_bytes"] is not None
    )
    return [
        line | {"looking_bytes": sum(weights) + line["peak_bytes"] - line["start_bytes"]}
        for line in known
    ]


_LOOKING_BYTES = "by the weights of the vision parts and what the stage allocates"
_NO_MEMORY = "the memory pass has no process of both cases, or read them by different instruments"


def _ratio(logs: Mapping[int, float], why_not: str) -> Finding:
    found = ratio_over(logs)
    if found.ratio is None:
        raise NotMeasured(why_not)
    return Finding(found.ratio, ends_of(found))


def _quality(metric: str, claim: Stated, run: Run) -> Finding:
    """In points, over the queries that both cases have."""
    entries = _entries(claim, run, "error")
    for entry in entries:
        if entry["has_quality"] is not True:
            raise NotMeasured(_NO_QUALITY[entry["has_quality"]].format(entry["name"]))
    for floor in against_floors(replace(run, run=run.run | {"cases": [*entries, *_controls(run)]})):
        if floor.refused:
            raise NotMeasured(
                f"{floor.case} is no better than the floor {floor.floor}: its checkpoint is refused"
            )
    before, after = (run.scored(entry["name"]) for entry in entries)
    found = points(before, after)[metric]
    if found is None:
        raise NotMeasured("no query that both cases were asked has this quality")
    return Finding(found.difference, ends_of(found))


def _controls(run: Run) -> list[Record]:
    return [entry for entry in run.run["cases"] if entry["role"] == "control"]


_NO_QUALITY = {False: "random weights have no quality", None: "{} has not been built yet"}


def _fits(claim: Stated, run: Run) -> Finding:
    """By a process that was capped to the card; what is measured is what it took of it."""
    _entry(run, claim["candidate"])
    tried = ((row["case"], row["card"], row) for row in run.fits)
    found = next((row for *pair, row in tried if pair == [claim["candidate"], claim["card"]]), None)
    if found is None:
        raise NotMeasured(
            f"{claim['candidate']} has not been tried on a card of {claim['card']} yet"
        )
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
        counts = [
            count for count in (plan.get("memory_queries"), data.get("count")) if count is not None
        ]
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
    END_TO_END: Quantity("ratio", _end_to_end),
    **{of_stage(stage): Quantity("ratio", partial(_stage, stage)) for stage in STAGES},
    QUANTITY: Quantity("ratio", _energy),
    "memory.peak": Quantity("ratio", _peak),
    "memory.vision": Quantity("ratio", _looking),
    **{
        f"quality.{metric}": Quantity("points", partial(_quality, metric))
        for metric in ("gIoU", "cIoU", "mIoU")
    },
    "fits": Quantity("bytes", _fits),
    **OF_TRAININGS,
}
