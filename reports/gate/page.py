"""How a gate is shown: the same rows as Markdown, as annotations of GitHub, and as JUnit's XML."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from ...harness.statistics.verdicts import quality_word
from .. import formatting
from ..markdown import aligned, escape
from .checks import Check, Verdict
from .outcome import FAILING, UNSURE, Checked

MARK = "<!-- lisabench gate -->"  # by which a comment is found again, to be replaced
MIB = ("MiB", 2**20)
HEADINGS = {
    "holds": "the gate holds",
    "regression": "the gate fails",
    "inconclusive": "the gate is inconclusive",
    "nothing comparable": "the gate cannot be held",
    "broken": "the gate cannot be held",
}
HELD = (
    "A figure holds where the whole interval keeps the limit, and has regressed where all of it lies beyond. A "
    "regression counts once a second, fresh measurement has confirmed it."
)
UNPAIRED = (
    "In brackets: the 95 % interval, for time and peaks Welch's over processes (for time with what two sessions differ "
    f"by), for scores a bootstrap over images. {HELD}"
)
PAIRED = (
    "In brackets: the 95 % interval, for time over pairs of processes that {}, for peaks Welch's over processes, for "
    f"scores a bootstrap over images. {HELD}"
)
IN_TURNS = {True: "took turns block by block", False: "ran one after the other"}
CONFOUNDED = "Beside the code, this differs between the two versions; the figures are of it, too."


def page(found: Checked) -> str:
    """Markdown, whose table also lines up in a terminal."""
    return "\n\n".join(_sections(found)) + "\n"


def comment(found: Checked) -> str:
    """The body of a comment on a pull request."""
    return f"{MARK}\n{page(found)}"


def _sections(found: Checked) -> Iterator[str]:
    yield f"## lisabench: {HEADINGS[found.outcome]}"
    yield f"{escape(found.run)} against {escape(found.baseline)}: {_summary(found)}."
    if found.checks:
        header = ["case", "figure", "baseline", "now", "change [95 %]", "limit", "verdict"]
        yield aligned(header, [_row(check) for check in found.checks], figures=False)
        yield PAIRED.format(IN_TURNS[found.in_turns]) if found.paired else UNPAIRED
    if found.new:
        yield f"Not in the baseline, and so not gated: {escape(formatting.listed(found.new))}."
    if found.changed:
        if found.paired:
            yield CONFOUNDED
        rows = [[name, *map(_value, sides)] for name, sides in found.changed.items()]
        yield aligned(["differs", "baseline", "now"], rows, figures=False)


def _summary(found: Checked) -> str:
    if found.problem:
        return escape(found.problem)
    counts = [
        (verdict, len(found.of(verdict))) for verdict in (*FAILING, *UNSURE, "refused", "holds")
    ]
    return (
        ", ".join(f"{verdict} {count}" for verdict, count in counts if count) or "nothing is gated"
    )


def _row(check: Check) -> list[str]:
    verdict = f"**{check.verdict}**" if check.verdict in FAILING else check.verdict
    notes = list(_notes(check))
    return [
        check.case,
        check.metric,
        _figure(check, check.before),
        _figure(check, check.after),
        _change(check),
        _limit(check),
        f"{verdict} ({'; '.join(notes)})" if notes else verdict,
    ]


def _notes(check: Check) -> Iterator[str]:
    if check.why:
        yield check.why
    if check.verdict == "inconclusive" and check.detectable:
        seen = (
            f"{check.detectable:.2f} points"
            if check.unit == "score"
            else f"{100 * check.detectable:.1f} %"
        )
        yield f"the smallest change to be seen is {seen}"
    if check.first is not None:
        said = (
            _change(check.first) or _figure(check.first, check.first.after) or check.first.verdict
        )
        yield f"measured again, at first {said}"


def _figure(check: Check, value: float | None) -> str:
    if value is None:
        return ""
    shown = {
        "ns": lambda: f"{formatting.milliseconds(value / 1e6)} ms",
        "bytes": lambda: f"{value / MIB[1]:,.1f} {MIB[0]}",
        "mJ": lambda: f"{formatting.joules(value)} J",
        "score": lambda: formatting.score(value),
        "IoU": lambda: f"IoU {value:.3f}",
        "share": lambda: f"{100 * value:.1f} %",
    }
    return shown[check.unit]()


def _change(check: Check) -> str:
    if check.change is None:
        return ""
    points = check.unit == "score"
    ends = (
        [check.change]
        if check.low is None or check.high is None
        else [check.change, check.low, check.high]
    )
    first, *others = [f"{end:+.2f}" if points else f"{end:.3f}" for end in ends]
    change = f"{first} points" if points else f"{first}x"
    change = f"{change} [{', '.join(others)}]" if others else change
    return f"{change}: {quality_word(check)}" if points else change


def _limit(check: Check) -> str:
    if check.limit is None:
        return ""
    if check.unit == "score":
        return f"{check.limit:+.2f} points"
    return (
        f"{check.limit:.3f}x"
        if check.unit in ("ns", "bytes", "mJ")
        else _figure(check, check.limit)
    )


def _value(value: object) -> str:
    return "-" if value is None else str(value)


def annotations(found: Checked) -> list[str]:
    """Workflow commands of GitHub: an error for what fails the gate, a warning for what leaves it in doubt."""
    if found.problem:
        return [_annotation("error", "lisabench gate", found.problem)]
    kinds = [("error", found.of(*FAILING)), ("warning", found.of(*UNSURE, "refused"))]
    return [
        _annotation(kind, f"{c.case}: {c.metric}", _sentence(c))
        for kind, checks in kinds
        for c in checks
    ]


def _annotation(kind: str, title: str, message: str) -> str:
    """Escaped as the runner takes it back: https://github.com/actions/toolkit, core/src/command.ts."""
    title, message = (
        text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        for text in (title, message)
    )
    return f"::{kind} title={title.replace(':', '%3A').replace(',', '%2C')}::{message}"


