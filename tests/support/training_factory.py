"""Folders of trainings with curves that are known, as `lisabench train` would leave them."""

import json
from pathlib import Path
from typing import Any

from run_factory import write_lines

from lisabench.harness import metrics

PARTS = {
    "data": 0.05,
    "vision": 0.1,
    "vision.clip": 0.1,
    "llm": 0.2,
    "decoder": 0.1,
    "losses": 0.05,
    "backward": 0.25,
    "optimizer": 0.1,
}
DUAL = {"vision": "dual", "recipe": "original"}
CLIP = {"vision": "clip", "recipe": "lean"}
PASSPORT = {
    "os": "Linux x86_64",
    "cpu": "EPYC",
    "cpu_count": 2,
    "memory_bytes": 8 << 30,
    "gpu": None,
    "device": "cpu",
}
UNION_PX = 100_000


def write_training(
    folder: Path,
    *,
    losses: list[float],
    mious: list[float],
    seed: int = 0,
    step_ms: float = 100.0,
    peak_mib: int = 700,
    options: dict[str, Any] = DUAL,
    weights: dict[str, float] = {"ce": 0, "bce": 2.0, "dice": 1.0, "iou": 0},  # noqa: B006
    images: int = 10,
    distilled: int = 0,
    **page: Any,
) -> Path:
    """A training of len(losses) steps, after `distilled` others, in len(mious) epochs.

    The mIoU of an epoch is as given, spread over the images by up to 5 points; its last step ends
    it.
    """
    folder.mkdir(parents=True)
    steps = [
        _step(number, 0, 40.0, step_ms / 2, {"distillation": 40.0})
        for number in range(1, distilled + 1)
    ]
    per_epoch = len(losses) // len(mious)
    for i, loss in enumerate(losses):
        steps.append(
            _step(
                distilled + i + 1,
                i // per_epoch + 1,
                loss,
                step_ms,
                {"bce": loss / 4, "dice": loss / 2},
            )
        )
    evaluations, epochs = [], []
    for number, miou in enumerate(mious, start=1):
        made = distilled + number * per_epoch
        rows = [
            _evaluation(number, made, i, miou + (i / (images - 1) - 0.5) / 10)
            for i in range(images)
        ]
        evaluations += rows
        epochs.append(
            _epoch(
                number,
                made,
                rows,
                steps[:made],
                peak_mib << 20,
                best=miou > max([-1, *mious[: number - 1]]),
            )
        )
    write_lines(folder / "training.jsonl", sorted([*steps, *epochs], key=lambda row: row["step"]))
    write_lines(folder / "evaluations.jsonl", evaluations)
    (folder / "run.json").write_text(json.dumps(_page(seed, options, weights) | page))
    return folder


def _step(
    number: int, epoch: int, loss: float, ms: float, named: dict[str, float]
) -> dict[str, Any]:
    latency_ns = int(ms * 1e6)
    regions = {
        name: {
            "calls": 1,
            "exclusive_ns": int(share * latency_ns),
            "inclusive_ns": int(share * latency_ns),
        }
        for name, share in PARTS.items()
    }
    rest = latency_ns - sum(region["exclusive_ns"] for region in regions.values())
    return {
        "kind": "step",
        "epoch": epoch,
        "step": number,
        "queries": 4,
        **named,
        "loss": loss,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "latency_ns": latency_ns,
        "host_ns": latency_ns,
        "regions": regions,
        "unattributed_ns": rest,
    }


def _evaluation(epoch: int, step: int, image: int, iou: float) -> dict[str, Any]:
    hit = round(max(iou, 0) * UNION_PX)
    return {
        "epoch": epoch,
        "step": step,
        "sample_id": f"q{image}",
        "image_id": f"i{image}",
        "query": "it",
        "tags": {},
        "height": 500,
        "width": 500,
        "status": "ok",
        "latency_ns": 5_000_000,
        "intersection_px": hit,
        "union_px": UNION_PX,
        "target_px": UNION_PX // 2,
        "predicted_px": UNION_PX // 2 + hit,
        "valid_px": 250_000,
        "target_box": [0, 0, 200, 250],
        "predicted_box": [0, 0, 200, 250],
        "failed": False,
    }


def _epoch(
    number: int, step: int, rows: list, steps: list, peak_bytes: int, best: bool
) -> dict[str, Any]:
    counts = []
    for row in rows:
        fields = {name: row[name] for name in metrics.Counts.__dataclass_fields__ if name in row}
        counts.append(metrics.Counts(**fields))
    scores = metrics.scores(counts)
    own = [row for row in steps if row["epoch"] == number]
    return {
        "kind": "epoch",
        "epoch": number,
        "step": step,
        **scores,
        "queries": len(rows),
        "avg_inference_time_s": 0.005,
        "train_loss": sum(row["loss"] for row in own) / len(own),
        "step_s": own[0]["latency_ns"] / 1e9,
        "train_s": sum(row["latency_ns"] for row in steps) / 1e9,
        "peak_bytes": peak_bytes,
        "peak_reserved_bytes": None,
        "best": best,
    }


def _page(seed: int, options: dict[str, Any], weights: dict[str, float]) -> dict[str, Any]:
    asked = {
        "preset": "tiny",
        "ignored": "background",
        "val_split": "val",
        "max_steps": None,
        "lr": 1e-3,
    } | options
    case = {"preset": "tiny", "vision": asked["vision"], "seed": seed}
    configuration = {
        "options": asked | {"seed": seed},
        "case": case,
        "trains": [],
        "losses": weights,
        "processes": 1,
    }
    return {
        "schema": "lisabench.training/1",
        "status": "complete",
        "started": "2026-01-31T12:00:00+00:00",
        "finished": "2026-01-31T12:10:00+00:00",
        "setup": {
            "options": asked | {"seed": seed, "gpu_memory": None},
            "case": case,
            "trains": [],
            "losses": weights,
        },
        "configuration": configuration,
        "training": {
            "recipe": asked["recipe"],
            "preset": "tiny",
            "vision": asked["vision"],
            "trained_parameters": {"llm": 1000, "mask_decoder": 500},
            "settings": {"device": "cpu"},
        },
        "passport": PASSPORT,
        "versions": {"lisabench": "0.1.0", "torch": "2.13.0"},
        "warnings": [],
        "data": {
            "train": {"count": 16, "fingerprint": "t"},
            "val": {"count": 10, "fingerprint": "v"},
        },
    }


def falling(steps: int, start: float = 4.0, end: float = 1.0) -> list[float]:
    """A loss that falls along a line."""
    return [start + (end - start) * i / (steps - 1) for i in range(steps)]
