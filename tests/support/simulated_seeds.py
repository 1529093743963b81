"""Simulated studies with a known truth: how often an interval over seeds and images covers it.

Both sides are drawn alike, so that the true difference is 0. A seed moves a side's IoU everywhere;
an image is harder for one of the sides, in every seed; and each answer is moved by a noise of its
own.
"""

import numpy as np
from scipy import stats

from lisabench.harness.statistics.bootstrap import SCORES
from lisabench.harness.statistics.over_seeds import differences

IMAGES, PER_IMAGE = 300, 3
OF_IMAGE, OF_ANSWER = 0.1, 0.15
METHODS = ("both", "seeds alone", "drawn together")


def study(rng: np.random.Generator, seeds: int, of_seed: float, gain: float = 0.0) -> np.ndarray:
    """[side, seed, image, score, 2], as `seeds.sums` has them."""
    areas = rng.lognormal(0, 0.8, (IMAGES, PER_IMAGE))
    ease = rng.normal(0.75, 0.15, IMAGES) + np.array([[-0.5], [0.5]]) * rng.normal(
        0, OF_IMAGE, IMAGES
    )
    values = ease[:, None, :, None] + rng.normal(0, of_seed, (2, seeds, 1, 1))
    values = values + rng.normal(0, OF_ANSWER, (2, seeds, IMAGES, PER_IMAGE))
    values[1] += gain
    pairs = (
        (values, np.ones_like(values)),
        (values * areas, np.ones_like(values) * areas),
        (values, np.ones_like(values)),
    )
    return np.stack([np.stack(pair, -1).sum(-2) for pair in pairs], -2)


def coverage(
    seeds: int, of_seed: float, studies: int, draws: int = 200
) -> dict[str, dict[str, int]]:
    """How many 95 % intervals of each method hold the true difference, by score; gIoU and cIoU."""
    rng = np.random.default_rng((seeds, round(1e4 * of_seed)))
    covered = {method: dict.fromkeys(SCORES[:2], 0) for method in METHODS}
    for _ in range(studies):
        before, after = study(rng, seeds, of_seed)
        together = _drawn_together(rng, before, after, draws) if draws else None
        for k, (name, found) in enumerate(list(differences(list(before), list(after)).items())[:2]):
            covered["both"][name] += found.low <= 0 <= found.high
            half = stats.t.ppf(0.975, seeds - 1) * np.std(found.by_seed, ddof=1) / np.sqrt(seeds)
            covered["seeds alone"][name] += abs(found.value) <= half
            if together is not None:
                low, high = np.quantile(together[:, k], (0.025, 0.975))
                covered["drawn together"][name] += low <= 0 <= high
    return covered


def _drawn_together(
    rng: np.random.Generator, before: np.ndarray, after: np.ndarray, draws: int
) -> np.ndarray:
    """Differences [draw, score] of seeds and images drawn with replacement."""
    seeds = len(before)
    images = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), draws).astype(float)
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    scores = [np.einsum("di,sikp->dskp", images, side, optimize=True) for side in (before, after)]
    gains = scores[1][..., 0] / scores[1][..., 1] - scores[0][..., 0] / scores[0][..., 1]
    return np.einsum("ds,dsk->dk", chosen, gains)


def power(seeds: int, of_seed: float, studies: int) -> int:
    """Count the studies that tell a difference from 0 of the size that they say they would find."""
    rng = np.random.default_rng((seeds, round(1e4 * of_seed), 1))
    said = np.mean(
        [differences(*map(list, study(rng, seeds, of_seed)))["gIoU"].detectable for _ in range(50)]
    )
    found = (
        differences(*map(list, study(rng, seeds, of_seed, said)))["gIoU"] for _ in range(studies)
    )
    return sum(each.low > 0 for each in found)


if __name__ == "__main__":
    for of_seed in (0.003, 0.007, 0.015):
        for seeds in (3, 5, 8):
            rows = coverage(seeds, of_seed, 1000)
            print(of_seed, seeds, rows, "power", power(seeds, of_seed, 1000), flush=True)
