"""Randomness for arrays of numbers: one numpy generator per consumer, named from the run's seed."""

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator


def generator(seed: int, name: str) -> "Generator":
    """The generator of the consumer `name`: a new consumer, or one that draws more, moves no other."""
    import numpy as np

    if seed < 0:
        raise ValueError(f"seed={seed}: must be at least 0")
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
