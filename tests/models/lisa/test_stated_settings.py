"""What weights say of themselves is applied to a case, unless its settings are given."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from lisabench.benchmarks import catalogue, suite_file
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.harness.errors import UsageError
from lisabench.models.lisa import packaged, stated_settings, weights_format
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.registry import make_case

pytestmark = pytest.mark.no_clock

TINY = PRESETS["tiny"]
# No value of these is a default of `LisaConfig`.
OTHER: dict[str, Any] = {
    "vision": "clip",
    "sam": "tiny_s",
    "clip_px": 224,
    "image_tokens": "pooled",
    "frame": "crop",
    "bridge": "upsampling",
    "precision": "bf16",
    "conditioning": "described",
    "seg_head": "seg_token_to_sam",
    "template": "llava_llama_2",
}
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a folder with a ``config.json`` that states some settings."""

    def write(name: str = "weights", **stated: Any) -> str:
        sizes = LisaConfig(**{"vision": "clip", **stated}).sizes
        kept = {
            key: value for key, value in stated.items() if key not in ("clip_px", "image_tokens")
        }
        saved = weights_format.read(packaged.located("tiny", "dual"))
        (tmp_path / name).mkdir()
        weights_format.write(tmp_path / name, replace(saved, sizes=sizes, **kept))
        return str(tmp_path / name)

    return write


def test_every_setting_that_weights_state_is_applied(write: Write) -> None:
    defaults = LisaConfig()
    assert all(getattr(defaults, name) != value for name, value in OTHER.items())
    case = make_case("lisa", {"weights": write(**OTHER), "device": "cpu"})
    assert {name: getattr(case, name) for name in OTHER} == OTHER
    assert {"preset", *OTHER} == set(LisaConfig.STATED_BY_WEIGHTS) == set(case.saved.settings)


