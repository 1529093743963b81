"""A case of a run, measured again: alone, in fresh processes, where it was measured before.

What comes of it stays in the run's folder, under ``again/``.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...harness import environment
from ...harness.environment import SAME_VERSIONS, different_machines, differing
from ...harness.errors import NothingToCompare
from ...harness.records.run import Run, read_run
from ..progress import Progress
from ..queries import Queries
from ..run.session import Session
from ..suite import Suite

AGAIN = "again"


def measure_again(run: Run, case: str, progress: Progress) -> Run:
    """The case by itself, by the plan and over the queries of the run.

    Raises:
        NothingToCompare: this is not the run's machine, software or data.
        LisabenchError: it could not be measured.
    """
    _is_here(run.run)
    suite = alone(run.run, case)
    queries = Queries.of(suite)
    if queries.fingerprint != run.run["data"]["fingerprint"]:
        raise NothingToCompare("the data are not those of the run any more")
    folder = _new_folder(run.folder)
    Session(
        suite, queries, folder, lambda done, total, what: progress(done, total, f"again: {what}")
    ).start()
    return read_run(folder)


def alone(page: dict[str, Any], case: str) -> Suite:
    """The suite of a run with nothing but one of its cases.

    Raises:
        NothingToCompare: another version has written the suite down.
    """
    try:
        return Suite.model_validate(definition_of(page, case))
    except (ValidationError, KeyError, TypeError) as error:
        raise NothingToCompare("another version of lisabench has made the run") from error


def definition_of(page: dict[str, Any], case: str) -> dict[str, Any]:
    """The suite of a run with nothing but one of its cases, as whichever version that made the run writes suites."""
    whole = page["definition"]
    nothing = {"teams": {}, "factors": [], "controls": {}, "claims": [], "trainings": {}}
    emptied = {key: empty for key, empty in nothing.items() if key in whole}
    data = whole["data"] | {"split": page["data"]["split"]}
    gate = whole.get("gate") or {}
    if gate.get("cases"):
        emptied["gate"] = gate | {
            "cases": {name: own for name, own in gate["cases"].items() if name == case}
        }
    return (
        whole | emptied | {"reference": case, "cases": {case: whole["cases"][case]}, "data": data}
    )


def _is_here(page: dict[str, Any]) -> None:
    before, here = page["versions"] or {}, environment.versions()
    software = differing(
        *({name: versions.get(name) for name in SAME_VERSIONS} for versions in (before, here))
    )
    reasons = different_machines(page["passport"] or {}, environment.describe_machine())
    reasons += [
        f"measured with {name} {then}, here is {now}" for name, (then, now) in software.items()
    ]
    if reasons:
        raise NothingToCompare(f"cannot be measured again here: {reasons[0]}")


def _new_folder(folder: Path) -> Path:
    """Nothing is measured into the folder of an older look."""
    number = 1
    while (folder / AGAIN / str(number)).exists():
        number += 1
    return folder / AGAIN / str(number)
