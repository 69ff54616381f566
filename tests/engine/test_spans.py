import random
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.engine.base import Part
from tetribench.engine.spans import Span, Spans, loads, packed, spans

BLOCK_BYTES = 7


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Ids with runs in them: a permutation of pieces of neighbours, on either side."""
    sizes = draw(st.lists(st.integers(1, 4), max_size=6))

    def ids() -> list[int]:
        order = draw(st.permutations(range(len(sizes))))
        gap, starts, start = draw(st.integers(0, 1)), {}, 0
        for index in order:
            starts[index] = start
            start += sizes[index] + gap
        return [starts[index] + offset for index, size in enumerate(sizes) for offset in range(size)]

    return ids(), ids()


def moved(pieces: Iterable[Span]) -> dict[int, int]:
    """Target byte by source byte."""
    found = {}
    for source, target, num_bytes in pieces:
        for offset in range(num_bytes):
            assert source + offset not in found, "a byte is moved twice"
            found[source + offset] = target + offset
    return found


@given(pairs())
def test_spans_move_every_byte_of_the_blocks_and_no_other(ids: tuple[list[int], list[int]]) -> None:
    expected = {
        source * BLOCK_BYTES + offset: target * BLOCK_BYTES + offset
        for source, target in zip(*ids, strict=True)
        for offset in range(BLOCK_BYTES)
    }
    assert moved(spans(*ids, BLOCK_BYTES)) == expected


@given(pairs(), st.integers(0, BLOCK_BYTES - 1), st.data())
def test_a_part_is_the_same_of_every_block(ids: tuple[list[int], list[int]], offset: int, data: st.DataObject) -> None:
    part = Part(offset, data.draw(st.integers(1, BLOCK_BYTES - offset)))
    inside = range(part.offset, part.offset + part.num_bytes)
    whole = moved(spans(*ids, BLOCK_BYTES))
    expected = {source: target for source, target in whole.items() if source % BLOCK_BYTES in inside}
    assert moved(spans(*ids, BLOCK_BYTES, part)) == expected


@given(pairs())
def test_no_two_spans_could_be_one(ids: tuple[list[int], list[int]]) -> None:
    pieces = spans(*ids, BLOCK_BYTES)
    ends = {(piece.source + piece.num_bytes, piece.target + piece.num_bytes) for piece in pieces}
    assert not ends & {(piece.source, piece.target) for piece in pieces}
    assert all(one.source < other.source for one, other in pairwise(pieces))


@given(pairs(), st.integers(1, 40))
def test_loads_are_full_but_for_the_last_and_together_the_whole(ids: tuple[list[int], list[int]], limit: int) -> None:
    whole = spans(*ids, BLOCK_BYTES)
    parts = list(loads(whole, limit))
    sizes = [sum(piece.num_bytes for piece in part) for part in parts]
    assert all(size == limit for size in sizes[:-1]) and all(0 < size <= limit for size in sizes)
    assert moved([piece for part in parts for piece in part]) == moved(whole)
    assert all(piece.num_bytes for part in parts for piece in part)


@given(pairs())
def test_by_way_of_a_buffer_bytes_end_where_they_would_have(ids: tuple[list[int], list[int]]) -> None:
    whole = spans(*ids, BLOCK_BYTES)
    into, out = packed(whole)
    through, beyond = moved(into), moved(out)
    assert sorted(through.values()) == list(range(len(through))), "the buffer is filled from its start"
    assert {source: beyond[offset] for source, offset in through.items()} == moved(whole)


@given(pairs())
def test_spans_survive_a_message_and_turning_twice(ids: tuple[list[int], list[int]]) -> None:
    whole = spans(*ids, BLOCK_BYTES)
    assert list(Spans.from_bytes(whole.to_bytes())) == list(Spans.of(whole)) == list(whole)
    assert list(whole.turned().turned()) == list(whole)
    assert moved(whole.turned()) == {target: source for source, target in moved(whole).items()}


def test_a_message_that_is_no_whole_number_of_spans_is_refused() -> None:
    with pytest.raises(ValueError):
        Spans.from_bytes(bytes(25))
    with pytest.raises(ValueError):
        Spans.from_bytes(bytes(32))


@pytest.mark.parametrize(
    ("span", "lies_within"),
    [
        (Span(0, 0, 10), True),
        (Span(5, 15, 5), True),
        (Span(6, 0, 5), False),
        (Span(0, 16, 5), False),
        (Span(-1, 0, 5), False),
        (Span(0, -1, 5), False),
        (Span(0, 0, 0), False),
        (Span(0, 0, -1), False),
        (Span(2**63 - 1, 0, 5), False),
        (Span(0, 5, 2**63 - 1), False),
    ],
)
def test_what_reaches_out_of_either_memory_is_seen_among_others(span: Span, lies_within: bool) -> None:
    """Of 10 and 20 bytes; a start and a size whose sum overflows are no way round."""
    others = [Span(index, index, 1) for index in range(5)]
    each = [span, *others]
    random.Random(1).shuffle(each)
    assert Spans.of(each).lie_within(10, 20) is lies_within
    assert Spans.of(others).lie_within(10, 20)
