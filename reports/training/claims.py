"""Claims on training, against the trainings of a suite's run.

The targets "to a mIoU" and "to a loss" are what both trainings of a claim ended at: the worst mIoU
of all their seeds, so that all reach it.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from ...harness.records.manifest import StatedClaim, SuiteTraining
from ...harness.records.run import Run
from ...harness.records.training import read_training
from ...harness.statistics.estimate import Estimate
from ..cards import CardVerdict
from ..finding import ON_A_CPU, Finding, NotMeasured, Quantity, Verdict
from ..markdown import link, markdown_table
from ..peaks import RESIDENT_SET
from ..schema_base import Ratio
from .cards import limited_training, own_card, training_on_card, without_limit
from .compare import compare_groups
from .groups import Group
from .schema import ComparedTrainings, TrainingRun
from .tables import training_sections

COMPLETE, BY_PEAK = "complete", "by peak"
PREFIX = "training."  # of the quantities that are of trainings


# Which trainings a run has


def complete_group(run: Run, name: str) -> Group:
    """Return the seeds of a training that are complete."""
    by_seed = {}
    for training in without_limit(run.manifest.trainings, name):
        if training.status == COMPLETE:
            by_seed[training.seed] = read_training(run.folder / training.folder)
    return Group(name, by_seed)


def compared_trainings(run: Run) -> list[ComparedTrainings]:
    """Return the comparisons of those pairs of trainings of which both have a complete seed.

    The pairs are those of the claims on trainings; without such claims, all trainings against the
    first.
    """
    pairs = []
    for claim in run.manifest.claims:
        if (claim.quantity or "").startswith(PREFIX) and claim.reference:
            pairs.append((claim.reference, claim.candidate or ""))
    if not pairs:
        names = list(dict.fromkeys(training.name for training in run.manifest.trainings))
        pairs = [(names[0], name) for name in names[1:]]
    groups: dict[str, Group] = {}
    comparisons = []
    for reference, candidate in dict.fromkeys(pairs):
        for name in (reference, candidate):
            if name not in groups:
                groups[name] = complete_group(run, name)
        if groups[reference].by_seed and groups[candidate].by_seed:
            comparisons.append(compare_groups([groups[reference], groups[candidate]]))
    return comparisons


def _seeds_of(run: Run, name: str | None) -> list[SuiteTraining]:
    seeds = without_limit(run.manifest.trainings, name or "")
    if not seeds:
        raise NotMeasured(f"{name} is not among the trainings of this run")
    return seeds


def _whole_group(run: Run, name: str | None) -> Group:
    """Return all seeds of a training, each of them complete."""
    for training in _seeds_of(run, name):
        if training.status != COMPLETE:
            state = "has not been begun"
            if training.status:
                state = f"is {training.status}: {training.reason}"
            raise NotMeasured(f"the training {name} with seed {training.seed} {state}")
    return complete_group(run, name or "")


def _compared(claim: StatedClaim, run: Run, needs: str) -> ComparedTrainings:
    """Return the comparison of the two trainings of a claim.

    Args:
        claim: names them.
        run: holds them.
        needs: what of them must be comparable: ``time``, ``memory``, ``quality`` or ``losses``.
    """
    groups = [_whole_group(run, claim.reference), _whole_group(run, claim.candidate)]
    compared = compare_groups(groups)
    if needs in compared.not_compared:
        raise NotMeasured(compared.not_compared[needs])
    return compared


# What a claim can be about


def _finding(compared: ComparedTrainings, name: str, target: str | None = None) -> Finding:
    """Return a ratio of the comparison; `target` says up to where it was measured."""
    # A claim names one pair of trainings, so that there is one comparison.
    ratio: Ratio = getattr(compared.comparisons[0], name)
    if ratio.estimate is None:
        raise NotMeasured("one of the two trainings does not have it")
    seeds = _number_of_seeds(compared)
    about = f"{target}, {seeds}" if target else seeds
    return Finding(ratio.estimate, about=about)


def _number_of_seeds(compared: ComparedTrainings) -> str:
    seeds = len(compared.comparisons[0].seeds)
    return f"over {seeds} seeds" if seeds > 1 else "of one seed"


def _to_mIoU(name: str, claim: StatedClaim, run: Run) -> Finding:
    compared = _compared(claim, run, "quality")
    if "target mIoU" in compared.not_compared:
        raise NotMeasured(compared.not_compared["target mIoU"])
    if name == "seconds_to_mIoU" and "time" in compared.not_compared:
        raise NotMeasured(compared.not_compared["time"])
    return _finding(compared, name, f"to mIoU {compared.target_mIoU:.3g}")


def _to_loss(name: str, claim: StatedClaim, run: Run) -> Finding:
    compared = _compared(claim, run, "losses")
    if name == "seconds_to_loss" and "time" in compared.not_compared:
        raise NotMeasured(compared.not_compared["time"])
    return _finding(compared, name, f"to a loss of {compared.target_loss:.3g}")


def _step_time(claim: StatedClaim, run: Run) -> Finding:
    return _finding(_compared(claim, run, "time"), "step_time")


def _peak(claim: StatedClaim, run: Run) -> Finding:
    groups = [_whole_group(run, claim.reference), _whole_group(run, claim.candidate)]
    compared = compare_groups(groups)
    if compared.instrument == RESIDENT_SET:
        raise NotMeasured(ON_A_CPU)
    if "memory" in compared.not_compared:
        raise NotMeasured(compared.not_compared["memory"])
    return _finding(compared, "peak_memory")


def _points(metric: str, claim: StatedClaim, run: Run) -> Finding:
    """Return the difference of a score after the last epoch, in points.

    With one seed the interval is over images alone. Another seed may differ by more, so it decides
    nothing.
    """
    compared = _compared(claim, run, "quality")
    difference = compared.comparisons[0].final[metric]
    if difference is None:
        raise NotMeasured("one of the two trainings does not have it")
    several_seeds = len(compared.comparisons[0].seeds) > 1
    estimate = difference.estimate
    if not several_seeds:
        estimate = estimate.without_interval()
    return Finding(estimate, about=_number_of_seeds(compared))


def _fits(claim: StatedClaim, run: Run) -> Finding:
    """Return whether the training fits the card, and the bytes that it took."""
    name, card = claim.candidate or "", claim.card or ""
    _seeds_of(run, name)
    if own_card(run, name) is None:
        verdict = training_on_card(run, name, card)
    else:
        verdict = limited_training(run, name, card)
    limit = "under the cap" if verdict.capped else "without a cap"
    made = f"made {verdict.done} steps {limit}" if verdict.done is not None else None
    return finding_on_card(verdict, made)


def finding_on_card(verdict: CardVerdict, done: str | None) -> Finding:
    """Return what a claim that something fits a card has found.

    Args:
        verdict: on the card.
        done: how much the process has done that decided, in words; None where that is not known.

    Raises:
        NotMeasured: nothing was found.
    """
    if verdict.fits == "not measured":
        raise NotMeasured(verdict.reason)
    verdicts: dict[str, Verdict] = {
        "yes": "confirmed",
        "no": "refuted",
        "cannot tell": "inconclusive",
    }
    estimate = None
    if verdict.taken_bytes is not None:
        estimate = Estimate(verdict.taken_bytes, None, None, n=1)
    reason = verdict.reason
    if verdict.fits == "no" and reason and "ran out of memory" not in reason:
        reason = f"it ran out of memory: {reason}"
    parts = [part for part in (done, reason) if part]
    return Finding(
        estimate,
        verdict=verdicts[verdict.fits],
        about=verdict.about,
        reason="; ".join(parts) or None,
    )


OF_TRAININGS: Mapping[str, Quantity] = {
    "training.steps_to_mIoU": Quantity("ratio", partial(_to_mIoU, "steps_to_mIoU")),
    "training.seconds_to_mIoU": Quantity("ratio", partial(_to_mIoU, "seconds_to_mIoU")),
    "training.steps_to_loss": Quantity("ratio", partial(_to_loss, "steps_to_loss")),
    "training.seconds_to_loss": Quantity("ratio", partial(_to_loss, "seconds_to_loss")),
    "training.step_time": Quantity("ratio", _step_time),
    "training.peak_memory": Quantity("ratio", _peak),
    "training.mIoU": Quantity("points", partial(_points, "mIoU")),
    "training.gIoU": Quantity("points", partial(_points, "gIoU")),
    "training.fits": Quantity("bytes", _fits),
}


def trainings_section(
    trainings: Sequence[TrainingRun], comparisons: Sequence[ComparedTrainings]
) -> str:
    """Return the section on trainings of a suite's report; empty without trainings.

    Args:
        trainings: what came of each.
        comparisons: the pairs of them that are shown.
    """
    if not trainings:
        return ""
    rows = []
    for training in trainings:
        if training.status == BY_PEAK:  # the table of cards shows it
            continue
        status = training.status or "not begun"
        linked = ""
        if training.status == COMPLETE:
            linked = link(training.folder, f"{training.folder}/report.md")
        name = training.name if training.card is None else f"{training.name}, {training.card}"
        rows.append([name, str(training.seed), status, linked, training.reason or ""])
    table = markdown_table(["training", "seed", "status", "report", "why"], rows, numbers=False)
    sections = [training_sections(compared, "###") for compared in comparisons]
    return "\n\n".join([table, *sections])
