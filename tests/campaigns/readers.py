"""What the campaigns damage: small sound files of each kind, and who reads them.

Every reader of files on a disk is here: of records, of data, of weights and tokenizers, of what a
user writes, and of what the tool keeps for itself.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import coco_factory
import original_factory
import parquet_files
import release_factory
import torch
from disturbed import a_run, exit_code, start
from laid_data import HEIGHT, RIGHT_HALF, SQUARE, WIDTH, line, write_listing
from original_factory import save
from outside_adapter import CORNER
from PIL import Image
from places import RESULTS, ROOT
from run_factory import write_run
from samples import write_sample
from study_factory import write_study

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.resolve import resolve_recorded
from lisabench.benchmarks.run.journal import Journal
from lisabench.benchmarks.run.manifest import ManifestWriter
from lisabench.benchmarks.study import rendered
from lisabench.benchmarks.study.evaluate import kept_labels
from lisabench.benchmarks.training.checkpoints import STATE, Checkpoints
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.benchmarks.training.trainer import Trainer
from lisabench.datasets.image import read_image
from lisabench.datasets.layouts import parquet
from lisabench.datasets.layouts.known import layout_of
from lisabench.datasets.layouts.listing import Listing
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes import cache
from lisabench.datasets.scenes.generator import scene
from lisabench.datasets.verify import verify
from lisabench.harness import roofline
from lisabench.harness.records.run import read_run
from lisabench.harness.records.study import read_study, read_trials
from lisabench.harness.records.training import read_training
from lisabench.models import registry
from lisabench.models.checkpoints import shards
from lisabench.models.checkpoints.convert import convert
from lisabench.models.checkpoints.shards import weight_map
from lisabench.models.checkpoints.stored_tensors import LEARNED, all_tensors
from lisabench.models.lisa import tokenizer, weights_format
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.lisa.starts import with_starts
from lisabench.reports.gate.baseline import read_baseline, reduced, write_baseline
from lisabench.reports.load import load
from lisabench.reports.page.gallery import gallery
from lisabench.reports.page.page import report_text
from lisabench.reports.published.runs import published_runs_page
from lisabench.reports.run.summary import read_summary, summarise
from lisabench.reports.study.page import study_page
from lisabench.reports.study.summary import summarise_study
from lisabench.reports.training.page import training_page
from lisabench.reports.training.summary import summarise_training

PACKAGED = ROOT / "models" / "assets" / "tiny" / "dual"
SUITES = ROOT / "benchmarks" / "suites"
STUDY = RESULTS / "accuracy-tiny"
TRAINING = RESULTS / "training-7b" / "trainings" / "clip-lean-0"
TRAINING_FILES = ("run.json", "training.jsonl", "evaluations.jsonl")
ON_A_GPU = RESULTS / "gate-gpu" / "unchanged" / "base"
JOURNALS = ("run.json", "samples.jsonl", "quality.jsonl", "memory.jsonl")
RATES = {"matrix_flops_per_s": {"float32": 1e11}, "bandwidth_bytes_per_s": 1e10}
MODIFIED = replace(original_factory.SMALL, projector="mlp2x_gelu")
LORA = {"lora_alpha": 16, "r": 4, "base_model_name_or_path": "../lisa"}
TRAINING_OPTIONS = """
preset: tiny
vision: dual
recipe: lean
epochs: 20
lr: 1.0e-3
optim: adamw
set: {quantization: nf4, seg_head: text_hidden_fcs}
"""


@dataclass(frozen=True)
class Reader:
    """A kind of file with its reader.

    Attributes:
        name: of the kind.
        files: patterns of the files in a folder that are damaged, one file at a time.
        prepare: makes the folder, and returns it.
        read: reads it as the tool does.
        is_slow: whether that takes much more than 10 ms.
    """

    name: str
    files: tuple[str, ...]
    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]
    is_slow: bool = False


def _copied(source: Path, *names: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(source / name, folder)
        return folder

    return prepare


# Records


def _run(folder: Path) -> Path:
    return write_run(folder, cases=2, queries=4, processes=2, gallery=1)


def _reported(folder: Path) -> None:
    run = read_run(folder)
    report_text(run, summarise(run))
    load(folder)


def _run_on_a_gpu(folder: Path) -> Path:
    _copied(ON_A_GPU, "run.json", "memory.jsonl", "passes.jsonl")(folder)
    lines = (ON_A_GPU / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:12]))
    fit = (RESULTS / "claims-7b" / "fits.jsonl").read_text()
    (folder / "fits.jsonl").write_text(fit)
    return folder


def _gallery(folder: Path) -> None:
    run = read_run(folder)
    gallery(run, summarise(run))


def _begun(folder: Path) -> Path:
    folder.mkdir(parents=True)
    activity = a_run(folder)
    assert exit_code(start(activity, folder / "out", "begun")) == 0
    return folder / "out"


def _resumed(folder: Path) -> None:
    """Do what `run --resume` does before it measures."""
    suite = resolve_recorded(read_run(folder).manifest.definition)
    queries = Queries.of(suite)
    manifest = ManifestWriter(folder, suite, queries)
    journal = Journal(folder, suite, queries)
    manifest.take_over()
    journal.half_written()
    do_not_fit = manifest.cases_that_do_not_fit
    manifest.forget_errors(journal.supersede_unfinished(do_not_fit))
    journal.failed_queries(do_not_fit)


def _baseline(folder: Path) -> Path:
    _run(folder / "run")
    write_baseline(folder / "baseline.json", reduced(read_run(folder / "run")))
    return folder


def _training(folder: Path) -> None:
    training = read_training(folder)
    training_page(training, summarise_training(training))


def _study(folder: Path) -> Path:
    return write_study(folder, seeds=2, truth={"dual": 0.8, "clip": 0.5}, images=4)


def _study_reported(folder: Path) -> None:
    study_page(summarise_study(read_study(folder)))


def _published(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "index.yaml").write_text(
        "- {folder: study, question: what, answer: that, date: 2026-11-01}\n"
        "- {folder: run, question: what, answer: that}\n"
    )
    _copied(STUDY, "study.json", "summary.json")(folder / "study")
    _run(folder / "run")
    return folder


# Data


def _data(folder: Path) -> Path:
    write_sample(folder / "val", "a")
    return folder


def _sample(folder: Path) -> None:
    for texts in ("first", "all"):
        sample = ReasonSeg(folder, "val", texts)[0]
        _ = sample.query, sample.image, sample.target_HW


def _verified(folder: Path) -> None:
    for problem in verify(folder):
        assert str(problem).isprintable(), problem


def _tables(folder: Path) -> Path:
    parquet_files.reasonseg_copy(folder / "reasonseg")
    parquet_files.refcoco_of_lmms(folder / "lmms")
    parquet_files.refcoco_of_jxu(folder / "jxu", [768])
    parquet_files.refcoco_m(folder / "moondream", {"1": "0", "2": "PQ30"})
    return folder


def _tables_read(folder: Path) -> None:
    for source in folder.iterdir():
        layout = parquet.found(str(source))
        assert layout is not None
        for split in layout.splits():
            list(layout.queries(split))


def _tree(folder: Path) -> Path:
    coco_factory.write_tree(folder)
    return folder


def _laid(folder: Path) -> None:
    tree = folder / "refer_seg"
    images = tree / coco_factory.TRAIN_2014
    for source in ("refcoco", "grefcoco", f"grefcoco/instances.json@{images}"):
        layout = layout_of(f"{tree}/{source}")
        assert layout is not None
        _ = layout.facts, layout.identity()
        for split in layout.splits():
            list(layout.queries(split))


def _listing(folder: Path) -> Path:
    shape = {"label": "target", "mask": "images/mask.png"}
    root = write_listing(folder, line("a", "images/0.png", SQUARE, RIGHT_HALF, shape))
    Image.new("L", (WIDTH, HEIGHT), 1).save(root / "images" / "mask.png")
    return root


def _listing_read(folder: Path) -> None:
    _verified(folder)
    for texts in ("first", "all"):
        listing = Listing(folder, "val", texts)
        listing.fingerprint()
        for sample in listing:
            _ = sample.query, sample.image, sample.target_HW


def _pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    colours = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # the tag of the orientation: by a quarter
    colours.save(folder / "turned.jpg", exif=turned)
    colours.convert("CMYK").save(folder / "cmyk.jpg")
    colours.convert("P").save(folder / "palette.png")
    colours.convert("RGBA").save(folder / "alpha.png")
    colours.convert("I;16").save(folder / "deep.png")
    for kind in ("bmp", "gif", "tiff", "webp"):
        colours.save(folder / f"picture.{kind}")
    return folder


def _each_picture(folder: Path) -> None:
    failure = None
    for path in sorted(folder.iterdir()):
        try:
            read_image(path)
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


# Weights, tokenizers and checkpoints


def _shard(name: str, **options: bool) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        folder.mkdir(parents=True)
        tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}
        if options:
            torch.save(tensors, folder / name, **options)
        else:
            save(tensors, folder / name)
        return folder

    return prepare


def _in_4_bits(folder: Path) -> Path:
    folder.mkdir(parents=True)
    torch.save(original_factory.in_4_bits(), folder / "weights.bin")
    return folder


def _tensors(folder: Path) -> None:
    (file,) = folder.iterdir()
    content = shards.opened(file)
    for name in content.shapes:
        content.read(name)


def _original(folder: Path) -> Path:
    """Write a LISA of the original's layout, its CLIP, and an adapter for it."""
    tensors = original_factory.weights()
    original_factory.write_clip(folder / "clip", tensors)
    lisa = original_factory.write_lisa(
        folder / "lisa", original_factory.without(tensors, original_factory.CLIP)
    )
    decoder = {"0": {"content": "<unk>", "special": True}}
    listed = json.dumps({"added_tokens_decoder": decoder})
    (lisa / "tokenizer_config.json").write_text(listed)
    special = json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}})
    (lisa / "special_tokens_map.json").write_text(special)
    adapter = folder / "adapter"
    adapter.mkdir()
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {
        f"{layer}.lora_A.weight": torch.ones(4, 64),
        f"{layer}.lora_B.weight": torch.ones(64, 4),
    }
    save(pair, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps(LORA))
    return folder


