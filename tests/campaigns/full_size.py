"""A campaign: a checkpoint of the original's layout at full size is converted, segmented and run.

    python tests/campaigns/full_size.py --workspace /tmp/full --out full-size.json
    python tests/campaigns/full_size.py --workspace /tmp/small --tiny

It writes what ``xinlai/LISA-7B-v1`` and ``openai/clip-vit-large-patch14`` hold, with random numbers
in place of the weights: two ``.bin`` shards of 10 and 5 GB in bf16, their index, a SentencePiece
model of 32,000 pieces, and CLIP's folder. Then, each in a process of its own: `lisabench convert`,
`lisabench segment` and `lisabench run`. Every tensor of the new folder is compared with its source.

Conversion must take less memory than the larger shard and 1 GB: all pages of the process, those of
files that are mapped included. It takes 33 GB of disk, of which 16 are free again after the
comparison, and no network.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import torch
from original_factory import write_tokenizer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lisabench.models.checkpoints.convert import weights_of
from lisabench.models.checkpoints.shards import INDEX, WeightFiles, weight_files, weight_map
from lisabench.models.lisa.presets import PRESETS, Preset

CLIP = "model.vision_tower.vision_tower."
EMBEDDING = "model.embed_tokens.weight"
GB = 10**9
MOST_MEMORY_BESIDE_A_SHARD = GB
# Of save_pretrained in transformers 4, which wrote the releases.
SHARD_BYTES = 10 * GB
SAMPLES_PER_S = 50
SUITE = """
title: A checkpoint at full size
reference: converted
data: {count: 6}
cases:
  converted: {adapter: lisa}
"""
# The plan of `run`: as few processes as measure a case.
PLAN = ("processes=1", "memory_processes=1", "timed_queries=4", "warmup=2", "block=4")


@dataclass(frozen=True)
class Finished:
    """A command that has ended well.

    Attributes:
        seconds: that it took.
        peak_bytes: most memory of its process, with the pages of mapped files.
        peak_anonymous_bytes: most memory of its process that is no file's.
        peak_file_bytes: most pages of mapped files. The two were sampled, so they may be too small.
        output: what it printed.
    """

    seconds: float
    peak_bytes: int
    peak_anonymous_bytes: int
    peak_file_bytes: int
    output: str


def main() -> int:
    """Carry out the campaign, and return 1 if it found a fault."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--workspace", type=Path, required=True, help="a folder for large files")
    arguments.add_argument("--out", type=Path, help="a JSON file for the numbers")
    arguments.add_argument("--tiny", action="store_true", help="at the tiny preset's sizes")
    arguments.add_argument("--set", dest="settings", action="append", default=[],
                           metavar="KEY=VALUE", help="a setting of segment and of run")  # fmt: skip
    given = arguments.parse_args()
    preset = "tiny" if given.tiny else "lisa-7b"
    given.workspace.mkdir(parents=True, exist_ok=True)

    faults = []
    numbers: dict[str, object] = {"preset": preset}
    for name, value in campaign(preset, given.workspace, given.settings):
        print(f"{name}: {value}", flush=True)
        numbers[name] = value
        if name == "fault":
            faults.append(value)
    numbers["faults"] = faults
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 1 if faults else 0


