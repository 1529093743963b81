"""The documented schema of a training's ``summary.json`` (``lisabench.training_summary/1``).

What `schema` says holds here too: all is derived from the records, null is unknown, times are
milliseconds (``_ms``) or seconds (``_s``), memory is bytes, quality is fractions.
"""

from typing import Literal

from pydantic import Field, JsonValue

from ..schema_base import Count, Fraction, NotNegative, Points, Ratio, Strict

SCHEMA = "lisabench.training_summary/1"


class Epoch(Strict):
    """The end of an epoch: its evaluation, and the cost of the steps up to it."""

    epoch: Count = Field(description="Number of the epoch, from 1.")
    step: Count = Field(description="Steps made by its end, distillation among them.")
    train_loss: float = Field(description="Mean loss of its steps.")
    mIoU: Fraction | None = Field(
        description="Mean foreground IoU over the queries whose target is not empty."
    )
    gIoU: Fraction | None = Field(
        description="Mean foreground IoU over all queries; 1 where both are empty."
    )
    cIoU: Fraction | None = Field(description="Sum of intersections over sum of unions.")
    step_ms: NotNegative = Field(description="Median time of its steps.")
    train_s: NotNegative = Field(description="Seconds of all steps made by its end.")
    peak_bytes: Count | None = Field(
        description="Largest memory peak of its steps, over all processes."
    )
    peak_reserved_bytes: Count | None = Field(
        description="The same of what the allocator holds (CUDA)."
    )
    avg_inference_time_s: NotNegative = Field(description="Mean time of a query of the evaluation.")
    best: bool = Field(description="Better than every epoch before it.")
    train_losses: dict[str, float] = Field(
        description="Mean of each loss over its steps, before it is weighted."
    )
    val_loss: float | None = Field(
        description="What is minimised, of the evaluation: mean over its queries."
    )
    val_losses: dict[str, float] = Field(description="The same of each loss.")


class Interim(Strict):
    """An evaluation between two epochs."""

    step: Count = Field(description="Steps made.")
    mIoU: Fraction | None = Field(description="As of an epoch.")
    gIoU: Fraction | None = Field(description="As of an epoch.")
    cIoU: Fraction | None = Field(description="As of an epoch.")
    val_loss: float | None = Field(description="As of an epoch.")


class PartTime(Strict):
    """One part of a step."""

    median_ms: NotNegative = Field(description="Median over steps, of all regions of the part.")
    share: float = Field(description="Median over steps of its share of the step.")


class StepTime(Strict):
    """Time of a step, distillation apart. Null where no step was made."""

    n: Count = Field(description="Steps that it is of.")
    median_ms: NotNegative | None = Field(description="Median of the whole.")
    parts: dict[str, PartTime] = Field(
        description="data, vision, llm, decoder, losses, backward, optimizer."
    )
    unattributed_share: float | None = Field(
        description="Median share of the step that is in no part."
    )


class TrainingMemory(Strict):
    """The largest peaks of all epochs."""

    instrument: str | None = Field(
        description="'resident set' (whole process, CPU) or 'cuda allocator'."
    )
    peak_bytes: Count | None = Field(description="While it trained.")
    peak_reserved_bytes: Count | None = Field(
        description="The same of what the allocator holds (CUDA)."
    )


class TrainingSummary(Strict):
    """The summary of a training."""

    schema_: Literal["lisabench.training_summary/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version of this schema."
    )
    status: str = Field(description="running, or complete.")
    started: str | None = Field(description="When it began, in ISO 8601.")
    machine: str = Field(description="The machine in one line.")
    recipe: str = Field(description="See `lisabench list recipes`.")
    preset: str = Field(description="Sizes of the model.")
    vision: str = Field(description="dual, clip or sam.")
    trained_parameters: dict[str, Count] = Field(description="By part of the model.")
    losses: dict[str, float] = Field(description="The weight of each loss that is minimised.")
    options: dict[str, JsonValue] = Field(description="Every option of the training, as resolved.")
    data: dict[str, JsonValue] = Field(
        description="Count, fingerprint and origin of what it trained on and was evaluated on."
    )
    steps: Count = Field(description="Steps made.")
    train_s: NotNegative = Field(description="Seconds of all steps.")
    loss_window: Count = Field(description="Steps of the running mean.")
    final_loss: float | None = Field(description="The running mean of the loss at the last step.")
    epochs: list[Epoch] = Field(description="The epochs that have ended, in order.")
    interim: list[Interim] = Field(description="The evaluations between epochs, in order.")
    best_epoch: Count | None = Field(
        description="The best epoch by mIoU; by gIoU where no query has a target."
    )
    step_time: StepTime = Field(description="Where the time of a step goes.")
    memory: TrainingMemory = Field(description="Memory peaks.")
    warnings: list[str] = Field(description="What speaks against these results.")


