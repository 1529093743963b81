"""Measure a case of a run again: alone, in fresh processes, on the same machine.

The new run stays in the run's folder, under ``again/``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...harness import environment
from ...harness.environment import SAME_VERSIONS, different_machines, differing
from ...harness.errors import NothingToCompare, UsageError
from ...harness.records.manifest import Manifest
from ...harness.records.run import Run, read_run
from ..progress import Progress
from ..queries import Queries
from ..resolve import resolve_recorded
from ..run.session import Session

AGAIN = "again"


def measure_again(run: Run, case: str, progress: Progress) -> Run:
    """Measure one case by itself, by the plan and over the queries of its run.

    Raises:
        NothingToCompare: this is not the run's machine, software or data, or another version of
            lisabench has made the run.
        LisabenchError: it could not be measured.
    """
    manifest = run.manifest
    try:
        suite = resolve_recorded(definition_of(manifest.definition, manifest.data.split, case))
    except UsageError as error:
        raise NothingToCompare(f"the suite of the run cannot be used here: {error}") from error
    except (KeyError, TypeError) as error:
        raise NothingToCompare("another version of lisabench has made the run") from error
    if suite.gpu is not None:
        environment.choose_gpu(suite.gpu)  # before the machine is described: it may have others
    _check_same_machine(manifest)
    adapter_sha256 = manifest.case(case).adapter_sha256  # older runs did not note it
    if adapter_sha256 is not None and adapter_sha256 != suite.case(case).adapter_sha256:
        raise NothingToCompare(
            f"the file of adapter {suite.case(case).adapter!r} is not that of the run any more"
        )
    queries = Queries.of(suite)
    if queries.fingerprint != manifest.data.fingerprint:
        raise NothingToCompare("the data are not those of the run any more")

    def show_again(done: int, total: int, label: str, left: float | None = None) -> None:
        progress(done, total, f"again: {label}", left)

    folder = _new_folder(run.folder)
    Session(suite, queries, folder, show_again).start()
    return read_run(folder)


def definition_of(definition: Mapping[str, Any], split: str, case: str) -> dict[str, Any]:
    """Return the suite of a run with nothing but one of its cases.

    Args:
        definition: the suite, as whichever version that made the run has written it into
            ``run.json``.
        split: that the run has evaluated. The suite may have left it to the weights of its cases.
        case: name of the case.
    """
    alone = dict(definition)
    empty = {"teams": {}, "factors": [], "controls": {}, "claims": [], "trainings": {}, "sweep": {}}
    for key, value in empty.items():
        if key in alone:
            alone[key] = value
    gate = definition.get("gate") or {}
    if gate.get("cases"):
        own = {name: limits for name, limits in gate["cases"].items() if name == case}
        alone["gate"] = {**gate, "cases": own}
    alone["reference"] = case
    alone["cases"] = {case: definition["cases"][case]}
    alone["data"] = {**definition["data"], "split": split}
    return alone


def _check_same_machine(manifest: Manifest) -> None:
    """Check that this is the machine and the software of a run.

    Raises:
        NothingToCompare: naming the first thing that differs.
    """
    reasons = different_machines(dict(manifest.environment or {}), environment.describe_machine())
    versions_then, versions_now = manifest.versions or {}, environment.versions()
    then = {name: versions_then.get(name) for name in SAME_VERSIONS}
    now = {name: versions_now.get(name) for name in SAME_VERSIONS}
    for name, (before, after) in differing(then, now).items():
        reasons.append(f"measured with {name} {before}, here is {after}")
    if reasons:
        raise NothingToCompare(f"cannot be measured again here: {reasons[0]}")


def _new_folder(folder: Path) -> Path:
    """Return the first free folder under ``again/``: an older measurement is kept."""
    number = 1
    while (folder / AGAIN / str(number)).exists():
        number += 1
    return folder / AGAIN / str(number)
