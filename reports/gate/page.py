"""How a gate is shown in Markdown: as a comment on a pull request, and on the page of a workflow.

What fails or is in doubt comes first, with its cause. All other checks are folded.
"""

from collections.abc import Iterator, Sequence

from ...harness.text import code, message
from ..markdown import Markup, Row, bold, cell, markdown_table
from . import words
from .checks import Check
from .outcome import FAILING, UNSURE, Checked, Outcome

MARK = "<!-- lisabench gate -->"  # the workflow finds its earlier comment by this, to replace it
SIGNS: dict[Outcome, str] = {
    "holds": "✅",
    "regression": "❌",
    "inconclusive": "🟡",
    "nothing comparable": "⛔",
    "broken": "⛔",
}
LONGEST_COMMENT = 60_000  # characters; GitHub takes 65,536
MOST_DIFFERENCES = 4  # settings and versions that differ and are not folded
MOST_LINES = 6  # reasons that are not folded
RULE = (
    "A metric holds if its whole interval keeps the limit, and has regressed if its whole interval "
    "is beyond the limit. A regression counts only after a second, fresh measurement has confirmed "
    "it. A difference is not the quotient of the two columns before it: it compares process with "
    "process."
)
UNPAIRED = (
    "In brackets: the 95 % interval. For times and peaks it is Welch's over processes (for times, "
    f"with the difference that two sessions may have), for scores a bootstrap over images. {RULE}"
)
PAIRED = (
    "In brackets: the 95 % interval. For times it is over pairs of processes that {order}, for "
    f"peaks Welch's over processes, for scores a bootstrap over images. {RULE}"
)
FOUND = "At the noise of these pairs, four of five gates find"
CONFOUNDED = (
    "Besides the code, this differs between the two versions and is part of every difference above:"
)
ENVIRONMENTS = (
    "The code is the same. This differs between the two environments, and the differences above "
    "are of all of it together:"
)
SAME_ENVIRONMENTS = "The code is the same, and so are the versions of all libraries that we record."
DIFFERS = "Besides the code, this differs from the baseline:"
INTENDED = "Intended? Commit a new baseline: `lisabench baseline RUN --out FILE`"


def comment(gate: Checked, records: str | None = None) -> str:
    """Return the body of a comment on a pull request.

    Args:
        gate: what is shown.
        records: address of the page with the records; None: there is no such page.
    """
    text = f"{MARK}\n{page(gate, records)}"
    if len(text) > LONGEST_COMMENT:
        text = f"{MARK}\n{page(gate, records, folded=False)}"
    return text


def page(gate: Checked, records: str | None = None, folded: bool = True) -> str:
    """Return the result of a gate in Markdown.

    Args:
        gate: what is shown.
        records: address of the page with the records.
        folded: whether it has the folded part, with the table of all checks.
    """
    sections = [
        f"### {SIGNS[gate.outcome]} lisabench: {message(words.headline(gate))}",
        *_above_the_fold(gate),
    ]
    if folded and gate.checks:
        sections.append(_folded(gate))
    elif gate.checks:
        sections.append(f"There is no room for a table of all {len(gate.checks):,} checks.")
    sections.append(_last_line(gate, records))
    return "\n\n".join(section for section in sections if section) + "\n"


def _above_the_fold(gate: Checked) -> Iterator[str]:
    if gate.problem:
        if words.is_shortened(gate):
            yield message(words.without_folders(gate.problem))
        return
    yield message(words.measured(gate))
    checks = words.shown_first(gate)
    if checks:
        header = ["", "case", "what", "base", "this change", "difference [95 %]", "allowed"]
        rows = [_row(check) for check in checks]
        yield markdown_table(header, rows, numbers=False, aligned=True)
    yield _labelled("Where", words.where(gate))
    yield _labelled("In doubt", words.in_doubt(gate))
    yield _labelled("Not compared", words.not_compared(gate))
    yield _labelled("Not checked", ["; ".join(words.not_checked(gate))])
    yield _labelled("While measuring", words.while_measuring(gate))
    if gate.same_code and not gate.changed:
        yield SAME_ENVIRONMENTS
    if 0 < len(gate.changed) <= MOST_DIFFERENCES or gate.same_code:
        yield _differences(gate)


