"""What the campaigns damage: small sound files of each kind, and who reads them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from original_factory import save
from places import RESULTS, ROOT
from run_factory import write_run
from samples import write_sample

from lisabench.benchmarks import suite_file
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.harness.records.run import read_run
from lisabench.harness.records.study import read_study
from lisabench.harness.records.training import read_training
from lisabench.models.checkpoints import shards
from lisabench.models.checkpoints.shards import weight_map
from lisabench.models.lisa import tokenizer, weights_format
from lisabench.reports.gate.baseline import read_baseline, reduced, write_baseline
from lisabench.reports.load import load
from lisabench.reports.run.page import report_text
from lisabench.reports.run.summary import summarise

PACKAGED = ROOT / "models" / "assets" / "tiny" / "dual"


@dataclass(frozen=True)
class Reader:
    """A kind of file with its reader.

    Attributes:
        name: of the kind.
        files: which of a folder's files are damaged, one at a time.
        prepare: makes the folder, and returns it.
        read: reads it as the tool does.
    """

    name: str
    files: tuple[str, ...]
    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]


def _copied(source: Path, *names: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(source / name, folder)
        return folder

    return prepare


def _run(folder: Path) -> Path:
    return write_run(folder, cases=2, queries=4, processes=2, gallery=1)


def _reported(folder: Path) -> None:
    run = read_run(folder)
    report_text(run, summarise(run))
    load(folder)


def _baseline(folder: Path) -> Path:
    _run(folder / "run")
    write_baseline(folder / "baseline.json", reduced(read_run(folder / "run")))
    return folder


def _data(folder: Path) -> Path:
    write_sample(folder / "val", "a")
    return folder


def _sample(folder: Path) -> None:
    for texts in ("first", "all"):
        sample = ReasonSeg(folder, "val", texts)[0]
        _ = sample.query, sample.image, sample.target_HW


def _shard(name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        folder.mkdir(parents=True)
        tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}
        save(tensors, folder / name)
        return folder

    return prepare


def _tensors(folder: Path) -> None:
    (file,) = folder.iterdir()
    content = shards.opened(file)
    for name in content.shapes:
        content.read(name)


def _study(folder: Path) -> Path:
    shutil.copytree(STUDY / "clip-0", folder / "clip-0")
    shutil.copy(STUDY / "study.json", folder)
    return folder


SUITES = ROOT / "benchmarks" / "suites"
STUDY = RESULTS / "accuracy-tiny"
STUDY_FILES = ("study.json", "clip-0/training.json", "clip-0/curve.jsonl", "clip-0/counts.npz")
TRAINING = RESULTS / "training-7b" / "trainings" / "clip-lean-0"
TRAINING_FILES = ("run.json", "training.jsonl", "evaluations.jsonl")

READERS = [
    Reader(
        "suite",
        ("claims-tiny.yaml",),
        _copied(SUITES, "claims-tiny.yaml"),
        lambda folder: suite_file.load(str(folder / "claims-tiny.yaml")),
    ),
    Reader(
        "sweep",
        ("throughput-tiny.yaml",),
        _copied(SUITES, "throughput-tiny.yaml"),
        lambda folder: suite_file.load(str(folder / "throughput-tiny.yaml")),
    ),
    Reader("run", ("run.json", "samples.jsonl", "memory.jsonl"), _run, _reported),
    Reader(
        "baseline",
        ("baseline.json",),
        _baseline,
        lambda folder: read_baseline(folder / "baseline.json"),
    ),
    Reader("annotation", ("val/a.json", "val/a.jpg"), _data, _sample),
    Reader(
        "weights",
        ("config.json",),
        _copied(PACKAGED, "config.json", "tokenizer.json"),
        lambda folder: weights_format.opened(str(folder)),
    ),
    Reader("shard", ("weights.safetensors",), _shard("weights.safetensors"), _tensors),
    Reader("torch file", ("weights.bin",), _shard("weights.bin"), _tensors),
    Reader(
        "index",
        ("model.safetensors.index.json",),
        _copied(PACKAGED, "model.safetensors.index.json"),
        lambda folder: weight_map(folder / "model.safetensors.index.json"),
    ),
    Reader(
        "study", ("study.json", "clip-0/training.json", "clip-0/curve.jsonl"), _study, read_study
    ),
    Reader("training", TRAINING_FILES, _copied(TRAINING, *TRAINING_FILES), read_training),
    Reader(
        "tokenizer",
        ("tokenizer.json",),
        _copied(PACKAGED, "config.json", "tokenizer.json"),
        tokenizer.read,
    ),
]
