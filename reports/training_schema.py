"""The documented schema of a training's ``summary.json`` (``lisabench.training_summary/1``).

What `schema` says holds here too: all is derived from the records, null is unknown, times are milliseconds (``_ms``) or
seconds (``_s``), memory is bytes, quality is fractions.
"""

from typing import Literal

from pydantic import Field, JsonValue

from .schema_parts import Count, Fraction, NotNegative, Strict

SCHEMA = "lisabench.training_summary/1"


class Epoch(Strict):
    """The end of an epoch: its evaluation, and what it took to get there. Evaluation takes no part in its times."""

    epoch: Count = Field(description="From 1 on.")
    step: Count = Field(description="Steps made by its end, distillation among them.")
    train_loss: float = Field(description="Mean over its steps.")
    mIoU: Fraction | None = Field(description="Mean foreground IoU over the queries whose target is not empty.")
    gIoU: Fraction | None = Field(description="Mean foreground IoU over all queries; 1 where both are empty.")
    cIoU: Fraction | None = Field(description="Sum of intersections over sum of unions.")
    step_ms: NotNegative = Field(description="Median time of its steps.")
    train_s: NotNegative = Field(description="Of all steps made by its end.")
    peak_bytes: Count | None = Field(description="Largest of its steps, of all processes.")
    peak_reserved_bytes: Count | None = Field(description="The same of what the allocator holds (CUDA).")
    avg_inference_time_s: NotNegative = Field(description="Of a query of the evaluation, mean.")
    best: bool = Field(description="Better than every epoch before it.")


class PartTime(Strict):
    """One part of a step."""

    median_ms: NotNegative = Field(description="Median over steps, of all regions of the part.")
    share: float = Field(description="Median over steps of its share of the step.")


class StepTime(Strict):
    """Time of a step, distillation apart. Null where no step was made."""

    n: Count = Field(description="Steps that it is of.")
    median_ms: NotNegative | None = Field(description="Median of the whole.")
    parts: dict[str, PartTime] = Field(description="data, vision, llm, decoder, losses, backward, optimizer.")
    unattributed_share: float | None = Field(description="Median share of the step that is in no part.")


class TrainingMemory(Strict):
    """The largest peaks of all epochs."""

    instrument: str | None = Field(description="'resident set' (whole process, CPU) or 'cuda allocator'.")
    peak_bytes: Count | None = Field(description="While it trained.")
    peak_reserved_bytes: Count | None = Field(description="The same of what the allocator holds (CUDA).")


class TrainingSummary(Strict):
    """A whole training."""

    schema_: Literal["lisabench.training_summary/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version of this schema."
    )
    status: str = Field(description="running, or complete.")
    started: str | None = Field(description="ISO 8601.")
    machine: str = Field(description="The machine in one line.")
    recipe: str = Field(description="See `lisabench list recipes`.")
    preset: str = Field(description="Sizes of the model.")
    vision: str = Field(description="dual, clip or sam.")
    trained_parameters: dict[str, Count] = Field(description="By part of the model.")
    losses: dict[str, float] = Field(description="The weight of each loss that is minimised.")
    options: dict[str, JsonValue] = Field(description="Every option of the training, as resolved.")
    data: dict[str, JsonValue] = Field(description="Count and fingerprint of what it trained on and was evaluated on.")
    steps: Count = Field(description="Steps made.")
    train_s: NotNegative = Field(description="Of all steps.")
    loss_window: Count = Field(description="Steps of the running mean.")
    final_loss: float | None = Field(description="The running mean of the loss at the last step.")
    epochs: list[Epoch] = Field(description="In their order.")
    best_epoch: Count | None = Field(description="By mIoU; by gIoU where no query has a target.")
    step_time: StepTime = Field(description="Where the time of a step goes.")
    memory: TrainingMemory = Field(description="Peaks.")
    warnings: list[str] = Field(description="Doubts about this training, each with what it is about.")
