"""The trainings that a suite's run has carried out, read from the folders in its own."""

from ..harness.records.run import Run
from ..harness.records.training import read_training
from .training.compare import compare_groups
from .training.groups import Group
from .training.schema import ComparedTrainings

COMPLETE = "complete"
TRAINING = "training."  # quantities that are of trainings begin so


def group_of(run: Run, name: str) -> Group:
    """The seeds of a training that are complete."""
    rows = (row for row in run.run.get("trainings") or [] if row["name"] == name and row["status"] == COMPLETE)
    return Group(name, {row["seed"]: read_training(run.folder / row["folder"]) for row in rows})


def compared_trainings(run: Run) -> list[ComparedTrainings]:
    """The pairs that claims are about, without claims all against the first; those of which something is complete."""
    names = list(dict.fromkeys(row["name"] for row in run.run.get("trainings") or []))
    claimed = [
        (claim["reference"], claim["candidate"])
        for claim in run.run.get("claims") or []
        if (claim["quantity"] or "").startswith(TRAINING) and claim["reference"]
    ]
    pairs = dict.fromkeys(claimed or [(names[0], name) for name in names[1:]])
    groups = {name: group_of(run, name) for pair in pairs for name in pair}
    return [compare_groups([groups[a], groups[b]]) for a, b in pairs if groups[a].by_seed and groups[b].by_seed]
