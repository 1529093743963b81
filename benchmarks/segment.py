"""Segment single images: from Python (`Segmenter`), and by ``lisabench segment``, which uses it.

The model is a LISA, or that of another adapter.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image, ImageOps

from ..datasets.image import image_hash, read_image
from ..harness import terminal
from ..harness.contract import Adapter, Sample
from ..harness.environment import resolve_device
from ..harness.errors import DataError, RunFailed, UsageError
from ..harness.measure import broken_arithmetic, predict
from ..harness.paths import user_path
from ..harness.probe import NullProbe
from ..harness.records.whole_file import whole_file
from ..models import registry
from ..models.lisa import packaged, weights_format
from ..models.lisa.preprocessing import refuse_narrow

LISA = "lisa"
IN_MEMORY = "the image"  # what messages call an image that is no file
EXPECTED_IMAGE = "expected a path, a PIL image of 8 bits, or an array of uint8 [H, W, 3], RGB"
# Red, half transparent, as in the original's overlays.
OVERLAY_RGB = (255, 0, 0)
OVERLAY_OPACITY = 0.5
# White, since red cannot be seen on what is red.
OUTLINE_RGB = (255, 255, 255)
OUTLINE_SHARE = 1 / 250  # thickness, as a share of the image's longer side
SENTENCE_ENDS = (".", "?", "!")

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Segmentation:
    """The answer to a query about an image.

    Attributes:
        mask: bool [H, W], at the image's size; all False where the answer has no [SEG].
        masks: with ``masks="separate"``, the mask of each [SEG], in order; otherwise `mask` alone.
            Empty where the answer has no [SEG].
        text: the answer in words; None if it was forced.
        predicted_iou: the model's own estimate of the mask's IoU, of several masks their mean; None
            if it makes none.
        has_seg: whether the answer has a [SEG].
        warnings: what a user must know about the weights, one sentence each.
        answer_tokens: number of generated tokens; 0 if the answer was forced.
    """

    mask: np.ndarray = field(repr=False)
    masks: tuple[np.ndarray, ...] = field(repr=False)
    text: str | None
    predicted_iou: float | None
    has_seg: bool
    warnings: tuple[str, ...]
    answer_tokens: int | None

    @property
    def covered(self) -> float:
        """The share of the image inside the mask, 0 to 1."""
        return float(self.mask.mean())


class Segmenter:
    """A model that segments single images. It is loaded once, and kept until `close`.

    Threads may share it: their calls wait for each other, since a model answers one query at a
    time.

    Args:
        weights: a folder, a hub id or ``packaged``; what the weights say of themselves is applied.
            None: the packaged tiny LISA, or the settings of another adapter as they are.
        adapter: name of the adapter.
        allow_random: allow random weights, whose masks mean nothing.
        settings: of the adapter, such as ``device="cuda"``, ``answer="generated"`` or
            ``masks="separate"``; see ``lisabench list settings``.

    Attributes:
        settings: all settings, as they were resolved.
        warnings: what a user must know about the weights, one sentence each.

    Raises:
        UsageError: a setting is unknown, the weights do not fit it or are random.
        DataError: the weights are incomplete or broken, or the hub cannot be reached.
    """

    def __init__(
        self,
        weights: "str | Path | None" = None,
        *,
        adapter: str = LISA,
        allow_random: bool = False,
        **settings: Any,
    ) -> None:
        if weights is not None:
            settings["weights"] = str(weights)
        case = case_of(settings, allow_random, adapter)
        refuse_random(case, allow_random)
        device = resolve_device(getattr(case, "device", "cpu"))
        build = registry.find(adapter)
        self._is_lisa = adapter == LISA
        self._lock = Lock()
        self._model: Adapter | None = build(registry.complete(case, device=device), NullProbe())
        self.settings = dict(self._model.settings)
        self.warnings = tuple(getattr(self._model, "warnings", ()))

    def segment(self, image: ImageLike, query: str) -> Segmentation:
        """Return the mask of what a query asks for.

        Args:
            image: the path of any file that OpenCV decodes, a PIL image, or uint8 [H, W, 3], RGB.
            query: a sentence, which ends in one of `SENTENCE_ENDS`, or a noun phrase, which is put
                into the question of the original's validation. With ``prompt="as_typed"``, any
                words: the model gets them as they are.

        Raises:
            UsageError: the query is empty, the image is none of these, or the model is closed.
            DataError: the image cannot be read or decoded, or is too narrow.
            RunFailed: the model's numbers are NaN or infinite.
        """
        refuse_empty(query)
        return self.answer(sample_of(image, query))

    def answer(self, sample: Sample) -> Segmentation:
        """Return the mask of a sample, such as one of a data set; see `segment`."""
        if self._is_lisa:
            refuse_narrow([sample])
        with self._lock:
            if self._model is None:
                raise UsageError("this Segmenter is closed: make another one")
            prediction = predict(self._model, sample, NullProbe())
        broken = broken_arithmetic(prediction)
        if broken is not None:
            raise RunFailed(
                f"{sample.source}: {broken.reason}; a mask made of them would be without meaning, "
                "so there is none: take other weights, or precision=fp32"
            )
        masks = (prediction.mask_HW,) if prediction.has_seg else ()
        if prediction.masks_MHW is not None:
            masks = tuple(prediction.masks_MHW)
        return Segmentation(
            mask=prediction.mask_HW,
            masks=masks,
            text=prediction.text,
            predicted_iou=prediction.predicted_iou,
            has_seg=prediction.has_seg,
            warnings=self.warnings,
            answer_tokens=prediction.answer_tokens,
        )

    def close(self) -> None:
        """Free the model's memory. A second call does nothing."""
        with self._lock:
            if self._model is not None:
                self._model.close()
            self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def case_of(settings: Mapping[str, Any], allow_random: bool = False, adapter: str = LISA) -> Any:
    """Return the case of a model: a value of its adapter's settings dataclass.

    If no weights are named, a LISA of the tiny preset takes its packaged ones.

    Args:
        settings: of the adapter.
        allow_random: random weights are taken if no weights are named.
        adapter: name of the adapter.

    Raises:
        UsageError: a setting is unknown, or the weights do not fit.
    """
    settings = dict(settings)
    is_tiny = settings.get("preset", packaged.PRESET) == packaged.PRESET
    if adapter == LISA and is_tiny and not allow_random:
        settings.setdefault("weights", weights_format.PACKAGED)
    return registry.make_case(adapter, settings)


