"""Claims against what was measured: confirmed, refuted, inconclusive, or not measured.

A claim is confirmed where the whole 95 % interval keeps its bound, and refuted where none of it
does.

`QUANTITIES` lists what a claim can be about. A new quantity is a function that reads a run and
returns a `Finding`, and a line in that table.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from ...harness.contract import STAGES
from ...harness.records.costs import Times
from ...harness.records.manifest import StatedClaim
from ...harness.records.run import CaseRecords, Run
from ...harness.statistics.verdicts import claim_verdict
from ..cards import CardVerdict
from ..energy import ENERGY, energy_ratio_of_cases, were_read_alike
from ..finding import ON_A_CPU, Finding, NotMeasured, Quantity
from ..formatting import listed, ratio_with_interval
from ..peaks import by_resident_set, largest_by_process, of_queries
from ..quality import points
from ..ratios import log_ratios, memory_logs, paired_ratio_of, time_ratios
from ..schema_base import NO_RATIO, Ratio, Twin
from ..throughput import THROUGHPUT, throughput_ratio
from ..times import (
    END_TO_END,
    PREPROCESS,
    TOKEN,
    WITHOUT_PREPROCESS,
    of_stage,
    were_synchronised,
)
from ..training.claims import OF_TRAININGS, finding_on_card
from ..trivial_baselines import against_trivial_baselines
from ..twins import no_narrower
from .cards import case_on_card
from .comparison import twins_of
from .schema import ClaimResult

# The parts that see pixels, or carry what was seen to the language model.
VISION_PARTS = ("clip", "sam_encoder", "projector", "bridge")

NO_TIME = "the run measures no time: its plan.processes is 0; set it to 1 or more"
TOO_LARGE = "{case} does not fit the memory of this machine"
NO_MEMORY = "the memory pass has no process of both cases, or read them by different instruments"
# What a verdict means where the suite says what the other verdicts mean.
MEANINGS = {
    "inconclusive": "The interval reaches over the bound: this run cannot tell.",
    "not measured": "Nothing is known of it from this run.",
}
KINDS_OF_ANSWERS = {
    "forced": "for teacher-forced answers only",
    "generated": "for generated answers only",
}


def claim_result(claim: StatedClaim, run: Run) -> ClaimResult:
    """Return what the run's records say of a claim."""
    quantity = QUANTITIES.get(claim.quantity or "")
    try:
        if quantity is None:
            raise NotMeasured(f"it needs {claim.needs}")
        finding = quantity.find(claim, run)
    except NotMeasured as error:
        why = textwrap.shorten(str(error), 240, placeholder=" ...")
        finding = Finding(None, verdict="not measured", reason=why)
    estimate = finding.estimate
    verdict, reason = finding.verdict, finding.reason
    if verdict is None:
        assert estimate is not None, "a finding without a verdict of its own has a number"
        verdict, reason = claim_verdict(estimate, claim.at_most, claim.at_least)
    measured, interval = None, None
    if estimate is not None:
        measured = estimate.value
        if estimate.low is not None and estimate.high is not None:
            interval = (estimate.low, estimate.high)
    return ClaimResult(
        claim=claim.claim,
        quantity=claim.quantity,
        unit=quantity.unit if quantity else None,
        reference=claim.reference,
        candidate=claim.candidate,
        at_most=claim.at_most,
        at_least=claim.at_least,
        published=claim.published,
        source=claim.source,
        measured=measured,
        interval=interval,
        verdict=verdict,
        reason=_joined(finding.about, reason),
        regime=_regime(claim, run),
        meaning=claim.means.get(verdict, MEANINGS.get(verdict)) if claim.means else None,
    )


def _regime(claim: StatedClaim, run: Run) -> str | None:
    """Return how the answers of a claim's cases came about, or None if that is not known."""
    settings = {entry.name: entry.settings or {} for entry in run.manifest.cases}
    regimes: dict[str, None] = {}  # as an ordered set
    for name in (claim.candidate, claim.reference):
        if name in settings:
            regime = _regime_of_case(settings[name])
            if regime is None:
                return None
            regimes[regime] = None
    # Two regimes are a confound, which the verdict must not hide.
    return " against ".join(regimes) or None


def _regime_of_case(settings: Mapping[str, Any]) -> str | None:
    answer = settings.get("answer")
    if answer == "forced":
        return "teacher-forced"
    if answer == "generated":
        return f"generated, {settings.get('max_new_tokens')} tokens"
    return None


