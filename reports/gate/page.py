"""How a gate is shown: the same checks in Markdown, as GitHub's annotations, and as JUnit's XML."""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from ...harness.statistics.verdicts import quality_word
from ...harness.text import as_lines, escape, message
from .. import formatting
from ..markdown import Markup, Row, bold, cell, markdown_table
from .checks import Check, Verdict
from .outcome import FAILING, UNSURE, Checked

MARK = "<!-- lisabench gate -->"  # the workflow finds its earlier comment by this, to replace it
HEADINGS = {
    "holds": "the gate holds",
    "regression": "the gate fails",
    "inconclusive": "the gate is inconclusive",
    "nothing comparable": "the gate cannot be held",
    "broken": "the gate cannot be held",
}
RULE = (
    "A metric holds if its whole interval keeps the limit, and has regressed if its whole interval "
    "is beyond the limit. A regression counts only after a second, fresh measurement has confirmed "
    "it."
)
UNPAIRED = (
    "In brackets: the 95 % interval. For times and peaks it is Welch's over processes (for times, "
    f"with the difference that two sessions may have), for scores a bootstrap over images. {RULE}"
)
PAIRED = (
    "In brackets: the 95 % interval. For times it is over pairs of processes that {order}, for "
    f"peaks Welch's over processes, for scores a bootstrap over images. {RULE}"
)
CONFOUNDED = (
    "Besides the code, this differs between the two versions and is part of every change above:"
)
ENVIRONMENTS = (
    "The code is the same. This differs between the two environments, and the changes above are of "
    "all of it together:"
)
SAME_ENVIRONMENTS = "The code is the same, and so are the versions of all libraries that we record."


def page(gate: Checked) -> str:
    """Return the result of a gate in Markdown; its tables also line up in a terminal."""
    return "\n\n".join(_sections(gate)) + "\n"


def comment(gate: Checked) -> str:
    """Return the body of a comment on a pull request."""
    return f"{MARK}\n{page(gate)}"


def _sections(gate: Checked) -> Iterator[str]:
    yield f"## lisabench: {HEADINGS[gate.outcome]}"
    yield f"{escape(gate.run)} against {escape(gate.baseline)}: {_result(gate)}."
    if gate.checks:
        header = ["case", "metric", "baseline", "now", "change [95 %]", "limit", "verdict"]
        rows = [_row(check) for check in gate.checks]
        yield markdown_table(header, rows, numbers=False, aligned=True)
        if gate.paired:
            order = "took turns block by block" if gate.in_turns else "ran one after the other"
            yield PAIRED.format(order=order)
        else:
            yield UNPAIRED
    if gate.new:
        yield f"Not in the baseline, and so not gated: {escape(formatting.listed(gate.new))}."
    if gate.same_code and not gate.problem and not gate.changed:
        yield SAME_ENVIRONMENTS
    if gate.changed:
        if gate.same_code:
            yield ENVIRONMENTS
        elif gate.paired:
            yield CONFOUNDED
        rows = []
        for name, (before, after) in gate.changed.items():
            rows.append([name, cell(before), cell(after)])
        yield markdown_table(["differs", "baseline", "now"], rows, numbers=False, aligned=True)


def _result(gate: Checked) -> str:
    """Return how many checks have each verdict, or why there are none."""
    if gate.problem:
        return message(gate.problem)
    counts = []
    for verdict in (*FAILING, *UNSURE, "refused", "holds"):
        count = len(gate.of(verdict))
        if count:
            counts.append(f"{verdict} {count}")
    return ", ".join(counts) or "nothing is gated"


def _row(check: Check) -> Row:
    verdict: str = check.verdict
    if check.verdict in FAILING:
        verdict = bold(verdict)
    notes = _notes(check)
    if notes:
        verdict = Markup(f"{verdict} ({message('; '.join(notes))})")
    before, after = _value(check, check.before), _value(check, check.after)
    return [check.case, check.metric, before, after, _change(check), _limit(check), verdict]


def _notes(check: Check) -> list[str]:
    """Return what a verdict needs besides its numbers."""
    notes = []
    if check.why:
        notes.append(check.why)
    if check.verdict == "inconclusive" and check.detectable:
        detectable = f"{100 * check.detectable:.1f} %"
        if check.unit == "score":
            detectable = f"{check.detectable:.2f} points"
        notes.append(f"the smallest detectable change is {detectable}")
    if check.first is not None:
        first = check.first
        result = _change(first) or _value(first, first.after) or first.verdict
        notes.append(f"measured again, at first {result}")
    return notes


