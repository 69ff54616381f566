"""Which bytes go where: neighbouring blocks travel as one piece. Pure; links and swapping use it."""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tetribench.engine.base import Part


class Span(NamedTuple):
    """`num_bytes` from offset `source` of one memory to offset `target` of another."""

    source: int
    target: int
    num_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Many, in the order in which they are copied: `rows` `[number, 3]`, int64 and contiguous, each as a Span.

    A transfer of scattered blocks has thousands: as objects, they take as long to make as their bytes to copy.
    """

    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, each: Iterable[Span]) -> "Spans":
        return cls(np.array(list(each), dtype=np.int64).reshape(-1, 3))

    @classmethod
    def from_bytes(cls, message: bytes) -> "Spans":
        """Raises ValueError where these are no spans; what lies where is not looked at."""
        return cls(np.frombuffer(message, dtype=np.int64).reshape(-1, 3))

    def to_bytes(self) -> bytes:
        return self.rows.tobytes()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Span]:
        return map(Span._make, self.rows.tolist())

    @property
    def num_bytes(self) -> int:
        return int(self.rows[:, 2].sum())

    def turned(self) -> "Spans":
        """Back from where they went."""
        return Spans(np.ascontiguousarray(self.rows[:, [1, 0, 2]]))

    def lie_within(self, source_bytes: int, target_bytes: int) -> bool:
        """None is empty, or reaches out of a memory of so many bytes at either end."""
        return all(
            within(self.rows[:, column], self.rows[:, 2], num_bytes)
            for column, num_bytes in enumerate((source_bytes, target_bytes))
        )


def within(starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], num_bytes: int) -> bool:
    """No piece is empty, or reaches out of `num_bytes` from 0; numbers that a sum would overflow are no way round."""
    return bool(np.all((starts >= 0) & (sizes >= 1) & (sizes <= num_bytes) & (starts <= num_bytes - sizes)))


def spans(
    source_ids: SequenceOf[int], target_ids: SequenceOf[int], block_bytes: int, part: Part | None = None
) -> Spans:
    """The longest pieces that copy block `source_ids[i]` to `target_ids[i]` for every i, in the order of the source.

    With a `part`, only that of every block.
    """
    assert len(source_ids) == len(target_ids), "every block goes to one"
    offset, num_bytes = part or Part(0, block_bytes)
    ids = np.empty((len(source_ids), 2), dtype=np.int64)
    ids[:, 0], ids[:, 1] = source_ids, target_ids
    ids = ids[np.argsort(ids[:, 0], kind="stable")]
    is_first = np.ones(len(ids), dtype=bool)
    if num_bytes == block_bytes:
        is_first[1:] = (np.diff(ids, axis=0) != 1).any(axis=1)
    firsts = np.flatnonzero(is_first)
    rows = np.empty((len(firsts), 3), dtype=np.int64)
    rows[:, :2] = ids[firsts] * block_bytes + offset
    rows[:, 2] = np.diff(firsts, append=len(ids)) * num_bytes
    return Spans(rows)


def loads(whole: Spans, limit_bytes: int) -> Iterator[Spans]:
    """`whole` in parts of at most `limit_bytes`, cutting spans where a part is full: what a bounce buffer holds."""
    assert limit_bytes >= 1
    ends = whole.rows[:, 2].cumsum()
    cuts = np.arange(limit_bytes, whole.num_bytes, limit_bytes)
    all_ends = np.union1d(ends, cuts)
    starts = all_ends - np.diff(all_ends, prepend=0)
    cut_from = np.searchsorted(ends, starts, side="right")
    rows = whole.rows[cut_from]
    rows[:, :2] += (starts - (ends - whole.rows[:, 2])[cut_from])[:, None]
    rows[:, 2] = all_ends - starts
    for load in np.split(rows, np.searchsorted(starts, cuts)):
        if len(load):
            yield Spans(load)


def packed(load: Spans) -> tuple[Spans, Spans]:
    """`load` by way of a buffer that is filled from its start: the spans into the buffer, and those out of it."""
    into, out = load.rows.copy(), load.rows.copy()
    into[:, 1] = out[:, 0] = load.rows[:, 2].cumsum() - load.rows[:, 2]
    return Spans(into), Spans(out)
