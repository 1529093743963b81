"""Writes the folder of a run that never was: every record that a real run leaves.

The numbers have a likely size.
Time and memory are drawn around the profile of each case; masks are drawn, and their pixels really
counted.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

STAGES = ("preprocess", "vision", "llm", "decoder", "postprocess")
# A claim of a manifest that says nothing yet; None is what a claim leaves out.
EMPTY_CLAIM = dict.fromkeys(
    (
        "quantity",
        "reference",
        "candidate",
        "at_most",
        "at_least",
        "card",
        "published",
        "source",
        "needs",
    )
)
FAMILIES = ("attribute", "relation", "superlative", "odd one out", "negation", "ordinal")
QUERIES = (
    "the small red disc",
    "the thing to the left of the blue square",
    "Which of these objects is the largest one? Please mark it.",
    "the one that is unlike all the others",
    "everything that is not green",
    "Counting from the right, which is the second striped shape that is not partly hidden behind "
    "another one?",
)
# name, its setting, milliseconds per stage, peak of its vision stage in MiB, how well it aims (0:
# perfectly)
PROFILES: tuple[tuple[str, dict[str, Any], tuple[float, ...], int, float], ...] = (
    ("dual", {"vision": "dual"}, (4.2, 31.0, 18.3, 9.1, 1.3), 742, 0.10),
    ("sam", {"vision": "sam"}, (3.0, 24.4, 18.0, 9.2, 1.3), 718, 0.12),
    ("clip", {"vision": "clip"}, (1.6, 6.9, 18.4, 9.0, 1.2), 671, 0.45),
    ("dual-nf4", {"quantization": "nf4"}, (4.2, 33.0, 24.9, 9.1, 1.3), 655, 0.14),
    (
        "dual-sam-vit-b-compiled-crop",
        {"sam": "vit_b", "execution": "compiled"},
        (4.1, 17.2, 14.0, 7.7, 1.3),
        695,
        0.2,
    ),
    ("sam-nf4", {"vision": "sam", "quantization": "nf4"}, (3.1, 24.0, 25.1, 9.1, 1.3), 610, 0.2),
    ("clip-crop", {"vision": "clip", "frame": "crop"}, (1.5, 7.1, 18.2, 9.0, 1.2), 668, 0.5),
    ("upstream", {"execution": "upstream"}, (4.3, 95.0, 61.0, 9.3, 1.3), 790, 0.10),
)
FLOORS = ("whole-image", "centre-box", "empty")
SETTINGS = {
    "vision": "dual",
    "quantization": "none",
    "execution": "eager",
    "sam": "tiny",
    "frame": "whole",
}
PARAMETERS = {"clip": 2_350_000, "sam": 5_990_000, "llm": 4_710_000}


def write_run(
    folder: Path,
    cases: int = 3,
    queries: int = 12,
    processes: int = 3,
    quality: bool = True,
    controls: bool = True,
    status: str = "complete",
    size: tuple[int, int] = (60, 80),
    gallery: int = 4,
    seed: int = 0,
    clock: str = "host",
) -> Path:
    """Writes run.json, samples.jsonl, memory.jsonl and gallery.npz, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [Scene(index, size, seed) for index in range(queries)]
    profiles = PROFILES[:cases]
    chosen = [scene.id for scene in scenes[:gallery]]
    entry = _run(profiles, controls, queries, processes, quality, status, clock) | {
        "gallery": chosen
    }
    samples = [
        line
        for index, profile in enumerate(profiles)
        for line in _case_lines(
            profile, scenes, processes, quality, chosen, np.random.default_rng((seed, 1, index))
        )
    ]
    samples += [floor_record(name, scene) for name in FLOORS for scene in scenes if controls]
    (folder / "run.json").write_text(json.dumps(entry))
    write_lines(folder / "samples.jsonl", samples)
    write_lines(
        folder / "memory.jsonl", [line for profile in profiles for line in _memory(profile, clock)]
    )
    _write_gallery(folder, scenes[:gallery])
    return folder


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit_run(folder: Path, **changes: Any) -> None:
    """Replaces keys of run.json."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_lines(path: Path, change: Any) -> None:
    """Maps `change` over the lines of a journal; None removes one."""
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    write_lines(path, [line for line in lines if line is not None])


class Scene:
    """One query about a drawn picture: an ellipse among others, on a gradient."""

    def __init__(self, index: int, size: tuple[int, int], seed: int) -> None:
        self.rng = np.random.default_rng((seed, index))
        height, width = size
        self.height, self.width = height, int(width * (1.0, 0.75, 1.6, 1.0)[index % 4])
        self.id, self.query = f"scene-{index:04d}", QUERIES[index % len(QUERIES)]
        self.family, self.has_target = FAMILIES[index % len(FAMILIES)], index % 8 != 7
        self.centre, self.radii = self.rng.uniform(0.3, 0.7, 2), self.rng.uniform(0.1, 0.22, 2)
        self.others = [
            (self.rng.uniform(0.1, 0.9, 2), self.rng.uniform(0.05, 0.14, 2)) for _ in range(4)
        ]
        self.target_HW = self._target(ignored=index % 3 == 1)

    def ellipse(self, centre: Any, radii: Any) -> np.ndarray:
        y, x = np.mgrid[: self.height, : self.width]
        return ((y / self.height - centre[0]) / radii[0]) ** 2 + (
            (x / self.width - centre[1]) / radii[1]
        ) ** 2 < 1

    def _target(self, ignored: bool) -> np.ndarray:
        target_HW = np.zeros((self.height, self.width), np.uint8)
        if ignored:
            target_HW[self.ellipse(*self.others[0])] = 255
        if self.has_target:
            target_HW[self.ellipse(self.centre, self.radii)] = 1
        return target_HW

    def image(self) -> np.ndarray:
        ramp = (
            np.linspace(0.55, 0.95, self.width)[None, :, None]
            * np.linspace(1, 0.75, self.height)[:, None, None]
        )
        pixels = ramp * self.rng.uniform(0.7, 1, 3) + self.rng.normal(
            0, 0.015, (self.height, self.width, 1)
        )
        for centre, radii in [*self.others, (self.centre, self.radii)]:
            pixels[self.ellipse(centre, radii)] *= self.rng.uniform(0.1, 1, 3)
        return (pixels.clip(0, 1) * 255).astype(np.uint8)

    def prediction(self, miss: float, quality: bool, rng: np.random.Generator) -> np.ndarray:
        if not quality:
            blocks = rng.random((16, 16)) < 0.4
            return blocks[
                np.ix_(
                    np.arange(self.height) * 16 // self.height,
                    np.arange(self.width) * 16 // self.width,
                )
            ]
        moved = self.centre + miss * self.radii * rng.normal(0, 0.7, 2)
        return self.ellipse(moved, self.radii * np.exp(miss * rng.normal(0, 0.4, 2)))


def _case_lines(
    profile: tuple, scenes: list[Scene], processes: int, quality: bool, kept: list[str], rng: Any
) -> list:
    name, _, stage_ms, _, miss = profile
    masks = {scene.id: scene.prediction(miss, quality, rng) for scene in scenes}
    lines = []
    for process in range(processes):
        factor = np.exp(rng.normal(0, 0.012))
        for position, scene in enumerate(scenes):
            line = record(
                name, scene, masks[scene.id], process, position, np.array(stage_ms) * factor, rng
            )
            lines.append(
                line
                | ({"mask_rle": rle(masks[scene.id])} if scene.id in kept and process == 0 else {})
            )
    return lines


def record(
    case: str,
    scene: Scene,
    mask_HW: np.ndarray,
    process: int,
    position: int,
    stage_ms: Any,
    rng: Any,
) -> dict:
    """One line of samples.jsonl; its regions and the rest add up to its latency."""
    regions = _regions(stage_ms * np.exp(rng.normal(0, 0.04, len(STAGES))))
    rest_ns = int(rng.uniform(0.004, 0.01) * sum(stage_ms) * 1e6)
    latency_ns = sum(region["exclusive_ns"] for region in regions.values()) + rest_ns
    return {
        "case": case,
        "process": process,
        "attempt": 0,
        "block": position // 8,
        "position": position % 8,
        "sample_id": scene.id,
        "image_id": scene.id,
        "query": scene.query,
        "tags": {"family": scene.family, "size": ("small", "large")[position % 2]},
        "height": scene.height,
        "width": scene.width,
        "status": "ok",
        "reason": None,
        "latency_ns": latency_ns,
        "host_ns": latency_ns + 1000,
        "regions": regions,
        "unattributed_ns": rest_ns,
        "warnings": [],
        "prompt_tokens": 96,
        "answer_tokens": 0,
        "predicted_iou": 0.5,
        "text": None,
    } | counted(mask_HW, scene.target_HW)


def _regions(stage_ms: np.ndarray) -> dict[str, dict[str, int]]:
    """Vision is half its own and half in two finer regions, so that a stage is a sum."""
    spans_ns = dict(zip(STAGES, (int(ms * 1e6) for ms in stage_ms), strict=True))
    vision_ns = spans_ns.pop("vision")
    finer = {
        "vision": vision_ns // 2,
        "vision.sam": vision_ns // 4,
        "vision.clip": vision_ns - 3 * (vision_ns // 4),
    }
    calls = {"vision.clip": 2}
    ordered = {"preprocess": spans_ns.pop("preprocess")} | finer | spans_ns
    return {
        name: {
            "calls": calls.get(name, 1),
            "exclusive_ns": ns,
            "inclusive_ns": ns + (vision_ns // 2 if name == "vision" else 0),
        }
        for name, ns in ordered.items()
    }


def counted(mask_HW: np.ndarray, target_HW: np.ndarray) -> dict[str, Any]:
    valid_HW, target = target_HW != 255, target_HW == 1
    predicted = mask_HW & valid_HW
    return {
        "intersection_px": int((predicted & target).sum()),
        "union_px": int((predicted | target).sum()),
        "target_px": int(target.sum()),
        "predicted_px": int(predicted.sum()),
        "valid_px": int(valid_HW.sum()),
        "target_box": box(target),
        "predicted_box": box(predicted),
    }


def box(mask_HW: np.ndarray) -> list[int] | None:
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return (
        [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        if rows.size
        else None
    )


def rle(mask_HW: np.ndarray) -> dict[str, Any]:
    """The mask as pycocotools encodes it."""
    encoded = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def row_by_row(mask_HW: np.ndarray) -> dict[str, list[int]]:
    """The mask as records of lisabench.run/1 hold it: row-major run lengths, zeros first."""
    flat = np.concatenate([[False], mask_HW.ravel(), [not mask_HW.ravel()[-1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask_HW.shape), "counts": np.diff([0, *edges]).tolist()}


def make_older(folder: Path) -> Path:
    """Rewrites a run as lisabench.run/1 had it, and returns its folder."""

    def older(line: dict[str, Any]) -> dict[str, Any]:
        if "mask_rle" not in line:
            return line
        mask_HW = coco.decode(line["mask_rle"]) > 0
        return line | {"mask_rle": row_by_row(mask_HW)}

    edit_lines(folder / "samples.jsonl", older)
    edit_run(folder, schema="lisabench.run/1")
    return folder


def nothing_found(line: dict) -> dict:
    """Return a line of a query that was answered with an empty mask."""
    empty = {"intersection_px": 0, "predicted_px": 0, "predicted_box": None}
    return line | empty | {"union_px": line["target_px"]}


def failed(
    line: dict[str, Any], status: str = "oom", reason: str = "OutOfMemoryError: no more"
) -> dict[str, Any]:
    """The record of the same query, had it failed."""
    nothing = {
        "latency_ns": None,
        "host_ns": None,
        "regions": {},
        "unattributed_ns": None,
        "predicted_box": None,
    }
    lost = {
        "status": status,
        "reason": reason,
        "intersection_px": 0,
        "union_px": line["target_px"],
        "predicted_px": 0,
    }
    return {key: value for key, value in line.items() if key != "mask_rle"} | nothing | lost


def floor_record(name: str, scene: Scene) -> dict[str, Any]:
    mask_HW = np.full(scene.target_HW.shape, name == "whole-image")
    if name == "centre-box":
        mask_HW[
            scene.height // 4 : -(scene.height // 4), scene.width // 4 : -(scene.width // 4)
        ] = True
    return record(name, scene, mask_HW, 0, int(scene.id[-4:]), np.full(5, 0.01), scene.rng)


def _memory(profile: tuple, clock: str) -> list[dict[str, Any]]:
    name, _, _, peak_mib, _ = profile
    cuda = clock == "cuda events"
    offsets = {
        "build": -40,
        "preprocess": -90,
        "vision": 0,
        "llm": -38,
        "decoder": -52,
        "postprocess": -75,
    }
    return [
        {
            "case": name,
            "process": 0,
            "stage": stage,
            "instrument": "cuda allocator" if cuda else "resident set",
            "start_bytes": (360 if stage == "build" else peak_mib - 110) << 20,
            "peak_bytes": (peak_mib + offset) << 20,
            "peak_reserved_bytes": (peak_mib + 64) << 20 if cuda else None,
            "device_process_bytes": (peak_mib + 480) << 20 if cuda else None,
            "queries": 4,
        }
        for stage, offset in offsets.items()
    ]


def _run(
    profiles: tuple,
    controls: bool,
    queries: int,
    processes: int,
    quality: bool,
    status: str,
    clock: str,
):
    models = [
        _entry(name, "lisa", "model", SETTINGS | given, given, quality, clock)
        for name, given, *_ in profiles
    ]
    floors = [
        _entry(name, name, "control", {"adapter": name}, {}, True, "host")
        for name in FLOORS
        if controls
    ]
    gpu = {
        "gpu": "NVIDIA H200",
        "gpu_count": 1,
        "gpu_memory_bytes": 139 << 30,
        "driver": "570.86",
        "cuda": "12.8",
    }
    return {
        "schema": "lisabench.run/2",
        "suite": "tiny",
        "title": "The original LISA and its two sharings, tiny",
        "reference": "dual",
        "metrics": ["gIoU", "cIoU", "mIoU"],
        "status": status,
        "started": "2026-01-31T12:00:00+00:00",
        "finished": "2026-01-31T12:00:41+00:00" if status == "complete" else None,
        "data": {
            "root": "scenes",
            "split": "val",
            "count": queries,
            "description": f"{queries} drawn scenes",
            "fingerprint": "f",
        },
        "plan": {"processes": processes, "block": 8, "warmup": 12, "memory_queries": 4},
        "cases": models + floors,
        "passport": {
            "os": "Linux x86_64",
            "cpu": "AMD EPYC 7763 64-Core Processor",
            "cpu_count": 2,
            "memory_bytes": 8 << 30,
        }
        | (gpu if clock == "cuda events" else dict.fromkeys(gpu) | {"gpu_count": 0}),
        "versions": {
            "lisabench": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "transformers": "5.23.0",
        },
        "warnings": [],
    }


def _entry(
    name: str, adapter: str, role: str, settings: dict, given: dict, quality: bool, clock: str
) -> dict[str, Any]:
    return {
        "name": name,
        "adapter": adapter,
        "role": role,
        "given": given,
        "settings": settings,
        "has_quality": quality,
        "parameters": PARAMETERS if role == "model" else None,
        "build_s": 0.82,
        "first_query_ms": 131.0,
        "warmup_queries": 6,
        "warmup_stable": True,
        "clock": clock,
        "error": None,
    }


def _write_gallery(folder: Path, scenes: list[Scene]) -> None:
    images = {f"image_{i}": scene.image() for i, scene in enumerate(scenes)}
    targets = {f"target_{i}": scene.target_HW for i, scene in enumerate(scenes)}
    np.savez_compressed(folder / "gallery.npz", **images, **targets)