def _converted(folder: Path) -> None:
    with mock.patch.dict(PRESETS, {"tiny": original_factory.SMALL}):
        try:
            convert(folder / "adapter", folder / "out", folder / "clip")
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)


def _modified(folder: Path) -> Path:
    """Write a checkpoint of the modified LISA, with the tokenizer of its LLaVA."""
    folder.mkdir(parents=True)
    model = release_factory.ModifiedLisa(
        release_factory.llava(MODIFIED), release_factory.sam(MODIFIED)
    )
    release_factory.write_modified(folder / "best_model_epoch_3.pt", model)
    release_factory.write_tokenizer_of_llava(folder)
    return folder


def _modified_converted(folder: Path) -> None:
    with mock.patch.dict(PRESETS, {"tiny": MODIFIED}):
        try:
            convert(folder / "best_model_epoch_3.pt", folder / "out")
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)


def _trainer(checkpoints: Path) -> Trainer:
    """Return a trainer of one small layer, with what it needs to continue and no more."""
    layer = torch.nn.Linear(2, 2)
    trainer = Trainer.__new__(Trainer)
    trainer.parameters = dict(layer.named_parameters())
    trainer.optimizer = torch.optim.AdamW(layer.parameters())
    trainer.schedule = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda _: 1.0)
    trainer.checkpoints = Checkpoints(checkpoints, lambda _: None)
    trainer.setup = SimpleNamespace(options=SimpleNamespace(seed=0, resume=True))
    trainer.plan = SimpleNamespace(rank=0)
    trainer.journal = SimpleNamespace(rewind=lambda _: None)
    trainer.accelerator = SimpleNamespace(
        scaler=None, is_main_process=True, wait_for_everyone=lambda: None
    )
    return trainer


