"""What a reader should know before believing a run's figures: one sentence each, with what it is about."""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ...harness.measure import UNATTRIBUTED_LIMIT
from ...harness.records.readings import ANSWERED, Record, of_case, warm_ups
from ...harness.records.run import Run
from ..formatting import answer_spread, listed
from ..peaks import NO_START, lacks_start
from ..schema_base import AgainstFloor
from .confounds import confounds, without_difference
from .instrument import off_paper
from .schema import Attribution, Case, Comparison
from .trivial_baselines import floor_doubts, refused

CLOCKS_DIFFER_BY = 0.10


def doubts(
    run: Run,
    cases: Sequence[Case],
    comparisons: Sequence[Comparison],
    attributions: Sequence[Attribution] = (),
    floors: Sequence[AgainstFloor] = (),
) -> list[str]:
    """All warnings of a run, the gravest first, none twice."""
    found = [
        *refused(floors),
        *_unfinished(run),
        *without_difference(cases, comparisons),
        *(f"{case.name} could not be run: {_brief(case.error)}" for case in cases if case.error),
        *(
            f"{case.name}: its memory could not be measured: {_brief(case.memory_error)}"
            for case in cases
            if case.memory_error
        ),
        *_trainings(run),
        *_missing(run, cases),
        *_failures(run, cases),
        *floor_doubts(floors),
        *confounds(run.run["cases"], comparisons, attributions),
        *_instruments(cases),
        *_different_answers(cases),
        *_without_start(run, cases),
        *off_paper(cases),
        *_clocks(cases),
        *_not_warm(run),
        *_unattributed(cases),
        *(run.run.get("warnings") or []),
        *_from_records(run, cases),
    ]
    return list(dict.fromkeys(found))


def _brief(error: str) -> str:
    """The beginning of an error: run.json keeps the whole, which may be a page long."""
    return textwrap.shorten(error, 240, placeholder=" ...")


def _unfinished(run: Run) -> Iterable[str]:
    status = run.run["status"]
    if status == "running":
        yield "The run is not finished: it is going on, or was stopped (`lisabench run --resume` measures the rest)."
    elif status == "failed":
        yield "The run failed in part: what is below is what was measured."


def _trainings(run: Run) -> Iterable[str]:
    for row in run.run.get("trainings") or []:
        if row["reason"]:
            yield f"the training {row['name']} with seed {row['seed']} is {row['status']}: {_brief(row['reason'])}"


def _missing(run: Run, cases: Sequence[Case]) -> Iterable[str]:
    """Models are timed in every process of the plan, and every case is in the quality pass, where there is one.

    In a run without that pass a control has one line a query.
    """
    queries = (run.run.get("data") or {}).get("count") or 0
    plan, quality_pass = run.run.get("plan") or {}, run.run.get("quality_pass")
    timed_queries = min(queries, plan.get("timed_queries") or queries)
    found: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for case in cases:
        times = (plan.get("processes") or 1) if case.role == "model" else int(not quality_pass)
        there, expected = len(of_case(case.name, run.samples)), timed_queries * times
        if there < expected:
            found["records", there, expected].append(case.name)
        if quality_pass and run.has_quality_pass(case.name):
            there, expected = len(run.scored(case.name)), quality_pass["queries"]
            if there < expected:
                found["records of the quality pass", there, expected].append(case.name)
    for (what, there, expected), names in found.items():
        has, each, its = ("has", "", "its") if len(names) == 1 else ("have", " each", "their")
        yield f"{listed(names)} {has} {there} of {expected} {what}{each}; {its} figures are of these."


def _failures(run: Run, cases: Sequence[Case]) -> Iterable[str]:
    for case in cases:
        yield from _failures_of(case.name, of_case(case.name, run.samples), "queries")
        if run.has_quality_pass(case.name):
            yield from _failures_of(case.name, run.scored(case.name), "queries of the quality pass")


