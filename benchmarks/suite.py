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

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError

from ..harness import metrics
from ..harness.errors import UsageError, unknown
from ..harness.memory import card_bytes
from ..models import registry, saved
from ..models.axes import LisaCase
from ..reports.thresholds import Gate
from . import factors, trainings
from .claim import Claim
from .sections import Data, Plan, Strict

SHIPPED = files("lisabench.benchmarks") / "suites"


SECTIONS: dict[str, type[BaseModel]] = {"plan": Plan, "data": Data, "gate": Gate}


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
            raise UsageError(f"case {case!r} names no adapter; known: {', '.join(registry.names())}")
        return registry.make_case(given["adapter"], {k: v for k, v in given.items() if k != "adapter"})

    def split(self) -> str:
        """The split that is asked: where none is named, one that no case was trained on."""
        if self.data.split or not self.data.root:
            return self.data.split or "val"
        wanted = {getattr(self.make(case), "default_split", "val") for case in self.cases}
        return "test" if "test" in wanted else "val"

    def contaminations(self) -> list[str]:
        """The cases whose weights were trained on the very split of ReasonSeg that they are asked about."""
        made = {case: self.make(case) for case in self.cases} if self.data.root else {}
        found = {case: one.contaminated(self.split()) for case, one in made.items() if hasattr(one, "contaminated")}
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


def shipped() -> dict[str, str]:
    """Names and titles of the suites that come with the package."""
    return {name: yaml.safe_load(_shipped(name).read_text())["title"] for name in shipped_names()}


def shipped_names() -> list[str]:
    return sorted(item.name.removesuffix(".yaml") for item in SHIPPED.iterdir() if item.name.endswith(".yaml"))


def _shipped(name: str) -> Any:
    return SHIPPED / f"{name}.yaml"


MERGE = "<<"  # what stands beside it in a mapping takes the place of what it brings


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != MERGE]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(name: str, changes: Mapping[str, Any] | None = None) -> Suite:
    """A shipped suite by name, or one from a YAML file, with changes as `change` takes them.

    Raises:
        UsageError: no such suite, or something in it that it cannot have.
    """
    content = {"name": Path(name).stem} | _content(name)
    if isinstance(content.get("claims"), str):
        content["claims"] = _claims(content["claims"])
    for key, value in (changes or {}).items():
        change(content, key, value)
    return validate(content)


def _content(name: str) -> dict[str, Any]:
    text, origin = _read(name)
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"suite {origin}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UsageError(f"suite {origin}: expected a mapping with title, reference and cases")
    return content


def _claims(name: str) -> list[Any]:
    claims = _content(name).get("claims")
    if not isinstance(claims, list):
        raise UsageError(
            f"suite {name} states no claims that another suite could take; name one that lists them itself"
        )
    return claims


def _read(name: str) -> tuple[str, str]:
    if name in shipped_names():
        return _shipped(name).read_text(), name
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            return path.read_text(encoding="utf-8"), name
        except OSError as error:
            raise UsageError(f"suite {name}: {error.strerror}") from error
    raise unknown("suite", name, shipped_names())


def validate(content: Mapping[str, Any]) -> Suite:
    """Checks everything that can be checked without loading a model.

    Raises:
        UsageError: naming the first thing that is wrong, and what is known in its place.
    """
    for key in content:
        if key not in Suite.model_fields:
            raise unknown("key of a suite", key, Suite.model_fields)
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"suite {content.get('name')}: {problems}") from error
    twice = suite.cases.keys() & suite.controls.keys()
    if twice:
        raise UsageError(f"suite {suite.name}: {', '.join(sorted(twice))} is both a case and a control; rename one")
    if suite.reference not in suite.cases:
        raise unknown("case as reference", suite.reference, suite.cases)
    _check_teams(suite)
    _check_memory(suite)
    for metric in suite.metrics:
        if metric not in metrics.METRICS:
            raise unknown("metric", metric, metrics.METRICS)
    if suite.plan.gpu_memory:
        card_bytes(suite.plan.gpu_memory)
    for case in suite.all_cases():
        suite.make(case)
    factors.check(suite)
    suite.gate.check(suite.cases)
    trainings.check(suite.trainings)
    for claim in suite.claims:
        claim.check(suite.references_for(claim))
        trainings.check_card(claim, suite.trainings)
    return suite


def _check_teams(suite: Suite) -> None:
    named = [case for cases in suite.teams.values() for case in cases]
    for case in named:
        if case not in suite.cases:
            raise unknown("case in a team", case, suite.cases)
    wrong = [case for case in suite.cases if suite.teams and named.count(case) != 1]
    if wrong or not all(suite.teams.values()):
        where = ", ".join(wrong) or "an empty team"
        raise UsageError(f"suite {suite.name}: each case belongs to exactly one team, which is not so for {where}")


def _check_memory(suite: Suite) -> None:
    if not suite.plan.memory_processes and any(len(team.cases) > 1 for team in suite.all_teams()):
        why = "cases that take turns are laid out by what the memory pass finds"
        raise UsageError(f"suite {suite.name}: memory_processes is 0, but {why}; make it 1 or more")


def change(content: dict[str, Any], key: str, value: Any) -> None:
    """One ``--set key=value``.

    The key is ``metrics`` or ``reference``; a field of the plan or of the data, or a setting of cases, and then it is
    changed wherever there is one of that name; or it says where: ``plan.KEY``, ``data.KEY``, ``CASE.KEY``. Weights that
    are named for all go to the cases of the variant that they are of.
    """
    where, _, name = key.rpartition(".")
    if where in SECTIONS and name in SECTIONS[where].model_fields:
        content[where] = {**(content.get(where) or {}), name: value}
    elif where:
        _change_case(content, where, name, value)
    elif key in ("metrics", "reference"):
        content[key] = [value] if key == "metrics" and isinstance(value, str) else value
    else:
        _change_everywhere(content, key, value)


def _change_case(content: dict[str, Any], case: str, setting: str, value: Any) -> None:
    cases = content.get("cases") or {}
    if case not in cases:
        raise unknown("case", case, cases)
    cases[case] = {**(cases[case] or {}), setting: value}


def _change_everywhere(content: dict[str, Any], key: str, value: Any) -> None:
    sections = [section for section, model in SECTIONS.items() if key in model.model_fields]
    settings = {case: registry.settings_of(adapter) for case, adapter in _adapters(content).items()}
    cases = [case for case, known in settings.items() if key in known]
    if not sections and not cases:
        fields = {name for model in SECTIONS.values() for name in model.model_fields}
        of_cases = {name for known in settings.values() for name in known}
        raise unknown("setting", key, {"metrics", "reference"} | fields | of_cases)
    if key == "weights":
        variant = saved.variant(str(value))
        cases = [case for case in cases if variant in (None, _variant(content, case))] or cases
    for place in (*sections, *cases):
        change(content, f"{place}.{key}", value)


def _variant(content: Mapping[str, Any], case: str) -> str:
    return ((content.get("defaults") or {}) | (content["cases"][case] or {})).get("vision", LisaCase.vision)


def _adapters(content: Mapping[str, Any]) -> dict[str, str]:
    """The adapter of every case that names one; what is amiss with the others is said when the suite is validated."""
    defaults = content.get("defaults") or {}
    merged = {name: {**defaults, **(case or {})} for name, case in (content.get("cases") or {}).items()}
    return {name: case["adapter"] for name, case in merged.items() if "adapter" in case}
