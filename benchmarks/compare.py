"""``lisabench compare``: compare cases of runs, or trainings, by what the folder holds."""

from pathlib import Path

from pydantic import BaseModel

from ..harness.errors import UsageError
from ..harness.paths import user_path
from ..harness.records.training import is_training
from ..reports.document import Section
from ..reports.page.across_tables import sections_of_cases
from ..reports.run.across import compare_cases
from ..reports.training.compare import compare_folders as compare_trainings
from ..reports.training.tables import sections_of_trainings


def compare_folders(
    folder: Path, further: list[str], target_miou: float | None, target_loss: float | None
) -> tuple[BaseModel, list[Section]]:
    """Return a comparison, and the same as sections to be shown.

    Args:
        folder: of a run or a training.
        further: for a run, names of two cases and folders of further runs; for a training, folders
            of others.
        target_miou: for trainings, the mIoU to reach.
        target_loss: for trainings, the loss to reach.

    Raises:
        UsageError: the arguments are not those of a comparison.
        NothingToCompare: nothing can be compared.
    """
    if is_training(folder):
        folders = [folder, *(user_path(name) for name in further)]
        trainings = compare_trainings(folders, target_miou, target_loss)
        return trainings, sections_of_trainings(trainings)
    if target_miou is not None or target_loss is not None:
        raise UsageError(
            f"{folder} holds no training: --target-miou and --target-loss are for trainings"
        )
    if len(further) < 2:
        raise UsageError(
            "two cases are compared: lisabench compare RUN A B [RUN2 ...]; "
            "trainings: lisabench compare RUN RUN2 ..."
        )
    reference, candidate, *runs = further
    cases = compare_cases(folder, reference, candidate, [user_path(run) for run in runs])
    return cases, sections_of_cases(cases)
