"""Which bytes go where: neighbouring blocks travel as one piece. Pure; links and swapping use it."""

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf

from tetribench.engine.base import Part, Span


def spans(
    source_ids: SequenceOf[int], target_ids: SequenceOf[int], block_bytes: int, part: Part | None = None
) -> list[Span]:
    """The longest pieces that copy block `source_ids[i]` to `target_ids[i]` for every i, in the order of the source.

    With a `part`, only that of every block.
    """
    found: list[Span] = []
    offset, num_bytes = part or Part(0, block_bytes)
    for source_id, target_id in sorted(zip(source_ids, target_ids, strict=True)):
        source, target = source_id * block_bytes + offset, target_id * block_bytes + offset
        if found:
            last = found[-1]
            if last.source + last.num_bytes == source and last.target + last.num_bytes == target:
                found[-1] = Span(last.source, last.target, last.num_bytes + num_bytes)
                continue
        found.append(Span(source, target, num_bytes))
    return found


def loads(whole: SequenceOf[Span], limit_bytes: int) -> Iterator[list[Span]]:
    """`whole` in parts of at most `limit_bytes`, cutting spans where a part is full: what a bounce buffer holds."""
    assert limit_bytes >= 1
    load: list[Span] = []
    left_bytes = limit_bytes
    for source, target, num_bytes in whole:
        while num_bytes:
            size = min(num_bytes, left_bytes)
            load.append(Span(source, target, size))
            source, target, num_bytes, left_bytes = source + size, target + size, num_bytes - size, left_bytes - size
            if left_bytes == 0:
                yield load
                load, left_bytes = [], limit_bytes
    if load:
        yield load


def packed(load: SequenceOf[Span]) -> tuple[list[Span], list[Span]]:
    """`load` by way of a buffer that is filled from its start: the spans into the buffer, and those out of it."""
    into, out, offset = [], [], 0
    for source, target, num_bytes in load:
        into.append(Span(source, offset, num_bytes))
        out.append(Span(offset, target, num_bytes))
        offset += num_bytes
    return into, out