def test_a_preset_is_applied_with_its_sizes(write: Write) -> None:
    case = make_case("lisa", {"weights": write(preset="lisa-13b", vision="dual")})
    assert (case.preset, case.vision) == ("lisa-13b", "dual")
    assert case.sizes == PRESETS["lisa-13b"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("template", "llava_v1"),
        ("frame", "whole"),
        ("precision", "fp32"),
        ("conditioning", "original"),
    ],
)
def test_what_is_given_comes_before_what_weights_state(write: Write, name: str, value: str) -> None:
    case = make_case("lisa", {"weights": write(**OTHER), name: value})
    assert getattr(case, name) == value
    warned = stated_settings.warnings_of_other_use(case, case.saved)
    # Another precision is not worse by itself: sweeps compare them.
    expected = [] if name == "precision" else [f"{name}={OTHER[name]} and are used with {value}"]
    assert [line.partition("trained with ")[2] for line in warned] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "lisa-7b"}, "of preset=tiny, not lisa-7b: set preset=tiny, or leave it out"),
        ({"vision": "sam"}, "of vision=clip, not sam: set vision=clip, or leave it out"),
        ({"bridge": "linear"}, "have bridge=upsampling, not linear: set bridge=upsampling, or"),
        ({"seg_head": "text_hidden_fcs"}, "have seg_head=seg_token_to_sam, not text_hidden_fcs"),
        ({"sam": "preset"}, "not of .*sam=preset.*: set .*sam=tiny_s, clip_px=224.*or leave them"),
        ({"clip_px": 336}, "not of .*clip_px=336"),
        ({"clip_px": 112}, "not of .*clip_px=112.*: set .*clip_px=224, image_tokens=pooled, or"),
    ],
)
def test_what_could_not_work_is_refused_before_anything_is_loaded(
    write: Write, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_case("lisa", {"weights": write(**OTHER), **given})
    assert "\n" not in str(caught.value)


def test_weights_that_were_saved_before_precisions_were_leave_it_at_its_default(
    write: Write,
) -> None:
    folder = Path(write(vision="dual"))
    content = json.loads((folder / weights_format.CONFIG).read_text())
    del content["precision"]
    (folder / weights_format.CONFIG).write_text(json.dumps(content))
    case = make_case("lisa", {"weights": str(folder)})
    assert case.precision == "fp32" and "precision" not in case.saved.settings


def configs(folder: Path, suite: str) -> list[LisaConfig]:
    (folder / "suite.yaml").write_text(f"title: T\n{suite}")
    loaded = suite_file.load(str(folder / "suite.yaml"), {})
    return [case.config for case in loaded.models]


def test_the_defaults_of_a_suite_and_a_sweep_count_as_given(write: Write, tmp_path: Path) -> None:
    weights = write(vision="clip", precision="bf16", template="llava_llama_2")
    defaults = f"defaults: {{adapter: lisa, weights: {weights}, template: llava_v1}}\n"
    own, named = configs(
        tmp_path, f"{defaults}reference: own\ncases: {{own: {{}}, named: {{precision: fp32}}}}"
    )
    assert (own.vision, own.template, own.precision) == ("clip", "llava_v1", "bf16")
    assert (named.vision, named.template, named.precision) == ("clip", "llava_v1", "fp32")
    swept = configs(
        tmp_path, f"{defaults}reference: a\ncases: {{a: {{}}}}\nsweep: {{precision: [fp16, fp32]}}"
    )
    assert [config.precision for config in swept] == ["fp16", "fp32"]
    assert {config.vision for config in swept} == {"clip"}


def test_of_weights_on_the_hub_only_the_config_is_downloaded_before_they_are_known_to_fit(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot(hub_id: str, allow_patterns: list[str] | None) -> str:
        asked.append((hub_id, allow_patterns))
        return folder

    folder = write(vision="clip")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="of vision=clip, not dual"):
        make_case("lisa", {"weights": "someone/clip", "vision": "dual"})
    case = make_case("lisa", {"weights": "someone/clip"})
    assert case.vision == "clip" and case.default_split == "val"
    assert asked == [("someone/clip", [weights_format.CONFIG])]
    assert case.weights_folder.folder == Path(folder)
    assert asked[1:] == [("someone/clip", None)]


def test_a_config_that_is_written_again_is_read_again(write: Write) -> None:
    folder = write("one", vision="clip")
    other = write("two", vision="sam")
    assert weights_format.stated(folder).vision == "clip"
    shutil.copyfile(Path(other) / weights_format.CONFIG, Path(folder) / weights_format.CONFIG)
    assert weights_format.stated(folder).vision == "sam"


def test_list_shows_all_that_weights_say_of_themselves(write: Write) -> None:
    folder = write(**OTHER)
    (heading,) = catalogue.catalogue(folder).items()
    assert heading[0] == "weights"
    saved = weights_format.stated(folder)
    expected = {name: str(value) for name, value in saved.settings.items()}
    assert heading[1].items() >= {**expected, "weights_hash": saved.weights_hash}.items()
    with pytest.raises(UsageError, match=r"unknown list 'setings'.*did you mean 'settings'"):
        catalogue.catalogue("setings")
    settings = catalogue.catalogue("settings")["settings"]
    shown = {name for name in OTHER if "[from the weights, else " in settings[f"lisa: {name}"]}
    assert shown == set(OTHER)


# Training


def test_a_training_takes_preset_and_vision_of_its_start(write: Write) -> None:
    weights = write(preset="lisa-7b", vision="clip", template="llava_llama_2")
    setup = resolve_setup({"weights": weights})
    assert (setup.options.preset, setup.options.vision) == ("lisa-7b", "clip")
    assert (setup.case.preset, setup.case.vision) == ("lisa-7b", "clip")
    assert setup.case.template == "llava_llama_2"
    assert setup.options.dtype == "bf16", "as for every model of full size"
    assert resolve_setup({}).options.preset == "tiny"


def test_a_training_may_start_another_variant_and_takes_only_what_is_for_it(write: Write) -> None:
    weights = write(vision="clip", bridge="upsampling", frame="crop", clip_px=224)
    case = resolve_setup({"weights": weights, "vision": "sam", "recipe": "with-projector"}).case
    assert (case.vision, case.bridge, case.frame, case.clip_px) == ("sam", "linear", "whole", 0)
    # The recipe is not for the weights' own variant.
    dual = resolve_setup({"weights": write("dual", vision="dual"), "recipe": "described"}).case
    assert dual.vision == "sam"
