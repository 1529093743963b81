"""Whole sessions on a virtual clock: fake models, and the real loop, probe and comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from samples import sample_of

from lisabench.benchmarks.run import schedule
from lisabench.harness.clock import VirtualClock
from lisabench.harness.measure import measure
from lisabench.harness.probe import TimingProbe
from lisabench.harness.records.costs import end_to_end_times
from lisabench.harness.records.query import QueryRecord
from lisabench.harness.statistics.verdicts import ratio_verdict
from lisabench.models.adapters.fake import FakeCase, build
from lisabench.reports.ratios import time_ratio
from lisabench.reports.schema_base import Ratio

THRESHOLD = 0.05
SAMPLES = [sample_of(np.eye(4, dtype=np.uint8), f"q{i}") for i in range(24)]
STAGES_MS = {
    "preprocess_ms": 1.0,
    "vision_ms": 4.0,
    "llm_ms": 3.0,
    "decoder_ms": 1.0,
    "postprocess_ms": 1.0,
}
QUERY_MS = sum(STAGES_MS.values())


class DriftingClock(VirtualClock):
    """A machine that slows down: work takes 1 + drift times as long after `session_ns` of it."""

    def __init__(self, drift: float, session_ns: float) -> None:
        super().__init__()
        self.drift_per_ns, self.done_ns = drift / session_ns, 0

    def wait(self, duration_ns: int) -> None:
        super().wait(round(duration_ns * (1 + self.drift_per_ns * self.done_ns)))
        self.done_ns += duration_ns


@dataclass(frozen=True)
class Setup:
    """What is simulated: the candidate's true ratio, and how machine and processes behave."""

    slowdown: float = 0.0
    drift: float = 0.0
    processes: int = 5
    process_noise: float = 0.01
    query_noise: float = 0.02
    block: int = 4
    turns: Callable[[Sequence[str], int, int], Sequence[str]] = schedule.turns


@cache
def ratios(setup: Setup, sessions: int) -> list[Ratio]:
    """Return the candidate's time over the reference's in so many sessions.

    Setups that differ in drift share their noise.
    """
    return [_ratio(setup, seed) for seed in range(sessions)]


def verdicts(setup: Setup, sessions: int) -> list[str]:
    return [ratio_verdict(ratio, THRESHOLD) for ratio in ratios(setup, sessions)]


def excluding_one(setup: Setup, sessions: int) -> int:
    return sum(not ratio.low <= 1 <= ratio.high for ratio in ratios(setup, sessions))


def _ratio(setup: Setup, seed: int) -> Ratio:
    clock = DriftingClock(setup.drift, 2 * setup.processes * len(SAMPLES) * QUERY_MS * 1e6)
    records: dict[str, list[QueryRecord]] = {"a": [], "b": []}
    for process in range(setup.processes):
        _round(setup, seed, process, TimingProbe(clock), records)
    return time_ratio(end_to_end_times(records["a"]), end_to_end_times(records["b"]))


def _round(
    setup: Setup, seed: int, process: int, probe: TimingProbe, records: dict[str, list[QueryRecord]]
) -> None:
    adapters = {
        case: build(_case(setup, case, 2 * seed + i, process), probe) for i, case in enumerate("ab")
    }
    for block, positions in enumerate(schedule.blocks(len(SAMPLES), setup.block)):
        for case in setup.turns("ab", process, block):
            asked = (SAMPLES[position] for position in positions)
            records[case] += [
                QueryRecord.from_json(
                    {"case": case, "process": process} | measure(adapters[case], sample, probe)
                )
                for sample in asked
            ]


def _case(setup: Setup, case: str, seed: int, process: int) -> FakeCase:
    longer = 1 + setup.slowdown if case == "b" else 1.0
    stages = {name: duration * longer for name, duration in STAGES_MS.items()}
    noise = {"noise": setup.query_noise, "process_noise": setup.process_noise}
    return FakeCase(**stages, **noise, clock="virtual", seed=seed, process=process)
