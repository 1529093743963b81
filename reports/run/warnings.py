"""Warnings of a run: what a reader should know before believing its numbers."""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...harness.measure import UNATTRIBUTED_LIMIT
from ...harness.records.manifest import CaseEntry, Manifest
from ...harness.records.query import QueryRecord
from ...harness.records.run import CaseRecords, Run
from ..formatting import answer_spread, listed
from ..peaks import NO_START, lacks_start
from ..schema_base import AgainstTrivialBaseline
from ..trivial_baselines import not_surely_better, refused
from .confounds import confounds, without_difference
from .memory_and_roofline import unexpected_weights
from .schema import Attribution, Case, Comparison

WARNINGS_IN_FULL = 2  # the gravest, which every page shows unfolded
# The case's clock and the host's are expected to agree to this share.
CLOCKS_DIFFER_BY = 0.10
NUMBER = re.compile(r"(?<![\w-])\d+(?:\.\d+)?")  # but no part of a name, such as `clip-nf4`


def run_warnings(
    manifest: Manifest,
    records: Sequence[CaseRecords],
    cases: Sequence[Case],
    comparisons: Sequence[Comparison],
    attributions: Sequence[Attribution] = (),
    against_baselines: Sequence[AgainstTrivialBaseline] = (),
) -> list[str]:
    """Return all warnings of a run, the gravest first, one for each cause.

    Args:
        manifest: of the run.
        records: of all cases.
        cases: their summaries.
        comparisons, attributions, against_baselines: what the summary derives from them.
    """
    # A summary may list its cases in another order than the manifest; warnings follow the summary.
    by_name = {case.name: case for case in records}
    ordered = [by_name[case.name] for case in cases]
    warnings = [
        *refused(against_baselines),
        *_errors(cases),
        *_trainings(manifest),
        *_failures(ordered),
        *_unfinished(manifest, ordered),
        *without_difference(cases, comparisons),
        *not_surely_better(against_baselines),
        *confounds(manifest.cases, comparisons, attributions),
        *_instruments(cases),
        *_different_answers(cases),
        *_without_start(ordered),
        *unexpected_weights(cases),
        *_clocks(cases),
        *_from_queries(ordered),
        *_not_warm(manifest),
        *_unattributed(cases),
        *manifest.warnings,
    ]
    return list(dict.fromkeys(warnings))


def while_measuring(runs: Mapping[str, Run]) -> list[str]:
    """Return what disturbed the measurement of runs, such as a busy host: one warning a cause.

    Args:
        runs: by the name that a warning begins with where several are measured.
    """
    named = []
    for name, run in runs.items():
        texts = [*_from_queries(run.cases), *_not_warm(run.manifest), *run.manifest.warnings]
        named.extend((name, text) for text in dict.fromkeys(texts))
    if len(runs) == 1:
        return [text for _, text in named]
    return list(by_cause(named))


