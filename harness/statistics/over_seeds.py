"""Confidence intervals over seeds and images.

They are of a trained model's scores, and of differences of two recipes.

A recipe is trained once for each seed, and every training is evaluated on the same images. Two
things are left to chance: which seeds were trained, and which images were evaluated. All seeds
share the images, so the spread of their scores says nothing about the images. Each source of chance
gives an interval by Student's t:

    seeds     of the mean of the scores over seeds
    images    of the mean over images of an image's influence on the score (averaged over seeds)

The half-widths of the two are added in quadrature. What is peculiar to one seed on one image is in
both, which makes the interval too wide rather than too narrow. With a single seed the interval is
that of the images alone.

Simulated coverage of the 95 % interval of a difference, gIoU / cIoU, in percent, beside two methods
that were not taken: Student's t over the seeds alone, and percentiles of seeds and images drawn
together (`tests/support/simulated_seeds.py`: 1,000 studies each, 300 images with three queries,
each image 10 points easier or harder for one of the two recipes):

    a seed moves a side by   seeds   both arms     seeds alone   drawn together   detected
    0.3 points                 3     98.4 / 99.4   89.3 / 90.3   97.5 / 97.1      78.5
                               5     98.1 / 98.4   79.9 / 82.1   97.6 / 98.0      83.0
                               8     97.4 / 96.8   65.0 / 71.0   96.3 / 96.7      81.9
    0.7 points                 3     98.8 / 99.0   91.7 / 92.9   95.1 / 95.8      78.5
                               5     98.2 / 98.1   88.0 / 89.7   95.4 / 96.7      82.9
                               8     97.2 / 97.4   80.7 / 80.2   96.4 / 96.9      81.2
    1.5 points                 3     96.6 / 97.4   93.9 / 93.5   87.8 / 91.6      63.8
                               5     96.2 / 97.1   91.9 / 91.6   90.6 / 92.4      77.9
                               8     96.4 / 96.4   90.4 / 88.5   93.0 / 94.2      78.8

"Detected" is how many studies tell a true difference from 0 that is as large as their `detectable`
is on average; 80 % would be right. Three seeds that differ by much cannot estimate well by how
much.

Axes of arrays: S seeds, I images, K scores, and 2 for numerator and denominator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..metrics import SCORES, Counts
from ..records.pixel_counts import OWN, PixelCounts
from .bootstrap import sums_by_image
from .distributions import normal_quantile, student_quantile
from .estimate import Estimate

CONFIDENCE = 0.95
POWER = 0.8
# From so many values on, the normal distribution stands in for Student's: the two hardly differ
# there.
NORMAL_FROM = 100


@dataclass(frozen=True)
class SeedEstimate(Estimate):
    """A score, or a difference of scores, over seeds and images, in shares from 0 to 1.

    Its `value` is the mean over seeds, and its `n` the number of images. A single image gives no
    interval.

    Attributes:
        by_seed: the value of each seed.
        detectable: how large a true difference must be for four in five studies like this one to
            tell it from 0; None with a single image.
    """

    by_seed: tuple[float, ...]
    detectable: float | None

    def in_points(self) -> "SeedEstimate":
        """Return the same in points: times 100."""
        points = super().in_points()
        return SeedEstimate(
            value=points.value,
            low=points.low,
            high=points.high,
            n=self.n,
            by_seed=tuple(100 * share for share in self.by_seed),
            detectable=None if self.detectable is None else 100 * self.detectable,
        )


def sums(pixel_counts: PixelCounts, answer: str = OWN) -> np.ndarray:
    """Return the numerators and denominators of each score, summed over the queries of an image.

    Returns:
        float [I, K, 2], as `levels` and `differences` take them.
    """
    _, image_of_query_Q = np.unique(pixel_counts.scene, return_inverse=True)
    images = image_of_query_Q.max(initial=-1) + 1
    sums_IK2 = np.zeros((images, len(SCORES), 2))
    np.add.at(sums_IK2, image_of_query_Q, pixel_counts.parts(answer))
    return sums_IK2


def sums_of_queries(image_ids: Sequence[str], queries: Sequence[Counts]) -> np.ndarray:
    """Return the same as `sums` for queries that were counted one by one.

    A training's evaluation counts them so.

    Args:
        image_ids: for each query, the image that it is about.
        queries: the pixel counts of each query, in the same order.

    Returns:
        float [I, K, 2], the images in the order of their sorted ids.

    Raises:
        ValueError: there is no query, or the lists differ in length.
    """
    sums_IVK2 = sums_by_image(image_ids, [queries])
    return sums_IVK2[:, 0]


def levels(seeds: Sequence[np.ndarray]) -> dict[str, SeedEstimate | None]:
    """Return the scores of one recipe; None where no query defines one.

    Args:
        seeds: the `sums` of each seed's training, over the same images in the same order.
    """
    scores_SK, influences_SIK = _scores_and_influences(np.stack(seeds))
    return _over_seeds(scores_SK, influences_SIK)


def differences(
    reference: Sequence[np.ndarray], candidate: Sequence[np.ndarray]
) -> dict[str, SeedEstimate | None]:
    """Return the candidate's scores minus the reference's, paired by seed and image.

    Args:
        reference, candidate: as `levels` takes them, the same seeds in the same order.

    Returns:
        None in place of a difference where one of the two does not define the score.

    Raises:
        ValueError: the two differ in their seeds or images, or there is no seed.
    """
    reference_shapes = [sums_IK2.shape for sums_IK2 in reference]
    candidate_shapes = [sums_IK2.shape for sums_IK2 in candidate]
    if not reference or reference_shapes != candidate_shapes:
        raise ValueError(
            "expected the same seeds and images on both sides, and at least one of each"
        )
    before_SK, before_influences_SIK = _scores_and_influences(np.stack(reference))
    after_SK, after_influences_SIK = _scores_and_influences(np.stack(candidate))
    return _over_seeds(after_SK - before_SK, after_influences_SIK - before_influences_SIK)


def _scores_and_influences(sums_SIK2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores, [S, K], and each image's influence on them, [S, I, K].

    A score is NaN where it is undefined.

    A score is r = A / B, with A and B summed over images. To first order, image i with the sums (a,
    b) moves it by (a - r b) / B; times the number of images, the influences have the mean 0, and
    their standard error is that of r (linearisation of a ratio, the delta method).
    """
    images = sums_SIK2.shape[1]
    totals_SK2 = sums_SIK2.sum(1)
    denominators_SK = np.where(totals_SK2[..., 1] > 0, totals_SK2[..., 1], np.nan)
    scores_SK = totals_SK2[..., 0] / denominators_SK
    residuals_SIK = sums_SIK2[..., 0] - scores_SK[:, None] * sums_SIK2[..., 1]
    return scores_SK, residuals_SIK * images / denominators_SK[:, None]


