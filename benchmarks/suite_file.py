"""Read a suite from its YAML file, apply changes of the command line, check and resolve it."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..harness.errors import Place, UsageError, unknown, validation_problems
from ..harness.input_file import read_text
from ..harness.paths import missing, user_path
from ..harness.yaml_file import read_yaml
from ..models import adapter_files, registry
from ..models.lisa import weights_format
from ..models.lisa.config import LisaConfig
from ..reports.gate.thresholds import Gate
from .claim import Claim
from .resolve import resolve
from .resolved_suite import ResolvedSuite
from .suite import ADAPTER, BATCH, KEYS, Data, Plan, Suite
from .suite_checks import check_definition, check_resolved
from .sweep import expanded

SHIPPED = files("lisabench.benchmarks") / "suites"
SECTIONS: dict[str, type[BaseModel]] = {"plan": Plan, "data": Data, "gate": Gate}
PARTS: dict[str, type[BaseModel]] = SECTIONS | {"claims": Claim}


def shipped() -> dict[str, str]:
    """Return the titles of the suites that come with the package, by name."""
    titles = {}
    for name in shipped_names():
        titles[name] = read_yaml(_shipped_text(name), name)["title"]
    return titles


def shipped_names() -> list[str]:
    """Return the names of the suites that come with the package, sorted."""
    names = [entry.name for entry in SHIPPED.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load(name: str, changes: Mapping[str, Any] | None = None) -> ResolvedSuite:
    """Read, check and resolve a suite.

    Args:
        name: of a shipped suite, or of a YAML file. The files of adapters that it names lie where
            it says from its own folder.
        changes: as `change` takes them, by key. Files of adapters in them lie where they say from
            the current folder.

    Raises:
        UsageError: there is no such suite, or it has something that a suite cannot have.
    """
    content = {"name": Path(name).stem} | _read(name)
    if name not in shipped_names():
        content = with_adapters_in(user_path(name).parent, content)
    if isinstance(content.get("claims"), str):
        content["claims"] = _claims_of(content["claims"])
    for key, value in (changes or {}).items():
        change(content, key, value)
    return validate(content)


def validate(content: Mapping[str, Any]) -> ResolvedSuite:
    """Check everything that can be checked without loading a model, and resolve the suite.

    Args:
        content: of a suite file.

    Raises:
        UsageError: naming the first thing that is wrong, and what is expected in its place.
    """
    for key in content:
        if key not in KEYS:
            raise unknown("key of a suite", key, KEYS)
    if "groups" in content and "teams" in content:
        raise UsageError(
            f"suite {content.get('name')}: it has both groups and teams, which is the older name "
            "of the same key; leave teams out"
        )
    try:
        definition = Suite.model_validate(content)
    except ValidationError as error:
        problems = validation_problems(error, keys_at=_keys_at)
        raise UsageError(f"suite {content.get('name')}: {problems}") from error
    definition = expanded(definition)
    check_definition(definition)
    suite = resolve(definition)
    check_resolved(suite)
    return suite


def _keys_at(place: Place) -> Iterable[str]:
    """Return the keys that a part of a suite may have, such as a claim at ``("claims", 0)``."""
    return PARTS[str(place[0])].model_fields


# Reading


def _read(name: str) -> dict[str, Any]:
    """Return the content of a shipped suite or of a YAML file."""
    content = read_yaml(_text_of(name), f"suite {name}")
    if not isinstance(content, dict):
        raise UsageError(f"suite {name}: expected a mapping with title, reference and cases")
    return content


def _text_of(name: str) -> str:
    if name in shipped_names():
        return _shipped_text(name)
    path = user_path(name)
    if path.suffix not in (".yaml", ".yml"):
        if path.exists():
            raise UsageError(
                f"suite {name}: expected the name of a suite that comes with lisabench, or a file "
                "whose name ends in .yaml"
            )
        raise unknown("suite", name, shipped_names())
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise UsageError(missing("suite", path)) from error
    except OSError as error:
        raise UsageError(f"suite {name}: {error.strerror}") from error


def _shipped_text(name: str) -> str:
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def with_adapters_in(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suite whose adapters' files are named from the current folder.

    Args:
        folder: that they are named from.
        content: of a suite file, not checked yet.
    """
    changed = dict(content)
    for key in ("defaults", "sweep"):
        if isinstance(content.get(key), dict):
            changed[key] = _with_adapter_in(folder, content[key])
    for key in ("cases", "controls"):
        if isinstance(content.get(key), dict):
            changed[key] = {}
            for case, settings in content[key].items():
                changed[key][case] = _with_adapter_in(folder, settings)
    return changed


