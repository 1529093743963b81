"""Whether a case of a run fits a card; see `reports.cards` for the rule."""

from collections.abc import Mapping
from typing import Any

from ...harness.contract import STAGES
from ...harness.memory import card_bytes, largest
from ...harness.records.run import CaseRecords, FitRecord, Run
from ..cards import NOT_TRIED, CardRow, CardVerdict, Unlimited, fits_by_peak
from ..peaks import by_resident_set, bytes_on_card, taken_by_case
from ..training.cards import training_rows

NEEDS_GPU = "it takes an NVIDIA GPU, and the case ran on a CPU"
NO_PEAK = "its memory has not been measured yet"


def card_rows(run: Run) -> list[CardRow]:
    """Return whether each case and each training runs on each card of the suite."""
    if not run.manifest.cards:
        return []
    rows = []
    for case in run.cases:
        if case.entry.is_model:
            verdicts = [case_on_card(case, card, run) for card in run.manifest.cards]
            row = CardRow(
                name=case.name,
                kind="case",
                regime=_regime(case),
                prompt_tokens=_longest_prompt(case),
                cards=verdicts,
            )
            rows.append(row)
    return [*rows, *training_rows(run)]


def case_on_card(case: CaseRecords, card: str, run: Run) -> CardVerdict:
    """Return whether a case runs on a card.

    A process that was limited to the card decides, where there was one, and otherwise the peak of
    the memory pass.
    """
    for fit in case.fits:
        if fit.card == card:
            return _of_limited_process(fit, run)
    process = unlimited(case, run)
    fits = fits_by_peak(process, card)
    common: dict[str, Any] = {"card": card, "taken_bytes": process.taken.bytes}
    common["about"] = process.taken.about
    if fits is None:
        reason = NO_PEAK if process.taken.bytes is None else NOT_TRIED.format(card=card)
        if by_resident_set(case.memory):
            reason = NEEDS_GPU
        return CardVerdict(fits="not measured", reason=reason, **common)
    reason = case.entry.memory_error if process.ran_out else None
    return CardVerdict(
        fits="yes" if fits else "no",
        done=_answered_in_memory_pass(case),
        of=_asked(run),
        reason=reason,
        **common,
    )


def unlimited(case: CaseRecords, run: Run) -> Unlimited:
    """Return what is known of a case whose processes have no limit of memory.

    Where all processes of the run were limited to one card, nothing is.
    """
    if run.manifest.plan.gpu_memory:
        return Unlimited(bytes_on_card(None, None))
    gpu_bytes = (run.manifest.environment or {}).get("gpu_memory_bytes")
    ran_out = bool(case.entry.out_of_memory) and not by_resident_set(case.memory)
    return Unlimited(taken_by_case(case.memory), ran_out, gpu_bytes)


def _of_limited_process(fit: FitRecord, run: Run) -> CardVerdict:
    taken = bytes_on_card(fit.peak_reserved_bytes, fit.outside_allocator_bytes)
    asked, answered = fit.asked, fit.answered
    if asked is None:
        # Older records do not count them. There, a fit with status ok has answered all queries of
        # the plan's memory pass; how many a failed one has answered is not known.
        asked = _asked(run)
        answered = asked if fit.status == "ok" else None
    fits, reason = "yes", fit.reason
    # The limit holds back the allocator alone. Where more was taken than the card has, the process
    # might not have fitted a real one, although it ran here: neither verdict is shown.
    by_driver, size_bytes = fit.device_process_bytes, card_bytes(fit.card)
    if fit.status == "oom":
        fits = "no"
    elif fit.status != "ok":
        fits = "not measured"
    elif by_driver is not None and by_driver > size_bytes:
        fits = "cannot tell"
        reason = f"the driver counts {by_driver / 2**30:.2f} GiB for the process"
    elif taken.bytes is not None and taken.bytes > size_bytes:
        fits = "cannot tell"
        reason = f"the process took {taken.bytes / 2**30:.2f} GiB"
    return CardVerdict(
        card=fit.card,
        fits=fits,
        capped=True,
        taken_bytes=taken.bytes,
        done=answered,
        of=asked,
        about=taken.about,
        reason=reason,
    )


def _asked(run: Run) -> int:
    """Return how many queries a process of the memory pass evaluates."""
    asked = run.manifest.plan.memory_queries
    if asked == "all":
        return run.manifest.data.count
    return min(asked, run.manifest.data.count)


def _answered_in_memory_pass(case: CaseRecords) -> int:
    """Return how many queries every process of the memory pass has answered."""
    answered = [record.queries or 0 for record in case.memory if record.stage == STAGES[-1]]
    return min(answered, default=0)


def _longest_prompt(case: CaseRecords) -> int | None:
    """Return the tokens of the longest prompt of the memory pass; None in older runs."""
    return largest(record.prompt_tokens for record in case.memory)


def _regime(case: CaseRecords) -> str:
    """Return how a case answers: ``forced``, or the most tokens that it generates."""
    settings: Mapping[str, Any] = case.entry.settings or case.entry.given
    answer = settings.get("answer")
    if answer == "generated" and settings.get("max_new_tokens"):
        return f"{settings['max_new_tokens']} tokens"
    return str(answer or "")
