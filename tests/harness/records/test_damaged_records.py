"""Records are checked where they are read: a wrong one is one line with its file and its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_factory import write_run
from study_factory import write_study
from training_factory import write_training

from lisabench.harness.errors import DataError
from lisabench.harness.records.journal import RUN, append, read_lines
from lisabench.harness.records.run import MEMORY, QUALITY, SAMPLES, read_run
from lisabench.harness.records.study import CURVE, SEARCH, STUDY, read_study, read_trials
from lisabench.harness.records.training import EVALUATIONS, TRAINING, read_training
from lisabench.reports.load import load

pytestmark = pytest.mark.no_clock

Damage = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_run(folder / "run")
    timed = read_lines(folder / "run" / SAMPLES)
    append(folder / "run" / QUALITY, [line for line in timed if line["process"] == 0])
    write_training(folder / "training", losses=[2.0, 1.0], mious=[0.4])
    write_study(folder / "study")
    trial = {"name": "sam", "seed": 0, "lr": 0.1, "steps": 3, "val_gIoU": None}
    append(folder / "study" / SEARCH, [trial, trial | {"lr": 0.3, "val_gIoU": 0.5}])
    return folder


def spoiled_line(file: Path, copy: Path, number: int, damage: Damage) -> Path:
    """Copy a journal and damage one of its lines."""
    lines = file.read_text(encoding="utf-8").splitlines()
    values = json.loads(lines[number - 1])
    damage(values)
    lines[number - 1] = json.dumps(values)
    copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return copy


LINE_DAMAGES: dict[str, tuple[str, str, Damage, str]] = {
    "a missing key": ("run", SAMPLES, lambda line: line.pop("sample_id"), "no 'sample_id'"),
    "a missing count": ("run", SAMPLES, lambda line: line.pop("union_px"), "no 'union_px'"),
    "a text for a number": (
        "run",
        SAMPLES,
        lambda line: line.update(latency_ns="12"),
        "latency_ns: Input should be a valid int",
    ),
    "a list for a case": ("run", SAMPLES, lambda line: line.update(case=["a"]), "case: expected"),
    "regions that are a list": ("run", SAMPLES, lambda line: line.update(regions=[1]), "type"),
    "a region without times": (
        "run",
        SAMPLES,
        lambda line: line.update(regions={"vision": {"calls": 1}}),
        "exclusive_ns",
    ),
    "tags of numbers": ("run", QUALITY, lambda line: line.update(tags={"a": 1}), "tags.a"),
    "a box of text": ("run", QUALITY, lambda line: line.update(target_box="abc"), "target_box"),
    "memory of text": ("run", MEMORY, lambda line: line.update(peak_bytes="1"), "peak_bytes"),
    "memory below zero": (
        "run",
        MEMORY,
        lambda line: line.update(queries=-1),
        "queries: Input should be greater than or equal to 0",
    ),
    "energy below zero": ("run", SAMPLES, lambda line: line.update(energy_mj=-0.5), "energy_mj"),
    "half a character": ("run", MEMORY, lambda line: line.update(more="\ud800"), "half a surr"),
    "a score above 1": (
        "training",
        TRAINING,
        lambda line: line.update(cIoU=10**12),
        "scores: .*cIoU is not between 0 and 1",
    ),
    "a score below 0": ("study", SEARCH, lambda line: line.update(val_gIoU=-0.5), "val_gIoU: "),
    "a step below zero": ("training", EVALUATIONS, lambda line: line.update(step=-1), "step"),
    "no kind": ("training", TRAINING, lambda line: line.pop("kind"), "the kind is None"),
    "a loss of text": (
        "training",
        TRAINING,
        lambda line: line.update(train_loss="low"),
        "train_loss: Input",
    ),
    "no counts": ("training", EVALUATIONS, lambda line: line.pop("target_px"), "no 'target_px'"),
    "a step of text": ("study/sam-0", CURVE, lambda line: line.update(step="one"), "step: Input"),
    "a rate of none": ("study", SEARCH, lambda line: line.update(lr=None), "lr: Input"),
}  # fmt: skip


def read(folder: Path) -> object:
    if folder.name == "run":
        return read_run(folder)
    if folder.name == "training":
        return read_training(folder)
    return read_study(folder), read_trials(folder)


def copied(whole: Path, name: str, tmp_path: Path) -> Path:
    """Return a copy of a folder of records, whose files can be replaced."""
    target = tmp_path / name.split("/")[0]
    source = whole / name.split("/")[0]
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("name", LINE_DAMAGES)
def test_a_damaged_line_is_named_by_file_and_number(name: str, whole: Path, tmp_path: Path) -> None:
    folder, journal, damage, expected = LINE_DAMAGES[name]
    target = copied(whole, folder, tmp_path)
    read(target)
    file = tmp_path / folder / journal
    number = len(read_lines(file))
    spoiled_line(whole / folder / journal, file, number, damage)
    with pytest.raises(DataError, match=expected) as error:
        read(target)
    assert f"{file}, line {number}: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("folder", "journal"),
    [
        ("run", SAMPLES),
        ("run", QUALITY),
        ("run", MEMORY),
        ("training", TRAINING),
        ("training", EVALUATIONS),
        ("study/sam-0", CURVE),
        ("study", SEARCH),
    ],
)
def test_a_doubled_line_is_seen(folder: str, journal: str, whole: Path, tmp_path: Path) -> None:
    target = copied(whole, folder, tmp_path)
    file = tmp_path / folder / journal
    lines = read_lines(file)
    append(file, [lines[0]])
    with pytest.raises(DataError) as error:
        read(target)
    assert f"{file}, line {len(lines) + 1} is of the same measurement as {file}, line 1" in str(
        error.value
    )


def test_a_whole_number_may_be_written_with_an_exponent(whole: Path, tmp_path: Path) -> None:
    target = copied(whole, "run", tmp_path)
    file = whole / "run" / MEMORY
    spoiled_line(file, target / MEMORY, 1, lambda line: line.update(peak_bytes=4e9))
    assert read_run(target).cases[0].memory[0].peak_bytes == 4_000_000_000


def test_a_doubled_line_that_is_superseded_is_none(whole: Path, tmp_path: Path) -> None:
    target = copied(whole, "run", tmp_path)
    before = read_run(target)
    append(target / SAMPLES, [read_lines(target / SAMPLES)[0] | {"superseded": True}])
    assert read_run(target).cases == before.cases


def with_training(folder: str) -> Damage:
    """Return a damage of a manifest: it has one training, in this folder."""
    training = {"name": "dual", "seed": 0, "folder": folder}
    return lambda page: page.update(trainings=[training])


def with_roofline(**changes: Any) -> Damage:
    """Return a damage of a manifest: its roofline of the CPU has these values."""
    rates = {"matrix_flops_per_s": {"fp32": 1e9}, "bandwidth_bytes_per_s": 1e9}
    return lambda page: page.update(ceilings={"cpu": rates | changes})


MANIFEST_DAMAGES: dict[str, tuple[str, str, Damage, str]] = {
    "no cases": ("run", RUN, lambda page: page.pop("cases"), "no 'cases'"),
    "cases of a number": ("run", RUN, lambda page: page.update(cases=7), "of another type"),
    "a case of text": ("run", RUN, lambda page: page.update(cases=["dual"]), "of another type"),
    "a plan of text": ("run", RUN, lambda page: page["plan"].update(processes="3"), "processes"),
    "an unknown status": ("run", RUN, lambda page: page.update(status="done"), "status: Input"),
    "data of none": ("run", RUN, lambda page: page.update(data=None), "RunData is an object"),
    "a machine of numbers": (
        "run",
        RUN,
        lambda page: page["passport"].update(cpu=7),
        "cpu: expected text, not 7",
    ),
    "a machine of text": ("run", RUN, lambda page: page.update(passport="H200"), "is an object"),
    "a machine of text, of a training": (
        "training", RUN, lambda page: page.update(passport="H200"), "MachineFacts is an object",
    ),
    "cores of text, of a training": (
        "training", RUN, lambda page: page["passport"].update(cpu_count="8"), "cpu_count: Input",
    ),
    "memory of text, of a study": (
        "study/sam-0", "training.json", lambda page: page.update(passport={"memory_bytes": "8GB"}),
        "memory_bytes: Input",
    ),
    "a roofline of a list": ("run", RUN, lambda page: page.update(ceilings=[1]), "another type"),
    "a bandwidth of none": (
        "run", RUN, with_roofline(bandwidth_bytes_per_s=None),
        "bandwidth_bytes_per_s: Input",
    ),
    "a rate of text": (
        "run", RUN, with_roofline(matrix_flops_per_s={"fp32": "1"}),
        "matrix_flops_per_s.fp32: Input",
    ),
    "a training outside of the run": ("run", RUN, with_training("../dual"), "folder: .*leads out"),
    "a training anywhere": ("run", RUN, with_training("/tmp/dual"), "folder: .*leads out"),
    "a name that is too long": ("run", RUN, with_training("x" * 5000), "folder: .*too long"),
    "a path that is too long": ("run", RUN, with_training("x/" * 5000), "folder: .*too long"),
    "a name of half a character": (
        "run", RUN, lambda page: page.update(title="\ud800"), "half a surrogate pair",
    ),
    "a rate of 0": (
        "run", RUN, with_roofline(bandwidth_bytes_per_s=0),
        "bandwidth_bytes_per_s: Input should be greater than 0",
    ),
    "no device": (
        "training", RUN, lambda page: page["training"]["settings"].pop("device"), "'device'",
    ),
    "no split": (
        "training", RUN, lambda page: page["setup"]["options"].pop("val_split"), "'val_split'",
    ),
    "a seed of text": (
        "training", RUN, lambda page: page["configuration"]["options"].update(seed="1"), "seed",
    ),
    "bytes of text": (
        "training", RUN, lambda page: page.update(memory={"start_bytes": "1"}), "start_bytes",
    ),
    "no setup": ("training", RUN, lambda page: page.pop("setup"), "no 'setup'"),
    "warnings of a number": ("training", RUN, lambda page: page.update(warnings=3), "type"),
    "steps of text": ("study", STUDY, lambda page: page.update(steps="9"), "steps: Input"),
    "no variant": ("study/sam-0", "training.json", lambda page: page.pop("variant"), "variant"),
    "seconds of text": (
        "study/sam-0",
        "training.json",
        lambda page: page.update(seconds="9"),
        "seconds: Input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFEST_DAMAGES)
def test_a_damaged_manifest_is_named(name: str, whole: Path, tmp_path: Path) -> None:
    folder, manifest, damage, expected = MANIFEST_DAMAGES[name]
    target = copied(whole, folder, tmp_path)
    file = tmp_path / folder / manifest
    page = json.loads(file.read_text(encoding="utf-8"))
    damage(page)
    file.write_text(json.dumps(page), encoding="utf-8")
    with pytest.raises(DataError, match=expected) as error:
        read(target)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_of_a_run_that_has_just_begun_has_its_columns(whole: Path, tmp_path: Path) -> None:
    target = copied(whole, "run", tmp_path)
    (target / SAMPLES).write_text("")
    scored_only = load(target)
    (target / QUALITY).unlink()
    empty = load(target)
    assert len(empty) == 0 and len(scored_only) > 0
    for table in (empty, scored_only):
        models = table[table.role == "model"]
        timed = models[models["pass"] == "timed"]
        assert timed.groupby("case").latency_ns.median().empty
        assert {"stages.vision_ns", "union_px", "status", "run"} <= set(table.columns)
    assert list(load(whole / "run").columns[:3]) == ["run", "role", "pass"]
