"""What a gate ends with: its checks, those of them that were measured again, what else changed, and an exit code."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from ...harness.environment import Sides, differing
from ..schema_base import Strict
from .baseline import Baseline
from .checks import FAILURES, Check, Verdict

SCHEMA = "lisabench.check/1"
FAILING: tuple[Verdict, ...] = ("regression", "missing")
UNSURE: tuple[Verdict, ...] = ("inconclusive", "unconfirmed")

Outcome = Literal["holds", "regression", "inconclusive", "nothing comparable", "broken"]
EXIT_CODES: Mapping[Outcome, int] = {
    "holds": 0,
    "regression": 1,
    "broken": 2,
    "inconclusive": 3,
    "nothing comparable": 4,
}


class Checked(Strict):
    """What ``lisabench check --json`` prints."""

    schema_: Literal["lisabench.check/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version."
    )
    run: str = Field(description="Folder of the run.")
    baseline: str = Field(
        description="The baseline's file, or the version that it was measured side by side with."
    )
    paired: bool = Field(
        default=False, description="Both were measured in one job, in pairs of processes."
    )
    in_turns: bool = Field(
        default=False, description="The two of each pair took turns block by block."
    )
    outcome: Outcome = Field(description="Of the whole gate.")
    exit_code: int = Field(description="That the command ends with.")
    problem: str | None = Field(default=None, description="Why nothing could be checked.")
    checks: list[Check] = Field(
        default=[], description="Every figure of every case of the baseline."
    )
    changed: dict[str, Sides] = Field(
        default={}, description="What differs beside the figures: [baseline, run]."
    )
    new: list[str] = Field(
        default=[], description="Cases of the run that the baseline does not have."
    )

    def of(self, *verdicts: Verdict) -> list[Check]:
        return [check for check in self.checks if check.verdict in verdicts]


def outcome(checks: Sequence[Check]) -> Outcome:
    """A regression weighs more than a refusal, and that more than a doubt, which a pipeline may let pass."""
    verdicts = {check.verdict for check in checks}
    if verdicts.intersection(FAILING):
        return "regression"
    compared = {check.verdict for check in checks if check.metric != FAILURES}
    if "refused" in verdicts or not compared.intersection(("holds", *UNSURE)):
        return "nothing comparable"
    return "inconclusive" if verdicts.intersection(UNSURE) else "holds"


def to_measure_again(checks: Sequence[Check]) -> list[str]:
    """The cases with a regression; a case that the run does not have cannot be measured again."""
    return list(
        dict.fromkeys(c.case for c in checks if c.verdict in FAILING and c.metric != "case")
    )


def settle(checks: Sequence[Check], again: Mapping[str, Sequence[Check] | str]) -> list[Check]:
    """The checks with what a second, fresh measurement says in the place of each regression.

    Args:
        checks: of the run.
        again: of each case that was to be measured again the checks of that, or why it could not be.
    """
    return [
        _settled(check, again[check.case]) if _is_open(check, again) else check for check in checks
    ]


def _is_open(check: Check, again: Mapping[str, object]) -> bool:
    return check.verdict in FAILING and check.case in again


def _settled(first: Check, again: Sequence[Check] | str) -> Check:
    if isinstance(again, str):
        return first.model_copy(update={"verdict": "unconfirmed", "why": again})
    second = next((c for c in again if (c.case, c.metric) == (first.case, first.metric)), None)
    if second is None:
        return first.model_copy(
            update={"verdict": "unconfirmed", "why": "it was not found when measured again"}
        )
    return second.model_copy(update={"first": first})


def checked(
    run: str, file: str, before: Baseline, after: Baseline, checks: Sequence[Check]
) -> Checked:
    """All that is to be told of a gate of two sessions."""
    found = outcome(checks)
    return Checked(
        run=run,
        baseline=file,
        outcome=found,
        exit_code=EXIT_CODES[found],
        checks=list(checks),
        changed=changes(before, after),
        new=[case.name for case in after.cases if before.case(case.name) is None],
    )


def broken(run: str, file: str, problem: str, exit_code: int) -> Checked:
    """A gate that could not be held: for what CI shows, beside the message and the exit code."""
    found: Outcome = (
        "nothing comparable" if exit_code == EXIT_CODES["nothing comparable"] else "broken"
    )
    return Checked(run=run, baseline=file, outcome=found, exit_code=exit_code, problem=problem)


def changes(before: Baseline, after: Baseline) -> dict[str, Sides]:
    """Settings, versions, facts of the machine and parts of the plan that differ: never refused, always listed."""
    pairs = {case.name: (case, after.case(case.name)) for case in before.cases}
    settings = {
        name: differing(one.settings, other.settings)
        for name, (one, other) in pairs.items()
        if other
    }
    groups = settings | {
        "version": differing(before.versions, after.versions),
        "machine": differing(before.passport, after.passport),
        "plan": differing(before.plan, after.plan),
    }
    return {
        f"{group}: {name}": sides
        for group, found in groups.items()
        for name, sides in found.items()
    }
