"""How good a length predictor is on prompts that it was not trained on."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from tetribench.training.lengths import Length

Z_95 = 1.959964
NUM_CONFIDENCE_BINS = 10


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Length]
    evaluation: list[Length]


def split(lengths: Sequence[Length], share: float, seed: int) -> Split:
    """`share` of each source's prompts for evaluation, drawn by `seed`; no prompt is on both sides."""
    by_source: dict[str, dict[str, Length]] = defaultdict(dict)
    for length in lengths:
        by_source[length.source][length.prompt] = length
    train, evaluation = [], []
    for source in sorted(by_source):
        ordered = [by_source[source][prompt] for prompt in sorted(by_source[source])]
        Random(f"{seed}/{source}").shuffle(ordered)
        num_evaluation = round(share * len(ordered))
        evaluation += ordered[:num_evaluation]
        train += ordered[num_evaluation:]
    return Split(train, evaluation)


def num_buckets_for(max_output_tokens: int, granularity: int) -> int:
    """Buckets that lengths of 1 to `max_output_tokens` fall into."""
    return max_output_tokens // granularity + 1


def accuracy(predicted: Sequence[int], truth: Sequence[int]) -> float:
    return sum(one == other for one, other in zip(predicted, truth, strict=True)) / len(truth)


def wilson(share: float, num: int) -> tuple[float, float]:
    """95 % interval of a share measured on `num` samples (Wilson, 1927)."""
    centre = (share + Z_95**2 / (2 * num)) / (1 + Z_95**2 / num)
    half = Z_95 * sqrt(share * (1 - share) / num + Z_95**2 / (4 * num**2)) / (1 + Z_95**2 / num)
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)  # rounding, at 0 and 1


def confusion(predicted: Sequence[int], truth: Sequence[int], num_buckets: int) -> list[list[int]]:
    """Counts, a row for each true bucket, a column for each predicted one."""
    counts = [[0] * num_buckets for _ in range(num_buckets)]
    for one, right in zip(predicted, truth, strict=True):
        counts[right][one] += 1
    return counts


def calibration(probabilities: npt.NDArray[np.float64], truth: Sequence[int]) -> list[dict[str, Any]]:
    """Bins of the confidence (the probability of the bucket chosen): how many, mean confidence, share that is right."""
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == np.array(truth)
    places = np.minimum((confidence * NUM_CONFIDENCE_BINS).astype(int), NUM_CONFIDENCE_BINS - 1)
    bins = []
    for place in sorted(set(places.tolist())):
        inside = places == place
        facts = {"low": place / NUM_CONFIDENCE_BINS, "high": (place + 1) / NUM_CONFIDENCE_BINS}
        means = {"confidence": float(confidence[inside].mean()), "accuracy": float(is_right[inside].mean())}
        count = int(inside.sum())
        bins.append({**facts, "count": count, **means, "interval": list(wilson(means["accuracy"], count))})
    return bins


def by_source(predicted: Sequence[int], truth: Sequence[int], sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Accuracy and number of prompts of each source."""
    found = {}
    for source in sorted(set(sources)):
        chosen = [index for index, one in enumerate(sources) if one == source]
        share = accuracy([predicted[index] for index in chosen], [truth[index] for index in chosen])
        found[source] = {"num_prompts": len(chosen), "accuracy": share}
    return found
