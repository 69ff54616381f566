"""How sure a number is that was measured with several seeds: 95 % intervals after Student."""

from collections.abc import Iterable, Sequence
from math import exp, log, nan
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; NaN where there are too few samples for bounds."""

    value: float
    low: float
    high: float


def mean_interval(samples: Sequence[float]) -> Interval:
    """Of the mean. Raises ValueError without samples."""
    if not samples:
        raise ValueError("an interval needs at least one sample")
    mean = float(np.mean(samples))
    if len(samples) < 2:
        return Interval(mean, nan, nan)
    from scipy.stats import t  # half a second to import

    half = float(t.ppf((1 + CONFIDENCE) / 2, len(samples) - 1)) * float(np.std(samples, ddof=1)) / len(samples) ** 0.5
    return Interval(mean, mean - half, mean + half)


def repeated_interval(values: Iterable[tuple[int, float]]) -> Interval:
    """Of the mean over repeats of `values`, each with the number of its repeat: those of one repeat count as one."""
    by_repeat: dict[int, list[float]] = {}
    for repeat, value in values:
        by_repeat.setdefault(repeat, []).append(value)
    return mean_interval([float(np.mean(own)) for own in by_repeat.values()])


def clustered_interval(clusters: Sequence[npt.NDArray[np.float64]]) -> Interval:
    """Of the mean of all samples, where those of one cluster depend on each other and clusters do not.

    The mean is a ratio of two sums over clusters, whose error is linear in the clusters' deviations from it. Of
    clusters of one size this is the interval of the mean of their means. Without samples everything is NaN.
    """
    totals = np.array([samples.sum() for samples in clusters if samples.size])
    sizes = np.array([samples.size for samples in clusters if samples.size])
    if not len(sizes):
        return Interval(nan, nan, nan)
    num, mean = len(sizes), float(totals.sum() / sizes.sum())
    if num < 2:
        return Interval(mean, nan, nan)
    from scipy.stats import t

    error = (num / (num - 1) * float(((totals - mean * sizes) ** 2).sum())) ** 0.5 / float(sizes.sum())
    half = float(t.ppf((1 + CONFIDENCE) / 2, num - 1)) * error
    return Interval(mean, mean - half, mean + half)


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Of the ratio of pairs, one pair for each seed: the geometric mean, so that a/b and b/a agree.

    Undefined (NaN) where a value is not positive. Raises ValueError where the pairs do not match up.
    """
    logs = [log(a / b) if a > 0 and b > 0 else nan for a, b in zip(numerators, denominators, strict=True)]
    return Interval(*(exp(bound) for bound in mean_interval(logs)))
