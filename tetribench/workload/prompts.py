"""Random prompts that no prefix cache can have seen."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator

NUM_SPECIAL_IDS = 4
"""Ids below this are padding, start, end and unknown in the usual vocabularies."""


def random_prompts(lengths: Sequence[int], vocab_size: int, rng: "Generator") -> list[tuple[int, ...]]:
    """Prompts of these lengths with ids in `[NUM_SPECIAL_IDS, vocab_size)`.

    Each begins with its own number, drawn without replacement and written in as few tokens as tell all prompts apart
    (one, where the vocabulary has more ids than there are prompts). So no two share their first tokens, except prompts
    shorter than that number.
    """
    import numpy as np

    num_ids = vocab_size - NUM_SPECIAL_IDS
    if num_ids < 2:
        raise ValueError(f"model.vocab_size={vocab_size}: must be at least {NUM_SPECIAL_IDS + 2} for random prompts")
    num_digits = 1
    while num_ids**num_digits < len(lengths):
        num_digits += 1
    numbers = rng.choice(num_ids**num_digits, len(lengths), replace=False)
    digits = numbers[:, None] // num_ids ** np.arange(num_digits) % num_ids
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=int)])
    ids = rng.integers(0, num_ids, starts[-1])
    for position in range(num_digits):
        long_enough = np.asarray(lengths) > position
        ids[starts[:-1][long_enough] + position] = digits[long_enough, position]
    ids += NUM_SPECIAL_IDS
    return [tuple(ids[start:stop].tolist()) for start, stop in pairwise(starts.tolist())]
