"""Gates with a known truth on a virtual clock.

Fake models go through the real loop, reduction, checks and re-measurement.

Each gate has three sessions: that of the baseline, that of the run, and where the run has regressed
a second look. Within a session processes differ; between the baseline's and today's, the whole
machine does, for both looks alike.

Side by side there is one session for each look, in which the processes of the two sides take turns
while all drifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from simulated_sessions import SAMPLES, STAGES_MS

from lisabench.benchmarks.run import schedule
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import STAGES
from lisabench.harness.measure import measure
from lisabench.harness.probe import TimingProbe
from lisabench.harness.records.run import MEMORY, Run, run_from_json
from lisabench.models.adapters.fake import FakeCase, build
from lisabench.reports.gate.baseline import Baseline, reduced
from lisabench.reports.gate.checks import Check, gate_checks
from lisabench.reports.gate.outcome import outcome, to_remeasure, with_remeasurements
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.gate.thresholds import Gate

CASE = "a"
SETTINGS = {"adapter": "fake"}


@dataclass(frozen=True)
class Truth:
    """How much longer the run takes than the baseline.

    It also says by what its sessions, processes and queries differ.
    """

    slowdown: float = 0.0
    processes: int = 5
    process_noise: float = 0.01
    query_noise: float = 0.02
    session_noise: float = 0.01
    disturbed: float = 0.0  # how much longer the first look takes, and no other session
    limit: float = 0.05  # of the time end to end
    drift: float = (
        0.0  # how much longer the last process of a look side by side takes than the first would
    )

    @property
    def noise(self) -> "Noise":
        return Noise(self.query_noise, self.process_noise)


class Noise(NamedTuple):
    """Standard deviations of log times."""

    noise: float
    process_noise: float


@dataclass(frozen=True)
class Ended:
    """The verdict of time end to end after the first measurement, and the gate's last one."""

    first: str
    outcome: str


@cache
def gates(truth: Truth, count: int) -> list[Ended]:
    return [_gate(truth, seed) for seed in range(count)]


def _gate(truth: Truth, seed: int) -> Ended:
    today = float(np.random.default_rng((seed, 99)).normal(0, truth.session_noise))
    longer = (1 + truth.slowdown) * float(np.exp(today))
    before = _session(truth, 1.0, 3 * seed)
    checks = gate_checks(
        before, _session(truth, longer * (1 + truth.disturbed), 3 * seed + 1), Gate()
    )
    again = {
        case: gate_checks(before, _session(truth, longer, 3 * seed + 2), Gate(), remeasured=True)
        for case in to_remeasure(checks)
    }
    return Ended(_of_time(checks).verdict, outcome(with_remeasurements(checks, again)))


def _of_time(checks: Sequence[Check]) -> Check:
    return next(check for check in checks if check.metric == "time.end_to_end")


@cache
def gates_side_by_side(truth: Truth, count: int) -> list[Ended]:
    return [_gate_side_by_side(truth, seed) for seed in range(count)]


def _gate_side_by_side(truth: Truth, seed: int) -> Ended:
    checks = _look(truth, 2 * seed)
    again = {case: _look(truth, 2 * seed + 1) for case in to_remeasure(checks)}
    return Ended(_of_time(checks).verdict, outcome(with_remeasurements(checks, again)))


def _look(truth: Truth, seed: int) -> list[Check]:
    longer: dict[str, list[float]] = {"base": [], "head": []}
    for pair in range(truth.processes):
        for turn, side in enumerate(schedule.turns(("head", "base"), pair, block=0)):
            drifted = 1 + truth.drift * (2 * pair + turn) / (2 * truth.processes)
            longer[side].append(drifted * (1 + truth.slowdown * (side == "head")))
    runs = (
        _run(truth.noise, longer["base"], 2 * seed),
        _run(truth.noise, longer["head"], 2 * seed + 1),
    )
    gate = Gate(end_to_end=truth.limit)
    return gate_checks(reduced(runs[0]), reduced(runs[1]), gate, pairs=time_pairs(*runs))


def _session(truth: Truth, longer: float, seed: int) -> Baseline:
    return _reduced(truth.noise, (longer,) * truth.processes, seed)


@cache
def _reduced(noise: Noise, longer: tuple[float, ...], seed: int) -> Baseline:
    """Kept, since truths that differ in today's machine have their baselines in common."""
    return reduced(_run(noise, longer, seed))


def _run(noise: Noise, longer: Sequence[float], seed: int) -> Run:
    """Each process by how much longer it takes than the model alone."""
    samples = [
        line for process, more in enumerate(longer) for line in _process(noise, more, seed, process)
    ]
    entry = {
        "name": CASE,
        "adapter": "fake",
        "role": "model",
        "settings": SETTINGS,
        "has_quality": True,
        "clock": "virtual",
    }
    page = {
        "schema": "lisabench.run/2",
        "suite": "s",
        "title": "s",
        "status": "complete",
        "started": "2026-01-31T12:00:00+00:00",
        "plan": {"processes": len(longer), "block": 8, "warmup": 0},
        "cases": [entry],
        "passport": {},
        "versions": {},
        "data": {"fingerprint": "f", "split": "val", "count": len(SAMPLES), "description": "d"},
    }
    return run_from_json(Path("nowhere"), page, {"samples.jsonl": samples, MEMORY: _memory()})


def _process(noise: Noise, longer: float, seed: int, process: int) -> list[dict[str, Any]]:
    probe = TimingProbe(VirtualClock())
    stages = {name: duration * longer for name, duration in STAGES_MS.items()}
    adapter = build(
        FakeCase(**stages, **noise._asdict(), clock="virtual", seed=seed, process=process), probe
    )
    return [
        {"case": CASE, "process": process} | measure(adapter, sample, probe) for sample in SAMPLES
    ]


def _memory() -> list[dict[str, Any]]:
    """The same in every session, so that what a gate ends with is up to time."""
    known = {
        "case": CASE,
        "instrument": "resident set",
        "peak_bytes": 300 << 20,
        "peak_reserved_bytes": None,
    }
    return [
        known | {"process": process, "stage": stage} for process in range(3) for stage in STAGES
    ]
