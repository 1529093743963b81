"""Tables of what causes a change of cost: each factor alone, their interaction, and all together.

Milliseconds, joules and GiB add up: the whole change is the sum of the parts in its row.
"""

from collections.abc import Sequence

from ...harness.errors import DataError
from ...harness.text import code
from ..markdown import Markup, Row, markdown_table
from ..run.schema import Attribution
from .cells import change, gib_change
from .records import PublishedRun

# How the columns call a factor. Another factor is called by its own name.
FACTORS = {
    "vision": "sharing",
    "quantization": "NF4",
    "execution": "execution",
    "kv_cache": "the KV cache",
}


def causes_table(run: PublishedRun, candidates: Sequence[str]) -> str:
    """Return what causes the changes of some cases, a row for each kind of cost.

    Args:
        run: the published run.
        candidates: cases that differ from one reference in the same factors.

    Raises:
        DataError: the candidates differ in other factors, or from another reference.
    """
    attributions = [run.attribution(candidate) for candidate in candidates]
    reference, factors = attributions[0].reference, list(attributions[0].levels)
    rows = []
    for attribution in attributions:
        if (attribution.reference, list(attribution.levels)) != (reference, factors):
            raise DataError(
                f"results/{run.folder}: {attribution.candidate} differs from "
                f"{attribution.reference} in {', '.join(attribution.levels)}, and {candidates[0]} "
                f"from {reference} in {', '.join(factors)}; give them tables of their own"
            )
        rows += _rows(attribution, factors)
    alone = [f"{FACTORS.get(factor, factor)} alone" for factor in factors]
    together = "both together" if len(factors) == 2 else "all together"
    first = Markup(f"compared with {code(reference)}")
    return markdown_table([first, *alone, "interaction", together], rows)


def _rows(attribution: Attribution, factors: Sequence[str]) -> list[Row]:
    """Return a row each for time, energy and memory; a cost that is not known has none."""
    label = code(attribution.candidate)
    rows = []
    time = attribution.time.end_to_end_ms
    if time is not None and time.whole.ms is not None:
        parts = [time.own[factor] for factor in factors]
        cells = [change(part.estimate) for part in (*parts, time.interaction, time.whole)]
        rows.append([Markup(f"{label}: time of a query, ms"), *cells])
    energy = attribution.energy
    if energy is not None and energy.whole.joules is not None:
        parts = [energy.own[factor] for factor in factors]
        cells = [change(part.estimate) for part in (*parts, energy.interaction, energy.whole)]
        rows.append([Markup(f"{label}: energy of a query, J"), *cells])
    memory = attribution.memory
    if memory.whole.bytes is not None:
        parts = [memory.own[factor] for factor in factors]
        cells = [gib_change(part.estimate) for part in (*parts, memory.interaction, memory.whole)]
        rows.append([Markup(f"{label}: memory of a query, GiB"), *cells])
    return rows
