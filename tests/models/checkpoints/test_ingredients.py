"""Ingredients on the Hub: what is downloaded, in which order, and what is refused before.

A folder stands for the Hub; nothing is downloaded.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import original_factory as factory
import pytest
import release_factory as releases
import torch
from command import lisabench
from huggingface_hub import errors
from original_factory import CLIP, HEAD, SAM, SMALL, without

from lisabench.models.checkpoints import ingredients
from lisabench.models.lisa import presets, weights_format

pytestmark = pytest.mark.no_clock

COMMIT = "0123abc" + "0" * 33
LISA, OPENAI = "xinlai/LISA-7B-v1", "openai/clip-vit-large-patch14"
LLAVA, SAM_HUGE = "llava-hf/llava-1.5-7b-hf", "facebook/sam-vit-huge"
SMALL_15 = replace(SMALL, projector="mlp2x_gelu")
CLIP_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "image_size": 56}


class Hub:
    """What the client does, with a folder for the Hub and another one for the cache.

    Attributes:
        asked: what was asked for, in order: an id, or an id and a file that was downloaded.
    """

    def __init__(self, root: Path) -> None:
        self.files = root / "hub"
        self.cache = root / "cache"
        self.asked: list[str] = []
        self.is_offline = False

    def folder(self, hub_id: str) -> Path:
        return self.files / hub_id

    def _snapshot(self, hub_id: str) -> Path:
        return self.cache / f"models--{hub_id.replace('/', '--')}" / "snapshots" / COMMIT

    def model_info(self, hub_id, *, revision=None, files_metadata=False):
        assert files_metadata
        self.asked.append(hub_id)
        if self.is_offline:
            raise errors.OfflineModeIsEnabled("offline mode is enabled\nsee above")
        if not self.folder(hub_id).is_dir() or revision not in (None, "main"):
            raise ValueError("404 Client Error: Repository Not Found")
        siblings = [
            SimpleNamespace(rfilename=path.relative_to(self.folder(hub_id)).as_posix(),
                            size=path.stat().st_size)
            for path in sorted(self.folder(hub_id).rglob("*"))
        ]  # fmt: skip
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def hf_hub_download(self, hub_id, name, *, revision):
        assert revision == COMMIT
        path = self._snapshot(hub_id) / name
        if not path.exists():
            if self.is_offline:
                raise errors.LocalEntryNotFoundError(f"{name} is not in the cache")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder(hub_id) / name, path)
            self.asked.append(f"{hub_id} {name}")
        return str(path)

    def try_to_load_from_cache(self, hub_id, name, *, revision):
        assert revision == COMMIT
        path = self._snapshot(hub_id) / name
        return str(path) if path.exists() else None

    def snapshot_download(self, hub_id, *, revision, allow_patterns, local_files_only):
        assert (allow_patterns, local_files_only) == ([], True)
        assert revision in (None, "main")
        if not self._snapshot(hub_id).is_dir():
            raise errors.LocalEntryNotFoundError("no snapshot")
        return str(self._snapshot(hub_id))

    @property
    def downloaded(self) -> list[str]:
        return [line for line in self.asked if " " in line]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = Hub(tmp_path)
    for name in ("model_info", "hf_hub_download", "try_to_load_from_cache", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
    monkeypatch.setitem(presets.PRESETS, "tiny", SMALL)
    monkeypatch.chdir(tmp_path)
    return fake


def publish_lisa(hub: Hub, tensors: dict) -> None:
    """Publish a LISA and the CLIP that it names, each with files that are not needed."""
    folder = factory.write_lisa(hub.folder(LISA), without(tensors, CLIP), "bin", 2)
    for name in ("README.md", "generation_config.json", "special_tokens_map.json"):
        (folder / name).write_text("{}")
    publish_clip(hub, tensors)


def publish_clip(hub: Hub, tensors: dict, sizes: dict | None = None) -> None:
    folder = factory.write_clip(hub.folder(OPENAI), tensors)
    weights = torch.load(folder / "pytorch_model.bin")
    factory.write_weights(folder, weights, "safetensors", 1)
    for name in ("tf_model.h5", "flax_model.msgpack", "README.md", "tokenizer.json"):
        (folder / name).write_bytes(b"not needed")
    config = {"model_type": "clip", "vision_config": sizes or CLIP_SIZES}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def tensors():
    return factory.weights()


def test_a_release_is_converted_by_its_id_and_no_file_more_is_downloaded(hub, tensors, tmp_path):
    publish_lisa(hub, tensors)
    done = lisabench("convert", LISA, "ours")
    assert done.returncode == 0, done.stderr
    assert hub.asked == [
        LISA,
        f"{LISA} config.json",
        f"{LISA} pytorch_model.bin.index.json",
        f"{LISA} tokenizer.model",
        f"{LISA} added_tokens.json",
        OPENAI,
        f"{OPENAI} config.json",
        f"{OPENAI} model.safetensors",
        f"{LISA} pytorch_model-00001-of-00002.bin",
        f"{LISA} pytorch_model-00002-of-00002.bin",
    ]
    assert "xinlai/LISA-7B-v1: 0.00 GiB in 2 files are downloaded" in done.stderr
    saved = weights_format.read(tmp_path / "ours")
    assert (saved.source, saved.contaminated_splits) == (LISA, ("val",))

    local = factory.write_lisa(tmp_path / "local", without(tensors, CLIP))
    done = lisabench("convert", local, "same", "--vision-tower", hub.folder(OPENAI))
    assert done.returncode == 0, done.stderr
    assert weights_format.read(tmp_path / "same").weights_hash == saved.weights_hash


def test_what_the_cache_has_is_neither_downloaded_again_nor_asked_for_offline(hub, tensors):
    publish_lisa(hub, tensors)
    assert lisabench("convert", LISA, "first").returncode == 0
    hub.asked.clear()
    done = lisabench("convert", f"hf://{LISA}@main", "second")
    assert done.returncode == 0, done.stderr
    assert hub.downloaded == []
    assert "are downloaded" not in done.stderr
    hub.is_offline = True
    done = lisabench("convert", LISA, "third")
    assert done.returncode == 0, done.stderr


def test_a_llava_and_a_sam_on_the_hub_become_a_start(hub, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", SMALL_15)
    releases.write_llava(hub.folder(LLAVA), releases.llava(SMALL_15))
    releases.write_sam(hub.folder(SAM_HUGE), releases.sam(SMALL_15))
    (hub.folder(SAM_HUGE) / "pytorch_model.bin").write_bytes(b"the same again")
    (hub.folder(LLAVA) / "preprocessor_config.json").write_text("{}")
    done = lisabench("convert", LLAVA, "ours", "--sam", SAM_HUGE)
    assert done.returncode == 0, done.stderr
    shards = sorted(path.name for path in hub.folder(LLAVA).glob("*.safetensors"))
    assert len(shards) > 2
    assert hub.downloaded == [
        f"{LLAVA} config.json",
        f"{LLAVA} model.safetensors.index.json",
        f"{LLAVA} tokenizer.model",
        f"{LLAVA} added_tokens.json",
        f"{SAM_HUGE} config.json",
        f"{SAM_HUGE} model.safetensors",
        *(f"{LLAVA} {shard}" for shard in shards),
    ]


def test_the_modified_lisas_tokenizer_is_that_of_its_llava(hub, monkeypatch, tmp_path):
    monkeypatch.setitem(presets.PRESETS, "tiny", SMALL_15)
    releases.write_llava(hub.folder(LLAVA), releases.llava(SMALL_15))
    model = releases.ModifiedLisa(releases.llava(SMALL_15), releases.sam(SMALL_15))
    file = releases.write_modified(tmp_path / "best_model_epoch_3.pt", model)
    done = lisabench("convert", file, "ours")
    assert done.returncode == 0, done.stderr
    small = ("config.json", "model.safetensors.index.json", "tokenizer.model", "added_tokens.json")
    assert hub.downloaded == [f"{LLAVA} {name}" for name in small]

    hub.is_offline = True
    shutil.rmtree(hub.cache)
    done = lisabench("convert", file, "other")
    assert done.returncode == 2
    assert f"of {LLAVA} into {tmp_path}" in done.stderr


# What cannot be used is refused before any weights are downloaded


def refused(hub: Hub, *words: object) -> str:
    """Return the message of a conversion that is refused before weights are downloaded."""
    done = lisabench("convert", *words)
    assert done.returncode == 2
    weights = [line for line in hub.downloaded if line.endswith((".bin", ".safetensors", ".pth"))]
    assert weights == []
    assert not Path("ours").exists()
    (line,) = done.stderr.strip().splitlines()[-1:]
    return line


def test_a_clip_that_cannot_be_had_is_named_with_the_command(hub, tensors):
    publish_lisa(hub, tensors)
    shutil.rmtree(hub.folder(OPENAI))
    message = refused(hub, LISA, "ours")
    assert f"{LISA} leaves out CLIP, and its vision tower ({OPENAI})" in message
    assert "404 Client Error: Repository Not Found" in message
    assert f"lisabench convert {LISA} ours --vision-tower FOLDER" in message


@pytest.mark.parametrize(("key", "value"), [("image_size", 84), ("num_hidden_layers", 12)])
def test_a_clip_of_another_size_is_refused_by_its_settings(hub, tensors, key, value):
    publish_lisa(hub, tensors)
    shutil.rmtree(hub.folder(OPENAI))
    publish_clip(hub, tensors, CLIP_SIZES | {key: value})
    message = refused(hub, LISA, "ours")
    assert f"{key} {value}" in message and "56 px, 3 x 32" in message
    assert refused(hub, LISA, "ours", "--vision-tower", OPENAI) == message


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 2048}, "a language model of hidden_size 2048, which no preset has"),
        ({"num_hidden_layers": 40}, "num_hidden_layers 40"),
        ({"format": "lisabench"}, "is in lisabench's layout already"),
    ],
)
def test_a_lisa_that_no_preset_fits_is_refused_by_its_settings(hub, tensors, config, expected):
    publish_lisa(hub, tensors)
    (hub.folder(LISA) / "config.json").write_text(json.dumps(factory.CONFIG | config))
    assert expected in refused(hub, LISA, "ours")


def test_another_model_is_refused_by_its_settings(hub):
    releases.write_sam(hub.folder(SAM_HUGE), releases.sam(SMALL))
    message = refused(hub, SAM_HUGE, "ours")
    assert "is no LISA and no LLaVA: its model_type is 'sam'" in message
    (hub.folder("owner/words")).mkdir(parents=True)
    (hub.folder("owner/words") / "words.txt").write_text("a")
    message = refused(hub, "owner/words", "ours")
    assert "owner/words holds no config.json and no weights (it has words.txt)" in message


def test_a_llava_without_a_sam_is_refused_by_its_index(hub, tensors):
    publish_lisa(hub, without(tensors, SAM, HEAD))
    message = refused(hub, LISA, "ours")
    assert f"lisabench convert {LISA} DST --sam facebook/sam-vit-huge" in message


def test_a_sam_beside_a_lisa_is_refused_by_its_index(hub, tensors):
    publish_lisa(hub, tensors)
    assert "holds a SAM of its own: leave out sam.pth" in refused(
        hub, LISA, "ours", "--sam", "sam.pth"
    )


def test_a_sam_that_is_none_is_refused_by_its_settings(hub, tensors):
    publish_lisa(hub, without(tensors, SAM, HEAD))
    folder = hub.folder("facebook/sam2-hiera")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "sam2"}))
    (folder / "model.safetensors").write_bytes(b"")
    message = refused(hub, LISA, "ours", "--sam", "facebook/sam2-hiera")
    assert "its model_type is 'sam2'" in message and "give facebook/sam-vit-huge" in message


def test_ingredients_here_are_looked_at_before_those_on_the_hub(hub, tensors, tmp_path):
    publish_lisa(hub, tensors)
    assert "there is no sam.pth" in refused_start(hub, tensors, "--sam", "sam.pth")
    Path("empty").mkdir()
    assert "empty holds no SAM" in refused_start(hub, tensors, "--sam", "empty")
    tower = ("--sam", SAM_HUGE, "--vision-tower", "empty")
    assert "empty holds no CLIP" in refused_start(hub, tensors, *tower)
    local = factory.write_lisa(tmp_path / "local", without(tensors, CLIP))
    (local / "tokenizer.model").write_bytes(b"cut")
    assert "tokenizer.model is not a SentencePiece model" in refused(hub, local, "ours")


def refused_start(hub: Hub, tensors: dict, *options: str) -> str:
    """Return the message for a start from a LLaVA on the Hub."""
    if not hub.folder("owner/llava").exists():
        factory.write_lisa(hub.folder("owner/llava"), without(tensors, SAM, HEAD, CLIP), "bin", 2)
        releases.write_sam(hub.folder(SAM_HUGE), releases.sam(SMALL))
    return refused(hub, "owner/llava", "ours", *options)


def test_an_adapter_on_the_hub_is_merged_into_its_model_here(hub, tensors, tmp_path):
    base = factory.write_lisa(tmp_path / "base", tensors)
    adapter = hub.folder("owner/adapter")
    adapter.mkdir(parents=True)
    head = {"base_model.model.lm_head.weight": tensors["lm_head.weight"] + 1}
    factory.save(head, adapter / "adapter_model.safetensors")
    settings = {"lora_alpha": 16, "r": 4, "base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    done = lisabench("convert", "owner/adapter", "ours")
    assert done.returncode == 0, done.stderr
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert hub.downloaded == [f"owner/adapter {name}" for name in names]
    settings["base_model_name_or_path"] = "owner/llava"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    shutil.rmtree(hub.cache)
    done = lisabench("convert", "owner/adapter", "other")
    assert "hf download owner/llava --local-dir FOLDER" in done.stderr


def test_a_model_of_one_file_is_downloaded_after_its_settings_were_read(hub, tensors):
    publish_lisa(hub, tensors)
    shutil.rmtree(hub.folder(LISA))
    factory.write_lisa(hub.folder(LISA), without(tensors, CLIP), "safetensors", 1)
    done = lisabench("convert", LISA, "ours")
    assert done.returncode == 0, done.stderr
    assert hub.downloaded[:4] == [
        f"{LISA} config.json",
        f"{LISA} tokenizer.model",
        f"{LISA} added_tokens.json",
        f"{LISA} model.safetensors",
    ]


@pytest.mark.usefixtures("hub")
def test_the_folders_above_a_checkpoint_do_not_make_it_a_delta(tensors, tmp_path):
    src = factory.write_lisa(tmp_path / "delta" / "models" / "mine", tensors)
    done = lisabench("convert", src, "ours")
    assert done.returncode == 0, done.stderr


def test_deltas_are_refused_by_their_id(hub, tensors):
    hub_id = "liuhaotian/LLaVA-7b-delta-v1-1"
    factory.write_lisa(hub.folder(hub_id), without(tensors, SAM, HEAD, CLIP), "bin", 2)
    message = refused(hub, hub_id, "ours", "--sam", "facebook/sam-vit-huge")
    assert "holds the difference to LLaMA's weights" in message


def test_a_model_without_its_tokenizer_or_a_shard_is_refused_by_its_list(hub, tensors):
    publish_lisa(hub, tensors)
    (hub.folder(LISA) / "tokenizer.model").rename(hub.folder(LISA) / "tokenizer.json")
    assert f"{LISA} has no tokenizer.model" in refused(hub, LISA, "ours")
    (hub.folder(LISA) / "tokenizer.json").rename(hub.folder(LISA) / "tokenizer.model")
    (hub.folder(LISA) / "pytorch_model-00002-of-00002.bin").unlink()
    assert "lacks pytorch_model-00002-of-00002.bin, which its index" in refused(hub, LISA, "ours")


def test_a_disk_that_is_too_small_is_refused_by_the_sizes(hub, tensors, monkeypatch):
    publish_lisa(hub, tensors)
    folders = (hub.folder(LISA), hub.folder(OPENAI))
    weights = [*folders[0].glob("*.bin"), folders[1] / "model.safetensors"]
    both = 2 * sum(path.stat().st_size for path in weights)  # downloaded, and written
    free = SimpleNamespace(free=both - 1)
    monkeypatch.setattr(ingredients.shutil, "disk_usage", lambda _: free)
    assert "set HF_HOME to a folder on another disk" in refused(hub, LISA, "ours")
    free.free = both
    assert lisabench("convert", LISA, "ours").returncode == 0


def test_an_id_that_is_misspelt_and_a_connection_that_fails_are_one_line(hub):
    message = refused(hub, "xinlai/LISA-7B", "ours")
    assert "xinlai/LISA-7B is no file or folder here and cannot be found on the Hugging" in message
    hub.is_offline = True
    assert "(offline mode is enabled)" in refused(hub, "xinlai/LISA-7B", "ours")
    assert "or the id of a model on the Hugging Face Hub" in refused(hub, "nowhere", "ours")
