"""Which trainings are repetitions of each other, and what may be compared of several such groups."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ...harness.environment import different_machines
from ...harness.errors import UsageError
from ...harness.records.training import Training, read_training
from ..peaks import NO_START
from .summary import instrument_of, training_lacks_start


@dataclass(frozen=True)
class Group:
    """Trainings that differ in the seed alone, by seed."""

    name: str
    by_seed: dict[int, Training]

    @property
    def trainings(self) -> list[Training]:
        return list(self.by_seed.values())


def grouped(folders: Sequence[Path]) -> list[Group]:
    """The trainings of these folders in groups, in the order of their first.

    Raises:
        UsageError: a folder holds no training, or two trainings are the same, in the seed too.
        DataError: a folder holds a run of a suite.
    """
    found: dict[str, list[Training]] = {}
    for folder in folders:
        training = read_training(folder)
        found.setdefault(json.dumps(configuration(training), sort_keys=True), []).append(training)
    names = _names([[training.folder for training in alike] for alike in found.values()])
    return [Group(name, _by_seed(alike)) for name, alike in zip(names, found.values(), strict=True)]


def seed_of(training: Training) -> int:
    return training.page["configuration"]["options"]["seed"]


def _by_seed(alike: Sequence[Training]) -> dict[int, Training]:
    found: dict[int, Training] = {}
    for training in sorted(alike, key=seed_of):
        other = found.setdefault(seed_of(training), training)
        if other is not training:
            raise UsageError(
                f"{other.folder} and {training.folder} are the same training with the same seed: leave out one of them"
            )
    return found


def configuration(training: Training) -> dict[str, Any]:
    """What makes a training what it is, apart from its seed: flat, the data by their fingerprints."""
    page = training.page
    known = page["configuration"]
    weights = {f"weight of {name}": weight for name, weight in known["losses"].items()}
    data = {f"{name} data": of["fingerprint"] for name, of in (page.get("data") or {}).items()}
    flat = known["case"] | known["options"] | weights | data
    return {k: v for k, v in flat.items() if k != "seed"} | {
        "trains": known["trains"],
        "processes": known["processes"],
    }


def _names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """Of one training its folder's name; of several what theirs begin with; the same of paths where names are alike."""
    short = [_common([folder.name for folder in group]) for group in groups]
    return (
        short
        if len({*short}) == len(groups) and all(short)
        else [_common(list(map(str, g))) for g in groups]
    )


def _common(names: Sequence[str]) -> str:
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    return (
        names[0]
        if len(names) == 1
        else re.sub(r"[-_.]?\d*$", "", "".join(letters[0] for letters in alike))
    )


def refusals(groups: Sequence[Group]) -> dict[str, str]:
    """What must not be compared, with the reason: time, memory, quality, losses."""
    trainings = [training for group in groups for training in group.trainings]
    return dict(_refusals(trainings))


def _refusals(trainings: Sequence[Training]) -> Iterator[tuple[str, str]]:
    first, *others = (training.page["passport"] for training in trainings)
    machines = [why for other in others for why in different_machines(first, other)]
    if machines:
        yield from ((what, machines[0]) for what in ("time", "memory"))
    elif len({instrument_of(training) for training in trainings}) > 1:
        yield "memory", "read by different instruments"
    elif any(training_lacks_start(training) for training in trainings):
        yield "memory", NO_START
    evaluated = [_fingerprints(training, "val") for training in trainings]
    if len({*evaluated}) > 1:
        yield (
            "quality",
            f"evaluated on different data (fingerprints {', '.join(dict.fromkeys(map(str, evaluated)))})",
        )
    yield from _of_losses(trainings)


def _of_losses(trainings: Sequence[Training]) -> Iterator[tuple[str, str]]:
    if (
        len(
            {json.dumps(training.page["setup"]["losses"], sort_keys=True) for training in trainings}
        )
        > 1
    ):
        yield "losses", "they minimise different losses"
    elif len({training.page["setup"]["options"]["ignored"] for training in trainings}) > 1:
        yield "losses", "ignored pixels count differently in their losses"
    elif len({_fingerprints(training, "train") for training in trainings}) > 1:
        yield "losses", "they are of different data"


def _fingerprints(training: Training, split: str) -> str | None:
    return ((training.page.get("data") or {}).get(split) or {}).get("fingerprint")


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Options that differ among the groups, with the value of each."""
    flat = [configuration(group.trainings[0]) for group in groups]
    names = dict.fromkeys(name for each in flat for name in each)
    by_name = {name: [each.get(name) for each in flat] for name in names}
    return {
        name: values
        for name, values in by_name.items()
        if any(value != values[0] for value in values)
    }


def doubts(groups: Sequence[Group]) -> Iterator[str]:
    """What a reader should know before believing a comparison of these."""
    trainings = [training for group in groups for training in group.trainings]
    for training in trainings:
        if training.page["status"] != "complete":
            yield f"{training.folder} is not finished: {len(training.steps)} steps are there."
    versions = [training.page["versions"] for training in trainings]
    names = dict.fromkeys(name for each in versions for name in each)
    apart = [name for name in names if len({str(each.get(name)) for each in versions}) > 1]
    if apart:
        yield f"The versions of {', '.join(apart)} differ: the figures are of that, too."
    if len({len(group.trainings) for group in groups}) > 1:
        yield "The sides have different numbers of seeds: ratios and differences are of the seeds that both have."
