"""Probes: what the regions of a query cost.

Adapters and `measure.py` open regions as context managers.

Regions may nest and may be entered many times. For each region a query keeps how often it was
entered, the time inside it (inclusive), and the time inside it but inside none of its children
(exclusive). All exclusive times and the unattributed rest add up to the query's end-to-end time, so
no nanosecond is counted twice or lost.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock, HostClock

_NO_REGION = nullcontext()  # one for all: it has no state


class NullProbe:
    """A probe that measures nothing: for the quality pass, and for adapters outside the harness."""

    def __init__(self) -> None:
        self.clock: Clock = HostClock()

    # The signature is the contract's, also where the name is not needed.
    def region(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002
        return _NO_REGION


@dataclass
class RegionTotals:
    """The times of one region, added up over a query."""

    calls: int = 0
    exclusive_ns: int = 0
    inclusive_ns: int = 0


@dataclass
class QueryTimes:
    """The times of one query, or of a batch of queries that were evaluated at once.

    Attributes:
        latency_ns: end-to-end time by the probe's clock.
        host_ns: the same by the host's clock, the wait for the device included.
        regions: times by region. Their exclusive times and `unattributed_ns` add up to
            `latency_ns`.
    """

    latency_ns: int = 0
    host_ns: int = 0
    regions: dict[str, RegionTotals] = field(default_factory=dict)

    @property
    def unattributed_ns(self) -> int:
        """The time of the query that is in no region."""
        return self.latency_ns - sum(region.exclusive_ns for region in self.regions.values())

    def stage_ns(self, stage: str) -> int:
        """Return the time of a stage: the exclusive times of its regions, such as `vision.clip`."""
        total_ns = 0
        for name, region in self.regions.items():
            if name.partition(".")[0] == stage:
                total_ns += region.exclusive_ns
        return total_ns

    def share(self, queries: int) -> "QueryTimes":
        """Return the times of one query of a batch: the batch's times, divided by its queries.

        Times are whole nanoseconds and are rounded down, so that the shares of the regions never
        exceed that of the whole. How often a region was entered is not divided: the batch entered
        it once for all of its queries.

        Args:
            queries: how many queries the batch has.
        """
        regions = {}
        for name, region in self.regions.items():
            regions[name] = RegionTotals(
                calls=region.calls,
                exclusive_ns=region.exclusive_ns // queries,
                inclusive_ns=region.inclusive_ns // queries,
            )
        return QueryTimes(self.latency_ns // queries, self.host_ns // queries, regions)

    def as_record(self) -> dict[str, Any]:
        """Return the times as a record holds them."""
        regions = {name: dict(vars(region)) for name, region in self.regions.items()}
        return {
            "latency_ns": self.latency_ns,
            "host_ns": self.host_ns,
            "regions": regions,
            "unattributed_ns": self.unattributed_ns,
        }


class _Span:
    """One entry into a region.

    It is the context manager itself, with slots, because every region of every query makes one: a
    generator-based context manager costs more.
    """

    __slots__ = ("end", "name", "parent", "probe", "start")

    def __init__(self, probe: "TimingProbe", name: str) -> None:
        self.probe = probe
        self.name = name

    def __enter__(self) -> "_Span":
        probe = self.probe
        self.parent = probe.innermost
        probe.innermost = self
        probe.spans.append(self)
        self.start = probe.clock.mark()  # last, so that the bookkeeping is outside the region
        return self

    def __exit__(self, *exc: object) -> None:
        self.end = self.probe.clock.mark()  # first, for the same reason
        self.probe.innermost = self.parent


class TimingProbe:
    """A probe that times regions by one clock.

    Within a query it only takes marks. Spans are computed after the query has ended and the device
    has passed every mark.

    Attributes:
        clock: where marks are taken.
        spans: entries into regions since the query began, in the order in which they were entered.
        innermost: the region that is open now and has no open region inside it; None outside of
            all.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spans: list[_Span] = []
        self.innermost: _Span | None = None

    def region(self, name: str) -> AbstractContextManager[object]:
        return _Span(self, name)

    @contextmanager
    def query(self) -> Iterator[QueryTimes]:
        """Time everything inside as one query.

        Yields:
            The times of the query. They are filled in when the query has ended, and stay empty if
            it fails.
        """
        self.spans = []
        self.innermost = None
        times = QueryTimes()
        host_start_ns = time.perf_counter_ns()
        start = self.clock.mark()
        yield times
        end = self.clock.mark()
        self.clock.synchronize()  # before any span is read, and before the host's time ends
        times.host_ns = time.perf_counter_ns() - host_start_ns
        times.latency_ns = self.clock.span_ns(start, end)
        self._add_spans(times)

    def _add_spans(self, times: QueryTimes) -> None:
        for span in self.spans:
            inclusive_ns = self.clock.span_ns(span.start, span.end)
            region = times.regions.setdefault(span.name, RegionTotals())
            region.calls += 1
            region.exclusive_ns += inclusive_ns
            if not _is_inside_same_region(span):
                region.inclusive_ns += inclusive_ns
            # A parent was entered before its children, so its totals exist already.
            if span.parent is not None:
                times.regions[span.parent.name].exclusive_ns -= inclusive_ns


def _is_inside_same_region(span: _Span) -> bool:
    """Return whether an enclosing span is of the same region.

    Its inclusive time holds this one's already.
    """
    outer = span.parent
    while outer is not None:
        if outer.name == span.name:
            return True
        outer = outer.parent
    return False
