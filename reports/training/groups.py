"""Trainings that are repetitions of each other, and what may be compared between such groups."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...harness.environment import different_machines
from ...harness.errors import UsageError
from ...harness.records.training import Training, read_training
from ..peaks import NO_START
from .summary import instrument_of, lacks_start_bytes


@dataclass(frozen=True)
class Group:
    """Trainings that differ in the seed alone.

    Attributes:
        name: in a suite as it is named there, otherwise taken from the folders.
        by_seed: the trainings, by seed in ascending order.
    """

    name: str
    by_seed: dict[int, Training]

    @property
    def trainings(self) -> list[Training]:
        """The trainings, in ascending order of the seed."""
        return list(self.by_seed.values())


def read_groups(folders: Sequence[Path]) -> list[Group]:
    """Return the trainings of these folders in groups, in the order of each group's first folder.

    Raises:
        UsageError: a folder holds no training, or two trainings are the same, in the seed too.
        DataError: a folder holds a run of a suite.
    """
    by_configuration: dict[str, list[Training]] = {}
    for folder in folders:
        training = read_training(folder)
        key = json.dumps(configuration(training), sort_keys=True)
        by_configuration.setdefault(key, []).append(training)
    repetitions = list(by_configuration.values())
    groups = []
    for name, trainings in zip(_names_of_groups(repetitions), repetitions, strict=True):
        groups.append(Group(name, _by_seed(trainings)))
    return groups


def _by_seed(trainings: Sequence[Training]) -> dict[int, Training]:
    by_seed: dict[int, Training] = {}
    for training in sorted(trainings, key=lambda training: training.manifest.seed):
        seed = training.manifest.seed
        if seed in by_seed:
            raise UsageError(
                f"{by_seed[seed].folder} and {training.folder} are the same training with the same "
                "seed: leave out one of them"
            )
        by_seed[seed] = training
    return by_seed


def configuration(training: Training) -> dict[str, Any]:
    """Return what makes a training what it is, apart from its seed, as one flat mapping.

    It holds the settings of the model, the options, the weight of each loss, the fingerprints of
    the data, the trained parts and the number of processes.
    """
    recorded = training.manifest.configuration
    flat: dict[str, Any] = {**recorded["case"], **recorded["options"]}
    for name, weight in recorded["losses"].items():
        flat[f"weight of {name}"] = weight
    for use, data in training.manifest.data.items():
        flat[f"{use} data"] = data.fingerprint
    flat.pop("seed", None)
    flat["trains"] = recorded["trains"]
    flat["processes"] = recorded["processes"]
    return flat


def _names_of_groups(groups: Sequence[Sequence[Training]]) -> list[str]:
    """Return a name for each group: what the names of its folders begin with.

    Where two groups would have the same name, or none, their whole paths are taken instead.
    """
    names = []
    whole_paths = []
    for group in groups:
        names.append(_common_name([training.folder.name for training in group]))
        whole_paths.append(_common_name([str(training.folder) for training in group]))
    all_differ = len(set(names)) == len(groups)
    if all(names) and all_differ:
        return names
    return whole_paths


def _common_name(names: Sequence[str]) -> str:
    """Return what all names begin with, without the number of a seed at its end."""
    if len(names) == 1:
        return names[0]
    common = names[0]
    for name in names:
        while not name.startswith(common):
            common = common[:-1]
    # "clip-0" and "clip-1" become "clip": the number of the seed and what separates it are dropped.
    return re.sub(r"[-_.]?\d*$", "", common)


def refusals(groups: Sequence[Group]) -> dict[str, str]:
    """Return what must not be compared, with the reason: time, memory, quality or losses."""
    trainings = all_trainings(groups)
    reasons: dict[str, str] = {}
    other_machine = _different_machines(trainings)
    instruments = {instrument_of(training) for training in trainings}
    if other_machine:
        reasons["time"] = other_machine
        reasons["memory"] = other_machine
    elif len(instruments) > 1:
        reasons["memory"] = "measured by different instruments"
    elif any(lacks_start_bytes(training) for training in trainings):
        reasons["memory"] = NO_START
    evaluated_on: dict[str, None] = {}  # as an ordered set
    for training in trainings:
        evaluated_on[str(training.manifest.fingerprint("val"))] = None
    if len(evaluated_on) > 1:
        fingerprints = ", ".join(evaluated_on)
        reasons["quality"] = f"evaluated on different data (fingerprints {fingerprints})"
    other_losses = _different_losses(trainings)
    if other_losses:
        reasons["losses"] = other_losses
    return reasons


def all_trainings(groups: Sequence[Group]) -> list[Training]:
    """Return the trainings of all groups, group by group and then by seed."""
    trainings = []
    for group in groups:
        trainings += group.trainings
    return trainings


def _different_machines(trainings: Sequence[Training]) -> str | None:
    """Return why the machine of one training is not that of the first; None if all are the same."""
    first = dict(trainings[0].manifest.environment)
    for training in trainings[1:]:
        reasons = different_machines(first, dict(training.manifest.environment))
        if reasons:
            return reasons[0]
    return None


def _different_losses(trainings: Sequence[Training]) -> str | None:
    """Return why the losses of these trainings are not the same quantity, or None if they are."""
    first = trainings[0].manifest
    for training in trainings:
        setup = training.manifest.setup
        if setup.losses != first.setup.losses:
            return "they minimise different losses"
        if setup.options["ignored"] != first.setup.options["ignored"]:
            return "ignored pixels count differently in their losses"
        if training.manifest.fingerprint("train") != first.fingerprint("train"):
            return "they are of different data"
    return None


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the options that differ among the groups, each with its value in every group."""
    configurations = [configuration(group.trainings[0]) for group in groups]
    names: dict[str, None] = {}  # as an ordered set
    for settings in configurations:
        names.update(dict.fromkeys(settings))
    differing = {}
    for name in names:
        values = [settings.get(name) for settings in configurations]
        if any(value != values[0] for value in values):
            differing[name] = values
    return differing


def warnings(groups: Sequence[Group]) -> list[str]:
    """Return what a reader should know before trusting a comparison of these groups."""
    trainings = all_trainings(groups)
    texts = []
    for training in trainings:
        if training.manifest.status != "complete":
            texts.append(
                f"{training.folder} is not finished: it has {len(training.steps)} steps so far."
            )
    differing = _packages_that_differ(trainings)
    if differing:
        texts.append(
            f"The versions of {', '.join(differing)} differ: part of the differences may come from "
            "that."
        )
    numbers_of_seeds = {len(group.by_seed) for group in groups}
    if len(numbers_of_seeds) > 1:
        texts.append(
            "The groups have different numbers of seeds: ratios and differences use the seeds that "
            "both have."
        )
    return texts


def _packages_that_differ(trainings: Sequence[Training]) -> list[str]:
    """Return the packages that are not installed in the same version for all trainings."""
    versions: dict[str, set[str]] = {}
    for training in trainings:
        versions.update({package: set() for package in training.manifest.versions})
    for training in trainings:
        for package, installed in versions.items():
            installed.add(str(training.manifest.versions.get(package)))
    return [package for package, installed in versions.items() if len(installed) > 1]