def _joined(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


# The two cases of a claim


def _case(name: str | None, run: Run) -> CaseRecords:
    if name not in {entry.name for entry in run.manifest.cases}:
        raise NotMeasured(f"{name} is not among the cases of this run")
    return run.case(name or "")


def _timed_cases(claim: StatedClaim, run: Run) -> tuple[CaseRecords, CaseRecords]:
    """Return the reference and the candidate, neither of which failed, of a run with times."""
    if run.manifest.plan.processes == 0:
        raise NotMeasured(NO_TIME)
    for name in (claim.reference, claim.candidate):
        case = _case(name, run)
        if case.ran_out_of_memory:
            raise NotMeasured(TOO_LARGE.format(case=case.name))
    return _measured_cases(claim, run)


def _measured_cases(claim: StatedClaim, run: Run) -> tuple[CaseRecords, CaseRecords]:
    """Return the reference and the candidate, neither of which failed."""
    cases = _case(claim.reference, run), _case(claim.candidate, run)
    for case in cases:
        # A single query that ran out of memory counts in the scores, as every failure does.
        if case.entry.out_of_memory:
            raise NotMeasured(TOO_LARGE.format(case=case.name))
        if case.entry.error:
            raise NotMeasured(f"{case.name} failed: {case.entry.error}")
    return cases


def _gpu_memory_cases(claim: StatedClaim, run: Run) -> tuple[CaseRecords, CaseRecords]:
    """Return the reference and the candidate, whose memory was measured on a GPU."""
    cases = _case(claim.reference, run), _case(claim.candidate, run)
    for case in cases:
        if case.entry.out_of_memory:
            raise NotMeasured(TOO_LARGE.format(case=case.name))
        if case.entry.memory_error:
            raise NotMeasured(f"{case.name} failed: {case.entry.memory_error}")
    if any(by_resident_set(case.memory) for case in cases):
        raise NotMeasured(ON_A_CPU)
    return cases


def _twins_in_their_group(reference: CaseRecords, candidate: CaseRecords, run: Run) -> list[Twin]:
    """Return the twins of the group in which two cases took turns.

    There are none for two measurements of one model, which are twins themselves.
    """
    if reference.entry.settings == candidate.entry.settings:
        return []
    group = run.manifest.group_with({reference.name, candidate.name})
    return twins_of(group, run) if group else []


def _widened_by(twins: Sequence[Twin]) -> str | None:
    if not twins:
        return None
    pairs = [f"{twin.candidate} against {twin.reference}" for twin in twins]
    return (
        f"its interval is no narrower than that of {listed(pairs)}, two measurements of one model"
    )


def _in_batches(reference: CaseRecords, candidate: CaseRecords) -> str | None:
    """Return how many queries a time, an energy or a peak is of; None for single queries."""
    before, after = reference.entry.batch, candidate.entry.batch
    if before == after:
        return None if before == 1 else f"in batches of {before}"
    return f"in batches of {before} ({reference.name}) and {after} ({candidate.name})"


# Time


def _end_to_end(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of the time of a query, and how much of the change is preprocessing."""
    reference, candidate = _timed_cases(claim, run)
    twins = _twins_in_their_group(reference, candidate, run)
    ratios = _time_ratios(reference, candidate, twins)
    about = _joined(
        _in_batches(reference, candidate),
        _kind_of_answers(reference, candidate),
        _preprocessing(claim, reference, candidate, ratios.get(WITHOUT_PREPROCESS, NO_RATIO)),
        _widened_by(twins),
    )
    return replace(_of_time(ratios[END_TO_END]), about=about)


def _throughput(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of queries per second, waits for images included."""
    if run.manifest.plan.scenario == "latency":
        raise NotMeasured(
            "it is a claim on throughput, and this run measures latency: it takes "
            "plan.scenario: throughput"
        )
    reference, candidate = _timed_cases(claim, run)
    twins = _twins_in_their_group(reference, candidate, run)
    _refuse_different_clocks(reference, candidate)
    ratio = throughput_ratio(reference.seconds, candidate.seconds)
    about = _joined(
        _in_batches(reference, candidate),
        _kind_of_answers(reference, candidate),
        _widened_by(twins),
    )
    return replace(_of_time(no_narrower(ratio, THROUGHPUT, twins)), about=about)


def _stage(stage: str, claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of the time of a stage, by the same pass as in the tables."""
    reference, candidate = _timed_cases(claim, run)
    twins = _twins_in_their_group(reference, candidate, run)
    ratios = _time_ratios(reference, candidate, twins)
    if were_synchronised([reference, candidate]):
        how = "by the pass that waits for the GPU at the end of each stage"
    else:
        how = "by the timing, in which no stage waits for a GPU: this run has no synchronised pass"
    finding = _of_time(ratios.get(of_stage(stage), NO_RATIO))
    about = _joined(_in_batches(reference, candidate), how, _widened_by(twins))
    return replace(finding, about=about)


def _token(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of the time of a further token, of two cases that generated answers."""
    reference, candidate = _timed_cases(claim, run)
    twins = _twins_in_their_group(reference, candidate, run)
    ratio = _time_ratios(reference, candidate, twins).get(TOKEN)
    if ratio is None:
        raise NotMeasured("it takes two cases that generated answers of at least two tokens")
    about = _joined(_in_batches(reference, candidate), _widened_by(twins))
    return replace(_of_time(ratio), about=about)


def _time_ratios(
    reference: CaseRecords, candidate: CaseRecords, twins: Sequence[Twin]
) -> dict[str, Ratio]:
    """Return the ratio of each time by quantity, no interval narrower than those of the twins."""
    _refuse_different_clocks(reference, candidate)
    ratios = {}
    for quantity, ratio in time_ratios(reference, candidate).items():
        ratios[quantity] = no_narrower(ratio, quantity, twins)
    return ratios


def _refuse_different_clocks(reference: CaseRecords, candidate: CaseRecords) -> None:
    before, after = reference.entry.clock, candidate.entry.clock
    if before and after and before != after:
        raise NotMeasured("the two cases were timed by different clocks")


def _of_time(ratio: Ratio) -> Finding:
    if ratio.estimate is None:
        raise NotMeasured("no query has this time in both cases")
    return Finding(ratio.estimate)


def _kind_of_answers(reference: CaseRecords, candidate: CaseRecords) -> str | None:
    """Return which kind of answers a time is of: generated ones take an LLM pass for each token."""
    before = (reference.entry.settings or {}).get("answer")
    after = (candidate.entry.settings or {}).get("answer")
    if before != after:
        return None
    return KINDS_OF_ANSWERS.get(str(before))


def _preprocessing(
    claim: StatedClaim, reference: CaseRecords, candidate: CaseRecords, without: Ratio
) -> str | None:
    """Return how much of a change of medians is preprocessing, and the ratio without it."""
    if without.ratio is None:
        return None
    change_ms = _difference_of_medians_ms(reference.end_to_end_ns, candidate.end_to_end_ns)
    preprocess_ms = _difference_of_medians_ms(
        reference.stages_ns[PREPROCESS], candidate.stages_ns[PREPROCESS]
    )
    verdict, _ = claim_verdict(without, claim.at_most, claim.at_least)
    return (
        f"the medians differ by {change_ms:+.1f} ms, of which {preprocess_ms:+.1f} ms are "
        f"preprocessing; without preprocessing the ratio is {ratio_with_interval(without)}, which "
        f"alone would be {verdict}"
    )


def _difference_of_medians_ms(before: Times, after: Times) -> float:
    return (median(after.values()) - median(before.values())) / 1e6


# Energy and memory


def _energy(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of the mean energy of a query in each process, by the GPU's counter."""
    reference, candidate = _timed_cases(claim, run)
    twins = _twins_in_their_group(reference, candidate, run)
    both_known = bool(reference.energy_mj) and bool(candidate.energy_mj)
    if both_known and not were_read_alike([reference, candidate]):
        raise NotMeasured("one case has energy from a pass of its own, and the other over blocks")
    ratio = no_narrower(energy_ratio_of_cases(reference, candidate), ENERGY, twins)
    if ratio.estimate is None:
        raise NotMeasured("no process of both cases has read a GPU's energy counter")
    about = _joined(_in_batches(reference, candidate), _widened_by(twins))
    return Finding(ratio.estimate, about=about)


def _peak(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of the allocator's peaks of a query, without the build."""
    reference, candidate = _gpu_memory_cases(claim, run)
    finding = _of_memory(memory_logs(reference.memory, candidate.memory, queries_only=True))
    return replace(finding, about=_in_batches(reference, candidate))


def _reserved(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of what the allocator has reserved at most in a query.

    What CUDA graphs keep for themselves is in it.
    """
    reference, candidate = _gpu_memory_cases(claim, run)
    sizes = []
    for case in (reference, candidate):
        sizes.append(largest_by_process(of_queries(case.memory), "peak_reserved_bytes"))
    finding = _of_memory(log_ratios(sizes[0], sizes[1]))
    how = "by what PyTorch's allocator has reserved, CUDA graphs included"
    return replace(finding, about=_joined(_in_batches(reference, candidate), how))


def _vision_memory(claim: StatedClaim, run: Run) -> Finding:
    """Return the ratio of the memory of vision: weights of its parts, and what its stage allocates.

    The peak of the vision stage is another definition of it, and is printed with it. The weights of
    all other parts are in that peak, too.
    """
    cases = _gpu_memory_cases(claim, run)
    instruments: set[str] = set()
    sizes: list[dict[int, int]] = []  # of the reference and of the candidate, by process
    peaks: list[dict[int, int]] = []
    for case in cases:
        weights_bytes = _vision_weights(case)
        of_stage = []
        sizes_of_case: dict[int, int] = {}
        for record in case.memory:
            if record.stage != "vision" or record.start_bytes is None or record.peak_bytes is None:
                continue
            of_stage.append(record)
            instruments.add(record.instrument)
            # When the stage begins, the weights are in use already: they are in its start.
            size = weights_bytes + record.peak_bytes - record.start_bytes
            sizes_of_case[record.process] = max(sizes_of_case.get(record.process, 0), size)
        sizes.append(sizes_of_case)
        peaks.append(largest_by_process(of_stage, "peak_bytes"))
    if len(instruments) != 1:
        raise NotMeasured(NO_MEMORY)
    finding = _of_memory(log_ratios(sizes[0], sizes[1]))
    ratio_of_peaks = paired_ratio_of(log_ratios(peaks[0], peaks[1]))
    how = (
        "by the weights of the vision parts and what the stage allocates; the peak of the vision "
        f"stage is {ratio_with_interval(ratio_of_peaks)}"
    )
    return replace(finding, about=_joined(_in_batches(*cases), how))


def _vision_weights(case: CaseRecords) -> int:
    """Return the bytes of the weights of the parts that see pixels."""
    weight_bytes = case.entry.weight_bytes or {}
    sizes = [size for part, size in weight_bytes.items() if part in VISION_PARTS]
    if not sizes:
        raise NotMeasured(f"the bytes of the weights of each part of {case.name} were not measured")
    return sum(sizes)


def _of_memory(logs: Mapping[int, float]) -> Finding:
    ratio = paired_ratio_of(logs)
    if ratio.estimate is None:
        raise NotMeasured(NO_MEMORY)
    return Finding(ratio.estimate)


# Quality


def _quality(metric: str, claim: StatedClaim, run: Run) -> Finding:
    """Return the difference of a score in points, over the queries that both cases have."""
    cases = _measured_cases(claim, run)
    for case in cases:
        if case.entry.has_quality is False:
            raise NotMeasured("random weights have no quality")
        if case.entry.has_quality is None:
            raise NotMeasured(f"{case.name} has not been built yet")
    baselines = [case for case in run.cases if not case.entry.is_model]
    for against in against_trivial_baselines([*cases, *baselines]):
        if against.refused:
            raise NotMeasured(
                f"{against.case} is no better than the trivial baseline {against.baseline}: "
                "its checkpoint is refused"
            )
    reference, candidate = cases
    difference = points(reference.scored, candidate.scored)[metric]
    if difference is None:
        raise NotMeasured("no query that both cases evaluated has this quality")
    return Finding(difference.estimate)


# Whether a case fits a card


def _fits(claim: StatedClaim, run: Run) -> Finding:
    """Return whether the case fits the card, and the bytes that it took."""
    case = _case(claim.candidate, run)
    verdict = case_on_card(case, claim.card or "", run)
    return finding_on_card(verdict, _answered(verdict, case))


def _answered(verdict: CardVerdict, case: CaseRecords) -> str:
    """Return how many queries were answered, under which limit, with which kind of answers."""
    limit = "under the cap" if verdict.capped else "without a cap"
    kind = (case.entry.settings or {}).get("answer")
    kind_of_answers = f" (answers {kind})" if kind else ""
    if verdict.done is None:
        return f"how many queries were answered {limit}{kind_of_answers} is not recorded"
    return f"answered {verdict.done} of {verdict.of} queries {limit}{kind_of_answers}"


QUANTITIES: Mapping[str, Quantity] = {
    END_TO_END: Quantity("ratio", _end_to_end),
    **{of_stage(stage): Quantity("ratio", partial(_stage, stage)) for stage in STAGES},
    TOKEN: Quantity("ratio", _token),
    THROUGHPUT: Quantity("ratio", _throughput),
    ENERGY: Quantity("ratio", _energy),
    "memory.peak": Quantity("ratio", _peak),
    "memory.reserved": Quantity("ratio", _reserved),
    "memory.vision": Quantity("ratio", _vision_memory),
    "quality.gIoU": Quantity("points", partial(_quality, "gIoU")),
    "quality.cIoU": Quantity("points", partial(_quality, "cIoU")),
    "quality.mIoU": Quantity("points", partial(_quality, "mIoU")),
    "fits": Quantity("bytes", _fits),
    **OF_TRAININGS,
}
