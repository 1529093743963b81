"""A layout made in memory, and listings on disk, for tests."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lisabench.datasets.layouts import known
from lisabench.datasets.layouts.query import LaidQuery, LayoutFacts

HEIGHT, WIDTH = 12, 16
SQUARE = {"label": "target", "points": [[2, 2], [8, 2], [8, 8], [2, 8]]}
# Columns 8 to 15 of the picture, as COCO counts: column by column.
RIGHT_HALF = {"label": "target", "rle": {"size": [HEIGHT, WIDTH], "counts": [96, 96]}}


def png(seed: int) -> bytes:
    """Return a picture of noise, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


@dataclass
class LaidData:
    """A layout whose queries are given."""

    laid: dict[str, list[LaidQuery]]
    version: str = "1"
    name: str = "laid"
    facts: LayoutFacts = field(
        default_factory=lambda: LayoutFacts(
            source="laid://birds",
            ignored="none: there are none",
            revision="abc",
            licence="CC0",
            warnings=("beware of birds",),
        )
    )
    reads: list[str] = field(default_factory=list)  # splits that were read

    def splits(self) -> Sequence[str]:
        return list(self.laid)

    def queries(self, split: str) -> Iterator[LaidQuery]:
        self.reads.append(split)
        yield from self.laid[split]

    def identity(self) -> str:
        return self.version


def query(name: str, picture: Path | bytes, *shapes: Any, **more: Any) -> LaidQuery:
    settings: dict[str, Any] = {
        "image_name": f"{name}.png",
        "texts": (f"the {name}", "another wording"),
        "is_sentence": False,
        "shapes": shapes or (SQUARE,),
        "tags": {"category": "bird"},
    }
    return LaidQuery(id=name, image=picture, **settings | more)


def birds() -> LaidData:
    """Return two queries about one picture, and one about another, without a target."""
    first, second = png(1), png(2)
    return LaidData(
        {
            "val": [
                query("left", first, image_name="a.png"),
                query("right", first, RIGHT_HALF, image_name="a.png"),
                query("none", second, shapes=(), is_sentence=True),
            ]
        }
    )


def register(monkeypatch: Any, layout: LaidData) -> str:
    """Make a layout known, and return the name of its data."""
    source = layout.facts.source
    found = known.KnownLayout(
        "laid", "laid://NAME", lambda name: layout if name == source else None
    )
    monkeypatch.setattr(known, "LAYOUTS", (found,))
    return source


def line(name: str, image: str, *shapes: Any, **more: Any) -> dict[str, Any]:
    """Return a line of a listing."""
    return {
        "id": name,
        "image": image,
        "text": [f"the {name}", "another wording"],
        "is_sentence": False,
        "shapes": list(shapes),
    } | more


def write_listing(root: Path, *lines: dict[str, Any] | str, **facts: Any) -> Path:
    """Write a listing whose pictures are ``images/0.png`` and ``images/1.png``."""
    (root / "images").mkdir(parents=True)
    for number in range(2):
        (root / "images" / f"{number}.png").write_bytes(png(number))
    written = [text if isinstance(text, str) else json.dumps(text) for text in lines]
    (root / "val.jsonl").write_text("".join(f"{text}\n" for text in written))
    content = {
        "schema": "lisabench.data/1",
        "layout": "laid",
        "source": "laid://birds",
        "ignored": "none: there are none",
    }
    (root / "data.json").write_text(json.dumps(content | facts))
    return root