def _sentence(check: Check) -> str:
    parts = [check.verdict, _change(check) or _figure(check, check.after)]
    limit = [f"limit {_limit(check)}"] if check.limit is not None else []
    return ", ".join(part for part in [*parts, *limit, *_notes(check)] if part)


def junit(found: Checked) -> str:
    """JUnit's XML: a suite a case, a test a figure; what is not gated, or in doubt, is skipped."""
    suites = ElementTree.Element("testsuites", name="lisabench gate")
    for case in dict.fromkeys(check.case for check in found.checks):
        _suite(suites, case, [check for check in found.checks if check.case == case])
    if found.problem:
        suite = ElementTree.SubElement(
            suites, "testsuite", name="gate", tests="1", failures="0", errors="1", skipped="0"
        )
        test = ElementTree.SubElement(suite, "testcase", classname="gate", name="baseline")
        ElementTree.SubElement(test, "error", message=_plain(found.problem))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(suites: ElementTree.Element, case: str, checks: list[Check]) -> None:
    tags = [_tag(check.verdict) for check in checks]
    counts = {
        "failures": tags.count("failure"),
        "errors": tags.count("error"),
        "skipped": tags.count("skipped"),
    }
    known = {"name": _plain(case), "tests": str(len(checks))} | {
        name: str(count) for name, count in counts.items()
    }
    suite = ElementTree.SubElement(suites, "testsuite", known)
    for check, tag in zip(checks, tags, strict=True):
        test = ElementTree.SubElement(suite, "testcase", classname=_plain(case), name=check.metric)
        if tag:
            ElementTree.SubElement(test, tag, message=_plain(_sentence(check)))


def _tag(verdict: Verdict) -> str | None:
    if verdict in FAILING:
        return "failure"
    return {"holds": None, "refused": "error"}.get(verdict, "skipped")


def _plain(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
