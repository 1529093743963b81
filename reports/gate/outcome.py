"""The outcome of a gate: its checks with their re-measurements, and an exit code."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from ...harness.environment import Change, differing
from ..schema_base import Strict
from .baseline import Baseline
from .checks import FAILURES, Check, Verdict

SCHEMA = "lisabench.check/1"
ADAPTER_FILE = "adapter_sha256"  # a setting of each case whose adapter comes from elsewhere
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
    same_code: bool = Field(
        default=False, description="Both ran the same code, in two environments."
    )
    machine: str | None = Field(default=None, description="The GPU, or else the CPU.")
    processes: int | None = Field(
        default=None, description="Of each case; pairs of them where it is paired."
    )
    queries: int | None = Field(default=None, description="That were timed.")
    command: str | None = Field(
        default=None, description="What a user types to do the same; null where it is not known."
    )
    outcome: Outcome = Field(description="Of the whole gate.")
    exit_code: int = Field(description="That the command ends with.")
    problem: str | None = Field(default=None, description="Why nothing could be checked.")
    checks: list[Check] = Field(
        default=[], description="Every figure of every case of the baseline."
    )
    changed: dict[str, Change] = Field(
        default={}, description="What differs beside the figures: [baseline, run]."
    )
    new: list[str] = Field(
        default=[], description="Cases of the run that the baseline does not have."
    )
    warnings: list[str] = Field(
        default=[], description="What disturbed the measurement, such as a busy host."
    )

    def of(self, *verdicts: Verdict) -> list[Check]:
        """Return the checks with one of these verdicts."""
        return [check for check in self.checks if check.verdict in verdicts]


def outcome(checks: Sequence[Check]) -> Outcome:
    """Return the outcome of a whole gate.

    A regression weighs more than a refusal, and a refusal more than an inconclusive check, which a
    pipeline may let pass.
    """
    verdicts = {check.verdict for check in checks}
    if verdicts.intersection(FAILING):
        return "regression"
    # That no more queries failed than before says nothing about cost or quality.
    compared = {check.verdict for check in checks if check.metric != FAILURES}
    if "refused" in verdicts or not compared.intersection(("holds", *UNSURE)):
        return "nothing comparable"
    return "inconclusive" if verdicts.intersection(UNSURE) else "holds"


def to_remeasure(checks: Sequence[Check]) -> list[str]:
    """Return the cases with a regression, without those that the run does not have.

    Nor those of which it has no answer: all processes of such a case failed, each by itself. Alone,
    it could not be measured at all.
    """
    cases = [check.case for check in checks if check.verdict in FAILING and check.metric != "case"]
    unanswered = {check.case for check in checks if check.metric == FAILURES and check.after == 1}
    return [case for case in dict.fromkeys(cases) if case not in unanswered]


def with_remeasurements(
    checks: Sequence[Check], remeasurements: Mapping[str, Sequence[Check] | str]
) -> list[Check]:
    """Return the checks, each regression replaced by what a second, fresh measurement says of it.

    Args:
        checks: of the run.
        remeasurements: the checks of each case that was measured again, or why it could not be.
    """
    final = []
    for check in checks:
        if check.verdict in FAILING and check.case in remeasurements:
            check = _remeasured(check, remeasurements[check.case])
        final.append(check)
    return final


def _remeasured(first: Check, remeasurement: Sequence[Check] | str) -> Check:
    if isinstance(remeasurement, str):
        return first.model_copy(update={"verdict": "unconfirmed", "why": remeasurement})
    for second in remeasurement:
        if (second.case, second.metric) == (first.case, first.metric):
            return second.model_copy(update={"first": first})
    why = "it was not found when measured again"
    return first.model_copy(update={"verdict": "unconfirmed", "why": why})


def checked(
    run: str, baseline: str, before: Baseline, after: Baseline, checks: Sequence[Check]
) -> Checked:
    """Return all that a gate shows, of two sessions.

    Args:
        run: folder of the run.
        baseline: file of the baseline, or name of the version that it is of.
        before, after: the baseline and the run, reduced.
        checks: of the run, with their re-measurements.
    """
    overall = outcome(checks)
    environment = after.environment
    machine = environment.get("gpu") or environment.get("cpu")
    timed = [len(case.timed or case.answers.sample_id) for case in after.cases]
    return Checked(
        run=run,
        baseline=baseline,
        machine=None if machine is None else str(machine),
        processes=_whole_number(after.plan.get("processes")),
        queries=max(timed, default=None),
        outcome=overall,
        exit_code=EXIT_CODES[overall],
        checks=list(checks),
        changed=changes(before, after),
        new=[case.name for case in after.cases if before.case(case.name) is None],
    )


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def broken(
    run: str, baseline: str, problem: str, exit_code: int, command: str | None = None
) -> Checked:
    """Return what is shown of a gate that could not be checked, for the comment of CI."""
    overall: Outcome = "broken"
    if exit_code == EXIT_CODES["nothing comparable"]:
        overall = "nothing comparable"
    return Checked(
        run=run,
        baseline=baseline,
        outcome=overall,
        exit_code=exit_code,
        problem=problem,
        command=command,
    )


def changes(before: Baseline, after: Baseline) -> dict[str, Change]:
    """Return the settings, versions, facts of the machine and parts of the plan that differ.

    They are never refused, and always listed.

    Returns:
        By what they are of and their name, such as ``version: torch``: [baseline, run].
    """
    differences: dict[str, dict[str, Change]] = {}
    for case in before.cases:
        case_after = after.case(case.name)
        if case_after is not None:
            differences[case.name] = differing(case.settings, case_after.settings)
    differences["version"] = differing(before.versions, after.versions)
    differences["machine"] = differing(before.environment, after.environment)
    # The plans of older baselines do not say that they measured the latency of single queries.
    plan_before = {"scenario": "latency", "batch": 1} | before.plan
    plan_after = {"scenario": "latency", "batch": 1} | after.plan
    differences["plan"] = differing(plan_before, plan_after)
    listed = {}
    for of, values in differences.items():
        for name, change in values.items():
            if name == ADAPTER_FILE:  # the code that is compared
                continue
            listed[f"{of}: {name}"] = change
    return listed
