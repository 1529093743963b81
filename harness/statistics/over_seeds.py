"""How sure a score of trained models is, or a difference of two recipes: the training seed is the unit above the image.

A recipe is trained once a seed, and every training is judged by the same images. Two things are then left to chance:
which seeds were trained, seen in how far their scores lie apart, and which images were asked, which all seeds share and
which their scores' spread therefore says nothing of. Each gives an interval by Student's t: that of the mean over
seeds, and that of the mean over images of an image's influence on the score, averaged over seeds. Their arms are added
in quadrature. What is peculiar to a seed on an image is in both, which errs on the safe side. With a single seed the
interval is that of the images alone.

Simulated coverage of the 95 % interval of a difference, gIoU / cIoU, in percent, beside two that were not taken:
Student's t over the seeds alone, and percentiles of seeds and images drawn together
(`tests/support/simulated_seeds.py`: 1,000 studies each, 300 images with three queries, each image 10 points easier or
harder for one of the sides):

    a seed moves a side by   seeds   both arms     seeds alone   drawn together   found
    0.3 points                 3     98.4 / 99.4   89.3 / 90.3   97.5 / 97.1      78.5
                               5     98.1 / 98.4   79.9 / 82.1   97.6 / 98.0      83.0
                               8     97.4 / 96.8   65.0 / 71.0   96.3 / 96.7      81.9
    0.7 points                 3     98.8 / 99.0   91.7 / 92.9   95.1 / 95.8      78.5
                               5     98.2 / 98.1   88.0 / 89.7   95.4 / 96.7      82.9
                               8     97.2 / 97.4   80.7 / 80.2   96.4 / 96.9      81.2
    1.5 points                 3     96.6 / 97.4   93.9 / 93.5   87.8 / 91.6      63.8
                               5     96.2 / 97.1   91.9 / 91.6   90.6 / 92.4      77.9
                               8     96.4 / 96.4   90.4 / 88.5   93.0 / 94.2      78.8

"Found" is how many studies tell a true difference from 0 that is as large as their `detectable` is on average: 80 %
were right. Three seeds that differ by much do not know themselves by how much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from ..metrics import Counts
from ..records.pixel_counts import OWN, PixelCounts
from .bootstrap import SCORES, sums_by_image

CONFIDENCE, POWER = 0.95, 0.8
NORMAL_FROM = 100  # values, from which on the normal distribution stands in for Student's


@dataclass(frozen=True)
class Seeded:
    """A figure over seeds and images, in shares from 0 to 1, and how sure it is.

    Attributes:
        value: mean over seeds.
        low, high: ends of the 95 % interval; None with a single image.
        by_seed: the figure of each seed.
        clusters: images.
        half_width: by which an estimate must be away from 0 for its interval to exclude 0; None with a single image.
        detectable: how large a true difference must be for four studies in five of this kind to tell it from 0;
            likewise.
    """

    value: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]
    clusters: int
    half_width: float | None
    detectable: float | None


def sums(judged: PixelCounts, answer: str = OWN) -> np.ndarray:
    """Numerators and denominators of each image: [image, score, 2], as `levels` and `differences` want them."""
    _, place_Q = np.unique(judged.scene, return_inverse=True)
    found = np.zeros((place_Q.max(initial=-1) + 1, len(SCORES), 2))
    np.add.at(found, place_Q, judged.parts(answer))
    return found


def sums_of_queries(image_ids: Sequence[str], queries: Sequence[Counts]) -> np.ndarray:
    """Return the same as `sums` of queries that were counted one by one, as in a training's evaluation.

    Args:
        image_ids: of each query, the image that it is about.
        queries: the pixel counts of each query, in the same order.

    Returns:
        float [image, score, 2], the images in the order of their sorted ids.

    Raises:
        ValueError: there is no query, or the lists differ in length.
    """
    return sums_by_image(image_ids, [queries])[:, 0]


def levels(seeds: Sequence[np.ndarray]) -> dict[str, Seeded | None]:
    """The scores of one recipe; None where no query defines one.

    Args:
        seeds: the `sums` of each seed's training, over the same images in the same order.
    """
    scores_SK, influences_SIK = _linear(np.stack(seeds))
    return {name: _seeded(scores_SK[:, k], influences_SIK[..., k]) for k, name in enumerate(SCORES)}


def differences(
    reference: Sequence[np.ndarray], candidate: Sequence[np.ndarray]
) -> dict[str, Seeded | None]:
    """The candidate's scores minus the reference's, paired by seed and image; None where one side does not define it.

    Args:
        reference, candidate: as `levels` takes them, the same seeds in the same order.

    Raises:
        ValueError: the sides differ in their seeds or images, or there is no seed.
    """
    if not reference or [each.shape for each in reference] != [each.shape for each in candidate]:
        raise ValueError(
            "expected the same seeds and images on both sides, and at least one of each"
        )
    (before_SK, slopes_SIK), (after_SK, others_SIK) = (
        _linear(np.stack(reference)),
        _linear(np.stack(candidate)),
    )
    gains_SK, influences_SIK = after_SK - before_SK, others_SIK - slopes_SIK
    return {name: _seeded(gains_SK[:, k], influences_SIK[..., k]) for k, name in enumerate(SCORES)}


def _linear(sums_SIK2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores [S, K], NaN where undefined, and each image's influence on them [S, I, K], whose mean over images is 0."""
    whole_SK2 = sums_SIK2.sum(1)
    below_SK = np.where(whole_SK2[..., 1] > 0, whole_SK2[..., 1], np.nan)
    scores_SK = whole_SK2[..., 0] / below_SK
    rest_SIK = sums_SIK2[..., 0] - scores_SK[:, None] * sums_SIK2[..., 1]
    return scores_SK, rest_SIK * sums_SIK2.shape[1] / below_SK[:, None]


def _seeded(values_S: np.ndarray, influences_SI: np.ndarray) -> Seeded | None:
    if np.isnan(values_S).any():
        return None
    value, by_seed, images = (
        float(values_S.mean()),
        tuple(map(float, values_S)),
        influences_SI.shape[1],
    )
    if images < 2:
        return Seeded(value, None, None, by_seed, images, None, None)
    samples = [each for each in (values_S, influences_SI.mean(0)) if len(each) > 1]
    half = math.hypot(*(reach(len(each)) * _error(each) for each in samples))
    detectable = math.hypot(*(noncentrality(len(each)) * _error(each) for each in samples))
    return Seeded(value, value - half, value + half, by_seed, images, half, detectable)


def _error(values: np.ndarray) -> float:
    """Of their mean."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


@cache
def reach(count: int) -> float:
    """How many standard errors Student's interval of so many values reaches to either side."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))


@cache
def noncentrality(count: int) -> float:
    """How many standard errors a true mean must be away from 0, for its interval to lie beyond 0 in `POWER` of cases.

    Source: the power of Student's test is a tail of the noncentral t distribution.
    """
    if count > NORMAL_FROM:
        return float(stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER))
    found: Any = brentq(
        lambda far: stats.nct.sf(reach(count), count - 1, far) - POWER,
        reach(count),
        4 * reach(count),
    )
    return float(found)
