import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import sequence
from tetribench.kv.blocks import BlockAllocator


@pytest.mark.parametrize(("num_blocks", "block_size"), [(0, 16), (1, 0)])
def test_memory_without_room_for_a_token_is_refused(num_blocks: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="at least one block of one token"):
        BlockAllocator(num_blocks=num_blocks, block_size=block_size)


def test_a_sequence_gets_the_blocks_that_it_lacks() -> None:
    kv, one = BlockAllocator(num_blocks=4, block_size=16), sequence()
    kv.extend(one, 17)
    assert len(one.block_ids) == 2
    first_two = list(one.block_ids)
    kv.extend(one, 32)
    assert one.block_ids == first_two
    kv.extend(one, 33)
    assert one.block_ids[:2] == first_two and len(one.block_ids) == 3
    assert (kv.num_free, kv.num_used, kv.num_free_tokens, kv.num_total_tokens) == (1, 3, 16, 64)


def test_can_hold_counts_what_the_sequence_has() -> None:
    kv, one, other = BlockAllocator(num_blocks=3, block_size=4), sequence(), sequence(1)
    kv.extend(one, 5)
    assert kv.can_hold(one, 12) and not kv.can_hold(one, 13)
    assert kv.can_hold(other, 4) and not kv.can_hold(other, 5)


def test_released_blocks_come_back_and_the_kv_is_lost() -> None:
    kv, one, other = BlockAllocator(num_blocks=2, block_size=4), sequence(), sequence(1)
    kv.extend(one, 8)
    one.num_computed = 8
    kv.release(one)
    assert one.block_ids == [] and one.num_computed == 0
    kv.extend(other, 8)
    kv.check([one, other])


def test_extending_beyond_free_memory_is_our_own_error() -> None:
    kv = BlockAllocator(num_blocks=1, block_size=4)
    with pytest.raises(AssertionError, match="without asking"):
        kv.extend(sequence(), 5)


def test_a_lost_and_a_doubled_block_are_found() -> None:
    kv, one = BlockAllocator(num_blocks=2, block_size=4), sequence()
    kv.extend(one, 4)
    with pytest.raises(AssertionError, match="lost or held twice"):
        kv.check([])
    with pytest.raises(AssertionError, match="lost or held twice"):
        kv.check([one, one])
    doubled = sequence(1)
    doubled.block_ids = [*one.block_ids, 1, 1]
    with pytest.raises(AssertionError, match="released a block twice"):
        kv.release(doubled)


@given(
    st.integers(1, 12),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 60)), max_size=40),
)
def test_every_block_is_free_or_held_once(num_blocks: int, block_size: int, steps: list[tuple[int, bool, int]]) -> None:
    kv, sequences = BlockAllocator(num_blocks=num_blocks, block_size=block_size), [sequence(id) for id in range(4)]
    for index, is_release, num_tokens in steps:
        one = sequences[index]
        if is_release:
            kv.release(one)
        elif kv.can_hold(one, num_tokens):
            kv.extend(one, num_tokens)
            assert len(one.block_ids) * block_size >= num_tokens
        else:
            assert kv.blocks_for(num_tokens) > len(one.block_ids) + kv.num_free
        kv.check(sequences)