def _checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    trainer = _trainer(folder)
    sum(parameter.sum() for parameter in trainer.parameters.values()).backward()
    trainer.optimizer.step()  # so that there is a state to save
    with mock.patch("lisabench.benchmarks.training.trainer.gather_object", list):
        trainer._save_checkpoint(3)
    return folder


def _continued(folder: Path) -> None:
    trainer = _trainer(folder)
    assert trainer._restore() == 3


def _learned(folder: Path) -> Path:
    """Write what a training learned from the packaged weights: a weight, rows, and a LoRA."""
    folder.mkdir(parents=True)
    layer = "llm.model.layers.0.self_attn.q_proj"
    width = PRESETS["tiny"].llama.hidden
    tensors = {
        "seg_projection.0.bias": torch.ones(width),
        "llm.model.embed_tokens.rows": torch.ones(1, width),
        f"{layer}.lora_A.default.weight": torch.ones(2, width),
        f"{layer}.lora_B.default.weight": torch.ones(width, 2),
    }
    save(tensors, folder / LEARNED)
    saved = weights_format.read(PACKAGED)
    pointer = weights_format.Start(
        "packaged", saved.weights_hash, saved.vision, lora_alpha=16, row_ids=(3,)
    )
    weights_format.write(folder, replace(saved, start=pointer))
    return folder


def _learned_read(folder: Path) -> None:
    weights = with_starts(weights_format.opened(str(folder)))
    for _, tensor in all_tensors(weights, ("seg_projection", "llm")):
        tensor.sum()


# What a user writes


def _written(name: str, content: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / name).write_text(content)
        return folder

    return prepare


def _outside_adapter(folder: Path) -> None:
    name = str(folder / "outside.py")
    registry.source_sha256(name)
    registry.make_case(name, registry.settings_of(name))


# What the tool keeps for itself


def _rendered(folder: Path) -> Path:
    folder.mkdir(parents=True)
    drawn = rendered.chunk([scene(0, "test", 0)])
    torch.save(vars(drawn), folder / "test.pt")
    kept_labels(folder, 0, "test", 1)
    return folder


def _rendered_read(folder: Path) -> None:
    kept_labels(folder, 0, "test", 1)
    rendered.read(folder / "test.pt")


