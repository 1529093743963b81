"""The published runs, and their figures in the words of the documents.

Each function computes from the records under results, by the functions that reports are made with,
and never reads a summary.json or a report.md.
"""

from functools import cache

import numpy as np
from places import ROOT
from raw_runs import RawRun, raw_run

from lisabench.harness.records.run import Run, read_run
from lisabench.reports import formatting
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.peaks import of_queries
from lisabench.reports.run.schema import Attribution, Case, ClaimResult, Comparison, Summary
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.verdict_words import claim_measured
from lisabench.reports.times import WITHOUT_PREPROCESS, of_stage

PUBLISHED = ROOT / "results"
GATES = PUBLISHED / "gate-gpu"


@cache
def records(name: str) -> Run:
    return read_run(PUBLISHED / name)


def raw_records(name: str) -> RawRun:
    return raw_run(PUBLISHED / name)


@cache
def summary(name: str) -> Summary:
    return summarise(records(name))


def case(run: str, name: str) -> Case:
    return next(case for case in summary(run).cases if case.name == name)


def comparison(run: str, candidate: str) -> Comparison:
    found = summary(run).comparison(candidate)
    assert found is not None, f"{run} has no comparison of {candidate}"
    return found


def claim(run: str, words: str) -> ClaimResult:
    (found,) = [claim for claim in summary(run).claims if claim.claim.startswith(words)]
    return found


def attribution(run: str, candidate: str) -> Attribution:
    return next(found for found in summary(run).attributions if found.candidate == candidate)


def time_of(run: str, candidate: str, quantity: str = "time.end_to_end") -> str:
    """``0.63x [0.53, 0.75]``: a ratio of times over the reference."""
    found = comparison(run, candidate)
    stages = {of_stage(stage): ratio for stage, ratio in found.stages.items()}
    ratios = {
        "time.end_to_end": found.end_to_end,
        WITHOUT_PREPROCESS: found.without_preprocess,
        **stages,
    }
    return formatting.ratio_with_interval(ratios[quantity])


def energy_of(run: str, candidate: str) -> str:
    """``0.57x [0.52, 0.63]``: a ratio of the energy of a query over the reference."""
    return formatting.ratio_with_interval(comparison(run, candidate).energy)


def change_ms(run: str, candidate: str, part: str) -> str:
    """``-8.6 [-21.2, +4.0]``: the whole change, the interaction, or what a factor causes."""
    change = attribution(run, candidate).time.end_to_end_ms
    assert change is not None
    parts = {"whole": change.whole, "interaction": change.interaction, **change.own}
    return formatting.milliseconds_change(parts[part])


def saved_ms(run: str, reference: str, candidate: str, stage: str | None = None) -> str:
    """``54.9``: by how many milliseconds the medians of a query, or of one stage of it, differ."""
    sides = [case(run, name).time for name in (reference, candidate)]
    medians = [side.stages[stage].median_ms if stage else side.end_to_end_ms for side in sides]
    assert None not in medians
    return f"{medians[0] - medians[1]:.1f}"


def claimed(run: str, words: str) -> str:
    """What a claim's table says was measured."""
    return claim_measured(claim(run, words))


def vision_peak(run: str, candidate: str) -> str:
    """``0.89x``: the peak of the vision stage over that of the reference."""
    reference = comparison(run, candidate).reference
    peaks = [case(run, name).memory.stages["vision"].peak_bytes for name in (candidate, reference)]
    return f"{peaks[0] / peaks[1]:.2f}x"


def peak_gib(run: str, name: str) -> str:
    """``14.96 GiB``: the peak of a query."""
    memory = of_queries(records(run).case(name).memory)
    return f"{max(record.peak_bytes or 0 for record in memory) / 2**30:.2f} GiB"


def driver_gib(run: str, name: str) -> str:
    """``5.14 GiB``: the largest memory of a case's processes, as the driver counts it."""
    sizes = [record.device_process_bytes or 0 for record in records(run).case(name).memory]
    return f"{max(sizes) / 2**30:.2f} GiB"


def memory_share(run: str, candidate: str, part: str) -> str:
    """``85 %``: the share of the whole change that a part is, without its sign."""
    memory = attribution(run, candidate).memory
    share = {"interaction": memory.interaction, **memory.own}[part].share
    return f"{abs(100 * share):.0f} %"


def gate(look: str, launched: str = "one-core", decimals: int = 3) -> str:
    """``0.998x [0.986, 1.011]``: the end-to-end ratio of a look, with CPU pinning or without."""
    logs = gate_pairs(look, launched)
    mean = np.mean(logs)
    half = (
        2.7764451 * np.std(logs, ddof=1) / np.sqrt(len(logs))
    )  # Student's t, 4 degrees of freedom
    low, middle, high = np.exp([mean - half, mean, mean + half])
    assert len(logs) == 5
    low, middle, high = (f"{end:.{decimals}f}" for end in (low, middle, high))
    return f"{middle}x [{low}, {high}]"


@cache
def gate_pairs(look: str, launched: str = "one-core") -> tuple[float, ...]:
    """The log ratios of the pairs of processes of a look, end to end."""
    base, head = (read_run(GATES / launched / look / side) for side in ("base", "head"))
    return tuple(time_pairs(base, head)["dual", "time.end_to_end"])


UNCHANGED = ("unchanged", "unchanged-again")
LOOKS = (*UNCHANGED, "planted", "planted/again")


def gate_noise(looks: tuple[str, ...] = UNCHANGED, without: float = np.inf) -> float:
    """Return the standard deviation of the pairs' log ratios, pooled within measurements.

    Pairs at `without` and above are left out.
    """
    squares = freedom = 0.0
    for look in looks:
        logs = np.array([log for log in gate_pairs(look) if log < without])
        squares += float(np.sum((logs - logs.mean()) ** 2))
        freedom += len(logs) - 1
    return float(np.sqrt(squares / freedom))
