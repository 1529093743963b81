"""Energy of a query: NVML's counter over each block of queries, by process.

The counter is too coarse for one query, so `harness.noise` reads it around a block, and every record
of the block holds the block's energy divided by its queries. Energy adds up: what the counter reports
late for one block, it reports early for the next. Therefore the figure of a process is the mean over
its queries, the process's whole energy divided by their number, in which these errors cancel. In a
median over blocks they would not. Processes are paired as for time, with the same interval over the
pairs: queries of one process are no independent evidence.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from ..harness.records.readings import ANSWERED, Record
from ..harness.statistics.ratios import paired_ratio, unpaired_ratio
from .schema_base import NO_RATIO, Ratio

QUANTITY = "energy.query"

ByProcess = dict[int, dict[str, float]]  # process, then query: millijoules


def energy_by_process(records: Iterable[Record]) -> ByProcess:
    """Return the energy in millijoules of each query of each process, as the mean over its block.

    A block in which a query failed is left out: its energy is that of no whole number of answers.
    """
    blocks: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        blocks[record["process"], record.get("block")].append(record)
    found: ByProcess = defaultdict(dict)
    for (process, _), block in blocks.items():
        if any(record["status"] not in ANSWERED for record in block):
            continue
        for record in block:
            if record.get("energy_mj") is not None:
                found[process][record["sample_id"]] = record["energy_mj"]
    return dict(found)


def energy_mj(records: Iterable[Record]) -> float | None:
    """Return the mean energy of a query over all processes, in millijoules; None without a counter."""
    values = [
        value for queries in energy_by_process(records).values() for value in queries.values()
    ]
    total = sum(values)
    return total / len(values) if total else None


def energy_logs(before: Iterable[Record], after: Iterable[Record]) -> dict[int, float]:
    """Return by process ln(candidate / reference) of the mean energy, over the queries that both have in it."""
    reference, candidate = energy_by_process(before), energy_by_process(after)
    logs = {}
    for process in sorted(reference.keys() & candidate.keys()):
        common = reference[process].keys() & candidate[process].keys()
        means = [mean_over(queries, common) for queries in (reference[process], candidate[process])]
        if min(means) > 0:
            logs[process] = math.log(means[1] / means[0])
    return logs


def energy_ratio(before: Iterable[Record], after: Iterable[Record]) -> Ratio:
    """Return the ratio of energies, paired by process."""
    logs = energy_logs(before, after)
    return Ratio(**asdict(paired_ratio(list(logs.values())))) if logs else NO_RATIO


def unpaired_energy(before: Iterable[Record], after: Iterable[Record]) -> Ratio:
    """Return the ratio of energies of two runs, over the queries that every process of both has."""
    sides = [list(energy_by_process(records).values()) for records in (before, after)]
    if not all(sides):
        return NO_RATIO
    common = set.intersection(*(set(queries) for side in sides for queries in side))
    means = [[mean_over(queries, common) for queries in side] for side in sides]
    if min(map(min, means)) <= 0:
        return NO_RATIO
    reference, candidate = ([math.log(mean) for mean in side] for side in means)
    return Ratio(**asdict(unpaired_ratio(reference, candidate)))


def mean_over(energy: Mapping[str, float], queries: Iterable[str]) -> float:
    """Return the mean energy over some queries; 0 over none."""
    values = [energy[name] for name in queries]
    return sum(values) / len(values) if values else 0.0


def without_energy(records: Sequence[Record]) -> list[str]:
    """Return the queries of which some process has no energy."""
    processes = energy_by_process(records)
    names = {record["sample_id"] for record in records}
    measured = [
        set(processes.get(process, {})) for process in {record["process"] for record in records}
    ]
    common = set.intersection(*measured) if measured else set()
    return sorted(names - common)
