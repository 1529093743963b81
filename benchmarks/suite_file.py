"""Read a suite from its YAML file, apply changes to it and check it."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..harness import metrics
from ..harness.errors import UsageError, unknown
from ..harness.memory import card_bytes
from ..models import registry
from ..models.lisa import weights_format
from ..models.lisa.config import LisaConfig
from ..reports.gate.thresholds import Gate
from . import factors
from .suite import Data, Plan, Suite
from .training import in_suites

SHIPPED = files("lisabench.benchmarks") / "suites"


SECTIONS: dict[str, type[BaseModel]] = {"plan": Plan, "data": Data, "gate": Gate}


def shipped() -> dict[str, str]:
    """Names and titles of the suites that come with the package."""
    return {name: yaml.safe_load(_shipped(name).read_text())["title"] for name in shipped_names()}


def shipped_names() -> list[str]:
    return sorted(
        item.name.removesuffix(".yaml") for item in SHIPPED.iterdir() if item.name.endswith(".yaml")
    )


def _shipped(name: str) -> Any:
    return SHIPPED / f"{name}.yaml"


MERGE = "<<"  # what stands beside it in a mapping takes the place of what it brings


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [
            self.construct_object(key, deep=True) for key, _ in node.value if key.value != MERGE
        ]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} stands twice", node.start_mark
            )
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
        raise UsageError(
            f"suite {suite.name}: {', '.join(sorted(twice))} is both a case and a control; rename one"
        )
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
    in_suites.check(suite.trainings)
    for claim in suite.claims:
        claim.check(suite.references_for(claim))
        in_suites.check_card(claim, suite.trainings)
    return suite


def _check_teams(suite: Suite) -> None:
    named = [case for cases in suite.teams.values() for case in cases]
    for case in named:
        if case not in suite.cases:
            raise unknown("case in a team", case, suite.cases)
    wrong = [case for case in suite.cases if suite.teams and named.count(case) != 1]
    if wrong or not all(suite.teams.values()):
        where = ", ".join(wrong) or "an empty team"
        raise UsageError(
            f"suite {suite.name}: each case belongs to exactly one team, which is not so for {where}"
        )


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
        variant = weights_format.variant(str(value))
        cases = [case for case in cases if variant in (None, _variant(content, case))] or cases
    for place in (*sections, *cases):
        change(content, f"{place}.{key}", value)


def _variant(content: Mapping[str, Any], case: str) -> str:
    return ((content.get("defaults") or {}) | (content["cases"][case] or {})).get(
        "vision", LisaConfig.vision
    )


def _adapters(content: Mapping[str, Any]) -> dict[str, str]:
    """The adapter of every case that names one; what is amiss with the others is said when the suite is validated."""
    defaults = content.get("defaults") or {}
    merged = {
        name: {**defaults, **(case or {})} for name, case in (content.get("cases") or {}).items()
    }
    return {name: case["adapter"] for name, case in merged.items() if "adapter" in case}
