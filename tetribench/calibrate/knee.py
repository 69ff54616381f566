"""ChunkSize by measurement: the tokens of a prefill iteration from which on its throughput hardly grows (figure 2a)."""

from collections.abc import Mapping
from dataclasses import dataclass

ENOUGH = 0.95
"""Of the best throughput: where the curve is called flat."""

SMALLEST_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Knee:
    """`chunk_size` tokens an iteration reach `tokens_per_s`, of at most `best_tokens_per_s`.

    It is not `is_inside` where only the largest iteration of the sweep is fast enough: a larger one may be faster yet.
    """

    chunk_size: int
    tokens_per_s: float
    best_tokens_per_s: float
    is_inside: bool


def chunk_sizes(max_tokens: int) -> list[int]:
    """What is swept: powers of two and the middle between each two, up to `max_tokens` and with it."""
    powers = [2**exponent for exponent in range(SMALLEST_CHUNK.bit_length() - 1, max_tokens.bit_length())]
    both = [size for power in powers for size in (power, power + power // 2)]
    return sorted({size for size in (*both, max_tokens) if size <= max_tokens})


def find_knee(seconds: Mapping[int, float]) -> Knee:
    """The smallest with at least `ENOUGH` of the best throughput; `seconds` are of iterations, by their tokens."""
    rates = {size: size / seconds[size] for size in sorted(seconds)}
    best = max(rates.values())
    chunk_size = next(size for size, rate in rates.items() if rate >= ENOUGH * best)
    return Knee(chunk_size, rates[chunk_size], best, is_inside=chunk_size < max(rates))