def _value(check: Check, value: float | None) -> str:
    """Return a number of a check in the unit that people read it in; empty where it is unknown."""
    if value is None:
        return ""
    if check.unit == "ns":
        return f"{formatting.milliseconds(value / 1e6)} ms"
    if check.unit == "1/s":
        return f"{formatting.milliseconds(value)} queries/s"
    if check.unit == "bytes":
        # One decimal more than reports have: gates hold memory to within some MiB.
        return f"{value / formatting.MIB.size_bytes:,.1f} MiB"
    if check.unit == "mJ":
        return f"{formatting.joules(value)} J"
    if check.unit == "score":
        return formatting.score(value)
    if check.unit == "IoU":
        return f"IoU {value:.3f}"
    if check.unit == "share":
        return f"{100 * value:.1f} %"
    raise ValueError(f"a check of the unit {check.unit!r} has no numbers; it has {value}")


def _change(check: Check) -> str:
    """Return the change with its interval: a ratio, or for a score points with their verdict."""
    if check.change is None:
        return ""
    in_points = check.unit == "score"
    number_format = "+.2f" if in_points else ".3f"
    change = f"{check.change:{number_format}}{' points' if in_points else 'x'}"
    if check.low is not None and check.high is not None:
        change += f" [{check.low:{number_format}}, {check.high:{number_format}}]"
    if in_points:
        change += f": {quality_word(check)}"
    return change


def _limit(check: Check) -> str:
    """Return the limit of the change; shares and IoUs are limited themselves, not their change."""
    if check.limit is None:
        return ""
    if check.unit == "score":
        return f"{check.limit:+.2f} points"
    if check.unit in ("ns", "1/s", "bytes", "mJ"):
        return f"{check.limit:.3f}x"
    return _value(check, check.limit)


def annotations(gate: Checked) -> list[str]:
    """Return GitHub's workflow commands: errors for checks that fail, warnings for open ones."""
    if gate.problem:
        return [_annotation("error", "lisabench gate", gate.problem)]
    lines = []
    for check in gate.of(*FAILING):
        lines.append(_annotation("error", f"{check.case}: {check.metric}", _sentence(check)))
    for check in gate.of(*UNSURE, "refused"):
        lines.append(_annotation("warning", f"{check.case}: {check.metric}", _sentence(check)))
    return lines


def _annotation(kind: str, title: str, message: str) -> str:
    """Return one workflow command.

    The runner reads it line by line and splits it at colons and commas. Escaping as in
    https://github.com/actions/toolkit, packages/core/src/command.ts.
    """
    title = _escaped_data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_escaped_data(message)}"


def _escaped_data(text: str) -> str:
    # The percent sign comes first: later it would escape the escapes.
    return as_lines(text).replace("%", "%25").replace("\n", "%0A")


def _sentence(check: Check) -> str:
    """Return a check in one sentence, for places without a table."""
    parts = [check.verdict]
    result = _change(check) or _value(check, check.after)
    if result:
        parts.append(result)
    if check.limit is not None:
        parts.append(f"limit {_limit(check)}")
    return ", ".join(parts + _notes(check))


def junit(gate: Checked) -> str:
    """Return JUnit's XML: a suite for each case, a test for each metric.

    A check that is not gated, or that decides nothing, is a skipped test.
    """
    suites = ElementTree.Element("testsuites", name="lisabench gate")
    for case in dict.fromkeys(check.case for check in gate.checks):
        _add_suite(suites, case, [check for check in gate.checks if check.case == case])
    if gate.problem:
        counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
        suite = ElementTree.SubElement(suites, "testsuite", {"name": "gate"} | counts)
        test = ElementTree.SubElement(suite, "testcase", classname="gate", name="baseline")
        ElementTree.SubElement(test, "error", message=_xml_text(gate.problem))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(suites: ElementTree.Element, case: str, checks: Sequence[Check]) -> None:
    tags = [_junit_tag(check.verdict) for check in checks]
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=_xml_text(case),
        tests=str(len(checks)),
        failures=str(tags.count("failure")),
        errors=str(tags.count("error")),
        skipped=str(tags.count("skipped")),
    )
    for check, tag in zip(checks, tags, strict=True):
        name = check.metric
        test = ElementTree.SubElement(suite, "testcase", classname=_xml_text(case), name=name)
        if tag is not None:
            ElementTree.SubElement(test, tag, message=_xml_text(_sentence(check)))


def _junit_tag(verdict: Verdict) -> str | None:
    """Return the element that marks a test of this verdict; None for a test that passes."""
    if verdict in FAILING:
        return "failure"
    if verdict == "holds":
        return None
    if verdict == "refused":
        return "error"
    return "skipped"


def _xml_text(text: str) -> str:
    """Return a text with a question mark for each character that XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