def _labelled(label: str, lines: Sequence[str]) -> str:
    """Return sentences with a label: one beside it, several as a list; empty without any."""
    texts = [message(line) for line in lines if line]
    if not texts:
        return ""
    if len(texts) == 1:
        return f"**{label}:** {texts[0].removesuffix('.')}."
    items = [f"- {text}" for text in texts[:MOST_LINES]]
    if len(texts) > MOST_LINES:
        items.append(f"- and {len(texts) - MOST_LINES} more, see below")
    return "\n".join([f"**{label}:**", "", *items])


def _row(check: Check) -> Row:
    before, after = words.value(check, check.before), words.value(check, check.after)
    # The number is bold; the brackets after it, and the verdict on a score, are not.
    number, space, rest = _split(words.difference(check))
    difference = Markup(f"{bold(number)}{space}{rest}" if number else "")
    if not number and check.why:
        difference = Markup(message(words.without_folders(check.why)))
    sign = "🔴" if check.verdict in FAILING else "🟡"
    name = words.metric_name(check)
    return [sign, Markup(code(check.case)), name, before, after, difference, words.allowed(check)]


def _split(difference: str) -> tuple[str, str, str]:
    """Return a difference as its number, a space, and the brackets that follow."""
    brackets = [place for place in (difference.find(" ("), difference.find(" [")) if place >= 0]
    if not brackets:
        return difference, "", ""
    end = min(brackets)
    return difference[:end], " ", difference[end + 1 :]


def _folded(gate: Checked) -> str:
    """Return the table of all checks with numbers, and how to read it, folded."""
    header = ["case", "what", "base", "this change", "difference [95 %]", "allowed", "verdict"]
    rows = []
    for check in gate.checks:
        if check.verdict not in ("n/a", "not checked"):
            rows.append(_row_of_all(check))
    counted = ", ".join(words.counts(gate))
    title = f"All checks: {counted}" if counted else "All checks"
    parts = ["<details>", f"<summary>{title}</summary>"]
    if rows:
        parts.append(markdown_table(header, rows, numbers=False, aligned=True))
    order = "took turns block by block" if gate.in_turns else "ran one after the other"
    parts.append(PAIRED.format(order=order) if gate.paired else UNPAIRED)
    parts.append(_labelled(FOUND, words.found_by_such_pairs(gate)))
    in_doubt = words.in_doubt(gate)
    if len(in_doubt) > MOST_LINES:
        parts.append("\n".join(f"- {message(line)}" for line in in_doubt))
    if len(gate.changed) > MOST_DIFFERENCES and not gate.same_code:
        parts.append(_differences(gate))
    return "\n\n".join([*(part for part in parts if part), "</details>"])


def _row_of_all(check: Check) -> Row:
    names = {"holds": "ok", "not gated": "shown only"}
    verdict: str = Markup(names.get(check.verdict, check.verdict))
    if check.verdict in (*FAILING, *UNSURE, "refused"):
        verdict = bold(check.verdict)
    notes = words.notes(check)
    # Why something is in doubt stands above the table, or in a list below it.
    if notes and check.verdict not in (*UNSURE, "refused"):
        verdict = Markup(f"{verdict} ({message('; '.join(notes))})")
    return [
        check.case,
        words.metric_name(check),
        words.value(check, check.before),
        words.value(check, check.after),
        words.difference(check),
        words.allowed(check),
        verdict,
    ]


def _differences(gate: Checked) -> str:
    """Return the table of settings, versions and facts of the machine that differ; or nothing."""
    if not gate.changed:
        return ""
    rows = []
    for name, (before, after) in gate.changed.items():
        texts = [words.without_folders(cell(value)) for value in (before, after)]
        rows.append([name, *texts])
    header = ["differs", "base", "this change"]
    table = markdown_table(header, rows, numbers=False, aligned=True)
    return f"{differences_introduction(gate)}\n\n{table}"


def differences_introduction(gate: Checked) -> str:
    """Return the sentence before the table of what differs."""
    if gate.same_code:
        return ENVIRONMENTS
    return CONFOUNDED if gate.paired else DIFFERS


def _last_line(gate: Checked, records: str | None) -> str:
    """Return the command that does the same, and where the records are."""
    parts = []
    if gate.command:
        parts.append(f"Reproduce: {code(words.without_folders(gate.command))}")
    if gate.of("regression") and not gate.paired:
        parts.append(INTENDED)
    if records:
        parts.append(f"[records of this run]({records})")
    return " · ".join(parts)
