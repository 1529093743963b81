"""Gates with a known truth on a virtual clock: fake models through the real loop, reduction, judgement and second look.

Each gate has three sessions: that of the baseline, that of the run, and where the run has regressed a second look.
Within a session processes differ; between the baseline's and today's, the whole machine does, for both looks alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import STAGES
from lisabench.harness.measure import measure
from lisabench.harness.probe import TimingProbe
from lisabench.harness.records import Run
from lisabench.models.fake import FakeCase, build
from lisabench.reports.baseline import Baseline, reduced
from lisabench.reports.gate import Check, judge
from lisabench.reports.gate_verdict import outcome, settle, to_measure_again
from lisabench.reports.thresholds import Gate
from simulated_sessions import SAMPLES, STAGES_MS

CASE = "a"
SETTINGS = {"adapter": "fake"}


@dataclass(frozen=True)
class Truth:
    """How much longer the run takes than the baseline, and by what its sessions, processes and queries differ."""

    slowdown: float = 0.0
    processes: int = 5
    process_noise: float = 0.01
    query_noise: float = 0.02
    session_noise: float = 0.01
    disturbed: float = 0.0  # how much longer the first look takes, and no other session


@dataclass(frozen=True)
class Ended:
    """What the gate said of time end to end after the first look, and what the whole of it ended with."""

    first: str
    outcome: str


@cache
def gates(truth: Truth, count: int) -> list[Ended]:
    return [_gate(truth, seed) for seed in range(count)]


def _gate(truth: Truth, seed: int) -> Ended:
    today = float(np.random.default_rng((seed, 99)).normal(0, truth.session_noise))
    longer = (1 + truth.slowdown) * float(np.exp(today))
    before = _session(truth, 1.0, 3 * seed)
    checks = judge(before, _session(truth, longer * (1 + truth.disturbed), 3 * seed + 1), Gate())
    again = {case: judge(before, _session(truth, longer, 3 * seed + 2), Gate(), second_look=True)
             for case in to_measure_again(checks)}  # fmt: skip
    return Ended(_of_time(checks).verdict, outcome(settle(checks, again)))


def _of_time(checks: Sequence[Check]) -> Check:
    return next(check for check in checks if check.metric == "time.end_to_end")


def _session(truth: Truth, longer: float, seed: int) -> Baseline:
    samples = [line for process in range(truth.processes) for line in _process(truth, longer, seed, process)]
    entry = {"name": CASE, "role": "model", "settings": SETTINGS, "has_quality": True, "clock": "virtual"}
    page = {"suite": "s", "cases": [entry], "passport": {}, "versions": {}, "data": {"fingerprint": "f"}}
    return reduced(Run(Path("nowhere"), page, samples, _memory(), [], []))


def _process(truth: Truth, longer: float, seed: int, process: int) -> list[dict[str, Any]]:
    probe = TimingProbe(VirtualClock())
    stages = {name: duration * longer for name, duration in STAGES_MS.items()}
    noise = {"noise": truth.query_noise, "process_noise": truth.process_noise}
    adapter = build(FakeCase(**stages, **noise, clock="virtual", seed=seed, process=process), probe)
    return [{"case": CASE, "process": process} | measure(adapter, sample, probe) for sample in SAMPLES]


def _memory() -> list[dict[str, Any]]:
    """The same in every session, so that what a gate ends with is up to time."""
    known = {"case": CASE, "instrument": "resident set", "peak_bytes": 300 << 20, "peak_reserved_bytes": None}
    return [known | {"process": process, "stage": stage} for process in range(3) for stage in STAGES]
