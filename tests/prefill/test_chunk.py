from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import sequence
from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch
from tetribench.kv.blocks import BlockAllocator
from tetribench.prefill.chunk import Chunker


def spans(batch: Batch | None) -> list[tuple[int, int, int]]:
    assert batch is not None
    return [(chunk.sequence.request.id, chunk.start, chunk.num_tokens) for chunk in batch.prefill]


def compute(batch: Batch | None) -> None:
    assert batch is not None
    for chunk in batch.prefill:
        chunk.sequence.num_computed += chunk.num_tokens


def test_a_chunk_ends_one_prompt_and_begins_the_next() -> None:
    kv, scheduled = BlockAllocator(num_blocks=100, block_size=4), deque([sequence(0, 5), sequence(1, 9)])
    chunker = Chunker(chunk_size=8)
    first = chunker.cut(scheduled, kv)
    assert first is not None and spans(first) == [(0, 0, 5), (1, 0, 3)]
    assert [chunk.yields_token for chunk in first.prefill] == [True, False]
    assert [one.request.id for one in scheduled] == [1]
    compute(first)
    second = chunker.cut(scheduled, kv)
    assert spans(second) == [(1, 3, 6)]
    assert second is not None and second.prefill[0].yields_token and not second.decode
    assert not scheduled
    assert chunker.cut(scheduled, kv) is None


@pytest.mark.parametrize(("pad", "expected"), [(True, [0, 3]), (False, [0, 0])])
def test_only_what_the_queue_cannot_fill_is_padded(pad: bool, expected: list[int]) -> None:
    kv, scheduled = BlockAllocator(num_blocks=100, block_size=4), deque([sequence(0, 13)])
    chunker, found = Chunker(chunk_size=8, pad=pad), []
    for _ in range(2):
        batch = chunker.cut(scheduled, kv)
        assert batch is not None
        found.append(batch.num_padding_tokens)
        compute(batch)
    assert found == expected


def test_a_prompt_gets_all_of_its_blocks_with_its_first_chunk() -> None:
    kv, one = BlockAllocator(num_blocks=4, block_size=4), sequence(0, 13)
    Chunker(chunk_size=2).cut(deque([one]), kv)
    assert len(one.block_ids) == 4


def test_the_first_in_line_waits_for_memory_and_nobody_overtakes_it() -> None:
    kv = BlockAllocator(num_blocks=3, block_size=4)
    scheduled = deque([sequence(0, 4), sequence(1, 12), sequence(2, 4)])
    batch = Chunker(chunk_size=100).cut(scheduled, kv)
    assert spans(batch) == [(0, 0, 4)]
    assert Chunker(chunk_size=100).cut(scheduled, kv) is None
    assert [one.request.id for one in scheduled] == [1, 2]


def test_a_prompt_that_was_begun_goes_on_when_memory_is_full() -> None:
    kv, scheduled = BlockAllocator(num_blocks=3, block_size=4), deque([sequence(0, 12), sequence(1, 1)])
    chunker = Chunker(chunk_size=8)
    compute(chunker.cut(scheduled, kv))
    assert kv.num_free == 0
    assert spans(chunker.cut(scheduled, kv)) == [(0, 8, 4)]


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prefill.chunk.chunk_size=0: must be at least 1"):
        Chunker(chunk_size=0)


def test_by_default_a_chunk_is_the_papers() -> None:
    assert Chunker().chunk_size == 512


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 40))
def test_the_stream_is_cut_without_loss_into_full_chunks(prompts: list[int], chunk_size: int) -> None:
    kv = BlockAllocator(num_blocks=1000, block_size=4)
    sequences = [sequence(id, prompt) for id, prompt in enumerate(prompts)]
    scheduled, chunker, sizes, order = deque(sequences), Chunker(chunk_size=chunk_size), [], list[Sequence]()
    while (batch := chunker.cut(scheduled, kv)) is not None:
        sizes.append(batch.num_prefill_tokens)
        order += [chunk.sequence for chunk in batch.prefill if chunk.start == 0]
        compute(batch)
    assert order == sequences and all(one.num_uncomputed == 0 for one in sequences)
    assert sizes[:-1] == [chunk_size] * (len(sizes) - 1) and sum(sizes) == sum(prompts)
