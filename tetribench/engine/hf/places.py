"""Where results lie in one memory: in the same place where they are not needed at one time."""

from bisect import insort
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from tetribench.core.units import ceil_div

_LINE_BYTES = 64


@dataclass(slots=True)
class Lifetime:
    """A result of `num_bytes`, needed from operator `first`, which writes it, to `last`, both among them."""

    num_bytes: int
    first: int
    last: int


def place(results: SequenceOf[Lifetime]) -> tuple[list[int], int]:
    """Offsets, in the order of `results`, which is that of their first operators; and how many bytes all take.

    Each lies as far in front as there is room: what was just used is in the cache.
    """
    offsets: list[int] = []
    taken: list[tuple[int, int, int]] = []  # from, to, last operator
    most = 0
    for result in results:
        taken = [one for one in taken if one[2] >= result.first]
        num_bytes, offset = ceil_div(result.num_bytes, _LINE_BYTES) * _LINE_BYTES, 0
        for start, stop, _ in taken:
            if start - offset >= num_bytes:
                break
            offset = stop
        insort(taken, (offset, offset + num_bytes, result.last))
        offsets.append(offset)
        most = max(most, offset + num_bytes)
    return offsets, most
