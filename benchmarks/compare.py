"""``lisabench compare``: cases of runs, or trainings, by what the folder holds."""

from pathlib import Path

from pydantic import BaseModel

from ..harness.errors import UsageError
from ..harness.records.training import is_training
from ..reports.run.across import compare_cases
from ..reports.run.across_tables import side_by_side
from ..reports.training.compare import compare_folders
from ..reports.training.tables import training_sections


def compared(
    folder: Path, further: list[str], target_miou: float | None, target_loss: float | None
) -> tuple[BaseModel, str]:
    """What a comparison found, and the same in words.

    Args:
        folder: of a run or a training.
        further: of a run, names of two cases and folders of further runs; of a training, folders of others.
        target_miou: the mIoU to be reached, of trainings.
        target_loss: the loss to be reached, of trainings.

    Raises:
        UsageError: something else than a comparison was asked for.
        NothingToCompare: nothing can be compared.
    """
    if is_training(folder):
        trainings = compare_folders([folder, *map(Path, further)], target_miou, target_loss)
        return trainings, training_sections(trainings)
    if (target_miou, target_loss) != (None, None):
        raise UsageError(
            f"{folder} holds no training: --target-miou and --target-loss are of trainings"
        )
    if len(further) < 2:
        raise UsageError(
            "two cases are compared: lisabench compare RUN A B [RUN2 ...]; trainings: RUN RUN2 ..."
        )
    reference, candidate, *runs = further
    cases = compare_cases(folder, reference, candidate, [Path(run) for run in runs])
    return cases, side_by_side(cases)
