"""The few statistics that the figures need. Pure and seeded: the same figures give the same intervals."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A paired difference: mean, standard error of the mean, and the 95 % bootstrap interval."""

    mean: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        """The difference with its sign, error and interval."""
        return f"{self.mean:+.3f} ± {self.error:.3f} (95 % interval {self.low:+.3f} to {self.high:+.3f})"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean, with ddof 1; 0 of fewer than two."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values))


def paired(before: Sequence[float], after: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> Difference:
    """How much `after` exceeds `before`, pair by pair; percentile bootstrap over the pairs (Efron, 1979).

    Raises:
        ValueError: they are not equally long, or empty.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} figures before and {len(after)} after do not pair up")
    gains = [b - a for a, b in zip(before, after, strict=True)]
    low, high = interval(gains, resamples=resamples, seed=seed)
    return Difference(mean(gains), standard_error(gains), low, high)


def interval(values: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean."""
    rng = random.Random(seed)
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(resamples))
    return quantile(means, 0.025), quantile(means, 0.975)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The `q` quantile of ascending values, interpolated; 0 of nothing."""
    if not ordered:
        return 0.0
    place = q * (len(ordered) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
