"""Claims on training, against the trainings that a suite's run has carried out.

To be reached is what both trainings of a claim have ended at: the worst mIoU of all their seeds, so that all reach it.
"""

from collections.abc import Callable, Mapping
from functools import partial

from ...harness.records.readings import Record
from ...harness.records.run import Run
from ...harness.records.training import read_training
from ...harness.statistics.verdicts import ends_of
from ..markdown import markdown_table
from ..peaks import RESIDENT_SET
from ..schema_base import Ratio
from ..training.compare import compare_groups
from ..training.groups import Group
from ..training.schema import ComparedTrainings
from ..training.summary import on_card
from ..training.tables import training_sections
from .finding import ON_A_CPU, Finding, NotMeasured, Quantity, Stated
from .schema import Summary, TrainingRun


def _compared(claim: Stated, run: Run) -> ComparedTrainings:
    return compare_groups([_whole(run, claim[side]) for side in ("reference", "candidate")])


def _whole(run: Run, name: str) -> Group:
    """All seeds of a training, each complete."""
    rows = _rows(run, name)
    for row in rows:
        if row["status"] != COMPLETE:
            why = f"is {row['status']}: {row['reason']}" if row["status"] else "has not been begun"
            raise NotMeasured(f"the training {name} with seed {row['seed']} {why}")
    return group_of(run, name)


def _rows(run: Run, name: str) -> list[Record]:
    rows = [row for row in run.run.get("trainings") or [] if row["name"] == name]
    if not rows:
        raise NotMeasured(f"{name} is not among the trainings of this run")
    return rows


def _ratio(name: str, refused_as: str, claim: Stated, run: Run) -> Finding:
    found = _compared(claim, run)
    if refused_as in found.not_compared:
        raise NotMeasured(found.not_compared[refused_as])
    ratio: Ratio = getattr(found.comparisons[0], name)
    if ratio.ratio is None:
        raise NotMeasured("one of the two trainings does not have it")
    return Finding(ratio.ratio, ends_of(ratio), about=_seeds(found))


def _seeds(found: ComparedTrainings) -> str:
    seeds = len(found.comparisons[0].seeds)
    return f"over {seeds} seeds" if seeds > 1 else "of one seed"


def _to_miou(name: str, claim: Stated, run: Run) -> Finding:
    found = _compared(claim, run)
    for refused in ("quality", "target mIoU"):
        if refused in found.not_compared:
            raise NotMeasured(found.not_compared[refused])
    of = _ratio(name, "time" if name.startswith("seconds") else "quality", claim, run)
    return Finding(
        of.measured, of.interval, about=f"to mIoU {found.target_mIoU:.3g}, {_seeds(found)}"
    )


def _to_loss(name: str, claim: Stated, run: Run) -> Finding:
    found = _compared(claim, run)
    if "losses" in found.not_compared:
        raise NotMeasured(found.not_compared["losses"])
    of = _ratio(name, "time" if name.startswith("seconds") else "losses", claim, run)
    return Finding(
        of.measured, of.interval, about=f"to a loss of {found.target_loss:.3g}, {_seeds(found)}"
    )


def _peak(claim: Stated, run: Run) -> Finding:
    if _compared(claim, run).instrument == RESIDENT_SET:
        raise NotMeasured(ON_A_CPU)
    return _ratio("peak_memory", "memory", claim, run)


def _points(metric: str, claim: Stated, run: Run) -> Finding:
    """After the last epoch. What one seed shows of quality is of its images alone, and decides nothing."""
    found = _compared(claim, run)
    if "quality" in found.not_compared:
        raise NotMeasured(found.not_compared["quality"])
    points = found.comparisons[0].final[metric]
    if points is None:
        raise NotMeasured("one of the two trainings does not have it")
    several = len(found.comparisons[0].seeds) > 1
    interval = ends_of(points) if several else None
    return Finding(points.difference, interval, about=_seeds(found))


def _fits(claim: Stated, run: Run) -> Finding:
    """By processes that were capped to the card; what is measured is what they took of it."""
    rows = _rows(run, claim["candidate"])
    full = next((row for row in rows if row["status"] == "oom"), None)
    if full:
        return Finding(
            None,
            verdict="refuted",
            reason=f"seed {full['seed']} ran out of memory: {full['reason']}",
        )
    trainings = _whole(run, claim["candidate"]).trainings
    taken = [on_card(training) for training in trainings]
    if any(one.bytes is None for one in taken):
        raise NotMeasured("it was not trained on a GPU")
    largest = max(taken, key=lambda one: one.bytes or 0)
    steps = sum(len(training.steps) for training in trainings)
    reason = f"made {steps} steps under the cap"
    return Finding(largest.bytes, verdict="confirmed", about=largest.about, reason=reason)


def _quantity(find: Callable[..., Finding], *given: str) -> Quantity:
    return Quantity("ratio", partial(find, *given))


OF_TRAININGS: Mapping[str, Quantity] = {
    "training.steps_to_mIoU": _quantity(_to_miou, "steps_to_mIoU"),
    "training.seconds_to_mIoU": _quantity(_to_miou, "seconds_to_mIoU"),
    "training.steps_to_loss": _quantity(_to_loss, "steps_to_loss"),
    "training.seconds_to_loss": _quantity(_to_loss, "seconds_to_loss"),
    "training.step_time": _quantity(_ratio, "step_time", "time"),
    "training.peak_memory": _quantity(_peak),
    "training.mIoU": Quantity("points", partial(_points, "mIoU")),
    "training.gIoU": Quantity("points", partial(_points, "gIoU")),
    "training.fits": Quantity("bytes", _fits),
}


def trainings_section(summary: Summary) -> str:
    """Of a suite's report: what came of each training, and the comparisons; empty without trainings."""
    if not summary.trainings:
        return ""
    rows = [
        [run.name, str(run.seed), run.status or "not begun", _linked(run), run.reason or ""]
        for run in summary.trainings
    ]
    table = markdown_table(["training", "seed", "status", "report", "why"], rows, numbers=False)
    return "\n\n".join(
        [table, *(training_sections(found, "###") for found in summary.training_comparisons)]
    )


def _linked(run: TrainingRun) -> str:
    return f"[{run.folder}]({run.folder}/report.md)" if run.status == "complete" else ""


COMPLETE = "complete"


TRAINING = "training."  # quantities that are of trainings begin so


def group_of(run: Run, name: str) -> Group:
    """The seeds of a training that are complete."""
    rows = (
        row
        for row in run.run.get("trainings") or []
        if row["name"] == name and row["status"] == COMPLETE
    )
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
    return [
        compare_groups([groups[a], groups[b]])
        for a, b in pairs
        if groups[a].by_seed and groups[b].by_seed
    ]