def _over_seeds(
    values_SK: np.ndarray, influences_SIK: np.ndarray
) -> dict[str, SeedEstimate | None]:
    estimates = {}
    for k, name in enumerate(SCORES):
        estimates[name] = _over_seeds_and_images(values_SK[:, k], influences_SIK[..., k])
    return estimates


def _over_seeds_and_images(values_S: np.ndarray, influences_SI: np.ndarray) -> SeedEstimate | None:
    """Return the mean over seeds of one score, with the interval that the module describes.

    Args:
        values_S: the score of each seed, or its difference; NaN where undefined.
        influences_SI: how much each image moves it, see `_scores_and_influences`.
    """
    if np.isnan(values_S).any():
        return None
    value = float(values_S.mean())
    by_seed = tuple(float(seed_value) for seed_value in values_S)
    images = influences_SI.shape[1]
    if images < 2:
        return SeedEstimate(value, None, None, n=images, by_seed=by_seed, detectable=None)
    influences_I = influences_SI.mean(0)
    half_widths = []
    detectables = []
    for sample in (values_S, influences_I):
        # A single seed has no spread.
        if len(sample) > 1:
            error = _standard_error(sample)
            half_widths.append(reach(len(sample)) * error)
            detectables.append(noncentrality(len(sample)) * error)
    # Seeds and images are independent sources of chance, so their arms add in quadrature.
    half_width = math.hypot(*half_widths)
    return SeedEstimate(
        value=value,
        low=value - half_width,
        high=value + half_width,
        n=images,
        by_seed=by_seed,
        detectable=math.hypot(*detectables),
    )


def _standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean of some values."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


@cache
def reach(count: int) -> float:
    """Return how many standard errors Student's interval of `count` values reaches either side."""
    return student_quantile((1 + CONFIDENCE) / 2, count - 1)


@cache
def noncentrality(count: int) -> float:
    """Return how many standard errors a true mean must be away from 0 to be detected.

    Detected means that the interval of `count` values lies beyond 0 with the probability `POWER`.

    Source: the power of Student's test is a tail of the noncentral t distribution.
    """
    if count > NORMAL_FROM:
        return normal_quantile((1 + CONFIDENCE) / 2) + normal_quantile(POWER)

    # These take a second to import, and nothing else needs them.
    from scipy.optimize import brentq
    from scipy.stats import nct

    def excess_power(distance: float) -> float:
        return float(nct.sf(reach(count), count - 1, distance)) - POWER

    # At the reach itself the power is about one half, and at four times the reach about one.
    root: Any = brentq(excess_power, reach(count), 4 * reach(count))
    return float(root)