def campaign(
    preset: str, workspace: Path, settings: Sequence[str] = ()
) -> Iterator[tuple[str, object]]:
    """Write a checkpoint, convert it and use it. Yield numbers by name, and faults as "fault"."""
    sizes = PRESETS[preset]
    source, tower, converted = (workspace / name for name in ("LISA", "clip", "converted"))
    started_s = time.monotonic()
    write_checkpoint(source, tower, sizes)
    yield "written_s", round(time.monotonic() - started_s, 1)
    shard_bytes = [file.stat().st_size for file in weight_files(source)]
    yield "shard_bytes", shard_bytes

    finished = run("convert", source, converted, "--vision-tower", tower)
    yield "convert", asdict(finished)
    most_bytes = max(shard_bytes) + MOST_MEMORY_BESIDE_A_SHARD
    yield "most_bytes_allowed", most_bytes
    if finished.peak_bytes >= most_bytes:
        yield "fault", f"convert took {finished.peak_bytes} bytes, more than {most_bytes}"
    started_s = time.monotonic()
    for fault in differences(source, tower, converted, sizes):
        yield "fault", fault
    yield "compared_s", round(time.monotonic() - started_s, 1)
    shutil.rmtree(source)

    image, mask = workspace / "image.png", workspace / "mask.png"
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(pixels_HW3).save(image)
    words = [f"weights={converted}", *settings]
    pairs = [word for setting in words for word in ("--set", setting)]
    yield "segment", asdict(run("segment", image, "the red mug", "--out", mask, *pairs))
    if Image.open(mask).size != (640, 480):
        yield "fault", "the mask has another size than the image"

    suite, records = workspace / "suite.yaml", workspace / "run"
    suite.write_text(SUITE)
    pairs += [word for setting in PLAN for word in ("--set", setting)]
    yield "run", asdict(run("run", suite, "--out", records, *pairs, accepted=(0, 1)))
    lines = (records / "samples.jsonl").read_text().splitlines()
    statuses = {json.loads(line).get("status") for line in lines} - {None}
    yield "statuses", sorted(statuses)
    if not statuses <= {"ok", "no_seg"}:
        yield "fault", f"queries ended with {sorted(statuses)}"


def write_checkpoint(source: Path, tower: Path, sizes: Preset) -> None:
    """Write a LISA and its CLIP as they are released, with random weights in bf16."""
    clip: dict[str, Tensor] = {}
    shard: dict[str, Tensor] = {}
    shards: list[dict[str, str]] = []
    waiting_bytes = 0
    source.mkdir()
    shapes = {name: shape for name, (_, shape) in weights_of(sizes).items()}
    own_bytes = sum(2 * torch.Size(shape).numel() for name, shape in shapes.items()
                    if not name.startswith(CLIP))  # fmt: skip
    # Two shards, as the releases have at 7B.
    shard_bytes = min(SHARD_BYTES, own_bytes * 2 // 3)
    generator = torch.Generator(device()).manual_seed(0)
    for name, shape in shapes.items():
        tensor = random_weight(name, shape, generator)
        if name.startswith(CLIP):
            clip[name.removeprefix(CLIP)] = tensor.float()  # as CLIP's authors publish it
            continue
        if waiting_bytes + tensor.nbytes > shard_bytes:
            shards.append(_write_shard(source, len(shards) + 1, shard))
            shard, waiting_bytes = {}, 0
        shard[name] = tensor
        waiting_bytes += tensor.nbytes
    shards.append(_write_shard(source, len(shards) + 1, shard))
    del shard
    file_of = {name: file for written in shards for name, file in written.items()}
    index = {"metadata": {"total_size": own_bytes}, "weight_map": file_of}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    _write_settings(source, sizes)

    tower.mkdir()
    save_file(clip, tower / "model.safetensors", {"format": "pt"})
    vision = {"hidden_size": sizes.clip.hidden, "num_attention_heads": sizes.clip.heads,
              "image_size": sizes.clip.image_px, "patch_size": sizes.clip.patch_px,
              "num_hidden_layers": sizes.clip.layers, "hidden_act": "quick_gelu"}  # fmt: skip
    (tower / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))


def device() -> str:
    """Return where random numbers are drawn: a CPU takes minutes for 7 billion."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def random_weight(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return a weight on the CPU in bf16: of norms about 1, of other layers about 0."""
    weight = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    is_norm = "norm" in name and name.endswith(".weight")
    return weight.normal_(mean=float(is_norm), std=0.02, generator=generator).cpu()


def _write_shard(folder: Path, number: int, shard: dict[str, Tensor]) -> dict[str, str]:
    """Write a shard, and return its file's name by the names of its tensors."""
    file = f"pytorch_model-{number:05}-of-00002.bin"
    torch.save(shard, folder / file)
    return dict.fromkeys(shard, file)


