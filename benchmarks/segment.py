"""``lisabench segment``: from one image and one query to a mask, an overlay and an answer.

The model is a LISA, or that of another adapter: ``--set adapter=my_model.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..datasets.image import image_hash, read_image
from ..harness import terminal
from ..harness.contract import Sample
from ..harness.environment import resolve_device
from ..harness.errors import RunFailed, UsageError
from ..harness.measure import broken_arithmetic, predict
from ..harness.probe import NullProbe
from ..harness.records.whole_file import whole_file
from ..models import registry
from ..models.lisa import packaged, weights_format
from ..models.lisa.preprocessing import refuse_narrow

LISA = "lisa"
# Red, half transparent, as in the original's overlays.
OVERLAY_RGB = (255, 0, 0)
OVERLAY_OPACITY = 0.5
# White, since red cannot be seen on what is red.
OUTLINE_RGB = (255, 255, 255)
OUTLINE_SHARE = 1 / 250  # thickness, as a share of the image's longer side
SENTENCE_ENDS = (".", "?", "!")


@dataclass(frozen=True)
class Segmentation:
    """The answer to a query.

    Attributes:
        mask: the file with the mask, 0 or 255 at the image's size.
        overlay: the file with the image, and the mask in red with a white outline.
        has_seg: whether the answer has a [SEG]; if not, the mask is empty.
        covered: share of the image inside the mask, 0 to 1.
        text: the answer in words; None if it was forced.
        answer_tokens: number of generated tokens.
        predicted_iou: the model's own estimate of the mask's IoU.
        warnings: what a user must know about the weights, one sentence each.
    """

    mask: Path
    overlay: Path
    has_seg: bool
    covered: float
    text: str | None
    answer_tokens: int | None
    predicted_iou: float | None
    warnings: tuple[str, ...]


def case_of(settings: Mapping[str, Any], allow_random: bool = False, adapter: str = LISA) -> Any:
    """Return the case of a model: a value of its adapter's settings dataclass.

    If no weights are named, a LISA of the tiny preset takes its packaged ones.

    Args:
        settings: of the adapter.
        allow_random: random weights are taken if no weights are named.
        adapter: name of the adapter.

    Raises:
        UsageError: a setting is unknown, or no packaged weights have these settings.
    """
    settings = dict(settings)
    is_tiny = settings.get("preset", packaged.PRESET) == packaged.PRESET
    if adapter == LISA and is_tiny and not allow_random:
        settings.setdefault("weights", weights_format.PACKAGED)
    return registry.make_case(adapter, settings)


def segment(
    image: Path,
    query: str,
    case: Any,
    out: Path,
    allow_random: bool = False,
    adapter: str = LISA,
) -> Segmentation:
    """Segment an image, and write the mask and, beside it, ``<stem of out>-overlay.png``.

    Args:
        image: any file that OpenCV decodes.
        query: a sentence, which ends in one of `SENTENCE_ENDS` and is given to the model as it is;
            or a noun phrase, which is put into the question of the original's validation.
        case: as `case_of` makes it.
        out: a PNG. Missing folders are made.
        allow_random: allow random weights, whose masks mean nothing.
        adapter: name of the adapter that the case is of.

    Raises:
        UsageError: the query is empty, the weights are random, or `out` cannot be written, or is
            the image.
        DataError: the image cannot be read or decoded, or is too narrow.
        RunFailed: the model's numbers are NaN or infinite. Nothing is written.
    """
    overlay = out.with_name(f"{out.stem}-overlay.png")
    _refuse(query, case, out, allow_random)
    _refuse_overwriting(image, (out, overlay))
    # The image is decoded first: loading a model takes long, and a broken image is known at once.
    sample = _sample(image, query)
    if adapter == LISA:
        refuse_narrow([sample])
    device = resolve_device(getattr(case, "device", "cpu"))
    build = registry.find(adapter)
    with terminal.code_of_others():
        model = build(registry.complete(case, device=device), NullProbe())
        try:
            prediction = predict(model, sample, NullProbe())
        finally:
            model.close()

    broken = broken_arithmetic(prediction)
    if broken is not None:
        raise RunFailed(
            f"{image}: {broken.reason}; a mask made of them would be without meaning, so none is "
            "written: take other weights, or --set precision=fp32"
        )
    overlay_HW3 = _overlay(sample.image, prediction.mask_HW)
    _write_png(out, prediction.mask_HW.astype(np.uint8) * 255)
    _write_png(overlay, cv2.cvtColor(overlay_HW3, cv2.COLOR_RGB2BGR))
    return Segmentation(
        mask=out,
        overlay=overlay,
        has_seg=prediction.has_seg,
        covered=float(prediction.mask_HW.mean()),
        text=prediction.text,
        answer_tokens=prediction.answer_tokens,
        predicted_iou=prediction.predicted_iou,
        warnings=getattr(model, "warnings", ()),
    )


def _refuse(query: str, case: Any, out: Path, allow_random: bool) -> None:
    if not query.strip():
        raise UsageError(
            "the query is empty; say what to segment, such as 'the animal that can fly'"
        )
    weights = getattr(case, "weights", None)  # not every adapter has the setting
    if weights == weights_format.RANDOM and not allow_random:
        raise UsageError(
            "weights=random segments noise; "
            "name a checkpoint with weights=FOLDER, a hub id, or packaged"
        )
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: the mask is written as PNG; give a name that ends in .png")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out.parent}: no folder can be made there ({error.strerror})") from error


def _refuse_overwriting(image: Path, written: Sequence[Path]) -> None:
    """Refuse to write a mask or an overlay over the image, by whatever name it is called."""
    for path in written:
        if path.exists() and image.exists() and path.samefile(image):
            raise UsageError(
                f"{path} is the image itself, and would be overwritten: give another --out"
            )


def _sample(path: Path, query: str) -> Sample:
    """Return the image and the query as a sample. Its target is empty, and nobody uses it."""
    image_HW3 = read_image(path)
    query = query.strip()
    return Sample(
        id=path.stem,
        query=query,
        is_sentence=query.endswith(SENTENCE_ENDS),
        source=path,
        pixels=lambda: image_HW3,
        annotation=lambda: np.zeros(image_HW3.shape[:2], np.uint8),
        identity=lambda: image_hash(path),
    )


def _overlay(image_HW3: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """Return the image with the mask in red, and the mask's outline inside it in white."""
    overlay_HW3 = image_HW3.copy()
    colour = np.array(OVERLAY_RGB)
    overlay_HW3[mask_HW] = (1 - OVERLAY_OPACITY) * image_HW3[mask_HW] + OVERLAY_OPACITY * colour
    thickness = max(1, round(max(mask_HW.shape) * OUTLINE_SHARE))
    # Outside of the image counts as outside of the mask, so that the outline is closed.
    inner_HW = cv2.erode(
        mask_HW.astype(np.uint8),
        np.ones((3, 3), np.uint8),
        iterations=thickness,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0,),
    ).astype(bool)
    overlay_HW3[mask_HW & ~inner_HW] = OUTLINE_RGB
    return overlay_HW3


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a grey or BGR image.

    OpenCV encodes and Python writes: ``cv2.imwrite`` does not tell why it failed, and does not take
    every file name. A symbolic link is replaced, so that the file that it leads to stays.
    """
    _, encoded = cv2.imencode(".png", pixels)
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
