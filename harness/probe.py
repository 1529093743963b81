"""The probe: what regions of a query cost, by nesting context managers that adapters and the loop open.

Regions may nest and may be entered many times. The ledger keeps, per name, how often it was entered, the time inside it
(inclusive) and the time inside it but in none of its children (exclusive). Exclusive times and the unattributed rest
add up to the query's end-to-end time, so no nanosecond is counted twice or lost.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock, HostClock

_NOTHING = nullcontext()


class NullProbe:
    """Measures nothing: for warm-up, for quality, and for whoever uses an adapter outside the harness."""

    def __init__(self) -> None:
        self.clock: Clock = HostClock()

    def region(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002  (the contract's signature)
        return _NOTHING


@dataclass
class Entry:
    """One region's line in the ledger."""

    calls: int = 0
    exclusive_ns: int = 0
    inclusive_ns: int = 0


@dataclass
class Ledger:
    """What one query cost. `regions` and `unattributed_ns` add up to `latency_ns`."""

    latency_ns: int = 0
    host_ns: int = 0
    regions: dict[str, Entry] = field(default_factory=dict)

    @property
    def unattributed_ns(self) -> int:
        return self.latency_ns - sum(entry.exclusive_ns for entry in self.regions.values())

    def as_record(self) -> dict[str, Any]:
        regions = {name: dict(vars(entry)) for name, entry in self.regions.items()}
        return {
            "latency_ns": self.latency_ns,
            "host_ns": self.host_ns,
            "regions": regions,
            "unattributed_ns": self.unattributed_ns,
        }


class _Span:
    """One entry into a region: itself the context manager, to keep the probe cheap."""

    __slots__ = ("end", "name", "parent", "probe", "start")

    def __init__(self, probe: "TimingProbe", name: str) -> None:
        self.probe = probe
        self.name = name

    def __enter__(self) -> "_Span":
        probe = self.probe
        self.parent = probe.innermost
        probe.innermost = self
        probe.spans.append(self)
        self.start = probe.clock.mark()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end = self.probe.clock.mark()
        self.probe.innermost = self.parent


class TimingProbe:
    """Times regions by one clock.

    Args:
        clock: marks are taken from it; spans are computed after the query, once it has settled.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spans: list[_Span] = []
        self.innermost: _Span | None = None

    def region(self, name: str) -> AbstractContextManager[object]:
        return _Span(self, name)

    @contextmanager
    def query(self) -> Iterator[Ledger]:
        """Everything inside is one query; the ledger is filled in when it ends, not when it fails."""
        self.spans, self.innermost = [], None
        ledger = Ledger()
        host_start, start = time.perf_counter_ns(), self.clock.mark()
        yield ledger
        end = self.clock.mark()
        self.clock.settle()
        ledger.host_ns = time.perf_counter_ns() - host_start
        ledger.latency_ns = self.clock.span_ns(start, end)
        self._enter_spans(ledger)

    def _enter_spans(self, ledger: Ledger) -> None:
        for span in self.spans:
            inclusive_ns = self.clock.span_ns(span.start, span.end)
            entry = ledger.regions.setdefault(span.name, Entry())
            entry.calls += 1
            entry.exclusive_ns += inclusive_ns
            if not _inside_itself(span):
                entry.inclusive_ns += inclusive_ns
            if (
                span.parent is not None
            ):  # a parent's span precedes its children's, so its entry is there
                ledger.regions[span.parent.name].exclusive_ns -= inclusive_ns


def _inside_itself(span: _Span) -> bool:
    """Whether an enclosing span has the same name, whose inclusive time holds this one's already."""
    outer = span.parent
    while outer is not None:
        if outer.name == span.name:
            return True
        outer = outer.parent
    return False