def by_cause(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield one warning of each cause, after the names of all that have it.

    Args:
        named: the name and the text of each warning.
    """
    names: dict[str, list[str]] = defaultdict(list)
    alike: dict[str, list[str]] = defaultdict(list)
    for name, text in named:
        cause = cause_of(text)
        names[cause].append(name)
        alike[cause].append(text)
    for cause, texts in alike.items():
        yield f"{listed(list(dict.fromkeys(names[cause])))}: {with_ranges(texts)}"


def failures(run: Run) -> list[str]:
    """Return a sentence for each way in which cases, trainings and queries of a run failed."""
    manifest = run.manifest
    return [*_errors(manifest.cases), *_trainings(manifest), *_failures(run.cases)]


def _brief(error: str) -> str:
    """Return the beginning of an error: the manifest keeps the whole, which may be a page long."""
    return textwrap.shorten(error, 240, placeholder=" ...")


def _unfinished(manifest: Manifest, records: Sequence[CaseRecords]) -> Iterator[str]:
    """Return one sentence about everything that is not there, with the cases that lack records."""
    if manifest.status == "failed":
        yield "The run failed in part: what is below is what was measured."
    missing = "; ".join(_missing(manifest, records))
    if manifest.status == "running":
        rest = "`lisabench run --resume --out DIR` measures the rest"
        if missing:
            yield f"Not all is measured ({rest}): {missing}. All numbers are of these."
        else:
            yield f"Not all is measured ({rest})."
    elif missing:
        yield f"Not all records are there: {missing}. All numbers are of these."


def _errors(cases: Sequence[Case | CaseEntry]) -> Iterator[str]:
    """Return one sentence about all cases that failed for the same reason."""
    failed: dict[str, list[str]] = defaultdict(list)
    without_memory: dict[str, list[str]] = defaultdict(list)
    do_not_fit: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.out_of_memory:
            reason = case.memory_error or case.error
            do_not_fit[_brief(reason or "some queries ran out of it")].append(case.name)
            continue
        if case.error:
            failed[_brief(case.error)].append(case.name)
        if case.memory_error:
            without_memory[_brief(case.memory_error)].append(case.name)
    for error, names in do_not_fit.items():
        verb = "does" if len(names) == 1 else "do"
        yield f"{listed(names)} {verb} not fit the memory of this machine: {error}"
    for error, names in failed.items():
        yield f"{listed(names)} could not be run: {error}"
    for error, names in without_memory.items():
        yield f"the memory of {listed(names)} could not be measured: {error}"


def _trainings(manifest: Manifest) -> Iterator[str]:
    for training in manifest.trainings:
        # That one does not fit a card, or cannot be tried on it, stands in the table of cards.
        is_a_result = training.card is not None and training.status != "failed"
        if training.reason and not is_a_result:
            on_card = f" on a card of {training.card}" if training.card else ""
            yield (
                f"the training {training.name} with seed {training.seed}{on_card} is "
                f"{training.status}: "
                f"{_brief(training.reason)}"
            )


def _missing(manifest: Manifest, records: Sequence[CaseRecords]) -> Iterator[str]:
    """Return a clause for the cases that lack records, all cases with the same numbers in one.

    Models are timed in every process of the plan, and every case is in the quality pass, where the
    run has one. Without that pass a trivial baseline has one record a query.
    """
    queries = manifest.data.count
    timed_queries = manifest.timed_queries
    if timed_queries is None:
        timed_queries = min(queries, manifest.plan.timed_queries or queries)
    lacking: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for case in records:
        rounds = 0 if manifest.quality_pass or manifest.plan.processes == 0 else 1
        if case.entry.is_model:
            rounds = manifest.plan.processes
        measured, expected = len(case.queries), timed_queries * rounds
        if measured < expected:
            lacking["records", measured, expected].append(case.name)
        if manifest.quality_pass and case.has_quality_pass and not case.entry.out_of_memory:
            measured, expected = len(case.scored), manifest.quality_pass.queries
            if measured < expected:
                lacking["records of the quality pass", measured, expected].append(case.name)
    for (kind, measured, expected), names in lacking.items():
        if len(names) == 1:
            yield f"{names[0]} has {measured} of {expected} {kind}"
        else:
            yield f"{listed(names)} have {measured} of {expected} {kind} each"


def _failures(records: Sequence[CaseRecords]) -> Iterator[str]:
    """Return one sentence about all cases whose queries failed alike."""
    alike: dict[str, list[str]] = defaultdict(list)
    for case in records:
        for count, cause in _failures_of(case.queries, "queries"):
            alike[cause].append(f"{case.name}: {count}")
        if case.has_quality_pass:
            for count, cause in _failures_of(case.scored, "queries of the quality pass"):
                alike[cause].append(f"{case.name}: {count}")
    for cause, counts in alike.items():
        yield f"{listed(counts)} {cause}"


def _failures_of(queries: Sequence[QueryRecord], kind: str) -> Iterator[tuple[str, str]]:
    """Yield how many queries failed, and how, with the most frequent reason, for each status."""
    failed = Counter(query.status for query in queries if not query.answered)
    for status, count in failed.items():
        reasons = Counter(
            query.reason for query in queries if query.status == status and query.reason
        )
        most_often = ""
        if reasons:
            reason, _ = reasons.most_common(1)[0]
            most_often = f", most often: {_brief(reason)}"
        yield f"{count} of {len(queries)}", f"{kind} ended in {status}{most_often}"


def _instruments(cases: Sequence[Case]) -> Iterator[str]:
    models = [case for case in cases if case.role == "model"]
    clocks = {case.time.clock or "unknown" for case in models if case.time.n}
    instruments = {case.memory.instrument or "unknown" for case in models if case.memory.stages}
    for kind, used in (("clocks", clocks), ("memory instruments", instruments)):
        if len(used) > 1:
            yield (
                f"The cases were measured by different {kind} ({', '.join(sorted(used))}): those "
                "have no ratio."
            )


def _different_answers(cases: Sequence[Case]) -> Iterator[str]:
    """Return one sentence about all cases whose processes answer differently."""
    counted = []
    for case in cases:
        if case.answer_spread and case.answer_spread.differing:
            counted.append(f"{case.name} {answer_spread(case.answer_spread)}")
    if counted:
        yield (
            f"Answers of one case differ between its processes: {', '.join(counted)}. "
            "Scores are of the first process that answered; gates on masks and scores allow for "
            "this spread."
        )


def _without_start(records: Sequence[CaseRecords]) -> Iterator[str]:
    """Return one sentence about all cases on a CPU whose growth of memory cannot be computed."""
    names = [case.name for case in records if lacks_start(case.memory)]
    if names:
        yield f"{listed(names)}: {NO_START}, so memory has no ratio."


def _clocks(cases: Sequence[Case]) -> Iterator[str]:
    """Return one sentence about all cases of which two clocks say different times."""
    compared = []
    for case in cases:
        clock_ms, host_ms = case.time.end_to_end_ms, case.time.host_ms
        if case.role != "model" or not clock_ms or not host_ms:
            continue
        if abs(host_ms / clock_ms - 1) > CLOCKS_DIFFER_BY:
            compared.append(
                f"{case.name} {clock_ms:.1f} ms a query by {case.time.clock}, {host_ms:.1f} ms by "
                "the host's clock"
            )
    if compared:
        yield f"Two clocks disagree by more than {CLOCKS_DIFFER_BY:.0%}: {'; '.join(compared)}."


def _not_warm(manifest: Manifest) -> Iterator[str]:
    """Return one sentence about all models that were not steady after the warm-up.

    Of a case with several processes it says how many of them.
    """
    counted = []
    for entry in manifest.models:
        unsteady = sum(warm_up.warmup_stable is False for warm_up in entry.warm_ups)
        processes = len(entry.warm_ups)
        if unsteady and processes > 1:
            unit = "" if counted else " processes"  # the unit stands in the first bracket alone
            counted.append(f"{entry.name} ({unsteady} of {processes}{unit})")
        elif unsteady:
            counted.append(entry.name)
    if counted:
        yield f"not steady after warm-up: {', '.join(counted)}"


def _unattributed(cases: Sequence[Case]) -> Iterator[str]:
    """Return one sentence about all cases with much time outside of all stages."""
    shares = []
    for case in cases:
        share = case.time.unattributed_share
        if case.role == "model" and share is not None and not 0 <= share <= UNATTRIBUTED_LIMIT:
            shares.append(f"{case.name} {share:.1%}")
    if shares:
        yield (
            f"Time that is unattributed: {', '.join(shares)} (expected: at most "
            f"{UNATTRIBUTED_LIMIT:.0%})."
        )


def _from_queries(records: Sequence[CaseRecords]) -> Iterator[str]:
    """Return the warnings of single queries: one of each cause, with the cases that have it.

    Warnings that differ only in numbers have one cause; of the numbers the range is given. The time
    of a trivial baseline is no result, and neither are warnings about it.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    counted: dict[str, list[str]] = defaultdict(list)
    for case in records:
        if not case.entry.is_model:
            continue
        of_case: Counter[str] = Counter()
        for query in case.queries:
            for text in query.warnings:
                cause = cause_of(text)
                alike[cause].append(text)
                of_case[cause] += 1
        for cause, count in of_case.items():
            counted[cause].append(f"{case.name} {count} of {len(case.queries)}")
    for cause, texts in alike.items():
        yield f"{with_ranges(texts)} (records with this warning: {', '.join(counted[cause])})"


def cause_of(text: str) -> str:
    """Return what warnings that differ only in numbers have in common."""
    return NUMBER.sub("#", text)


def with_ranges(texts: Sequence[str]) -> str:
    """Return texts that differ only in numbers as one, such as ``at 1500 to 1965 MHz``."""
    ranges = []
    for numbers in zip(*map(NUMBER.findall, texts), strict=True):
        least, most = min(numbers, key=float), max(numbers, key=float)
        ranges.append(least if least == most else f"{least} to {most}")
    parts = NUMBER.split(texts[0])
    text = parts[0]
    for number, part in zip(ranges, parts[1:], strict=True):
        text += number + part
    return text
