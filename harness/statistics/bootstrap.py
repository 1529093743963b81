"""Confidence intervals of scores, and of differences of two scores: the bootstrap over images.

Queries about one image succeed and fail together, so whole images are drawn, with replacement. Both
sides of a difference are scored on the same draw. Each score is a ratio of two sums over queries
(`metrics.score_parts`), so a draw needs only the sums of each image and how often it was drawn.

The interval is the expanded percentile interval (`tail`): the plain one is too narrow for few
images.

Simulated coverage of the 95 % interval of a difference, for gIoU and cIoU, in percent
(`tests/support/simulation.py`: 1,000 comparisons each, three queries an image; plain percentiles in
brackets):

    images      5            8            10           20           50           200
    gIoU        91.4 (84.5)  93.9 (88.4)  95.3 (90.9)  94.4 (92.7)  95.7 (95.2)  94.8 (94.6)
    cIoU        90.1 (82.9)  94.3 (89.4)  94.9 (90.7)  94.3 (92.1)  94.5 (93.8)  94.7 (94.4)

Fewer than eight images are too few for any interval.

Axes of arrays: I images, R resamples, V variants (one, or reference and candidate), K scores, and 2
for numerator and denominator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..metrics import SCORES, Counts, score_parts
from .distributions import normal_share_below, student_quantile
from .estimate import Estimate

RESAMPLES = 10_000
_WEIGHTS_AT_ONCE = 1 << 20  # numbers: 8 MiB as float64


@dataclass(frozen=True)
class Draws:
    """How the images are drawn, and what share of the resampled scores an interval holds."""

    resamples: int = RESAMPLES
    seed: int = 0
    confidence: float = 0.95


def bootstrap_scores(
    image_ids: Sequence[str], queries: Sequence[Counts], draws: Draws = Draws()
) -> dict[str, Estimate | None]:
    """Return the scores of one variant, each with its interval.

    Args:
        image_ids: for each query, the image that it is about.
        queries: what each query contributes, in the same order.
        draws: how to resample. Draws in which a score is undefined, such as mIoU without any
            target, are left out.

    Returns:
        By score, a share from 0 to 1 over as many images as its `n` says; None where no query
        defines the score.

    Raises:
        ValueError: there is no query, or the lists differ in length.
    """
    sums_IVK2 = sums_by_image(image_ids, [queries])
    images = len(sums_IVK2)
    scores_VK = _ratios(sums_IVK2.sum(axis=0))
    resampled_RVK = _resampled_scores(sums_IVK2, draws)
    result: dict[str, Estimate | None] = {}
    for k, name in enumerate(SCORES):
        score = float(scores_VK[0, k])
        if math.isnan(score):
            result[name] = None
            continue
        low, high = _interval(resampled_RVK[:, 0, k], images, draws.confidence)
        result[name] = Estimate(score, low, high, n=images)
    return result


def bootstrap_differences(
    image_ids: Sequence[str],
    reference: Sequence[Counts],
    candidate: Sequence[Counts],
    draws: Draws = Draws(),
) -> dict[str, Estimate | None]:
    """Return the candidate's scores minus the reference's, each with its interval.

    Args:
        image_ids: for each query, the image that it is about.
        reference, candidate: what each query contributes in either variant, in the same order.
        draws: how to resample. Draws in which a score is undefined, such as mIoU without any
            target, are left out.

    Returns:
        By score, a difference of shares over as many images as its `n` says: below 0 the candidate
        is worse. None where one variant does not define the score.

    Raises:
        ValueError: there is no query, the lists differ in length, or the targets of the two differ.
    """
    reference_targets = [query.target_px for query in reference]
    candidate_targets = [query.target_px for query in candidate]
    if reference_targets != candidate_targets:
        raise ValueError(
            "the targets of reference and candidate differ; expected the same queries in the same "
            "order"
        )
    sums_IVK2 = sums_by_image(image_ids, [reference, candidate])
    images = len(sums_IVK2)
    scores_VK = _ratios(sums_IVK2.sum(axis=0))
    resampled_RVK = _resampled_scores(sums_IVK2, draws)
    gains_K = scores_VK[1] - scores_VK[0]
    resampled_gains_RK = resampled_RVK[:, 1] - resampled_RVK[:, 0]
    result: dict[str, Estimate | None] = {}
    for k, name in enumerate(SCORES):
        gain = float(gains_K[k])
        if math.isnan(gain):
            result[name] = None
            continue
        low, high = _interval(resampled_gains_RK[:, k], images, draws.confidence)
        result[name] = Estimate(gain, low, high, n=images)
    return result


def tail(clusters: int, confidence: float = 0.95) -> float:
    """Return the share of draws beyond either end of an interval.

    It is (1 - confidence) / 2 for many images, and less for few. Two effects make the plain
    percentiles too narrow: the spread of resampled means is too small by the factor sqrt((n - 1) /
    n), and they reach as far as the normal distribution where few images call for Student's. So
    with the reach

        r = t(n - 1, (1 + confidence) / 2) * sqrt(n / (n - 1)),

    the share is the normal distribution's tail beyond r.

    Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap", the expanded
    percentile interval.
    """
    student = student_quantile((1 + confidence) / 2, clusters - 1)
    reach = student * math.sqrt(clusters / (clusters - 1))
    return normal_share_below(-reach)


def _interval(
    resampled_R: np.ndarray, images: int, confidence: float
) -> tuple[float, float] | tuple[None, None]:
    if images < 2:
        return None, None
    beyond = tail(images, confidence)
    low, high = np.nanquantile(resampled_R, (beyond, 1 - beyond))
    return float(low), float(high)


def sums_by_image(image_ids: Sequence[str], variants: Sequence[Sequence[Counts]]) -> np.ndarray:
    """Return the parts of each score (`metrics.score_parts`), summed over the queries of an image.

    Args:
        image_ids: for each query, the image that it is about.
        variants: for each variant, what each query contributes, in the same order.

    Returns:
        float [I, V, K, 2], the images in the order of their sorted ids.

    Raises:
        ValueError: there is no query, or the lists differ in length.
    """
    queries = len(image_ids)
    if queries == 0 or any(len(variant) != queries for variant in variants):
        lengths = [queries, *map(len, variants)]
        raise ValueError(
            f"expected as many queries as image ids, and at least one; got lists of {lengths}"
        )
    images, image_of_query_Q = np.unique(np.asarray(image_ids), return_inverse=True)
    sums_IVK2 = np.zeros((len(images), len(variants), len(SCORES), 2))
    for v, variant in enumerate(variants):
        np.add.at(sums_IVK2[:, v], image_of_query_Q, _parts(variant))
    return sums_IVK2


def _parts(queries: Sequence[Counts]) -> np.ndarray:
    """Return what each query adds to the sums of each score, [Q, K, 2]."""
    return score_parts(
        np.array([query.intersection_px for query in queries]),
        np.array([query.union_px for query in queries]),
        np.array([query.target_px for query in queries]),
        np.array([query.failed for query in queries]),
    )


def _ratios(sums: np.ndarray) -> np.ndarray:
    """Divide numerators by denominators, [..., 2] to [...].

    The result is NaN where no query defines the score.
    """
    numerators, denominators = sums[..., 0], sums[..., 1]
    undefined = np.full(numerators.shape, np.nan)
    return np.divide(numerators, denominators, out=undefined, where=denominators > 0)


def _resampled_scores(sums_IVK2: np.ndarray, draws: Draws) -> np.ndarray:
    """Return the scores of every draw of the images, [R, V, K]."""
    flat_sums = sums_IVK2.reshape(len(sums_IVK2), -1)
    drawn_sums = []
    for times_drawn_RI in _times_drawn(len(sums_IVK2), draws):
        drawn_sums.append(times_drawn_RI.astype(float) @ flat_sums)
    return _ratios(np.concatenate(drawn_sums).reshape(draws.resamples, *sums_IVK2.shape[1:]))


@lru_cache(maxsize=1)
def _times_drawn(images: int, draws: Draws) -> list[np.ndarray]:
    """Return how often each draw has each image, uint8 [some resamples, I].

    Kept, because a report scores many cases on the same draws. For 5,001 images they are 50 MB; in
    pieces, so that only one of them at a time becomes eight times as many bytes of float64. No draw
    of more images than 255 has one of them 256 times.
    """
    pieces = []
    rng = np.random.default_rng(draws.seed)
    at_once = max(1, _WEIGHTS_AT_ONCE // images)
    for start in range(0, draws.resamples, at_once):
        rows = min(at_once, draws.resamples - start)
        drawn = rng.integers(images, size=(rows, images))
        # One count for all rows: the images of row r are numbered from r * images on.
        drawn += images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        pieces.append(counts.reshape(rows, images).astype(np.uint8))
    return pieces
