"""Samples made in memory and on disk, for tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from lisabench.harness.contract import Sample


def sample_of(target_HW: np.ndarray, name: str = "a") -> Sample:
    image = np.zeros((*target_HW.shape, 3), np.uint8)
    return Sample(
        id=name,
        query="the thing",
        is_sentence=False,
        source=Path(f"{name}.jpg"),
        pixels=lambda: image,
        annotation=lambda: target_HW,
        identity=lambda: name,
    )


def write_sample(folder: Path, name: str, seed: int = 0) -> None:
    """One image of noise with a square target, in ReasonSeg's format."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.jpg")
    square = [[4, 4], [15, 4], [15, 15], [4, 15]]
    shape = {
        "label": "target",
        "labels": ["target"],
        "shape_type": "polygon",
        "image_name": f"{name}.jpg",
        "points": square,
    }
    annotation = {"text": ["the square"], "is_sentence": False, "shapes": [shape]}
    (folder / f"{name}.json").write_text(json.dumps(annotation))