def refuse_random(case: Any, allow_random: bool) -> None:
    """Refuse random weights, unless they are allowed."""
    weights = getattr(case, "weights", None)  # not every adapter has the setting
    if weights == weights_format.RANDOM and not allow_random:
        raise UsageError(
            "weights=random segments noise; "
            "name a checkpoint with weights=FOLDER, a hub id, or packaged"
        )


def refuse_empty(query: str) -> None:
    """Refuse a query without words."""
    if not query.strip():
        raise UsageError(
            "the query is empty; say what to segment, such as 'the animal that can fly'"
        )


def sample_of(image: ImageLike, query: str) -> Sample:
    """Return an image and a query as a sample. Its target is empty, and nobody uses it.

    Raises:
        UsageError: the image is of another kind.
        DataError: it is a file that cannot be read or decoded.
    """
    if isinstance(image, str | Path):
        path = user_path(image)
        image_HW3 = read_image(path)
        image_id = image_hash(path)
    else:
        path = Path(str(getattr(image, "filename", "") or IN_MEMORY))  # PIL names what it opened
        image_HW3 = _pixels(image)
        image_id = hashlib.sha256(f"{image_HW3.shape}".encode() + image_HW3.tobytes()).hexdigest()
    return Sample(
        id=path.stem,
        query=query,
        is_sentence=query.strip().endswith(SENTENCE_ENDS),
        source=path,
        pixels=lambda: image_HW3,
        annotation=lambda: np.zeros(image_HW3.shape[:2], np.uint8),
        identity=lambda: image_id,
    )


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return an image as uint8 [H, W, 3], RGB; one of PIL upright by its EXIF tag."""
    if isinstance(image, Image.Image):
        # PIL would cut 16 bits off at 255.
        if image.mode == "F" or image.mode.startswith("I"):
            raise UsageError(f"the image has PIL's mode {image.mode}; {EXPECTED_IMAGE}")
        try:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except Exception as error:  # it reads its file only now, and raises anything on broken ones
            raise DataError(f"the image cannot be decoded ({error}); replace the file") from error
    if not isinstance(image, np.ndarray):
        raise UsageError(f"the image is of type {type(image).__name__}; {EXPECTED_IMAGE}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        shape = ", ".join(map(str, image.shape))
        raise UsageError(f"the image is an array of {image.dtype} [{shape}]; {EXPECTED_IMAGE}")
    # A copy, since the caller may write into the array. It has no strides below 0, which PyTorch
    # does not take, and which a view such as `bgr_HW3[..., ::-1]` has.
    return np.array(image, order="C")


# The command line


@dataclass(frozen=True)
class Written:
    """The files of a segmentation.

    Attributes:
        segmentation: the answer.
        mask: a PNG, 0 or 255 at the image's size.
        separate: with ``masks=separate``, such a PNG for each [SEG] where there are several.
        overlay: the image, and the mask in red with a white outline.
    """

    segmentation: Segmentation
    mask: Path
    separate: tuple[Path, ...]
    overlay: Path


def segment(
    image: Path,
    query: str,
    settings: Mapping[str, Any],
    out: Path | None = None,
    allow_random: bool = False,
    adapter: str = LISA,
) -> Written:
    """Segment an image, and write the mask and, beside it, ``<stem of out>-overlay.png``.

    With ``masks=separate`` and several [SEG], ``<stem of out>-1.png`` and so on have their masks.

    Args:
        image: any file that OpenCV decodes.
        query: see `Segmenter.segment`.
        settings: of the adapter.
        out: a PNG. Missing folders are made. None: `default_out`.
        allow_random: allow random weights, whose masks mean nothing.
        adapter: name of the adapter.

    Raises:
        UsageError: the query is empty, a setting is unknown, the weights are random or do not fit,
            or `out` cannot be written, or is the image.
        DataError: the image cannot be read or decoded, or is too narrow.
        RunFailed: the model's numbers are NaN or infinite. Nothing is written.
    """
    mask = default_out(image) if out is None else out
    overlay = overlay_of(mask)
    refuse_empty(query)
    refuse_random(case_of(settings, allow_random, adapter), allow_random)
    _refuse_out(mask)
    _refuse_overwriting(image, (mask, overlay))
    # The image is decoded first: loading a model takes long, and a broken image is known at once.
    sample = sample_of(image, query)
    if adapter == LISA:
        refuse_narrow([sample])
    with (
        terminal.code_of_others(),
        Segmenter(adapter=adapter, allow_random=allow_random, **settings) as segmenter,
    ):
        segmentation = segmenter.answer(sample)

    separate = []
    if len(segmentation.masks) > 1:
        for number in range(1, len(segmentation.masks) + 1):
            separate.append(mask.with_name(f"{mask.stem}-{number}.png"))
        _refuse_overwriting(image, separate)
        for path, mask_HW in zip(separate, segmentation.masks, strict=True):
            _write_png(path, mask_HW.astype(np.uint8) * 255)
    _write_png(mask, segmentation.mask.astype(np.uint8) * 255)
    overlay_HW3 = _overlay(sample.image, segmentation.mask)
    _write_png(overlay, cv2.cvtColor(overlay_HW3, cv2.COLOR_RGB2BGR))
    return Written(segmentation, mask, tuple(separate), overlay)


def default_out(image: Path) -> Path:
    """Return ``<stem of the image>-mask.png`` in the current folder, numbered where it is there.

    So a second query does not replace the mask of the first one.
    """
    mask = Path(f"{image.stem}-mask.png")
    number = 1
    while mask.exists() or overlay_of(mask).exists():
        number += 1
        mask = Path(f"{image.stem}-mask-{number}.png")
    return mask


def overlay_of(mask: Path) -> Path:
    """Return the file of the overlay that belongs to a mask's file."""
    return mask.with_name(f"{mask.stem}-overlay.png")


def _refuse_out(out: Path) -> None:
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
