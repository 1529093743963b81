"""Resolve a suite: make each of its cases once, and work out what its file leaves open."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..harness.environment import is_numbered
from ..harness.errors import UsageError, unknown
from ..harness.records.manifest import Group
from ..models import adapter_files, registry
from .resolved_suite import ResolvedCase, ResolvedSuite
from .suite import ADAPTER, BATCH, Batch, Plan, Suite, as_batch


def resolve(suite: Suite) -> ResolvedSuite:
    """Return a suite with all of its cases made.

    Args:
        suite: its groups must be valid; `suite_file.validate` checks that first.

    A case whose adapter raises while it is imported is a case that fails, as if the adapter could
    not be built. The others are measured all the same.

    Raises:
        UsageError: a case names no adapter, a setting that its adapter does not take, or a batch
            that is none; or the adapter of no case can be loaded.
    """
    groups = _groups(suite)
    models = []
    for name, given in suite.cases.items():
        (group,) = [group for group in groups if name in group.cases]
        models.append(_resolved_model(name, {**suite.defaults, **given}, group, suite.plan))
    if all(case.load_error for case in models):
        raise registry.AdapterLoadError(models[0].load_error)
    baselines = []
    for name, given in suite.controls.items():
        baselines.append(_resolved_baseline(name, given))
    split = _split(suite, models)
    return ResolvedSuite(
        definition=suite,
        models=tuple(models),
        baselines=tuple(baselines),
        groups=groups,
        split=split,
        contaminations=_contaminations(suite, models, split),
        gpu=_gpu(suite, [*models, *baselines]),
    )


def resolve_recorded(definition: Mapping[str, Any]) -> ResolvedSuite:
    """Return the suite that a run has written into its manifest.

    Raises:
        UsageError: another version of lisabench has written it, and this one cannot read it.
    """
    try:
        suite = Suite.model_validate(definition)
    except ValidationError as error:
        raise UsageError(
            "another version of lisabench has made the run, and this one cannot read its suite; "
            "use that version"
        ) from error
    return resolve(suite)


def _groups(suite: Suite) -> tuple[Group, ...]:
    if not suite.groups:
        return (Group("", suite.reference, tuple(suite.cases)),)
    groups = []
    for name, cases in suite.groups.items():
        # The first case of a group is the one that the others are compared with.
        groups.append(Group(name, cases[0], tuple(cases)))
    return tuple(groups)


def _resolved_model(name: str, given: Mapping[str, Any], group: Group, plan: Plan) -> ResolvedCase:
    adapter = _adapter_of(name, given)
    loaded = _loaded(given)
    return ResolvedCase(
        name=name,
        role="model",
        adapter=adapter,
        given=given,
        config=loaded.config,
        batch=_batch_of(name, given, plan),
        group=group.name,
        reference=group.reference,
        adapter_sha256=loaded.adapter_sha256,
        load_error=loaded.load_error,
    )


def _resolved_baseline(name: str, given: Mapping[str, Any]) -> ResolvedCase:
    adapter = _adapter_of(name, given)
    loaded = _loaded(given)
    return ResolvedCase(
        name=name,
        role="control",
        adapter=adapter,
        given=given,
        config=loaded.config,
        adapter_sha256=loaded.adapter_sha256,
        load_error=loaded.load_error,
    )


def _batch_of(name: str, given: Mapping[str, Any], plan: Plan) -> Batch:
    """Return how many queries of a case are timed at once: its own batch, or that of the plan."""
    try:
        return as_batch(given.get(BATCH, plan.batch))
    except ValueError as error:
        raise UsageError(f"case {name!r}: {error}") from error


def _adapter_of(name: str, given: Mapping[str, Any]) -> str:
    if ADAPTER not in given:
        known = ", ".join(registry.names())
        raise UsageError(f"case {name!r} names no adapter; known: {known}")
    return given[ADAPTER]


class _Loaded(NamedTuple):
    """What an adapter makes of the settings of a case, or why it cannot be loaded.

    Attributes:
        config: a value of its settings dataclass, or a `registry.NotLoaded`.
        adapter_sha256: of its file; None for a shipped adapter, and for a module that cannot be
            loaded.
        load_error: why it cannot be loaded.
    """

    config: Any
    adapter_sha256: str | None
    load_error: str | None = None


def _loaded(given: Mapping[str, Any]) -> _Loaded:
    adapter = given[ADAPTER]
    try:
        return _Loaded(_config_of(given), registry.source_sha256(adapter))
    except registry.AdapterLoadError as error:
        # A file can be hashed all the same: a run is not resumed with another one.
        sha256 = adapter_files.sha256_of(adapter) if adapter_files.is_file(adapter) else None
        reason = str(error)
        return _Loaded(registry.NotLoaded(reason), sha256, reason)


def _config_of(given: Mapping[str, Any]) -> Any:
    """Return the settings of a case as its adapter's dataclass."""
    adapter = given[ADAPTER]
    settings = {name: value for name, value in given.items() if name not in (ADAPTER, BATCH)}
    known = {*registry.settings_of(adapter), BATCH}
    for name in settings:
        if name not in known:
            raise unknown(f"setting of {adapter!r}", name, known)
    config = registry.make_case(adapter, settings)
    if hasattr(config, "check_for_run"):
        config.check_for_run()
    return config


def _gpu(suite: Suite, cases: list[ResolvedCase]) -> str | None:
    """Return the GPU that cases and trainings name by its number; None where none does.

    Raises:
        UsageError: they name several.
    """
    devices = [case.device for case in cases]
    devices += [str(options.get("device")) for options in suite.trainings.values()]
    gpus = sorted({device for device in devices if is_numbered(device)})
    if len(gpus) > 1:
        raise UsageError(
            f"suite {suite.name}: it names several GPUs ({', '.join(gpus)}), and costs are "
            "compared on one; name one, or measure each in a run of its own"
        )
    return gpus[0] if gpus else None


def _split(suite: Suite, models: list[ResolvedCase]) -> str:
    """Return the split to evaluate: where the suite names none, one that no case was trained on."""
    if suite.data.split:
        return suite.data.split
    if suite.data.root is None:  # generated scenes: no weights have seen them
        return "val"
    # An adapter whose weights know what they were trained on has `default_split` in its settings.
    splits = {getattr(case.config, "default_split", "val") for case in models}
    return "test" if "test" in splits else "val"


def _contaminations(suite: Suite, models: list[ResolvedCase], split: str) -> tuple[str, ...]:
    """Return a warning for each case whose weights were trained on the split that is evaluated."""
    if suite.data.root is None:
        return ()
    warnings = []
    for case in models:
        if hasattr(case.config, "contaminated"):
            warning = case.config.contaminated(split)
            if warning:
                warnings.append(f"{case.name}: {warning}")
    return tuple(warnings)
