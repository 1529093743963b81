"""One image, one query: the mask, an overlay, and what the model said."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..harness.contract import Sample
from ..harness.errors import DataError, UsageError
from ..harness.measure import answer
from ..harness.probe import NullProbe
from ..models.adapters.lisa import build
from ..models.lisa import packaged, weights_format
from ..models.lisa.config import LisaConfig
from ..models.registry import make_case

TINT_RGB = (255, 0, 0)
TINT = 0.5  # as in the original's overlays
ENDS = (".", "?", "!")  # of a sentence


@dataclass(frozen=True)
class Segmentation:
    """What came of a query.

    Attributes:
        mask: the file of the mask, 0 or 255 at the image's size.
        overlay: the file of the image with the mask in red.
        has_seg: whether the answer asked for a mask; the mask is empty where it did not.
        covered: share of the image inside the mask, 0 to 1.
        text: the answer in words; None where it was given.
        answer_tokens: tokens that were generated.
        predicted_iou: the model's own estimate of the mask's IoU.
        warnings: what is to be known of the weights, one sentence each.
    """

    mask: Path
    overlay: Path
    has_seg: bool
    covered: float
    text: str | None
    answer_tokens: int | None
    predicted_iou: float | None
    warnings: tuple[str, ...]


def case_of(given: Mapping[str, Any], allow_random: bool = False) -> LisaConfig:
    """The LISA that is asked: where no weights are named, the packaged ones, which the tiny preset alone has.

    Args:
        given: settings of `LisaConfig`.
        allow_random: then random weights are meant.

    Raises:
        UsageError: a setting is unknown, or no packaged weights are of these.
    """
    unnamed = given.get("preset", packaged.PRESET) == packaged.PRESET and not allow_random
    return make_case("lisa", {**({"weights": weights_format.PACKAGED} if unnamed else {}), **given})


def segment(
    image: Path, query: str, case: LisaConfig, out: Path, allow_random: bool = False
) -> Segmentation:
    """Asks a LISA about an image, and writes ``out`` and, beside it, ``<stem of out>-overlay.png``.

    Args:
        image: any file that OpenCV decodes.
        query: a sentence, which ends in one of `ENDS`, is put to the model as it stands; a noun phrase as validation
            puts one.
        case: names the weights.
        out: a PNG; folders on its way are made.
        allow_random: take random weights, whose masks mean nothing.

    Raises:
        UsageError: an empty query, random weights without leave, or an `out` that cannot be written.
        DataError: the image cannot be read or decoded.
    """
    _refuse(query, case, out, allow_random)
    sample = _sample(image, query)  # decoded before a model is loaded, which takes long
    overlay = out.with_name(f"{out.stem}-overlay.png")
    adapter = build(case, NullProbe())
    try:
        found = answer(adapter, sample, NullProbe())
    finally:
        adapter.close()
    _write(out, found.mask_HW.astype(np.uint8) * 255)
    _write(overlay, _tinted(sample.image, found.mask_HW)[..., ::-1])
    return Segmentation(
        mask=out,
        overlay=overlay,
        has_seg=found.has_seg,
        covered=float(found.mask_HW.mean()),
        text=found.text,
        answer_tokens=found.answer_tokens,
        predicted_iou=found.predicted_iou,
        warnings=getattr(adapter, "warnings", ()),
    )


def _refuse(query: str, case: LisaConfig, out: Path, allow_random: bool) -> None:
    if not query.strip():
        raise UsageError(
            "the query is empty; say what to segment, such as 'the animal that can fly'"
        )
    if case.weights == "random" and not allow_random:
        raise UsageError(
            "weights=random segments noise; name a checkpoint with weights=FOLDER, a hub id, or packaged"
        )
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: the mask is written as PNG; give a name that ends in .png")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out.parent}: no folder can be made there ({error.strerror})") from error


def _sample(path: Path, query: str) -> Sample:
    encoded = _read(path)
    image_HW3 = _decoded(path, encoded)
    return Sample(
        id=path.stem,
        query=query.strip(),
        is_sentence=query.strip().endswith(ENDS),
        source=path,
        pixels=lambda: image_HW3,
        annotation=lambda: np.zeros(image_HW3.shape[:2], np.uint8),
        identity=lambda: hashlib.sha256(encoded).hexdigest()[:16],
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _decoded(path: Path, encoded: bytes) -> np.ndarray:
    """uint8 [H, W, 3], RGB; upright by its EXIF orientation, 8 bits, no alpha, as data sets' images are read."""
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    if pixels is None:
        raise DataError(f"{path}: cannot be decoded as an image; give a JPEG or PNG, for example")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _tinted(image_HW3: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    tinted_HW3 = image_HW3.copy()
    tinted_HW3[mask_HW] = (1 - TINT) * image_HW3[mask_HW] + TINT * np.array(TINT_RGB)
    return tinted_HW3


def _write(path: Path, pixels: np.ndarray) -> None:
    """Encodes and writes; OpenCV itself neither says why it cannot write nor takes every name."""
    try:
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
