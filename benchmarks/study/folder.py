"""Where a study lies, how it is made, and the scenes that it looks at. Cheap to import.

study.json         how it is made; written first
scenes/            rendered scenes, made anew where they are missing
floors.npz         what answers without a look come to, on the test's queries (`harness.judgements` reads it)
search.jsonl       rates that were tried, and the gIoU on the validation split: the best is taken
NAME-SEED/         weights (`weights: DIR/NAME-SEED`), curve.jsonl, counts.npz, training.json (written last)
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...datasets.scenes.generator import GENERATOR, PER_SCENE
from ...harness.environment import usable_cpus
from ...harness.errors import UsageError, unknown
from ...harness.records.journal import read_lines, write_json
from ...harness.records.study import STUDY, TRAINING
from .jobs import Job
from .variants import DUAL, VARIANTS

SCENES = "scenes"
SEARCH = "search.jsonl"


@dataclass(frozen=True)
class Study:
    """How a study is made.

    Attributes:
        folder: where it lies.
        scenes: to train on.
        test_queries: to judge by.
        dual_steps: of the duals.
        steps: of every other training.
        batch: scenes to a step of a dual; half of them to one of a variant, which starts from what is trained.
        jobs: trainings at once.
        device: "cpu" or "cuda".
        val_queries: to see by how a training goes; the test is asked at the end alone.
    """

    folder: Path
    scenes: int
    test_queries: int
    dual_steps: int
    steps: int
    batch: int
    jobs: int
    device: str
    val_queries: int = 1_002

    @property
    def splits(self) -> dict[str, int]:
        """How many scenes are rendered of each split."""
        asked = {"val": self.val_queries, "test": self.test_queries}
        return {"train": self.scenes} | {
            split: -(-queries // PER_SCENE) for split, queries in asked.items()
        }

    def steps_of(self, name: str) -> int:
        """Of a variant's training."""
        return self.dual_steps if name == DUAL else self.steps


def begin(study: Study, seeds: Sequence[int], names: Sequence[str]) -> None:
    """Refuses what cannot be made, and renders what is looked at.

    Raises:
        UsageError: an unknown variant, no seed, or a folder that holds another study.
    """
    for name in names:
        if name not in VARIANTS:
            raise unknown("variant", name, VARIANTS)
    if not seeds:
        raise UsageError("a study needs a seed: --seed 0")
    _agree(study)
    _render(study, names)


def _agree(study: Study) -> None:
    """Notes how a study is made, or refuses to go on otherwise."""
    how = {
        key: value
        for key, value in asdict(study).items()
        if key not in ("folder", "jobs", "device")
    }
    how["generator"] = GENERATOR
    study.folder.mkdir(parents=True, exist_ok=True)
    noted = study.folder / STUDY
    if not noted.exists():
        write_json(noted, how)
    before = json.loads(noted.read_text(encoding="utf-8"))
    differing = [
        f"{key} was {before.get(key)} and is {how[key]}"
        for key in how
        if before.get(key) != how[key]
    ]
    if differing:
        raise UsageError(
            f"{study.folder} holds another study ({', '.join(differing)}): name another folder"
        )


def _render(study: Study, names: Sequence[str]) -> None:
    from .evaluate import kept_labels
    from .rendered import render

    folder, processes = study.folder / SCENES, usable_cpus() if study.scenes > 100 else 1
    sides = sorted(
        {VARIANTS[name].axes["clip_px"] for name in names if "clip_px" in VARIANTS[name].axes}
    )
    render(folder, 0, study.splits, processes, sides)
    kept_labels(folder, 0, "test", study.splits["test"], processes)


def files_of(study: Study, split: str) -> list[Path]:
    """The rendered scenes of a split."""
    from .rendered import files

    return files(study.folder / SCENES, 0, split, study.splits[split])


def place(study: Study, name: str, seed: int) -> Path:
    """The folder of one training."""
    return study.folder / f"{name}-{seed}"


def rate_of(study: Study, name: str) -> float:
    """The learning rate of a variant: the best that was tried in the study, or its own. A dual keeps to its own."""
    asked = VARIANTS[name].searched_as or name
    rows = [] if name == DUAL else read_lines(study.folder / SEARCH)
    tried = [row for row in rows if row["name"] == asked and row["val_gIoU"] is not None]
    return best_trial(tried)["lr"] if tried else VARIANTS[name].lr


def best_trial(trials: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of some lines of a search the one that gained most; of equals, that of the lowest rate."""
    by_rate = sorted(trials, key=lambda row: row["lr"])
    return max(by_rate, key=lambda row: -1.0 if row["val_gIoU"] is None else row["val_gIoU"])


def finished(study: Study, job: Job) -> bool:
    """Whether a training was made to its end."""
    return (place(study, job.name, job.seed) / TRAINING).exists()
