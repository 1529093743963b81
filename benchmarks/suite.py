"""Suites: what is compared, on which data, and how often. Shipped ones lie in ``suites/`` as YAML.

title: ...                     one line, shown on the report
reference: dual                the case that the others are compared with
data: {count: 48}              the scenes made by the package, or root: FOLDER in ReasonSeg's format
plan: {processes: 3}           see `Plan`. `timed_queries` (48): the first so many queries are timed, in every process;
                               `quality_queries` (all): the first so many are evaluated for quality, once for each
                               case, `quality_batch` (8) at a time; 0: no such pass, scores are of the timed queries
metrics: [gIoU, cIoU]          quality columns of the report's table
defaults: {adapter: lisa}      settings shared by all cases
cases: {NAME: {adapter: NAME, SETTING: VALUE}}
teams: {NAME: [CASE, ...]}     where not all fit at once, or not all have one reference: the cases of a team take turns
                               and are compared with its first
factors: [SETTING, ...]        of cases that differ in several of these, the report says what each of them causes; or
                               {NAME: [SETTING, ...]} where one factor changes several settings together
controls: {NAME: {adapter: NAME}}   floors; asked for quality only, never compared in time
claims: [{claim: ..., quantity: NAME, candidate: CASE, at_most: BOUND}]   see `claim`; or the name or file of a suite
                               that lists them, for cases of the same names
trainings: {NAME: {OPTION: VALUE}}   options of `lisabench train`; each is carried out with several seeds, first of all
gate: {end_to_end: 0.05}       what `lisabench check` lets pass; see `reports.thresholds`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..harness.errors import UsageError
from ..models import registry
from ..reports.gate.thresholds import Gate
from .claim import Claim


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Strict):
    """Which queries are asked. Without `root`, scenes that the package makes itself."""

    root: Path | None = Field(
        default=None, description="a folder in ReasonSeg's format, holding the split's folder"
    )
    split: str | None = Field(
        default=None, description="the split asked; val, or test for weights that have seen val"
    )
    count: int = Field(
        default=48, gt=0, description="queries to make, where the package makes them"
    )
    seed: int = Field(default=0, ge=0, description="seed of the scenes")
    texts: Literal["first", "all"] = Field(
        default="first", description="one wording of each query, or all"
    )
    limit: int | None = Field(default=None, gt=0, description="ask only the first so many queries")


class Plan(Strict):
    """How the measurement is laid out."""

    processes: int = Field(default=3, gt=0, description="fresh processes per case for timing")
    block: int = Field(
        default=8, gt=0, description="queries in a row before the next case takes its turn"
    )
    timed_queries: int = Field(
        default=48, gt=0, description="queries that every process is timed with, at most"
    )
    quality_queries: int | None = Field(
        default=None,
        ge=0,
        description="queries of the quality pass, at most; 0: none, scores are of timed queries",
    )
    quality_batch: int = Field(
        default=8, gt=0, description="queries that the quality pass evaluates at once"
    )
    warmup: int = Field(default=12, ge=0, description="most queries to warm up with, per process")
    memory_processes: int = Field(
        default=3, ge=0, description="fresh processes per case for the memory pass; 0: none"
    )
    memory_queries: int = Field(
        default=4, gt=0, description="queries of the memory pass, per process"
    )
    beside: bool = Field(
        default=True, description="whether ceilings and the GPU's own time are measured as well"
    )
    gallery: int = Field(
        default=4, ge=0, description="queries whose images and masks the report shows"
    )
    training_seeds: int = Field(
        default=3, gt=0, description="seeds that each training is carried out with"
    )
    gpu_memory: str | None = Field(
        default=None, description="size of the card that each process must fit, such as 8GB"
    )
    save_masks: bool = Field(default=False, description="keep every mask, run-length encoded")
    time_limit_s: float = Field(
        default=600, gt=0, description="for a build with its warm-up, or a block"
    )


@dataclass(frozen=True)
class Team:
    """Cases that take turns and are compared with one of them."""

    name: str
    reference: str
    cases: tuple[str, ...]


def _factors(given: Any) -> Any:
    """A list names settings that are a factor each."""
    return {name: (name,) for name in given} if isinstance(given, list | tuple) else given


class Suite(BaseModel):
    model_config = Strict.model_config

    name: str
    title: str
    reference: str
    data: Data = Data()
    plan: Plan = Plan()
    metrics: tuple[str, ...] = ("gIoU", "cIoU", "mIoU")
    defaults: dict[str, Any] = {}
    cases: dict[str, dict[str, Any]]
    teams: dict[str, list[str]] = {}
    factors: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_factors)] = {}
    controls: dict[str, dict[str, Any]] = {}
    claims: tuple[Claim, ...] = ()
    trainings: dict[str, dict[str, Any]] = {}
    gate: Gate = Gate()

    def settings(self, case: str) -> dict[str, Any]:
        """What the suite says of a case or control, its adapter's name included."""
        if case in self.controls:
            return self.controls[case]
        return {**self.defaults, **self.cases[case]}

    def make(self, case: str) -> Any:
        """The case as a value of its adapter's settings dataclass."""
        given = self.settings(case)
        if "adapter" not in given:
            raise UsageError(
                f"case {case!r} names no adapter; known: {', '.join(registry.names())}"
            )
        return registry.make_case(
            given["adapter"], {k: v for k, v in given.items() if k != "adapter"}
        )

    def split(self) -> str:
        """The split that is asked: where none is named, one that no case was trained on."""
        if self.data.split or not self.data.root:
            return self.data.split or "val"
        wanted = {getattr(self.make(case), "default_split", "val") for case in self.cases}
        return "test" if "test" in wanted else "val"

    def contaminations(self) -> list[str]:
        """The cases whose weights were trained on the very split of ReasonSeg that they are asked about."""
        made = {case: self.make(case) for case in self.cases} if self.data.root else {}
        found = {
            case: one.contaminated(self.split())
            for case, one in made.items()
            if hasattr(one, "contaminated")
        }
        return [f"{case}: {warning}" for case, warning in found.items() if warning]

    def all_teams(self) -> list[Team]:
        """The teams; where the suite names none, all of its cases are one."""
        if not self.teams:
            return [Team("", self.reference, tuple(self.cases))]
        return [Team(name, cases[0], tuple(cases)) for name, cases in self.teams.items()]

    def all_cases(self) -> list[str]:
        return [*self.cases, *self.controls]

    def references(self) -> dict[str, str]:
        """Of each case the one that it is compared with."""
        return {case: team.reference for team in self.all_teams() for case in team.cases}

    def references_for(self, claim: Claim) -> dict[str, str]:
        """Of each case, or each training, that the claim can be about, the one that it is compared with."""
        first = next(iter(self.trainings), "")
        return dict.fromkeys(self.trainings, first) if claim.of_trainings else self.references()

    def fits(self) -> list[tuple[str, str]]:
        """The cases and cards of which claims say that the one fits the other, each pair once."""
        claims = [claim for claim in self.claims if not claim.of_trainings]
        return list(dict.fromkeys((c.candidate, c.card) for c in claims if c.candidate and c.card))
