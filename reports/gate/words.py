"""What a gate says in words: the headline, its numbers, the stage that moved, what was not checked.

The comment, the pages of CI and the terminal show the same sentences. Texts here are plain, and
names of cases and stages stand in backticks: `harness.text.message` makes Markdown of them.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ...harness.contract import STAGES
from ...harness.statistics.verdicts import quality_word
from .. import formatting
from ..energy import ENERGY
from ..throughput import THROUGHPUT
from ..times import END_TO_END, of_stage
from .checks import CASE, FAILURES, MASKS, PEAK, QUERY_PEAK, WEIGHTS, Check
from .outcome import FAILING, UNSURE, Checked

MIB = formatting.MIB.size_bytes
RATIOS = ("ns", "1/s", "bytes", "mJ")  # units whose change is a ratio
SHARES = ("ns", "1/s", "mJ")  # those of them that are held to a share alone
SMALL_LIMIT = 0.01  # a share; per cents of a check with a smaller limit have two decimals
NAMES: Mapping[str, str] = {
    END_TO_END: "time of a query",
    THROUGHPUT: "queries per second",
    ENERGY: "energy of a query",
    PEAK: "peak memory",
    QUERY_PEAK: "peak memory, build left out",
    WEIGHTS: "memory of weights",
    FAILURES: "failed queries",
    MASKS: "masks",
    CASE: "the whole case",
}
# A stage has moved if its interval says so and it changes the time of a query by this share, or by
# the limit if that is less: of five stages, one or the other shows a tiny change by chance.
MOVES_A_QUERY = 0.01
MOST_CASES = 4  # of more cases, a sentence says how many they are
LONGEST_CAUSE = 110  # characters of a cause in the headline; the whole stands below it
# An absolute path, but no address of the web. Folders of the machine that measured tell nobody
# anything later.
_FOLDERS = re.compile(r"(?<![\w:/.~-])/(?:[^\s/:;,()'\"`]+/)+(?=[^\s/:;,()'\"`])")


def without_folders(text: str) -> str:
    """Return a text in which of each absolute path its last part is left."""
    return _FOLDERS.sub("", text)


# Numbers


def metric_name(check: Check) -> str:
    """Return what a check is of, in words."""
    stage = check.metric.removeprefix("time.")
    if stage in STAGES:
        return f"time of {stage}"
    return NAMES.get(check.metric, check.metric.removeprefix("quality."))


def value(check: Check, number: float | None) -> str:
    """Return a number of a check in the unit that people read it in; empty where it is unknown."""
    if number is None:
        return ""
    if check.unit == "ns":
        return f"{formatting.milliseconds(number / 1e6)} ms"
    if check.unit == "1/s":
        return f"{formatting.milliseconds(number)} queries/s"
    if check.unit == "bytes":
        return f"{_mib(number)} MiB"
    if check.unit == "mJ":
        return f"{formatting.joules(number)} J"
    if check.unit == "score":
        return formatting.score(number)
    if check.unit == "IoU":
        return f"IoU {number:.3f}"
    if check.unit == "share":
        return f"{100 * number:.1f} %"
    raise ValueError(f"a check of the unit {check.unit!r} has no numbers; it has {number}")


def _mib(size_bytes: float, sign: str = "") -> str:
    """Return a size in MiB; below 1,000 with a decimal, if it is no whole number of them."""
    size = size_bytes / MIB
    is_whole = abs(size - round(size)) < 0.05
    decimals = 0 if is_whole or abs(size) >= 999.5 else 1
    return f"{size:{sign}z,.{decimals}f}"


def difference(check: Check) -> str:
    """Return the change with its interval: in per cent, of memory in MiB too, of scores in points.

    Such as ``+10.5 % [+8.6, +12.6]``; empty where nothing was compared.
    """
    if check.change is None:
        return ""
    if check.unit == "score":
        points = f"{check.change:+z.2f} points"
        return f"{points}{_interval(check)}: {quality_word(check)}"
    percent = f"{_percent(check.change, _decimals(check))} %{_interval(check)}"
    if check.unit == "bytes" and check.before is not None:
        mib = f"{_mib((check.change - 1) * check.before, '+')} MiB"
        return mib if percent == "+0.0 %" else f"{mib} ({percent})"
    return percent


def _percent(ratio: float, decimals: int = 1) -> str:
    """Return a ratio as a difference in per cent: ``+10.5``; without a decimal from 100 on."""
    percent = 100 * (ratio - 1)
    return f"{percent:+z,.{decimals}f}" if abs(percent) < 99.95 else f"{percent:+,.0f}"


def _decimals(check: Check) -> int:
    """Return the decimals of its per cents: those of a small limit would look alike with one."""
    is_small = check.limit is not None and abs(check.limit - 1) < SMALL_LIMIT
    return 2 if is_small and check.unit in SHARES else 1


def _interval(check: Check) -> str:
    """Return the interval of a change in brackets; empty without one, and where it is a point."""
    if check.low is None or check.high is None or check.low == check.high:
        return ""
    if check.unit == "score":
        return f" [{check.low:+z.2f}, {check.high:+z.2f}]"
    decimals = _decimals(check)
    low, high = _percent(check.low, decimals), _percent(check.high, decimals)
    return f" [{low}, {high}]" if low != high else ""


def allowed(check: Check) -> str:
    """Return the limit of the change; shares and IoUs are limited themselves, not their change."""
    if check.limit is None:
        return ""
    if check.unit == "score":
        return f"{check.limit:+z.2f} points"
    if check.unit not in RATIOS:
        return value(check, check.limit)
    percent = f"{_without_zeros(_percent(check.limit, _decimals(check)))} %"
    if check.unit == "bytes" and check.before is not None:
        return f"{_mib((check.limit - 1) * check.before, '+')} MiB ({percent})"
    return percent


def _without_zeros(percent: str) -> str:
    """Return per cents without the zeros that end their decimals: ``+5`` and ``+0.4``."""
    return percent.rstrip("0").rstrip(".") if "." in percent else percent


def notes(check: Check) -> list[str]:
    """Return what a verdict needs besides its numbers."""
    texts = []
    if check.why:
        texts.append(without_folders(check.why))
    if check.verdict == "inconclusive" and check.detectable:
        detectable = f"{100 * check.detectable:.{_decimals(check)}f} %"
        if check.unit == "score":
            detectable = f"{check.detectable:.2f} points"
        texts.append(f"only differences over {detectable} show")
    if check.pairs_needed is not None:
        pairs = check.pairs_needed
        texts.append(f"about {pairs} pairs of processes would tell (`--set processes={pairs}`)")
    if check.first is not None:
        first = check.first
        result = difference(first) or value(first, first.after) or first.verdict
        texts.append(f"measured again, at first {result}")
    return texts


# Sentences


def headline(gate: Checked) -> str:
    """Return the verdict and its cause, such as ``this change makes `dual` slower and larger``."""
    subject = "this environment" if gate.same_code else "this change"
    if gate.problem:
        done = "compared" if gate.outcome == "nothing comparable" else "checked"
        return f"nothing was {done}: {_shortened(gate.problem)}"
    if gate.outcome == "regression":
        return f"{subject} {formatting.listed(_effects(gate.of(*FAILING)))}"
    if gate.outcome == "nothing comparable":
        return _refused(gate.of("refused"))
    if gate.outcome == "inconclusive":
        return f"cannot tell whether {subject} {' or '.join(_effects(gate.of(*UNSURE)))}"
    return _holds(gate.of("holds"))


def _refused(checks: Sequence[Check]) -> str:
    """Return what cannot be compared, and the first reason."""
    if not checks:
        return "nothing was compared: no metric was measured on both sides"
    cases = cases_in_words([check.case for check in checks])
    reason = _shortened(checks[0].why or "no reason is known")
    return f"{_kinds(checks)} of {cases} cannot be compared: {reason}"


def is_shortened(gate: Checked) -> bool:
    """Return whether the headline lacks a part of what went wrong."""
    return gate.problem is not None and _shortened(gate.problem) != _plain(gate.problem)


def _plain(text: str) -> str:
    return " ".join(without_folders(text).split())


def _shortened(text: str) -> str:
    return textwrap.shorten(_plain(text), LONGEST_CAUSE, placeholder=" ...")


def quoted(name: str) -> str:
    """Return a name in backticks, or as it is where it has characters that would end them."""
    return name if "`" in name or "|" in name else f"`{name}`"


def cases_in_words(names: Sequence[str]) -> str:
    """Return names of cases in backticks, or how many they are."""
    unique = list(dict.fromkeys(names))
    if len(unique) > MOST_CASES:
        return f"{len(unique)} cases"
    return formatting.listed([quoted(case) for case in unique])


def _holds(checks: Sequence[Check]) -> str:
    """Return what was within its limits: what was not checked must not seem to be."""
    kinds = _kinds(checks)
    if not kinds:
        return "nothing is beyond its limit"
    cases = cases_in_words([check.case for check in checks])
    is_one = kinds in KINDS and kinds != MASKS
    end = "is within its limit" if is_one else "are within their limits"
    return f"{kinds} of {cases} {end}"


def _kinds(checks: Sequence[Check]) -> str:
    """Return the quantities that checks are of, as an enumeration."""
    kinds = {_kind(check) for check in checks}
    return formatting.listed([kind for kind in KINDS if kind in kinds])


def _kind(check: Check) -> str:
    """Return the quantity that a check is of: time, memory, energy, quality or masks."""
    kind = check.metric.partition(".")[0]
    return "time" if kind == "throughput" else kind


KINDS = ("time", "memory", "energy", "quality", MASKS)
ADJECTIVES = {"time": "slower", "memory": "larger", "quality": "worse"}


def _effects(checks: Sequence[Check]) -> list[str]:
    """Return what these checks say that a change does, each effect with its cases.

    Such as ``makes `dual` slower and larger`` and ``changes masks of `sam```.

    Args:
        checks: those that fail, or those that are in doubt.
    """
    adjectives: dict[str, list[str]] = {}  # by case
    effects: dict[str, list[str]] = {}  # cases by what is said of them
    for check in checks:
        kind = _kind(check)
        if check.verdict == "missing":
            what = "leaves {} without a result"
        elif kind in ADJECTIVES:
            words = adjectives.setdefault(check.case, [])
            if ADJECTIVES[kind] not in words:
                words.append(ADJECTIVES[kind])
            continue
        elif check.metric == MASKS:
            what = "changes masks of {}"
        elif check.metric == FAILURES:
            what = "makes queries of {} fail"
        else:
            what = "makes {} use more energy"
        effects.setdefault(what, []).append(check.case)
    by_words: dict[str, list[str]] = {}  # cases by adjectives
    for case, words in adjectives.items():
        by_words.setdefault(formatting.listed(words), []).append(case)
    sentences = []
    for words, cases in by_words.items():
        sentences.append(f"makes {cases_in_words(cases)} {words}")
    for what, cases in effects.items():
        sentences.append(what.format(cases_in_words(cases)))
    return sentences


def measured(gate: Checked) -> str:
    """Return how the two sides were measured, and whether a second measurement confirmed it."""
    base = quoted(without_folders(gate.baseline))
    if gate.same_code:
        how = "The same code, measured side by side in this environment and in another"
    elif gate.paired:
        how = f"Measured side by side with {base}"
    else:
        how = f"Compared with {base}"
    facts = []
    if gate.processes:
        unit = "process" if gate.processes == 1 else "processes"
        if gate.paired:
            unit = "pair of processes" if gate.processes == 1 else "pairs of processes"
        facts.append(f"{gate.processes} {unit}")
    if gate.queries:
        facts.append(f"{gate.queries:,} queries")
    if gate.paired and not gate.in_turns:
        facts.append("one process after the other")
    if gate.machine:
        facts.append(gate.machine)
    if facts:
        how += f" ({', '.join(facts)})"
    failing = gate.of(*FAILING)
    if failing and all(check.first for check in failing):
        how += ", and confirmed by a second, fresh measurement"
    return f"{how}."


def where(gate: Checked) -> list[str]:
    """Return, of each case that became slower or larger, the stages and the memory that moved."""
    noticed = gate.of(*FAILING, *UNSURE)
    cases = list(dict.fromkeys(check.case for check in noticed))
    sentences = []
    for case in cases:
        metrics = {check.metric for check in noticed if check.case == case}
        checks = {check.metric: check for check in gate.checks if check.case == case}
        parts = []
        if any(_kind(checks[metric]) == "time" for metric in metrics):
            parts.append(_stages_that_moved(checks))
        if metrics & {PEAK, QUERY_PEAK}:
            parts.append(_memory_that_moved(checks))
        text = " ".join(part for part in parts if part)
        if text:
            sentences.append(f"{quoted(case)}: {text}" if len(cases) > 1 else text)
    return sentences


def _stages_that_moved(checks: Mapping[str, Check]) -> str:
    """Return the stages that take more or less time; empty where no stage was compared.

    Args:
        checks: of one case, by metric.
    """
    whole = checks.get(END_TO_END)
    compared = [checks[of_stage(stage)] for stage in STAGES if of_stage(stage) in checks]
    compared = [check for check in compared if check.change is not None]
    if not compared:
        return ""
    clauses = []
    for check in compared:
        if _moved(check, whole):
            clauses.append(_movement(check))
    if clauses:
        return f"{'; '.join(clauses)}. No other stage clearly moves the time of a query."
    if whole is not None and whole.verdict in FAILING:
        return "No single stage shows the change: it is spread over several, or between them."
    return ""


def _moved(check: Check, whole: Check | None) -> bool:
    if check.low is None or check.high is None or check.low <= 1 <= check.high:
        return False
    if whole is None or not whole.before or check.before is None or check.change is None:
        return True
    least = MOVES_A_QUERY if whole.limit is None else min(MOVES_A_QUERY, whole.limit - 1)
    return abs(check.change - 1) * check.before >= least * whole.before


def _movement(check: Check) -> str:
    """Return how a stage changed: ```vision` takes 24.6 % more [+16.4, +33.3], about 13 ms``."""
    change = check.change or 1.0
    percent = _percent(change)
    direction = "less" if change < 1 else "more"
    stage = check.metric.removeprefix("time.")
    text = f"`{stage}` takes {percent.lstrip('+-')} % {direction}{_interval(check)}"
    if check.before is not None:
        milliseconds = formatting.milliseconds(abs(change - 1) * check.before / 1e6)
        text += f", about {milliseconds} ms a query"
    return text


def _memory_that_moved(checks: Mapping[str, Check]) -> str:
    """Return how much of a change of memory is weights; empty where the weights are unknown."""
    peak, weights = checks.get(PEAK), checks.get(WEIGHTS)
    if peak is None or weights is None or peak.change is None or weights.change is None:
        return ""
    of_weights = (weights.change - 1) * (weights.before or 0)
    rest = (peak.change - 1) * (peak.before or 0) - of_weights
    return f"Memory: weights {_mib(of_weights, '+')} MiB, the rest {_mib(rest, '+')} MiB."


def in_doubt(gate: Checked) -> list[str]:
    """Return why each check that decides nothing decides nothing, and what would decide it."""
    checks = [check for check in shown_first(gate) if check.verdict in UNSURE]
    return [f"{what}: {reason}." for what, reason in _by_reason(checks, gate)]


def not_compared(gate: Checked) -> list[str]:
    """Return what must not be compared, and why."""
    return [f"{what}: {reason}." for what, reason in _by_reason(gate.of("refused"), gate)]


def not_checked(gate: Checked) -> list[str]:
    """Return what was not checked, the metrics and cases of one reason together."""
    checks = gate.of("n/a", "not checked")
    lines = [f"{what} ({reason})" for what, reason in _by_reason(checks, gate)]
    if gate.new:
        lines.append(f"{cases_in_words(gate.new)} (not in the baseline)")
    return lines


def found_by_such_pairs(gate: Checked) -> list[str]:
    """Return the smallest change of each gated cost that is found, a line for each case."""
    by_case: dict[str, list[str]] = {}
    for check in gate.checks:
        if check.finds is not None:
            smallest = _percent(1 + check.finds, _decimals(check))
            part = f"{metric_name(check)} from {smallest} % on"
            by_case.setdefault(check.case, []).append(part)
    return [f"{quoted(case)}: {'; '.join(parts)}." for case, parts in by_case.items()]


def while_measuring(gate: Checked) -> list[str]:
    """Return what disturbed the measurement, without folders of the machine that measured."""
    return [without_folders(warning) for warning in gate.warnings]


def _by_reason(checks: Sequence[Check], gate: Checked) -> Iterator[tuple[str, str]]:
    """Yield the metrics and cases that have a reason in common, and the reason."""
    by_reason: dict[str, list[Check]] = {}
    for check in checks:
        reason = "; ".join(notes(check)) or check.verdict
        by_reason.setdefault(reason, []).append(check)
    all_cases = {check.case for check in gate.checks}
    for reason, alike in by_reason.items():
        metrics = list(dict.fromkeys(metric_name(check) for check in alike))
        what = formatting.listed(metrics)
        cases = [check.case for check in alike]
        if len(all_cases) > 1 and set(cases) != all_cases:
            what += f" of {cases_in_words(cases)}"
        yield what, reason


def shown_first(gate: Checked) -> list[Check]:
    """Return the checks that fail, then those that are in doubt.

    The peak without the build is left out where it says the same as the whole peak.
    """
    checks = gate.of(*FAILING) + gate.of(*UNSURE)
    return [check for check in checks if not _repeats_peak(check, checks)]


def _repeats_peak(check: Check, checks: Sequence[Check]) -> bool:
    if check.metric != QUERY_PEAK:
        return False
    repeated = check.model_copy(update={"metric": PEAK, "first": None})
    return any(
        other.case == check.case and other.model_copy(update={"first": None}) == repeated
        for other in checks
    )


def counts(gate: Checked) -> Iterator[str]:
    """Return how many checks have each outcome, but for the outcomes that none has."""
    numbers = {
        "failed": len(gate.of(*FAILING)),
        "in doubt": len(gate.of(*UNSURE)),
        "not comparable": len(gate.of("refused")),
        "within limits": len(gate.of("holds")),
        "shown only": len(gate.of("not gated")),
        "not checked": len(gate.of("n/a", "not checked")),
    }
    for what, number in numbers.items():
        if number:
            yield f"{number} {what}"
