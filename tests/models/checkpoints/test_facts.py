"""How weights were trained comes from files and the id of a release, not from the folders above."""

import json
from pathlib import Path
from typing import Any

import original_factory as factory
import pytest
import torch
from command import lisabench

from lisabench.harness.errors import DataError, UsageError
from lisabench.models.checkpoints.convert import convert
from lisabench.models.checkpoints.facts import Facts, facts_of
from lisabench.models.checkpoints.lora import gathered
from lisabench.models.checkpoints.original_settings import with_settings
from lisabench.models.lisa import presets

pytestmark = pytest.mark.no_clock


def facts(folder: Path, base: Path | None = None, name: str | None = None, **said: Any) -> Facts:
    config = {} if name is None else {"_name_or_path": name}
    return facts_of(folder, base or folder, config, **said)


# Where facts come from


@pytest.mark.parametrize(
    ("above", "name", "contaminated", "is_stated"),
    [
        ("llama2-experiments", "LISA-7B-v1", ("val",), True),
        ("LISA-7B-v1", "my-own", (), True),
        ("LISA-13B-llama2-v1/old", "mine", (), True),
        ("plain", "LISA-13B-llama2-v1", ("val",), False),
        ("plain", "LISA-7B-v1-explanatory", ("val",), True),
        ("plain", "llava-7b", (), True),
    ],
)
def test_the_folders_above_a_checkpoint_say_nothing(
    tmp_path: Path, above: str, name: str, contaminated: tuple[str, ...], is_stated: bool
) -> None:
    known = facts(tmp_path / above / name)
    assert known.contaminated_splits == contaminated
    assert (known.template, known.template_is_stated) == ("llava_v1", is_stated)
    assert known.source == name
    assert bool(known.doubts) == (not contaminated)


def test_the_id_on_the_hub_is_that_of_a_snapshot_in_its_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--xinlai--LISA-13B-llama2-v1" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    known = facts(snapshot)
    assert known.source == "xinlai/LISA-13B-llama2-v1"
    assert known.contaminated_splits == ("val",) and not known.template_is_stated
    # A link to the snapshot is the same, and a folder deeper in it is not.
    (tmp_path / "link").symlink_to(snapshot)
    assert facts(tmp_path / "link").source == known.source
    assert facts(snapshot / "other").source == "other"


@pytest.mark.parametrize(
    ("named", "contaminated"),
    [
        ("xinlai/LISA-7B-v1", ("val",)),
        ("/data/releases/LISA-7B-v1/", ("val",)),
        ("/data/LISA-7B-v1/mine", ()),
        (None, ()),
        (7, ()),
    ],
)
def test_what_weights_were_made_from_is_in_their_settings(
    tmp_path: Path, named: Any, contaminated: tuple[str, ...]
) -> None:
    assert facts(tmp_path / "mine", name=named).contaminated_splits == contaminated


def test_an_adapter_has_seen_what_its_base_has(tmp_path: Path) -> None:
    known = facts(tmp_path / "adapter", base=tmp_path / "LISA-7B-v1")
    assert (known.source, known.contaminated_splits) == ("adapter", ("val",))


def test_what_the_user_says_counts_more_than_names(tmp_path: Path) -> None:
    known = facts(tmp_path / "LISA-7B-v1", trained_on_val=False, template="llava_llama_2")
    assert known.contaminated_splits == () and known.doubts == ()
    assert (known.template, known.template_is_stated) == ("llava_llama_2", True)
    assert facts(tmp_path / "mine", trained_on_val=True).contaminated_splits == ("val",)
    with pytest.raises(UsageError, match="unknown template 'llava'"):
        facts(tmp_path / "mine", template="llava")


def test_a_conversion_says_aloud_what_it_knows_and_how_to_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", factory.SMALL)
    source = factory.write_lisa(tmp_path / "llama2" / "LISA-7B-v1", factory.weights())
    done = convert(source, tmp_path / "ours")
    assert any("llava_v1" in fact and "--template" in fact for fact in done.facts)
    assert any("LISA-7B-v1" in fact and "--no-trained-on-val" in fact for fact in done.facts)
    said = convert(source, tmp_path / "said", template="llava_llama_2", trained_on_val=False)
    assert (said.saved.template, said.saved.contaminated_splits) == ("llava_llama_2", ())
    assert said.warnings == ()


def test_the_command_has_both_options(tmp_path: Path) -> None:
    options = ("--template", "llava_llama_2", "--no-trained-on-val")
    done = lisabench("convert", tmp_path, tmp_path / "new", *options)
    assert done.returncode == 2 and "holds no weights" in done.stderr


# Settings that shapes do not show


def settings(**config: Any) -> presets.Preset:
    return with_settings(factory.SMALL, factory.CONFIG | config, {}, Path("config.json"))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_theta": 10000.0},
        {"rope_theta": None, "rope_scaling": None},
        {"rope_parameters": None},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 10000, "factor": None}},
        {"rope_scaling": {"type": "default"}},
        {"num_key_value_heads": None},
    ],
)
def test_settings_of_todays_and_of_older_libraries_are_read(config: dict[str, Any]) -> None:
    assert settings(**config).llama.norm_epsilon == factory.CONFIG["rms_norm_eps"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_theta": 1e6}, "rope_theta is 1000000.0"),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "rope_theta is 1000000"),
        ({"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 5e5}}, "rope_theta is 500000"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_type is 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "'factor': 4.0"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor': 0.5"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling has 'factor': 2.0"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope_type is 'dynamic'"),
        ({"rope_parameters": "default"}, "rope_parameters is 'default'"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings"),
        ({"rms_norm_eps": [1]}, "rms_norm_eps"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"num_attention_heads": {}}, "num_attention_heads is {}"),
    ],
)
def test_other_settings_are_refused_by_name(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=rf"config\.json: .*{expected}") as error:
        settings(**config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"r": 0.5}, "r: Input"),
        ({"r": [8]}, "r: Input"),
        ({"use_rslora": "no"}, "use_rslora"),
    ],
)
def test_settings_of_an_adapter_are_numbers(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    pair = {"a.lora_A.weight": torch.ones(1, 2), "a.lora_B.weight": torch.ones(3, 1)}
    content = {"lora_alpha": 16, "r": 8} | changes
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"adapter_config\.json: .*{expected}"):
        gathered(pair, {"a.weight": (3, 2)}, tmp_path)
