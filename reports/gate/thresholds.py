"""What a gate accepts: thresholds with defaults, which a suite may change for all cases or one.

gate:
  end_to_end: 0.05               a case may take 5 % more time end to end
  stages: [vision]               stages that are gated too, at 10 %; or {vision: 0.2}
  cases: {dual: {peak: null}}    null: shown, not gated
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ...harness.contract import STAGES
from ...harness.errors import UsageError, unknown, validation_problems
from ..schema_base import Fraction, NotNegative

STAGE_SLOWER = 0.10


def _with_default(stages: Any) -> Any:
    """Return stages with their thresholds; a plain list of stages gives each the default.

    Raises:
        UsageError: there is no such stage.
    """
    if isinstance(stages, list | tuple | dict):
        for name in stages:
            if name not in STAGES:
                raise unknown("stage in the gate", name, STAGES)
    if isinstance(stages, list | tuple):
        return dict.fromkeys(stages, STAGE_SLOWER)
    return stages


class Thresholds(BaseModel):
    """What is accepted of one case, compared with its baseline; None: shown, not gated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    end_to_end: NotNegative | None = Field(
        default=0.05, description="more time end to end, as a share"
    )
    stages: Annotated[dict[str, NotNegative], BeforeValidator(_with_default)] = Field(
        default={},
        description="more time of a stage, as a share, by stage; a list gates them at 10 %",
    )
    throughput: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="fewer queries per second, as a share, where a plan measures them"
    )
    energy: NotNegative | None = Field(
        default=0.5, description="more energy of a query (GPU), as a share"
    )
    peak: NotNegative | None = Field(default=0.01, description="more peak memory, as a share")
    peak_mib: NotNegative = Field(
        default=32, description="more peak memory in MiB, where that is less than the share"
    )
    gIoU: NotNegative | None = Field(default=0.5, description="points of gIoU lost")
    cIoU: NotNegative | None = Field(default=0.5, description="points of cIoU lost")
    mask_iou: Fraction | None = Field(
        default=0.99, description="smallest IoU of a kept mask with its counterpart"
    )
    sessions: NotNegative = Field(
        default=0.01, description="standard deviation of log time from session to session"
    )

    def of_stage(self, name: str) -> float | None:
        """Return the accepted share of more time of a stage; None where it is not gated."""
        return self.stages.get(name)


class Gate(Thresholds):
    """The thresholds of all cases, and those that single cases have of their own."""

    cases: dict[str, dict[str, Any]] = Field(
        default={}, description="thresholds of single cases, by case"
    )

    @model_validator(mode="after")
    def _each_case_is_valid(self) -> "Gate":
        for case in self.cases:
            try:
                self.of(case)
            except ValidationError as error:
                problems = validation_problems(error, keys_at=lambda _: Thresholds.model_fields)
                raise ValueError(f"case {case}: {problems}") from error
        return self

    def of(self, case: str) -> Thresholds:
        """Return the thresholds of one case."""
        shared = self.model_dump(exclude={"cases"})
        return Thresholds.model_validate(shared | self.cases.get(case, {}))

    def check(self, cases: Mapping[str, Any]) -> None:
        """Check the names of cases against those of the suite.

        Args:
            cases: of the suite, by name.

        Raises:
            UsageError: it names a case that the suite does not have.
        """
        for case in self.cases:
            if case not in cases:
                raise unknown("case in the gate", case, cases)


def gate_of(definition: Mapping[str, Any]) -> Gate:
    """Return the gate of a suite; of a run from before there were gates, the default.

    Args:
        definition: the whole suite, as in the manifest of a run.

    Raises:
        UsageError: the gate in the manifest was edited and is broken.
    """
    try:
        return Gate.model_validate(definition.get("gate") or {})
    except ValidationError as error:
        raise UsageError(
            f"the gate in run.json is broken: {' '.join(str(error).split())}; correct it as "
            "in the suite, or run the suite again"
        ) from error
