"""A gate for the machinery of CI: GitHub's annotations, and JUnit's XML."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from ...harness.text import as_lines
from .checks import Check, Verdict
from .outcome import FAILING, UNSURE, Checked
from .words import allowed, difference, notes, value


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
    result = difference(check) or value(check, check.after)
    if result:
        parts.append(result)
    if check.limit is not None:
        parts.append(f"allowed {allowed(check)}")
    return ", ".join(parts + notes(check))


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
