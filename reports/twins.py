"""Two measurements of one model (an A/A twin), and the least width of an interval beside them.

A suite may hold its reference twice, under two names, such as ``dual`` and ``dual-again``. Their
true ratio is 1, so what they differ by is the noise of this machine on this day. With three to five
pairs of processes the t interval of another case may come out narrower than that by luck: its few
pairs happened to agree. Such an interval is widened here, in the one place that tables, figures,
claims and verdicts take their ratios from.

The least half-width is taken on the scale of logarithms, since the noise of times and energies
multiplies. It is the larger of two:

- the half-width of the twin's own interval for the same quantity,
- the distance of the twin's ratio from 1. The twin's interval, thus widened, always holds the true
  1. Within its half-width the offset is the noise that the interval allows for already, and is not
  added to it.

Differences in milliseconds keep the intervals of their own pairs: a case that takes half as long
has half the noise in milliseconds, so that the twin's would be too wide for it. The twin's own
difference is printed beside them instead.
"""

import math
from collections.abc import Mapping, Sequence

from .schema_base import Milliseconds, Ratio, Twin

NO_TWINS: Sequence[Twin] = ()


def twin_from(
    reference: str,
    candidate: str,
    ratios: Mapping[str, Ratio],
    milliseconds: Mapping[str, Milliseconds],
) -> Twin:
    """Return the twin, with the least half-width of each quantity whose ratio has an interval.

    Args:
        reference, candidate: names of two cases with the same settings.
        ratios: of the two, by quantity.
        milliseconds: by how much the two differ, by quantity.
    """
    half_widths = {}
    for quantity, ratio in ratios.items():
        half_width = _half_width(ratio)
        if ratio.ratio is not None and half_width is not None:
            offset = abs(math.log(ratio.ratio))
            half_widths[quantity] = max(half_width, offset)
    return Twin(
        reference=reference,
        candidate=candidate,
        half_widths=half_widths,
        milliseconds=dict(milliseconds),
    )


def no_narrower(ratio: Ratio, quantity: str, twins: Sequence[Twin]) -> Ratio:
    """Return the ratio with an interval no narrower than those of the twins.

    A ratio without an interval stays without one.

    Args:
        ratio: of two cases that took turns with the twins.
        quantity: what it is of, such as ``time.end_to_end`` or ``time.vision``.
        twins: of the same group; none leaves the ratio as it is.
    """
    own_half_width = _half_width(ratio)
    least_half_width = max((twin.half_widths.get(quantity, 0.0) for twin in twins), default=0.0)
    if ratio.ratio is None or own_half_width is None or own_half_width >= least_half_width:
        return ratio
    factor = math.exp(least_half_width)
    ends = {
        "low": ratio.ratio / factor,
        "high": ratio.ratio * factor,
        "smallest_detectable": factor,
    }
    return ratio.model_copy(update=ends)


def _half_width(ratio: Ratio) -> float | None:
    """Return half the width of an interval in natural logarithms; None without an interval."""
    if ratio.low is None or ratio.high is None:
        return None
    return math.log(ratio.high / ratio.low) / 2