def _with_adapter_in(folder: Path, settings: Any) -> Any:
    """Return settings whose adapter's file, or each of them in a sweep, is joined to a folder."""
    if not isinstance(settings, dict) or ADAPTER not in settings:
        return settings
    adapter = settings[ADAPTER]
    if isinstance(adapter, list):
        return {**settings, ADAPTER: [_in_folder(folder, each) for each in adapter]}
    return {**settings, ADAPTER: _in_folder(folder, adapter)}


def _in_folder(folder: Path, adapter: Any) -> Any:
    # A path from the home folder, such as ~/models/mine.py, is none from the suite's.
    is_path = isinstance(adapter, str) and adapter_files.is_file(adapter)
    if is_path and not adapter.startswith("~"):
        return str(folder / adapter)
    return adapter


def _claims_of(name: str) -> list[Any]:
    """Return the claims that another suite lists."""
    claims = _read(name).get("claims")
    if not isinstance(claims, list):
        raise UsageError(
            f"suite {name} states no claims that another suite could take; name one that lists "
            "them itself"
        )
    return claims


# Changing


def change(content: dict[str, Any], key: str, value: Any) -> None:
    """Apply one ``--set key=value`` to the content of a suite file.

    A key with a dot names its place: ``plan.KEY``, ``data.KEY``, ``gate.KEY``, ``sweep.SETTING`` or
    ``CASE.KEY``, of a case as the file names it. Without a dot it is ``metrics``, ``reference`` or
    ``cards``, or it is changed in every section and case that has it.

    Raises:
        UsageError: there is no such key or case, or the suite sweeps the key.
    """
    place, _, name = key.rpartition(".")
    if place in SECTIONS and name in SECTIONS[place].model_fields:
        section = content.get(place) or {}
        content[place] = {**section, name: value}
    elif place == "sweep":
        values = value if isinstance(value, list) else [value]
        content[place] = {**(content.get(place) or {}), name: values}
    elif place in SECTIONS and place not in content.get("cases", {}):
        raise unknown(f"key of {place}", name, SECTIONS[place].model_fields)
    elif place:
        _change_case(content, place, name, value)
    elif key in ("metrics", "cards") and isinstance(value, str):
        content[key] = [value]
    elif key in ("metrics", "reference", "cards"):
        content[key] = value
    elif key in (content.get("sweep") or {}):
        # As a setting of each case, it would silently replace the sweep.
        raise UsageError(
            f"the suite sweeps {key}; use sweep.{key}={value} for all cases, or CASE.{key}={value} "
            "for one"
        )
    else:
        _change_everywhere(content, key, value)


def _change_case(content: dict[str, Any], case: str, setting: str, value: Any) -> None:
    cases = content.get("cases") or {}
    if case not in cases:
        raise unknown("case", case, cases)
    settings = cases[case] or {}
    cases[case] = {**settings, setting: value}


def _change_everywhere(content: dict[str, Any], key: str, value: Any) -> None:
    """Change a key in every section and case that has one of that name."""
    sections = [section for section, model in SECTIONS.items() if key in model.model_fields]
    settings_of = {}
    for case, settings in _with_defaults(content).items():
        # A case without an adapter is refused when the suite is resolved.
        if "adapter" in settings:
            try:
                settings_of[case] = set(registry.settings_of(settings["adapter"]))
            except registry.AdapterLoadError:  # the case fails with the reason, when it is measured
                continue
            if BATCH in settings:
                settings_of[case].add(BATCH)
    cases = [case for case, settings in settings_of.items() if key in settings]

    if not sections and not cases:
        known = {"metrics", "reference", "cards"}
        for model in SECTIONS.values():
            known.update(model.model_fields)
        for settings in settings_of.values():
            known.update(settings)
        raise unknown("setting", key, known)
    if key == "weights":
        cases = _cases_of_weights(content, str(value), cases)
    for place in (*sections, *cases):
        change(content, f"{place}.{key}", value)


def _cases_of_weights(content: Mapping[str, Any], weights: str, cases: list[str]) -> list[str]:
    """Return the cases of the variant that some weights are of, since they do not fit the others.

    Random and packaged weights are of every variant. Where no case is of the variant, all cases are
    returned: each then says what does not fit.
    """
    variant = weights_format.variant(weights)
    if variant is None:
        return cases
    settings = _with_defaults(content)
    of_variant = [
        case for case in cases if settings[case].get("vision", LisaConfig.vision) == variant
    ]
    return of_variant or cases


def _with_defaults(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each case, with the defaults of the suite."""
    defaults = content.get("defaults") or {}
    settings = {}
    for name, given in (content.get("cases") or {}).items():
        settings[name] = {**defaults, **(given or {})}
    return settings
