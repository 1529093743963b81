"""One case against another, of one run or of two: what may be compared of them, and what comes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...harness.environment import Sides, different_machines, differing
from ...harness.errors import NothingToCompare, UsageError, unknown
from ...harness.records.readings import Record, of_case
from ...harness.records.run import Run, read_run
from .. import formatting
from ..energy import unpaired_energy
from ..peaks import NO_START, lacks_start
from ..quality import no_points
from ..ratios import no_ratio, unpaired_memory, unpaired_time
from ..schema_base import AgainstFloor, Count, Strict, Twin
from .comparison import Side, Way, compare_sides, paired, team_with, twins_of
from .confounds import confounds
from .schema import Case, Comparison, Team
from .summary import summarise_case
from .trivial_baselines import against_floors
from .warnings import doubts

SCHEMA = "lisabench.compare/1"
PLAN = ("processes", "block", "warmup", "memory_queries", "memory_processes", "gpu_memory")
PLAN += ("timed_queries", "quality_queries", "quality_batch")


class Across(Strict):
    """A candidate against a reference, each with the run that it is from. Figures are over the common queries."""

    reference_run: str = Field(description="Folder of the run of the reference.")
    candidate_run: str = Field(description="Folder of the run of the candidate.")
    paired: bool = Field(
        description="Both took turns: process by process. Otherwise the interval is Welch's."
    )
    queries: Count = Field(description="Queries that both were timed with.")
    scored_queries: Count | None = Field(
        default=None, description="Queries that the quality of both is computed from."
    )
    reference: Case = Field(description="As in summary.json.")
    candidate: Case = Field(description="As in summary.json.")
    comparison: Comparison = Field(description="As in summary.json.")
    not_compared: dict[str, str] = Field(
        description="Why there is no comparison of time, memory or quality."
    )
    versions: dict[str, Sides] = Field(
        description="Libraries whose versions differ: [reference, candidate]."
    )
    machine: dict[str, Sides] = Field(
        description="Facts of the passport that differ: [reference, candidate]."
    )
    plan: dict[str, Sides] = Field(
        description="In what the measuring itself differs: [reference, candidate]."
    )
    warnings: list[str] = Field(
        description="Doubts about either side, and settings that differ together."
    )


class Compared(Strict):
    """What ``lisabench compare --json`` prints."""

    schema_: Literal["lisabench.compare/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version."
    )
    comparisons: list[Across] = Field(description="One, or with further runs one for each of them.")


@dataclass(frozen=True)
class _Place:
    """A case in its run, with all of its records."""

    run: Run
    entry: dict[str, Any]
    label: str

    def samples(self) -> list[Record]:
        return of_case(self.entry["name"], self.run.samples)

    def scored(self) -> list[Record]:
        return self.run.scored(self.entry["name"])

    def memory(self) -> list[Record]:
        return of_case(self.entry["name"], self.run.memory)

    def fingerprint(self) -> str | None:
        return (self.run.run.get("data") or {}).get("fingerprint")

    def side(self, timed: set[tuple], scored: set[tuple], took_turns: bool) -> Side:
        """Over the queries that are common in the timed rounds and in quality, and under a name of its own.

        The passes of two runs are not paired.
        """
        samples = [record for record in self.samples() if _query(record) in timed]
        answers = [record for record in self.scored() if _query(record) in scored]
        passes = of_case(self.entry["name"], self.run.passes) if took_turns else []
        case = summarise_case(
            self.entry | {"name": self.label}, samples, answers, self.memory(), passes
        )
        return Side(case, samples, self.memory(), answers, passes)

    def doubts(self) -> list[str]:
        """What a report would say of this case alone."""
        alone = replace(
            self.run, run=self.run.run | {"cases": [self.entry]}, samples=self.samples()
        )
        case = summarise_case(self.entry, self.samples(), self.scored(), self.memory())
        return doubts(alone, [case], [], (), _refused(alone))


def _refused(run: Run) -> list[AgainstFloor]:
    return [found for found in against_floors(run) if found.refused]


def compare_cases(
    folder: Path, reference: str, candidate: str, further: Sequence[Path] = ()
) -> Compared:
    """Two cases of one run; with further runs, the reference of the first against the candidate of each further one.

    Raises:
        UsageError: a folder holds no run, a run has no such case, or both are the same case.
        NothingToCompare: neither time nor memory nor quality can be compared; says why.
    """
    run = read_run(folder)
    found = [
        _across(*_places(run, reference, other, candidate))
        for other in map(read_run, further or [folder])
    ]
    if not any(_is_comparable(one) for one in found):
        raise NothingToCompare(f"nothing can be compared: {'; '.join(_reasons(found))}")
    return Compared(comparisons=found)


def _is_comparable(found: Across) -> bool:
    return len(found.not_compared) < 3  # of time, memory and quality


def _reasons(found: Sequence[Across]) -> list[str]:
    return list(
        dict.fromkeys(f"{what}: {why}" for one in found for what, why in one.not_compared.items())
    )


def _places(run: Run, reference: str, other: Run, candidate: str) -> tuple[_Place, _Place]:
    one_run = run.folder.resolve() == other.folder.resolve()
    if one_run and reference == candidate:
        raise UsageError(
            f"{reference!r} is compared with itself; name two cases of {run.folder}, or a further run"
        )
    named = ((run, reference), (other, candidate))
    first, second = (
        _Place(r, _entry(r, name), name if one_run else f"{name} ({r.folder})") for r, name in named
    )
    return first, second


def _entry(run: Run, name: str) -> dict[str, Any]:
    entries = {entry["name"]: entry for entry in run.run["cases"]}
    if name not in entries:
        raise unknown(f"case of {run.folder}", name, entries)
    return entries[name]


def _across(base: _Place, other: _Place) -> Across:
    timed = {_query(record) for record in base.samples()} & {
        _query(record) for record in other.samples()
    }
    scored = {_query(record) for record in base.scored()} & {
        _query(record) for record in other.scored()
    }
    team = _common_team(base, other)
    took_turns = team is not None
    sides = base.side(timed, scored, took_turns), other.side(timed, scored, took_turns)
    refused = dict(_refusals(base, other, *sides))
    twins = twins_of(team, base.run) if team else []
    found = compare_sides(*sides, _way(*sides, took_turns, refused), twins)
    versions = differing(base.run.run.get("versions"), other.run.run.get("versions"))
    return Across(
        reference_run=str(base.run.folder),
        candidate_run=str(other.run.folder),
        paired=took_turns,
        queries=len(timed),
        scored_queries=len(scored),
        reference=sides[0].case,
        candidate=sides[1].case,
        comparison=found,
        not_compared=refused | dict(_not_measured(found, refused)),
        versions=versions,
        machine=differing(base.run.run.get("passport"), other.run.run.get("passport")),
        plan=differing(_plan(base), _plan(other)),
        warnings=list(
            dict.fromkeys(
                [*_warnings(base, other, found), *_of_versions(versions), *_of_twins(twins)]
            )
        ),
    )


def _query(record: Record) -> tuple[str, str, str]:
    """What makes a query the same in two runs: other data may use the same ids."""
    return record["sample_id"], record["image_id"], record["query"]


def _common_team(base: _Place, other: _Place) -> Team | None:
    """Return the team in which both took turns, or None if they are of two runs or of two teams."""
    if base.run.folder.resolve() != other.run.folder.resolve():
        return None
    return team_with({base.entry["name"], other.entry["name"]}, base.run.run)


def _way(base: Side, side: Side, took_turns: bool, refused: dict[str, str]) -> Way:
    way = paired(base.case, side.case)
    if not took_turns:
        way = Way(unpaired_time, unpaired_memory, unpaired_energy, way.quality)
    # Energy depends on the machine and on the queries as time does, so it is refused with it.
    return Way(
        time=no_ratio if "time" in refused else way.time,
        memory=no_ratio if "memory" in refused else way.memory,
        energy=no_ratio if "time" in refused else way.energy,
        quality=no_points if "quality" in refused else way.quality,
    )


def _refusals(base: _Place, other: _Place, before: Side, after: Side) -> Iterator[tuple[str, str]]:
    """What must not be compared, with the gravest reason."""
    reasons = {
        "time": [*_no_cost(base, other), *_no_time(before, after)],
        "memory": [*_no_cost(base, other), *_no_memory(before, after)],
        "quality": [*_no_quality(base, other), *_no_scores(before, after)],
    }
    yield from ((what, found[0]) for what, found in reasons.items() if found)


def _no_cost(base: _Place, other: _Place) -> Iterator[str]:
    controls = [place.label for place in (base, other) if place.entry["role"] == "control"]
    if controls:
        yield f"{formatting.listed(controls)} is a control, whose costs are no result"
    yield from different_machines(
        *((place.run.run.get("passport") or {}) for place in (base, other))
    )


def _no_time(before: Side, after: Side) -> Iterator[str]:
    if not before.samples:
        yield "no query is common to both"
    if before.case.time.clock != after.case.time.clock:
        yield f"measured by different clocks ({before.case.time.clock} and {after.case.time.clock})"


def _no_memory(before: Side, after: Side) -> Iterator[str]:
    instruments = [side.case.memory.instrument for side in (before, after)]
    if None not in instruments and instruments[0] != instruments[1]:
        yield f"measured by different instruments ({instruments[0]} and {instruments[1]})"
    elif any(lacks_start(side.memory) for side in (before, after)):
        yield NO_START


def _no_quality(base: _Place, other: _Place) -> Iterator[str]:
    if base.fingerprint() != other.fingerprint():
        yield f"asked on different data (fingerprint {base.fingerprint()} and {other.fingerprint()})"


def _no_scores(before: Side, after: Side) -> Iterator[str]:
    random = [side.case.name for side in (before, after) if side.case.has_quality is False]
    if random:
        yield f"random weights have no quality ({formatting.listed(random)})"
    if not before.scored:
        yield "no query is common to both"
    targets = [
        {record["sample_id"]: record["target_px"] for record in side.scored}
        for side in (before, after)
    ]
    if targets[0] != targets[1]:
        yield "the targets of the common queries differ"


def _not_measured(found: Comparison, refused: dict[str, str]) -> Iterator[tuple[str, str]]:
    figures = {
        "time": found.end_to_end.ratio,
        "memory": found.peak_memory.ratio,
        "quality": found.gIoU_points,
    }
    yield from (
        (what, "not measured on both sides")
        for what, f in figures.items()
        if f is None and what not in refused
    )


def _plan(place: _Place) -> dict[str, Any]:
    return {name: (place.run.run.get("plan") or {}).get(name) for name in PLAN}


def _warnings(base: _Place, other: _Place, found: Comparison) -> Iterator[str]:
    across = base.run.folder != other.run.folder
    for place in (base, other):
        yield from (f"{place.run.folder}: {doubt}" if across else doubt for doubt in place.doubts())
    if base.fingerprint() != other.fingerprint() and found.peak_memory.ratio is not None:
        yield "The data differ, and with them the queries of the memory passes: the ratio of peaks is of that, too."
    yield from confounds([place.entry | {"name": place.label} for place in (base, other)], [found])


def _of_twins(twins: Sequence[Twin]) -> Iterator[str]:
    for twin in twins:
        yield (
            f"No interval of a time is narrower than that of {twin.candidate} against {twin.reference}, "
            "two measurements of one model."
        )


def _of_versions(versions: dict[str, Sides]) -> Iterator[str]:
    if versions:
        yield f"The versions of {formatting.listed(list(versions))} differ: the figures are of that, too."