def _cached(folder: Path) -> Path:
    folder.mkdir(parents=True)
    _from_cache(folder)
    return folder


def _from_cache(folder: Path) -> None:
    with (
        mock.patch.dict(os.environ, {"LISABENCH_CACHE": str(folder)}),
        mock.patch.object(roofline, "measure_roofline", lambda _: RATES),
    ):
        cache.embedded("val", 1, 0, (240, 240))
        roofline.cached_roofline("cpu")


READERS = [
    # Records
    Reader("run", ("run.json", "samples.jsonl", "memory.jsonl"), _run, _reported, is_slow=True),
    Reader(
        "run on a GPU",
        ("run.json", "samples.jsonl", "memory.jsonl", "passes.jsonl", "fits.jsonl"),
        _run_on_a_gpu,
        _reported,
        is_slow=True,
    ),
    Reader("gallery", ("gallery.npz", "samples.jsonl"), _run, _gallery, is_slow=True),
    Reader("resumed run", JOURNALS, _begun, _resumed, is_slow=True),
    Reader(
        "summary",
        ("summary.json",),
        _copied(RESULTS / "h200-tiny", "summary.json"),
        read_summary,
    ),
    Reader(
        "baseline",
        ("baseline.json",),
        _baseline,
        lambda folder: read_baseline(folder / "baseline.json"),
    ),
    Reader("training", TRAINING_FILES, _copied(TRAINING, *TRAINING_FILES), _training),
    Reader(
        "study",
        ("study.json", "*/training.json", "*/curve.jsonl", "*/counts.npz", "floors.npz"),
        _study,
        _study_reported,
        is_slow=True,
    ),
    Reader("search", ("search.jsonl",), _copied(STUDY, "search.jsonl"), read_trials),
    Reader(
        "published runs",
        ("index.yaml", "study/summary.json", "run/run.json"),
        _published,
        published_runs_page,
    ),
    # Data
    Reader("annotation", ("val/a.json", "val/a.jpg"), _data, _sample),
    Reader("verified data", ("val/a.json", "val/a.jpg"), _data, _verified),
    Reader(
        "listing",
        ("data.json", "val.jsonl", "images/0.png", "images/mask.png"),
        _listing,
        _listing_read,
    ),
    Reader("picture", ("*",), _pictures, _each_picture),
    Reader("tables", ("*/data/*.parquet",), _tables, _tables_read, is_slow=True),
    Reader(
        "trees of REFER",
        ("refer_seg/refcoco/*", "refer_seg/grefcoco/*"),
        _tree,
        _laid,
    ),
    # Weights, tokenizers and checkpoints
    Reader(
        "weights",
        ("config.json",),
        _copied(PACKAGED, "config.json", "tokenizer.json"),
        lambda folder: weights_format.opened(str(folder)),
    ),
    Reader("shard", ("weights.safetensors",), _shard("weights.safetensors"), _tensors),
    Reader("torch file", ("weights.bin",), _shard("weights.bin"), _tensors),
    Reader(
        "old torch file",
        ("weights.bin",),
        _shard("weights.bin", _use_new_zipfile_serialization=False),
        _tensors,
    ),
    Reader("torch file in 4 bits", ("weights.bin",), _in_4_bits, _tensors),
    Reader(
        "modified LISA",
        ("best_model_epoch_3.pt", "added_tokens.json"),
        _modified,
        _modified_converted,
        is_slow=True,
    ),
    Reader(
        "index",
        ("model.safetensors.index.json",),
        _copied(PACKAGED, "model.safetensors.index.json"),
        lambda folder: weight_map(folder / "model.safetensors.index.json"),
    ),
    Reader(
        "tokenizer",
        ("tokenizer.json",),
        _copied(PACKAGED, "config.json", "tokenizer.json"),
        tokenizer.read,
    ),
    Reader(
        "original checkpoint",
        ("lisa/*.json", "lisa/tokenizer.model", "clip/config.json", "adapter/*.json"),
        _original,
        _converted,
        is_slow=True,
    ),
    Reader(
        "checkpoint of a training",
        (f"checkpoint-3/{STATE}/*",),
        _checkpoint,
        _continued,
    ),
    Reader(
        "what a training learned",
        ("config.json", LEARNED),
        _learned,
        _learned_read,
    ),
    # What a user writes
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
    Reader(
        "options of a training",
        ("options.yaml",),
        _written("options.yaml", TRAINING_OPTIONS),
        lambda folder: resolve_setup({"config": folder / "options.yaml"}),
    ),
    Reader("adapter", ("outside.py",), _written("outside.py", CORNER), _outside_adapter),
    # What the tool keeps for itself
    Reader("rendered scenes", ("*.pt", "*.npz"), _rendered, _rendered_read),
    Reader("cache", ("*.json", "*/seal.txt"), _cached, _from_cache),
]