def _write_settings(folder: Path, sizes: Preset) -> None:
    """Write ``config.json`` and the tokenizer, with ids as in LISA-7B-v1: [PAD] comes first."""
    llama = sizes.llama
    config = {
        "architectures": ["LISAForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": llama.hidden,
        "intermediate_size": llama.intermediate,
        "max_position_embeddings": llama.context,
        "mm_use_im_start_end": True,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14",
        "model_type": "llava",
        "num_attention_heads": llama.heads,
        "num_hidden_layers": llama.layers,
        "out_dim": sizes.sam.prompt_dim,
        "rms_norm_eps": llama.norm_epsilon,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vision_tower": "openai/clip-vit-large-patch14",
        "vocab_size": llama.vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    added = ("[PAD]", "[SEG]", "<im_start>", "<im_end>")
    pieces = llama.vocabulary - len(added)
    write_tokenizer(folder, pieces)
    ids = {token: pieces + i for i, token in enumerate(added)}
    (folder / "added_tokens.json").write_text(json.dumps(ids))


def run(*words: object, accepted: Sequence[int] = (0,)) -> Finished:
    """Run a command of lisabench, and measure its process.

    Raises:
        SystemExit: its exit code is not among the accepted ones.
    """
    command = [sys.executable, "-m", "lisabench", *map(str, words)]
    print("$ lisabench", *map(str, words), flush=True)
    started_s = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peaks = {"VmHWM": 0, "RssAnon": 0, "RssFile": 0}
    sampler = threading.Thread(target=_sample, args=(process.pid, peaks), daemon=True)
    sampler.start()
    assert process.stdout is not None
    output = process.stdout.read()
    code = process.wait()
    seconds = time.monotonic() - started_s
    print(output, flush=True)
    if code not in accepted:
        raise SystemExit(f"lisabench {words[0]} ended with {code}")
    return Finished(
        seconds=round(seconds, 1),
        peak_bytes=peaks["VmHWM"],
        peak_anonymous_bytes=peaks["RssAnon"],
        peak_file_bytes=peaks["RssFile"],
        output=output,
    )


def _sample(pid: int, peaks: dict[str, int]) -> None:
    """Keep the largest values of a process in /proc until it has ended.

    VmHWM is the kernel's own peak, and begins anew with the command. That of `getrusage` begins
    with the fork, whose pages are those of this process.
    """
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            return
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "RssAnon" not in fields:  # it has ended and was not waited for
            return
        for name in peaks:
            peaks[name] = max(peaks[name], int(fields[name].split()[0]) * 1024)
        time.sleep(1 / SAMPLES_PER_S)


def differences(source: Path, tower: Path, converted: Path, sizes: Preset) -> Iterator[str]:
    """Yield a sentence for each tensor of a converted folder that is not that of its source."""
    our_name = {original: ours for original, (ours, _) in weights_of(sizes).items()}
    files = WeightFiles([converted / name for name in set(weight_map(converted / INDEX).values())])
    missing = set(our_name.values()) - files.shapes.keys()
    if missing:
        yield f"{len(missing)} tensors are missing, such as {min(missing)}"
    for folder, prefix in ((source, ""), (tower, CLIP)):
        originals = WeightFiles(weight_files(folder)).tensors()
        ours = _in_order(files, (our_name[prefix + name] for name in _names(folder)))
        for (name, original), (_, tensor) in zip(originals, ours, strict=True):
            if original.dtype != tensor.dtype or not torch.equal(original, tensor):
                yield f"{our_name[prefix + name]} is not {name}"


def _names(folder: Path) -> list[str]:
    return list(WeightFiles(weight_files(folder)).shapes)


def _in_order(files: WeightFiles, names: Iterator[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        yield from files.tensors(lambda candidate, name=name: candidate == name)


if __name__ == "__main__":
    raise SystemExit(main())