def _failures_of(case: str, records: Sequence[Record], what: str) -> Iterable[str]:
    failed = Counter(record["status"] for record in records if record["status"] not in ANSWERED)
    for status, count in failed.items():
        reasons = Counter(
            record["reason"]
            for record in records
            if record["status"] == status and record["reason"]
        )
        why = f", most often: {_brief(reasons.most_common(1)[0][0])}" if reasons else ""
        yield f"{case}: {count} of {len(records)} {what} ended in {status}{why}"


def _instruments(cases: Sequence[Case]) -> Iterable[str]:
    models = [case for case in cases if case.role == "model"]
    clocks = {case.time.clock or "unknown" for case in models if case.time.n}
    instruments = {case.memory.instrument or "unknown" for case in models if case.memory.stages}
    for what, used in (("clocks", clocks), ("memory instruments", instruments)):
        if len(used) > 1:
            yield f"The cases were measured by different {what} ({', '.join(sorted(used))}): those have no ratio."


def _different_answers(cases: Sequence[Case]) -> Iterable[str]:
    """One sentence about all cases whose processes do not answer alike."""
    found = [
        (case.name, case.answer_spread)
        for case in cases
        if case.answer_spread and case.answer_spread.differing
    ]
    if found:
        counted = ", ".join(f"{name} {answer_spread(answers)}" for name, answers in found)
        yield (
            f"Answers of one case differ between its processes: {counted}. "
            "Scores are of the first process that answered; gates on masks and scores allow for this spread."
        )


def _without_start(run: Run, cases: Sequence[Case]) -> Iterable[str]:
    """One sentence about all cases on a CPU whose growth of memory cannot be computed."""
    names = [case.name for case in cases if lacks_start(of_case(case.name, run.memory))]
    if names:
        yield f"{listed(names)}: {NO_START}, so memory has no ratio."


def _clocks(cases: Sequence[Case]) -> Iterable[str]:
    for case in cases:
        clock_ms, host_ms = case.time.end_to_end_ms, case.time.host_ms
        if (
            case.role == "model"
            and clock_ms
            and host_ms
            and abs(host_ms / clock_ms - 1) > CLOCKS_DIFFER_BY
        ):
            yield f"{case.name}: {clock_ms:.1f} ms a query by {case.time.clock}, {host_ms:.1f} ms by the host's clock."


def _not_warm(run: Run) -> Iterable[str]:
    """One sentence a run; of a case with several processes it says how many."""
    models = [entry for entry in run.run["cases"] if entry["role"] == "model"]
    found = [
        (entry["name"], [warm_up["warmup_stable"] is False for warm_up in warm_ups(entry)])
        for entry in models
    ]
    named = [(name, sum(unsteady), len(unsteady)) for name, unsteady in found if any(unsteady)]
    counted = [f"{name} ({count} of {of}{'' if i else ' processes'})" if of > 1 else name
               for i, (name, count, of) in enumerate(named)]  # fmt: skip
    if counted:
        yield f"not steady after warm-up: {', '.join(counted)}"


def _unattributed(cases: Sequence[Case]) -> Iterable[str]:
    for case in cases:
        share = case.time.unattributed_share
        if case.role == "model" and share is not None and not 0 <= share <= UNATTRIBUTED_LIMIT:
            yield f"{case.name}: {share:.1%} of its time lies in no stage (expected: at most {UNATTRIBUTED_LIMIT:.0%})."


def _from_records(run: Run, cases: Sequence[Case]) -> Iterable[str]:
    """Warnings of single records, counted: those that differ only in their figures are one."""
    for case in cases:
        records = (
            of_case(case.name, run.samples) if case.role == "model" else []
        )  # a control's time is no result
        for texts in _alike(records).values():
            example = f" ({texts[0]})" if len(set(texts)) == 1 else f" (such as: {texts[0]})"
            yield f"{case.name}: a warning in {len(texts)} of {len(records)} records{example}"


def _alike(records: Sequence[Record]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for text in record.get("warnings") or ():
            groups[re.sub(r"\d+(\.\d+)?", "#", text)].append(text)
    return groups