class TrainedSide(Strict):
    """Trainings that differ in the seed alone.

    Lists are by `seeds`; null is what was not reached, or is not known.
    """

    name: str = Field(
        description="Its name in the suite; otherwise what its folders' names have in common."
    )
    folders: list[str] = Field(description="Folders of the trainings, by seed.")
    seeds: list[int] = Field(description="In ascending order.")
    trained_parameters: Count | None = Field(
        description="Trained parameters of all parts together."
    )
    steps: list[Count] = Field(description="Steps made.")
    step_ms: list[float | None] = Field(description="Median time of a step, distillation apart.")
    peak_bytes: list[Count | None] = Field(
        description="Largest memory peak while it trained, over all processes."
    )
    steps_to_mIoU: list[Count | None] = Field(
        description="Steps made at the evaluation that first shows target_mIoU."
    )
    seconds_to_mIoU: list[float | None] = Field(description="Seconds of these steps.")
    steps_to_loss: list[Count | None] = Field(
        description="Steps until the running mean of the loss is at most target_loss."
    )
    seconds_to_loss: list[float | None] = Field(description="Seconds of these steps.")
    final: dict[str, list[float | None]] = Field(description="mIoU and gIoU after the last epoch.")
    best: dict[str, list[float | None]] = Field(description="mIoU and gIoU after the best epoch.")


class TrainingComparison(Strict):
    """One side against another, paired by seed.

    Ratios are candidate over reference, with a t interval over the pairs.

    An evaluation shows that a target was reached since the one before it: the interval of
    `steps_to_mIoU` and `seconds_to_mIoU` allows for any step in between.
    """

    reference: str = Field(description="Name of the side that is compared with.")
    candidate: str = Field(description="Name of the side that is compared.")
    seeds: list[int] = Field(description="Seeds that both sides have.")
    step_time: Ratio = Field(description="Ratio of the median times of a step.")
    peak_memory: Ratio = Field(
        description="Ratio of the allocator's peaks; on a CPU of the resident set's growth."
    )
    steps_to_mIoU: Ratio = Field(
        description="Ratio of steps to target_mIoU; null where a training has not reached it."
    )
    seconds_to_mIoU: Ratio = Field(description="Ratio of seconds to target_mIoU, likewise.")
    steps_to_loss: Ratio = Field(description="Ratio of steps to target_loss, likewise.")
    seconds_to_loss: Ratio = Field(description="Ratio of seconds to target_loss, likewise.")
    final: dict[str, Points | None] = Field(
        description="Differences of mIoU and gIoU, mean over the seeds. The interval is that of "
        "`over_seeds`: Student's t over the images and, with several seeds, over the seeds, added "
        "in quadrature. Null where a training has no epoch yet."
    )
    best: dict[str, Points | None] = Field(description="The same of each training's best epoch.")


class ComparedTrainings(Strict):
    """What ``lisabench compare --json`` prints of trainings; a suite's summary has the same."""

    schema_: Literal["lisabench.compare_trainings/1"] = Field(
        alias="schema", default="lisabench.compare_trainings/1", description="Name and version."
    )
    target_mIoU: float | None = Field(
        description="As given, or the lowest that any of them ended at."
    )
    target_loss: float | None = Field(
        description="As given, or the highest running mean that any of them ended at."
    )
    loss_window: Count = Field(description="Steps of the running mean.")
    instrument: str | None = Field(
        description="What measured the peaks; null where the sides differ in it."
    )
    sides: list[TrainedSide] = Field(description="The reference first.")
    comparisons: list[TrainingComparison] = Field(
        description="Every other side against the reference."
    )
    differences: dict[str, list[JsonValue]] = Field(
        description="Options that differ, with the value of each side."
    )
    not_compared: dict[str, str] = Field(
        description="Why there is no comparison of time, memory, quality or a target."
    )
    warnings: list[str] = Field(description="What speaks against these comparisons.")


class TrainingRun(Strict):
    """One training of the suite, with one seed."""

    name: str = Field(description="In the suite.")
    seed: Count = Field(description="Of the training.")
    folder: str = Field(description="Beside this summary.")
    status: Literal["complete", "oom", "skipped", "failed", "by peak"] | None = Field(
        description="Null until it was begun. `by peak`, on a card: the peak of the training "
        "without a limit decides, and no other was carried out."
    )
    reason: str | None = Field(description="Why it is not complete.")
    card: str | None = Field(
        default=None, description="The card of the suite that it was limited to; null without one."
    )
