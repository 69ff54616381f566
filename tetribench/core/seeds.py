"""Randomness: one generator per consumer, named from the run's seed, so that a new consumer moves no other."""

from random import Random as Generator

__all__ = ["Generator", "generator"]


def generator(seed: int, *names: str | int) -> Generator:
    """A generator that depends on `seed` and `names` only, on every platform."""
    return Generator("/".join(str(part) for part in (seed, *names)))
