"""Which bytes go where: neighbouring blocks travel as one piece. Pure; links and swapping use it."""

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf

import numpy as np

from tetribench.engine.base import Part, Spans


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
