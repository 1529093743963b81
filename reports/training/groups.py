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
    names = _names_of_groups(repetitions)
    return [
        Group(name, _by_seed(trainings)) for name, trainings in zip(names, repetitions, strict=True)
    ]


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
    names = [_common_name([training.folder.name for training in group]) for group in groups]
    if all(names) and len(set(names)) == len(groups):
        return names
    return [_common_name([str(training.folder) for training in group]) for group in groups]


def _common_name(names: Sequence[str]) -> str:
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
    trainings = [training for group in groups for training in group.trainings]
    reasons: dict[str, str] = {}
    different = _different_machines(trainings)
    if different:
        reasons["time"] = different
        reasons["memory"] = different
    elif len({instrument_of(training) for training in trainings}) > 1:
        reasons["memory"] = "measured by different instruments"
    elif any(lacks_start_bytes(training) for training in trainings):
        reasons["memory"] = NO_START
    evaluated_on = dict.fromkeys(training.manifest.fingerprint("val") for training in trainings)
    if len(evaluated_on) > 1:
        fingerprints = ", ".join(str(fingerprint) for fingerprint in evaluated_on)
        reasons["quality"] = f"evaluated on different data (fingerprints {fingerprints})"
    different = _different_losses(trainings)
    if different:
        reasons["losses"] = different
    return reasons


def _different_machines(trainings: Sequence[Training]) -> str | None:
    first, *others = (dict(training.manifest.environment) for training in trainings)
    for other in others:
        reasons = different_machines(first, other)
        if reasons:
            return reasons[0]
    return None


def _different_losses(trainings: Sequence[Training]) -> str | None:
    """Return why the losses of these trainings are not the same quantity, or None if they are."""
    setups = [training.manifest.setup for training in trainings]
    first = setups[0]
    if any(setup.losses != first.losses for setup in setups):
        return "they minimise different losses"
    if any(setup.options["ignored"] != first.options["ignored"] for setup in setups):
        return "ignored pixels count differently in their losses"
    if len({training.manifest.fingerprint("train") for training in trainings}) > 1:
        return "they are of different data"
    return None


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the options that differ among the groups, each with its value in every group."""
    configurations = [configuration(group.trainings[0]) for group in groups]
    names = dict.fromkeys(name for settings in configurations for name in settings)
    differing = {}
    for name in names:
        values = [settings.get(name) for settings in configurations]
        if any(value != values[0] for value in values):
            differing[name] = values
    return differing


def warnings(groups: Sequence[Group]) -> list[str]:
    """Return what a reader should know before trusting a comparison of these groups."""
    trainings = [training for group in groups for training in group.trainings]
    texts = []
    for training in trainings:
        if training.manifest.status != "complete":
            texts.append(
                f"{training.folder} is not finished: it has {len(training.steps)} steps so far."
            )
    versions = [training.manifest.versions for training in trainings]
    packages = dict.fromkeys(package for installed in versions for package in installed)
    differing = []
    for package in packages:
        if len({str(installed.get(package)) for installed in versions}) > 1:
            differing.append(package)
    if differing:
        texts.append(
            f"The versions of {', '.join(differing)} differ: part of the differences may come from "
            "that."
        )
    if len({len(group.trainings) for group in groups}) > 1:
        texts.append(
            "The groups have different numbers of seeds: ratios and differences use the seeds that "
            "both have."
        )
    return texts
