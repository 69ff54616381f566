"""What a length predictor has to beat: guesses that do not read the prompt."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUM_STEPS = 2000
LEARNING_RATE = 0.5

Buckets = Sequence[int]


def majority(train: Buckets, num_evaluated: int) -> list[int]:
    """The training prompts' most frequent bucket, for everyone."""
    return [_most_frequent(train)] * num_evaluated


def majority_of_source(train: Buckets, train_sources: Sequence[str], sources: Sequence[str]) -> list[int]:
    """The most frequent bucket of the training prompts from the same file: knows the kind of task, not the prompt."""
    by_source = {
        source: _most_frequent([bucket for bucket, one in zip(train, train_sources, strict=True) if one == source])
        for source in set(train_sources)
    }
    return [by_source.get(source, _most_frequent(train)) for source in sources]


def prompt_length_regression(
    train: Buckets, train_lengths: Sequence[int], lengths: Sequence[int], num_buckets: int
) -> list[int]:
    """Multinomial logistic regression on the logarithm of the prompt's length and its square, by gradient descent."""
    features = _features(train_lengths)
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    inputs = _with_one((features - centre) / scale)
    targets = np.eye(num_buckets)[list(train)]
    weights = np.zeros((inputs.shape[1], num_buckets))
    for _ in range(NUM_STEPS):
        weights -= LEARNING_RATE * inputs.T @ (_softmax(inputs @ weights) - targets) / len(inputs)
    scores = _with_one((_features(lengths) - centre) / scale) @ weights
    likeliest: list[int] = scores.argmax(axis=1).tolist()
    return likeliest


def _most_frequent(buckets: Buckets) -> int:
    """The lowest one of those that are equally frequent."""
    counts = Counter(buckets)
    return min(counts, key=lambda bucket: (-counts[bucket], bucket))


def _features(lengths: Sequence[int]) -> npt.NDArray[np.float64]:
    logs = np.log(np.array(lengths, dtype=np.float64))
    return np.stack([logs, logs**2], axis=1)


def _with_one(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised
