"""Scores by the protocol of the data, beside those that the original's authors publish."""

from collections.abc import Sequence

from ...harness.protocols import ALL_QUERIES, PROTOCOLS
from ...harness.text import code, escape
from .. import formatting
from ..markdown import cell, markdown_table, messages
from ..run.schema import ProtocolColumn, ProtocolRow, ProtocolScores, Summary
from ..schema_base import HEADINGS

# The original's validation gives each model its answer, one query at a time (`train_ds.py` of
# dvlab-research/LISA at 3cb2d43).
ORIENTATION = (
    "They are of other weights than those measured here, and for orientation only. The authors' "
    "validation takes one query at a time, with forced answers."
)
NEAREST = (
    "No published row is of a release itself: version 1 was trained on ReasonSeg's train and val "
    "together, the models of the table on train at most."
)


def protocol_section(summary: Summary) -> str:
    """Return the protocol, the table of scores by it, and what its published rows are.

    Empty where no protocol is known, or no model has quality.
    """
    protocol = summary.protocol
    if protocol is None or not protocol.cases:
        return ""
    parts = [_description(protocol)]
    if protocol.departures:
        parts.append("The run departs from the protocol, so its scores are others:")
        parts.append(messages(protocol.departures))
    parts.append(_table(summary, protocol))
    if protocol.published:
        parts.append(f"Published rows: {protocol.published_in}. {ORIENTATION}")
    if protocol.nearest:
        pairs = [f"{code(case)} to {row}" for case, row in protocol.nearest.items()]
        parts.append(f"The nearest rows: {formatting.listed(pairs)}. {NEAREST}")
    return "\n\n".join(parts)


def _description(protocol: ProtocolScores) -> str:
    counts = dict(protocol.queries)
    total = f"{counts.pop(ALL_QUERIES)} queries"
    if counts:
        total += f" ({', '.join(f'{queries} {group}' for group, queries in counts.items())})"
    sentences = [
        f"Protocol {code(protocol.name)}",
        escape(PROTOCOLS[protocol.name].summary),
        escape(f"Split {protocol.split}: {total}"),
    ]
    return f"{'. '.join(sentences)}."


def _table(summary: Summary, protocol: ProtocolScores) -> str:
    """Return a row for each model of the run, and below them for each published one."""
    columns = protocol.columns
    headings = [column.heading for column in columns]
    boundary_ious = {case.name: case.quality.boundary_IoU for case in summary.cases}
    has_boundaries = any(score is not None for score in boundary_ious.values())
    if has_boundaries:
        headings.append(HEADINGS["boundary_IoU"])
    rows = []
    for row in protocol.cases:
        cells = [row.name, *_cells(row, columns)]
        if has_boundaries:
            cells.append(formatting.score(boundary_ious[row.name]))
        rows.append(cells)
    for row in protocol.published:
        cells = [f"{row.name}, published", *_cells(row, columns)]
        if has_boundaries:
            cells.append(formatting.NOT_AVAILABLE)
        rows.append(cells)
    return markdown_table(["", "batch", "answer", *headings], rows)


def _cells(row: ProtocolRow, columns: Sequence[ProtocolColumn]) -> list[str]:
    scores = [formatting.score(column.score(row)) for column in columns]
    return [cell(row.batch), cell(row.answer), *scores]
