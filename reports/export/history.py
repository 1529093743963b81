"""The history of runs: from a run to its line, and from a file or folder to all lines."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...harness.environment import comparable_facts
from ...harness.errors import UsageError
from ...harness.metrics import SCORES, scores
from ...harness.paths import missing
from ...harness.records.history import HistoryLine, HistoryValue, Unit, read_history
from ...harness.records.journal import append
from ...harness.records.run import CaseRecords, Run, read_run
from ...harness.statistics.estimate import Estimate
from ...harness.statistics.ratios import mean_of
from .. import formatting
from ..energy import ENERGY
from ..gate.checks import PEAK
from ..gate.thresholds import Thresholds, gate_of
from ..peaks import largest_by_process, memory_by_process
from ..quality import intervals
from ..ratios import mean_over, time_over_processes
from ..throughput import THROUGHPUT, throughput_over_processes
from ..times import END_TO_END, of_stage, times_by_stage
from .runs import runs_table


def line_of(run: Run, commit: str | None) -> HistoryLine:
    """Return the line of a run.

    Args:
        run: a complete one.
        commit: what was measured; None: what the run says, as that of a gate does.

    Raises:
        UsageError: the run is not complete.
    """
    manifest = run.manifest
    if manifest.status != "complete":
        raise UsageError(
            f"the run in {run.folder} is {manifest.status}; a history takes complete runs only"
        )
    gate = gate_of(manifest.definition)
    values: list[HistoryValue] = []
    for entry in manifest.models:
        values += _values(run, run.case(entry.name), gate.of(entry.name))
    environment = dict(manifest.environment or {})
    return HistoryLine(
        suite=manifest.suite,
        started=manifest.started,
        commit=commit or (manifest.source or {}).get("commit"),
        machine=formatting.machine(environment),
        facts=comparable_facts(environment),
        values=tuple(values),
    )


def _values(run: Run, case: CaseRecords, limits: Thresholds) -> Iterator[HistoryValue]:
    setup = _setup(run, case)

    def value(metric: str, unit: Unit, estimate: Estimate, limit: float | None) -> HistoryValue:
        ends = (estimate.low, estimate.high)
        return HistoryValue(
            case.name, metric, unit, setup, estimate.value, *ends, estimate.n, limit
        )

    end_to_end = time_over_processes(case.end_to_end_ns)
    if end_to_end is not None:
        yield value(END_TO_END, "ms", end_to_end.estimate, limits.end_to_end)
    for stage, (times,) in times_by_stage([case]).items():
        time = time_over_processes(times)
        if time is not None:
            yield value(of_stage(stage), "ms", time.estimate, limits.of_stage(stage))
    throughput = throughput_over_processes(case.seconds)
    if throughput is not None:
        yield value(THROUGHPUT, "1/s", throughput.estimate, limits.throughput)
    memory = _memory(case)
    if memory is not None:
        yield value(PEAK, "bytes", memory, _memory_limit(case, memory, limits))
    energy = _energy(case)
    if energy is not None:
        yield value(ENERGY, "mJ", energy, limits.energy)
    for score, estimate in _scores(case).items():
        points = getattr(limits, score, None)
        limit = None if points is None else points / 100
        yield value(f"quality.{score}", "score", estimate, limit)


def _setup(run: Run, case: CaseRecords) -> str:
    """Return a digest of what must be the same for two values to be compared.

    Settings are those that the suite gives. A new setting of a later version, with its default,
    changes no suite.
    """
    manifest, entry = run.manifest, case.entry
    quality_pass = manifest.quality_pass
    facts = {
        "adapter": entry.adapter,
        "given": dict(entry.given),
        "batch": entry.batch,
        "clock": entry.clock,
        "scenario": manifest.plan.scenario,
        "gpu_memory": manifest.plan.gpu_memory,
        "data": manifest.data.fingerprint,
        "timed_queries": manifest.timed_queries,
        "scored_queries": quality_pass.queries if quality_pass else None,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def _over_processes(values: Sequence[float]) -> Estimate | None:
    """Return the geometric mean over processes with its interval; None where it does not exist."""
    if not values or min(values) <= 0:
        return None
    return mean_of([math.log(value) for value in values]).mapped(math.exp)


def _memory(case: CaseRecords) -> Estimate | None:
    """Return the memory that a gate compares: on a GPU what the allocator held, if known."""
    if case.entry.memory_error:
        return None
    sizes = largest_by_process(case.memory, "peak_reserved_bytes")
    if not sizes:
        sizes = memory_by_process(case.memory)
    return _over_processes(list(sizes.values()))


def _memory_limit(case: CaseRecords, memory: Estimate, limits: Thresholds) -> float | None:
    """Return the accepted share of more memory: the gate's bytes are a share of whole peaks."""
    if limits.peak is None:
        return None
    peaks = largest_by_process(case.memory, "peak_bytes")
    largest_bytes = max([memory.value, *peaks.values()])
    accepted_bytes = min(limits.peak * largest_bytes, limits.peak_mib * 2**20)
    return accepted_bytes / memory.value


def _energy(case: CaseRecords) -> Estimate | None:
    means = [mean_over(energy, energy) for energy in case.energy_mj.values()]
    return _over_processes(means)


def _scores(case: CaseRecords) -> dict[str, Estimate]:
    """Return the scores that have intervals; none for random weights."""
    if case.entry.has_quality is not True:
        return {}
    ends = intervals(case.scored)
    images = len({query.image_id for query in case.scored})
    values = scores(query.counts for query in case.scored)
    estimates = {}
    for name in SCORES:
        value = values[name]
        if value is not None:
            low, high = ends.get(name, (None, None))
            estimates[name] = Estimate(value, low, high, images)
    return estimates


def add_run(path: Path, folder: Path, commit: str | None) -> None:
    """Append the line of a run to a history, unless it has that line already.

    Raises:
        UsageError: the folder holds no complete run, or the file cannot be written.
        DataError: a record of the run, or a line of the history, is damaged.
    """
    line = line_of(read_run(folder), commit)
    if line.key in {known.key for known in read_history(path)}:
        return
    try:
        append(path, [line.as_json()])
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; name a file of your own"
        ) from error


def add_to_comment(comment: Path, text: str) -> None:
    """Append a paragraph to the comment of a gate, if there is anything to say.

    Raises:
        UsageError: there is no such comment, or it cannot be written.
    """
    if not comment.is_file():
        raise UsageError(f"{missing('comment', comment)}; `check --comment FILE` writes one")
    if text:
        with comment.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")


def read_source(source: Path) -> list[HistoryLine]:
    """Return the lines of a history, or of all complete runs below a folder.

    Raises:
        UsageError: there is no such file or folder, or it has no complete run.
        DataError: something in it is damaged.
    """
    if source.is_dir():
        rows = runs_table(source).complete_rows()
        folders = [row["folder"] for row in rows if row["kind"] == "run"]
        runs = [read_run(source / str(folder)) for folder in folders]
        lines = [line_of(run, None) for run in runs if run.manifest.status == "complete"]
    elif source.exists():
        lines = read_history(source)
    else:
        raise UsageError(
            f"{missing('history', source)}; name one, or a folder with runs, or add a run: "
            f"lisabench history {source} --add RUN"
        )
    if not lines:
        raise UsageError(f"{source} has no complete run")
    return lines
