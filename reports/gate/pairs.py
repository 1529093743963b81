"""Log ratios of pairs of processes, for a gate whose two versions were measured in lockstep."""

from collections.abc import Mapping, Sequence

from ...harness.contract import STAGES
from ...harness.records.run import Run
from ..energy import ENERGY
from ..ratios import mean_logs, time_logs
from ..throughput import THROUGHPUT
from ..times import END_TO_END, of_stage, synchronised_times

Pairs = Mapping[tuple[str, str], Sequence[float]]  # by case and quantity, a log ratio a pair


def time_pairs(before: Run, after: Run) -> Pairs:
    """Return the log ratios of times, energy and seconds per query of each case of both runs.

    A log ratio of times is the median over the queries of a pair of processes; stages are of the
    pass that waits for the GPU, where both runs have it. A log ratio of energies is that of their
    means.
    """
    names_after = {entry.name for entry in after.manifest.cases}
    pairs: dict[tuple[str, str], Sequence[float]] = {}
    for reference in before.cases:
        name = reference.name
        if name not in names_after:
            continue
        candidate = after.case(name)
        end_to_end = time_logs(reference.end_to_end_ns, candidate.end_to_end_ns)
        pairs[name, END_TO_END] = list(end_to_end.values())
        energy = mean_logs(reference.energy_mj, candidate.energy_mj)
        pairs[name, ENERGY] = list(energy.values())
        seconds = mean_logs(reference.seconds, candidate.seconds)
        pairs[name, THROUGHPUT] = list(seconds.values())
        both_synchronised = bool(reference.synchronised) and bool(candidate.synchronised)
        for stage in STAGES:
            if both_synchronised:
                logs = time_logs(
                    synchronised_times(reference.synchronised, stage),
                    synchronised_times(candidate.synchronised, stage),
                )
            else:
                logs = time_logs(reference.stages_ns[stage], candidate.stages_ns[stage])
            pairs[name, of_stage(stage)] = list(logs.values())
    return pairs
