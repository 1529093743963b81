"""How a gate is shown on a terminal: what fails first, then a row for each other check."""

from ..document import Heading, Lines, Section, Table, show
from ..markdown import Row, cell
from . import words
from .checks import Check
from .outcome import FAILING, UNSURE, Checked
from .page import FOUND, SIGNS, differences_introduction

NAMES = {"holds": "ok", "not gated": "shown only"}


def show_gate(gate: Checked) -> None:
    """Print a gate as tables; for a pipe, use `page.page`."""
    show(gate_sections(gate))


def gate_sections(gate: Checked) -> list[Section]:
    """Return what a terminal shows of a gate: what the comment has, with nothing folded."""
    sections: list[Section] = [
        Heading(f"{SIGNS[gate.outcome]} lisabench: {words.headline(gate)}"),
    ]
    if gate.problem:
        return [*sections, gate.problem] if words.is_shortened(gate) else sections
    sections.append(words.measured(gate))
    order = [*gate.of(*FAILING), *gate.of(*UNSURE), *gate.of("refused", "holds", "not gated")]
    if order:
        header = ["case", "what", "base", "this change", "difference\n[95 %]", "allowed", "verdict"]
        rows = [_row(check) for check in order]
        places = {"kept_whole": (2, 3, 4, 5, 6), "left_out": (2, 3)}
        sections.append(Table(header, rows, numbers=False, **places))
    labelled = {
        "Where": words.where(gate),
        "In doubt": words.in_doubt(gate),
        "Not compared": words.not_compared(gate),
        "Not checked": words.not_checked(gate),
        "While measuring": words.while_measuring(gate),
        FOUND: words.found_by_such_pairs(gate),
    }
    for label, lines in labelled.items():
        sections.append(Lines([f"{label}: {line}" for line in lines]))
    if gate.changed:
        rows = []
        for name, (before, after) in gate.changed.items():
            rows.append([name, cell(before), cell(after)])
        sections.append(differences_introduction(gate))
        sections.append(Table(["differs", "base", "this change"], rows, numbers=False))
    if gate.command:
        sections.append(f"Reproduce: {gate.command}")
    return sections


def _row(check: Check) -> Row:
    # What is in brackets has a line of its own, so that the table is narrow.
    difference = words.difference(check).replace(" (", "\n(").replace(" [", "\n[")
    allowed = words.allowed(check).replace(" (", "\n(")
    return [
        check.case,
        words.metric_name(check),
        words.value(check, check.before),
        words.value(check, check.after),
        difference,
        allowed,
        NAMES.get(check.verdict, check.verdict),
    ]
