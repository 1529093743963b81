"""The tiny LISAs that come with the package: how they are packed, found and used."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from command import in_process
from lisas import noise, predict
from places import ROOT
from safetensors.torch import load_file, save_file

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.study import package as module
from lisabench.benchmarks.study.package import ship
from lisabench.harness.errors import DataError, LisabenchError, UsageError
from lisabench.harness.json_file import read_object
from lisabench.harness.probe import NullProbe
from lisabench.harness.records.study import TRAINING, StudyTrainingManifest, Variant
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.checkpoints.shards import (
    INDEX,
    WeightFiles,
    digest,
    hash_of,
    weight_files,
)
from lisabench.models.lisa import packaged, weights_format
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.registry import make_case
from lisabench.models.training.save import Origin, save
from lisabench.models.training.trainable import make_trainable

pytestmark = pytest.mark.no_clock

CASES = ("dual", "clip-upsampling", "sam")
AXES = {"clip-upsampling": {"vision": "clip", "bridge": "upsampling"}, "sam": {"vision": "sam"}}
TRAINS = {"clip-upsampling": ("projections", "mask_decoder"), "sam": ("projections",)}


def train(
    folder: Path, name: str, start: str, seed: int, dtype: torch.dtype | None = torch.float16
) -> None:
    """A training of a study, but that its weights are moved at random in the place of learning."""
    case = LisaConfig(device="cpu", weights=start, seed=seed, **AXES.get(name, {}))
    lisa = Lisa(case, NullProbe(), for_training=True)
    make_trainable(lisa.model, case, TRAINS.get(name, ("everything",)), lisa.tokenizer)
    generator = torch.Generator().manual_seed(seed)
    for parameter in lisa.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    save(
        lisa,
        folder,
        Origin(f"trained as {name}", (), f"lisabench study DIR --variant {name}"),
        dtype,
    )
    scores = {"gIoU": 0.8124, "cIoU": 0.7, "mIoU": 0.75}
    manifest = StudyTrainingManifest(
        name=name,
        seed=seed,
        variant=Variant(TRAINS.get(name, ("everything",)), "described", AXES.get(name, {})),
        trained_parameters={},
        seconds=1.0,
        scores=scores,
        queries=5000,
    )
    (folder / TRAINING).write_text(json.dumps(manifest.as_json()))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for name in CASES:
        (folder / f"{name}-3").mkdir()
        train(
            folder / f"{name}-3",
            name,
            "random" if name == "dual" else str(folder / "dual-3"),
            seed=3,
        )
    return folder


@pytest.fixture(scope="module")
def family(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets") / "tiny"
    ship(study, 3, CASES, folder)
    return folder


@pytest.fixture
def installed(family, monkeypatch):
    monkeypatch.setattr(packaged, "FAMILY", family)
    return family


def test_what_variants_share_is_stored_once(study, family):
    stored = sum(path.stat().st_size for path in family.rglob("*.safetensors"))
    alone = {
        name: sum(path.stat().st_size for path in (study / f"{name}-3").glob("*.safetensors"))
        for name in CASES
    }
    # Decoder, bridges and projections.
    own = 2 * (2_482_404 + 495_232 + 131_584 + 49_728 + 2 * 49_408 + 131_584)
    assert stored == pytest.approx(alone["dual"] + own, rel=0, abs=100_000)
    files = {path.stem for path in (family / "weights").iterdir()}
    assert files == {"clip+dual+sam", "dual+sam", "clip+dual", "dual", "clip", "sam"}


def test_a_packaged_lisa_holds_the_tensors_of_its_training_to_the_bit(study, family):
    for name, vision in zip(CASES, ("dual", "clip", "sam"), strict=True):
        before, after = (
            dict(WeightFiles(weight_files(at)).tensors())
            for at in (study / f"{name}-3", family / vision)
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_a_packaged_lisa_answers_as_the_training_that_it_is_of(study, installed, vision):
    name = next(case for case in CASES if case.startswith(vision))
    case = make_case("lisa", {"weights": "packaged", "vision": vision, "device": "cpu"})
    mine = Lisa(case, NullProbe())
    theirs = Lisa(
        LisaConfig(device="cpu", weights=str(study / f"{name}-3"), **AXES.get(name, {})),
        NullProbe(),
    )
    assert mine.has_quality and mine.warnings == ()
    assert mine.settings["weights_hash"] == weights_format.read(study / f"{name}-3").weights_hash
    assert (
        f"weights: `{mine.settings['weights_hash']}`"
        in (installed / vision / "README.md").read_text()
    )
    np.testing.assert_array_equal(
        predict(mine, noise())[0].mask_HW, predict(theirs, noise())[0].mask_HW
    )


def test_packing_twice_gives_the_same_bytes(study, family, tmp_path):
    ship(study, 3, CASES, tmp_path / "again")
    for path in (path for path in family.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(family)).read_bytes() == path.read_bytes()


def test_a_card_says_how_it_was_made_and_what_it_scored(family):
    card = (family / "clip" / "README.md").read_text()
    assert "made again by: `lisabench study DIR --variant clip-upsampling`" in card
    assert (
        "on 5000 queries about scenes that it was not trained on: "
        "gIoU 0.812, cIoU 0.700, mIoU 0.750" in card
    )
    command = "python -m lisabench.benchmarks.study.package DIR --seed 3"
    assert f"`{command} --case dual --case clip-upsampling --case sam`" in card
    assert "`bridge=upsampling`" in card


@pytest.mark.usefixtures("installed")
def test_the_axes_of_packaged_weights_are_filled_in_and_recorded():
    case = make_case("lisa", {"weights": "packaged", "vision": "clip", "device": "cpu"})
    assert (case.weights, case.bridge) == ("packaged", "upsampling")
    recorded = Lisa(case, NullProbe()).settings
    assert (recorded["weights"], recorded["bridge"]) == ("packaged", "upsampling")
    assert make_case("lisa", {"weights": "random", "vision": "clip"}).bridge == "linear"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"preset": "lisa-7b"}, "preset=lisa-7b, vision=dual"),
        ({"sam": "tiny_s"}, "vision=dual, sam=tiny_s"),
        ({"vision": "clip", "bridge": "linear"}, "vision=clip, bridge=linear"),
        ({"vision": "clip", "clip_px": 224}, "vision=clip, clip_px=224"),
        ({"seg_head": "seg_token_to_sam"}, "vision=dual, seg_head=seg_token_to_sam"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_settings_that_no_packaged_weights_have_are_refused_with_a_list_of_those_there_are(
    given, asked
):
    with pytest.raises(UsageError) as caught:
        make_case("lisa", {"weights": "packaged", **given})
    there = (
        "preset=tiny, vision=clip, bridge=upsampling; preset=tiny, vision=dual; "
        "preset=tiny, vision=sam"
    )
    assert str(caught.value) == (
        f"no packaged weights are of {asked}; packaged are: {there}. "
        "Name a folder, or set weights=random"
    )


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("axis", ["vision", "preset"])
def test_a_variant_that_nobody_knows_is_refused_as_ever(axis):
    with pytest.raises(UsageError, match=f"unknown {axis} 'dino'"):
        make_case("lisa", {"weights": "packaged", axis: "dino"})


@pytest.mark.usefixtures("installed")
def test_the_presets_own_side_of_images_may_be_said():
    assert make_case("lisa", {"weights": "packaged", "clip_px": 112}).clip_px == 112


@pytest.mark.usefixtures("installed")
def test_a_case_that_was_not_filled_in_is_refused_when_it_is_built():
    with pytest.raises(
        UsageError, match=r"have bridge=upsampling, not linear: set bridge=upsampling"
    ):
        Lisa(LisaConfig(device="cpu", weights="packaged", vision="clip"), NullProbe())


def test_an_installation_without_packaged_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FAMILY", tmp_path)
    with pytest.raises(
        UsageError, match=r"preset=tiny, vision=dual; this installation comes without any\. Name"
    ):
        make_case("lisa", {"weights": "packaged", "preset": "tiny"})


@pytest.mark.usefixtures("installed")
def test_other_uses_than_in_training_are_warned_of():
    case = make_case("lisa", {"weights": "packaged", "template": "llava_llama_2", "device": "cpu"})
    (warning,) = Lisa(case, NullProbe()).warnings
    assert "trained with template=llava_v1 and are used with llava_llama_2" in warning


@pytest.mark.usefixtures("installed")
def test_a_suite_takes_packaged_weights_in_every_case_or_random_ones():
    tiny = suite_file.load("tiny", {"weights": "packaged"})
    made = {case.name: case.config for case in tiny.models}
    assert {case.weights for case in made.values()} == {"packaged"}
    assert made["clip"].bridge == "upsampling"
    assert tiny.split == "val" and tiny.contaminations == ()
    random = suite_file.load("tiny", {"weights": "random"})
    assert {case.config.weights for case in random.models} == {"random"}


def test_training_starts_from_packaged_weights_and_saves_all_of_them(installed, tmp_path):
    case = make_case("lisa", {"weights": "packaged", "vision": "clip", "device": "cpu"})
    lisa = Lisa(case, NullProbe(), for_training=True)
    make_trainable(lisa.model, case, ("projections",), lisa.tokenizer)
    save(lisa, tmp_path, Origin("x", (), "y"), torch.float16)
    assert (
        weights_format.read(tmp_path).weights_hash
        == weights_format.read(installed / "clip").weights_hash
    )


# The weights that ship


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_shipped_weights_load_strictly_and_are_those_that_their_card_names(vision):
    lisa = Lisa(
        make_case("lisa", {"weights": "packaged", "vision": vision, "device": "cpu"}), NullProbe()
    )
    assert lisa.has_quality and lisa.warnings == ()
    folder = packaged.folders()[vision]
    tensors = dict(WeightFiles(weight_files(folder)).tensors())
    found = hash_of({name: digest(tensor) for name, tensor in tensors.items()})
    assert found == lisa.settings["weights_hash"]
    assert f"weights: `{found}`" in (folder / "README.md").read_text()


def test_one_lisa_a_variant_ships_and_all_of_them_take_no_more_than_32_mib():
    assert list(packaged.folders()) == ["clip", "dual", "sam"]
    sizes = [path.stat().st_size for path in packaged.FAMILY.rglob("*") if path.is_file()]
    assert sum(sizes) <= 32 * 2**20


def test_no_file_ships_that_no_shipped_lisa_reads():
    read = {
        file.resolve() for folder in packaged.folders().values() for file in weight_files(folder)
    }
    assert {path.resolve() for path in packaged.FAMILY.rglob("*.safetensors")} == read


def test_the_shipped_weights_are_packed_again_as_contributing_says():
    said = (ROOT / "CONTRIBUTING.md").read_text()
    for folder in packaged.folders().values():
        (command,) = re.findall(
            r"packed again from the study's folder by: `(.*)`", (folder / "README.md").read_text()
        )
        assert command in said


def broken(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study, tmp_path / "study")
    return tmp_path / "study"


def test_packing_refuses_what_is_too_large_in_one_line_and_leaves_nothing(
    study, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "MOST_MIB", 20)
    with pytest.raises(
        UsageError,
        match=r"the weights take \d+\.\d+ MiB \(.*dual\.safetensors: .*\), and 20 MiB are allow",
    ):
        ship(study, 3, CASES, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def refused(
    kind: type[LisabenchError],
    message: str,
    study: Path,
    tmp_path: Path,
    cases: tuple[str, ...] = CASES,
):
    with pytest.raises(kind, match=message):
        ship(study, 3, cases, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_packing_refuses_two_trainings_of_one_variant(study, tmp_path):
    shutil.copytree(study / "sam-3", tmp_path / "study" / "sam-3")
    shutil.copytree(study / "sam-3", tmp_path / "study" / "sam-decoder-3")
    twice = ("sam", "sam-decoder")
    refused(
        UsageError,
        "sam-decoder and sam-3 are both of vision=sam",
        tmp_path / "study",
        tmp_path,
        twice,
    )


def test_packing_refuses_a_training_that_is_not_finished(study, tmp_path):
    place = broken(study, tmp_path)
    (place / "sam-3" / TRAINING).unlink()
    refused(DataError, "the training is not finished", place, tmp_path)


def test_packing_refuses_weights_of_another_hash(study, tmp_path):
    place = broken(study, tmp_path)
    config = json.loads((place / "sam-3" / weights_format.CONFIG).read_text())
    (place / "sam-3" / weights_format.CONFIG).write_text(
        json.dumps(config | {"weights_hash": "sha256:0"})
    )
    refused(DataError, r"have the hash sha256:\w+, but config.json says sha256:0", place, tmp_path)


def test_packing_refuses_other_precisions(tmp_path):
    (tmp_path / "dual-3").mkdir()
    train(tmp_path / "dual-3", "dual", "random", 3, dtype=None)
    refused(DataError, r"are of torch\.float32; expected float16", tmp_path, tmp_path, ("dual",))


def test_packing_refuses_a_folder_that_exists(study, tmp_path):
    with pytest.raises(UsageError, match="exists: remove it first"):
        ship(study, 3, CASES, tmp_path)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_packaged_lisa_with_a_key_too_few_or_too_many_is_refused(
    family, tmp_path, monkeypatch, change
):
    shutil.copytree(family, tmp_path / "tiny")
    monkeypatch.setattr(packaged, "FAMILY", tmp_path / "tiny")
    index = read_object(tmp_path / "tiny" / "sam" / INDEX)
    name = next(name for name in index["weight_map"] if name.startswith("mask_decoder."))
    file = tmp_path / "tiny" / "sam" / index["weight_map"][name]
    tensors = load_file(file)
    if change == "missing":
        del tensors[name]
    else:
        tensors["mask_decoder.unheard_of"] = torch.zeros(1)
    save_file(tensors, file)
    with pytest.raises(DataError, match=rf"1 {change}: (mask_decoder\.unheard_of|{name})"):
        Lisa(LisaConfig(device="cpu", weights="packaged", vision="sam"), NullProbe())


def test_the_command_prints_what_it_packed_or_one_line(study, tmp_path):
    words = (study, "--seed", 3, "--case", "dual", "--out", tmp_path / "new")
    done = in_process(lambda: typer.run(module._main), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{tmp_path / 'new'}: 25.44 MiB"
    again = in_process(lambda: typer.run(module._main), *words)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
