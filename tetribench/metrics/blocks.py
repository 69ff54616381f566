"""How the ratio of one repeat varies with the requests that happened to be in it: a bootstrap over blocks of time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.metrics.compare import Headline, SystemResult

NUM_BLOCKS = 10
"""Of requests that arrived after one another; fewer where there are fewer requests."""
NUM_REPLICATES = 200

Floats = npt.NDArray[np.float64]


def block_deviations(
    headline: Headline, own: Sequence[SystemResult], other: Sequence[SystemResult], generator: np.random.Generator
) -> Floats:
    """How far the logarithm of the ratio comes from what it is, each with other blocks of requests.

    Blocks are drawn with replacement, the same for both systems. A single 0 where the metric is not one of requests.
    """
    if headline.of is None:
        return np.zeros(1)
    tables = [result.requests for result in (*own, *other)]
    num_blocks = max(min(NUM_BLOCKS, len(tables[0])), 1)
    drawn = generator.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), NUM_REPLICATES)
    weights = np.vstack([np.ones(num_blocks), drawn])  # the first draw is of every block once
    values = [_values(table, *headline.of, weights) for table in tables]
    means = [np.mean(found, axis=0) for found in (values[: len(own)], values[len(own) :])]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Floats = np.log(means[0]) - np.log(means[1])
    deviations = logs[1:] - logs[0]
    return deviations[np.isfinite(deviations)] if np.isfinite(deviations).any() else np.zeros(1)


def _values(requests: pd.DataFrame, column: str, percent: int | None, weights: Floats) -> Floats:
    """The mean of a column, or its percentile, for each row of weights of the blocks."""
    num_blocks = weights.shape[1]
    ranks = requests["arrived_s"].rank(method="first").to_numpy() - 1
    blocks = (ranks * num_blocks // len(requests)).astype(int)
    values = requests[column].to_numpy()
    is_known = np.isfinite(values)
    values, blocks = values[is_known], blocks[is_known]
    if percent is None:
        sums, nums = (np.bincount(blocks, each, num_blocks) for each in (values, np.ones_like(values)))
        with np.errstate(divide="ignore", invalid="ignore"):
            means: Floats = (weights @ sums) / (weights @ nums)
        return means
    order = np.argsort(values)
    return _percentiles(values[order], weights[:, blocks[order]], percent)


def _percentiles(ascending: Floats, weights: Floats, percent: int) -> Floats:
    """For each row of weights the first value that so many percent of the weight do not exceed; NaN without any."""
    if len(ascending) == 0:
        return np.full(len(weights), np.nan)
    reached = np.cumsum(weights, axis=1)
    places = (reached >= reached[:, -1:] * percent / 100).argmax(axis=1)
    return np.where(reached[:, -1] > 0, ascending[places], np.nan)
