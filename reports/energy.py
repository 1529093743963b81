"""Energy of a query, by process: NVML's counter, in a pass of its own or over blocks of queries.

The counter is too coarse for one query. `harness.passes` measures the mean energy of a few queries
that are evaluated again and again. Runs of throughput, and those from before that pass, have the
energy of each block of queries in its records, divided by their number. That adds up: what the
counter reports late for one block, it reports early for the next. Therefore the number of a process
is the mean over its queries, the process's whole energy divided by their number, in which these
errors cancel. In a median over blocks they would not. Processes are paired as for time, with the
same interval over the pairs: queries of one process are no independent evidence.
"""

from collections.abc import Callable, Sequence
from statistics import fmean

from ..harness.records.costs import MeansOf
from ..harness.records.run import CaseRecords
from .ratios import mean_logs, paired_ratio_of, unpaired_mean_ratio
from .schema_base import NO_RATIO, Ratio

ENERGY = "energy.query"  # the quantity, as in claims


# In what follows, energies are `CaseRecords.energy_mj`: by process, then by query.


def mean_energy_mj(energy: MeansOf) -> float | None:
    """Return the mean energy of a query in millijoules; None without a counter."""
    values = []
    for energy_by_query in energy.values():
        values += energy_by_query.values()
    total = sum(values)
    return total / len(values) if total else None


def mean_power_w(case: CaseRecords) -> float | None:
    """Return the mean power of the whole GPU in the pass of energy; None without that pass."""
    powers_w = [line.power_w for line in case.energy_passes if line.power_w is not None]
    return fmean(powers_w) if powers_w else None


def energy_ratio(before: MeansOf, after: MeansOf) -> Ratio:
    """Return the ratio of energies, paired by process, over the queries that both have."""
    return paired_ratio_of(mean_logs(before, after))


def were_read_alike(cases: Sequence[CaseRecords]) -> bool:
    """Return whether the energy of all cases was read in a pass of its own, or of all over blocks.

    A block may be wrong by a third, so the two are not compared.
    """
    return len({bool(case.energy_passes) for case in cases}) == 1


def energy_ratio_of_cases(
    before: CaseRecords,
    after: CaseRecords,
    ratio: Callable[[MeansOf, MeansOf], Ratio] = energy_ratio,
) -> Ratio:
    """Return the ratio of the energies of two cases; none where they were not read alike."""
    if not were_read_alike([before, after]):
        return NO_RATIO
    return ratio(before.energy_mj, after.energy_mj)


def unpaired_energy_ratio(before: MeansOf, after: MeansOf) -> Ratio:
    """Return the ratio of energies of two runs, over the queries that every process of both has."""
    return unpaired_mean_ratio(before, after)


def without_energy(case: CaseRecords) -> list[str]:
    """Return the ids of the queries whose energy is unknown in some process."""
    processes = {query.process for query in case.queries}
    unknown: set[str] = set()
    for process in processes:
        known = case.energy_mj.get(process, {})
        unknown.update(query.sample_id for query in case.queries if query.sample_id not in known)
    return sorted(unknown)
