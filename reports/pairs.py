"""Times of two runs whose processes took turns: process i of the one ran next to process i of the other.

Both were then met by the same minutes of the machine, so that what drifts between them is in no pair, and what differs
between two sessions in none either: an interval over the pairs needs no allowance for it.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from ..harness.contract import STAGES
from ..harness.passes import SYNCHRONISED
from ..harness.records.readings import Record, of_case, stage_ns
from ..harness.records.run import Run
from .energy import QUANTITY, energy_logs
from .run.comparison import paired_logs, time_logs

Pairs = Mapping[tuple[str, str], Sequence[float]]  # by case and figure, a log ratio a pair of processes


def time_pairs(before: Run, after: Run) -> Pairs:
    """Of each case that both have, median log ratios over queries; of the stages by the pass that waits, if any.

    Energy is beside them: the log ratio of the mean over the queries of a process.
    """
    entries = [{entry["name"] for entry in run.run["cases"]} for run in (before, after)]
    found: dict[tuple[str, str], Sequence[float]] = {}
    for case in entries[0] & entries[1]:
        sides = of_case(case, before.samples), of_case(case, after.samples)
        found[case, "time.end_to_end"] = list(time_logs(*sides, lambda line: line["latency_ns"]).values())
        found[case, QUANTITY] = list(energy_logs(*sides).values())
        waited = _waited_for(case, before), _waited_for(case, after)
        for stage in STAGES:
            logs = paired_logs(*waited, partial(_waited_ns, stage=stage)) if all(waited) else None
            logs = time_logs(*sides, partial(stage_ns, stage=stage)) if logs is None else logs
            found[case, f"time.{stage}"] = list(logs.values())
    return found


def _waited_for(case: str, run: Run) -> list[Record]:
    return [line for line in of_case(case, run.passes) if line["pass"] == SYNCHRONISED]


def _waited_ns(line: Record, stage: str) -> int:
    return line["stages_ns"].get(stage) or 0
