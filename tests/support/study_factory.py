"""Folders of studies that never were, as `lisabench study` would leave them.

Their counts and curves have a known truth.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from run_factory import write_lines

from lisabench.harness.records.pixel_counts import CONTROLS, OWN, PixelCounts, write_pixel_counts

FAMILIES = ("attribute", "negation", "superlative", "odd", "ordinal", "relation")
SIZES = ((480, 640), (360, 640), (640, 480), (320, 640), (500, 500))
CLIP, SAM = {"vision": "clip"}, {"vision": "sam"}
TRUTH = {"dual": 0.8, "clip": 0.5, "sam": 0.795, "dual-small": 0.75}
AXES: dict[str, dict[str, Any]] = {
    "dual": {},
    "clip": CLIP,
    "sam": SAM,
    "dual-small": {"sam": "tiny_s"},
}
TRAINS = {"clip-decoder": ["projections", "mask_decoder"]}
BLIND = {"query-blind": 0.1, "image-blind": 0.15, "llm-blind": 0.4}
PER_IMAGE = 3


def pixel_counts_of(
    gIoU: float,
    images: int = 40,
    seed: int = 0,
    answers: tuple[str, ...] = (OWN,),
    blind: dict[str, float] = BLIND,
    noise: float = 0.05,
) -> PixelCounts:
    """Return counts of three queries an image, one in fifteen without a target.

    The IoU of those with a target is `gIoU` on average.
    """
    targets = np.random.default_rng(1000).integers(1_000, 20_000, images * PER_IMAGE)
    targets[7::15] = 0
    rng = np.random.default_rng((seed, 1))
    aims = [gIoU if answer == OWN else blind.get(answer, gIoU) for answer in answers]
    hits = [
        np.round(np.clip(aim + rng.normal(0, noise, len(targets)), 0, 1) * targets).astype(int)
        for aim in aims
    ]
    sizes = np.array([SIZES[i % len(SIZES)] for i in range(images)]).repeat(PER_IMAGE, 0)
    return PixelCounts(
        query=np.arange(len(targets)) * 7,
        scene=np.arange(images).repeat(PER_IMAGE),
        family=np.arange(len(targets)) % len(FAMILIES),
        height=sizes[:, 0],
        width=sizes[:, 1],
        target_px=targets,
        intersection_px=np.stack(hits),
        union_px=np.stack([targets] * len(hits)),
        families=FAMILIES,
        answers=answers,
    )


def write_study(
    folder: Path,
    *,
    seeds: int = 3,
    truth: dict[str, float] = TRUTH,
    spread: float = 0.004,
    images: int = 40,
    steps: dict[str, int] = {},  # noqa: B006
    **changes: Any,
) -> Path:
    """A study in which every training misses its truth by `spread` or so, with its seed."""
    folder.mkdir(parents=True, exist_ok=True)
    how = {
        "scenes": 60_000,
        "test_queries": 3 * images,
        "dual_steps": 4000,
        "steps": 1500,
        "batch": 256,
    } | changes
    (folder / "study.json").write_text(json.dumps(how))
    trivial_baselines = pixel_counts_of(
        0.05, images, answers=("whole-image", "centre-box", "empty"), blind={}
    )
    write_pixel_counts(folder / "floors.npz", trivial_baselines)
    for seed in range(seeds):
        for place, (name, aim) in enumerate(truth.items()):
            off = np.random.default_rng((seed, place)).normal(0, spread)
            write_one(folder, name, seed, aim + off, images, steps.get(name, 500))
    return folder


def write_one(
    folder: Path, name: str, seed: int, aim: float, images: int = 40, half: int = 500
) -> None:
    """Write a training whose validation gIoU rises along a line to its end.

    Beyond `half` it is what it is at the end.
    """
    home = folder / f"{name}-{seed}"
    home.mkdir()
    axes = AXES.get(name, CLIP if name.startswith("clip") else SAM)
    variant = {
        "trains": TRAINS.get(name, ["projections"]),
        "losses": "described",
        "axes": axes,
        "lr": 1e-3,
    }
    course = {
        "steps": 1500,
        "lr": 1e-3,
        "scenes": 100,
        "queries": 4,
        "masks": None,
        "alone": 0,
        "first": 0,
    }
    page = {
        "name": name,
        "seed": seed,
        "variant": variant,
        "course": course,
        "scenes": 60_000,
        "trained_parameters": {"llm": 1000, "mask_decoder": 500},
        "seconds": 100.0,
        "queries": 3 * images,
        "scores": {},
        "passport": {"gpu": "NVIDIA H100", "os": "Linux"},
        "versions": {"torch": "2.13.0"},
    }
    (home / "training.json").write_text(json.dumps(page))
    marks = range(50, 1501, 50)
    rows = [
        {"step": s, "seconds": s / 10, "bce": 0.1, "val_gIoU": aim * min(1, s / half)}
        for s in marks
    ]
    write_lines(home / "curve.jsonl", rows)
    write_pixel_counts(
        home / "counts.npz",
        pixel_counts_of(aim, images, (seed + 1) * 100 + len(name), (OWN, *CONTROLS)),
    )
