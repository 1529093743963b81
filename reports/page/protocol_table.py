"""Scores by the protocol of the data, beside those that the original's authors publish."""

from ...harness.protocols import ALL_QUERIES, PROTOCOLS
from ...harness.text import code, escape
from ..markdown import markdown_table, messages
from ..run.protocol import protocol_table, published_note
from ..run.schema import ProtocolScores, Summary


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
    header, rows = protocol_table(summary, protocol)
    parts.append(markdown_table(header, rows))
    parts.append(escape(published_note(protocol)))
    return "\n\n".join(part for part in parts if part)


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
