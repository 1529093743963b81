"""Energy of a query: NVML's counter over each block of queries, by process.

The counter is too coarse for one query, so `harness.noise` reads it around a block, and every
record of the block holds the block's energy divided by its queries. Energy adds up: what the
counter reports late for one block, it reports early for the next. Therefore the number of a process
is the mean over its queries, the process's whole energy divided by their number, in which these
errors cancel. In a median over blocks they would not. Processes are paired as for time, with the
same interval over the pairs: queries of one process are no independent evidence.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..harness.records.query import QueryRecord
from .ratios import MeansOf, mean_logs, paired_ratio_of, unpaired_mean_ratio
from .schema_base import Ratio

ENERGY = "energy.query"  # the quantity, as in claims


def energy_by_process(queries: Iterable[QueryRecord]) -> MeansOf:
    """Return the energy in millijoules of each query of each process, as the mean over its block.

    A block in which a query failed is left out: its energy is not that of a whole number of
    answers.
    """
    blocks: dict[tuple[int, int | None], list[QueryRecord]] = defaultdict(list)
    for query in queries:
        blocks[query.process, query.block].append(query)
    energy: MeansOf = defaultdict(dict)
    for (process, _), block in blocks.items():
        if not all(query.answered for query in block):
            continue
        for query in block:
            if query.energy_mj is not None:
                energy[process][query.sample_id] = query.energy_mj
    return dict(energy)


def energy_mj(queries: Iterable[QueryRecord]) -> float | None:
    """Return the mean energy of a query in millijoules; None without a counter."""
    values = []
    for energy_by_query in energy_by_process(queries).values():
        values += energy_by_query.values()
    total = sum(values)
    return total / len(values) if total else None


def energy_logs(before: Iterable[QueryRecord], after: Iterable[QueryRecord]) -> dict[int, float]:
    """Return by process ln(after / before) of the mean energy over the queries that both have."""
    return mean_logs(energy_by_process(before), energy_by_process(after))


def energy_ratio(before: Iterable[QueryRecord], after: Iterable[QueryRecord]) -> Ratio:
    """Return the ratio of energies, paired by process."""
    return paired_ratio_of(energy_logs(before, after))


def unpaired_energy_ratio(before: Iterable[QueryRecord], after: Iterable[QueryRecord]) -> Ratio:
    """Return the ratio of energies of two runs, over the queries that every process of both has."""
    return unpaired_mean_ratio(energy_by_process(before), energy_by_process(after))


def without_energy(queries: Sequence[QueryRecord]) -> list[str]:
    """Return the ids of the queries whose energy is unknown in some process."""
    energy = energy_by_process(queries)
    processes = {query.process for query in queries}
    unknown: set[str] = set()
    for process in processes:
        known = energy.get(process, {})
        unknown.update(query.sample_id for query in queries if query.sample_id not in known)
    return sorted(unknown)
