"""Blocks have 4 tokens and 400 bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import info, sequence
from tetribench.core.sequence import Sequence
from tetribench.decode.preempt import PreemptedQueue, Preemption
from tetribench.kv.blocks import BlockAllocator


def queue(
    num_blocks: int = 10, num_host_blocks: int = 10, preemption: Preemption = Preemption.swap
) -> tuple[PreemptedQueue, BlockAllocator]:
    kv = BlockAllocator(num_blocks=num_blocks, block_size=4)
    return PreemptedQueue(preemption, kv, info(num_blocks, 4, num_host_blocks=num_host_blocks)), kv


def decoding(kv: BlockAllocator, id: int, num_tokens: int) -> Sequence:
    """With all tokens but its latest computed, and room for that one too."""
    made = sequence(id, num_tokens - 1, produced=1)
    kv.extend(made, num_tokens)
    made.num_computed = num_tokens - 1
    return made


def test_what_is_swapped_out_keeps_what_was_computed_and_comes_back_to_other_blocks() -> None:
    waiting, kv = queue()
    one = decoding(kv, 1, 10)
    waiting.evict(one)
    assert (one.block_ids, one.num_computed, kv.num_used) == ([], 9, 0)
    assert waiting.details(one) == {"how": "swap", "num_tokens": 10, "num_bytes": 3 * 400}
    outs, ins = waiting.take_swaps()
    assert [device for device, _ in outs] == [0, 1, 2] and ins == []
    kv.extend(sequence(2, 5), 5)
    assert waiting.first is one and waiting.bring_back() is one
    outs_again, ins = waiting.take_swaps()
    assert outs_again == [] and [device for device, _ in ins] == one.block_ids == [2, 3, 4]
    assert [host for _, host in ins] == [host for _, host in outs]
    assert one.num_uncomputed == 1 and len(waiting) == 0
    waiting.check()


def test_only_blocks_with_computed_tokens_are_copied() -> None:
    """Four tokens are computed; the block that the fifth was to go to holds nothing."""
    waiting, kv = queue()
    one = decoding(kv, 1, 5)
    waiting.evict(one)
    assert len(waiting.take_swaps()[0]) == 1 and waiting.details(one)["num_bytes"] == 400
    waiting.bring_back()
    assert len(one.block_ids) == 2 and len(waiting.take_swaps()[1]) == 1


def test_what_finds_the_host_memory_full_is_recomputed() -> None:
    waiting, kv = queue(num_host_blocks=3)
    early, late = decoding(kv, 1, 9), decoding(kv, 2, 9)
    waiting.evict(late)
    waiting.evict(early)
    assert [waiting.details(one)["how"] for one in (early, late)] == ["recompute", "swap"]
    assert waiting.details(early) == {"how": "recompute", "num_tokens": 9, "num_bytes": 0}
    assert (early.num_computed, late.num_computed) == (0, 8)
    assert list(waiting) == [early, late], "whoever was admitted first comes back first, however it comes"
    waiting.check()


def test_without_swapping_nothing_is_copied() -> None:
    waiting, kv = queue(num_host_blocks=0, preemption=Preemption.recompute)
    one = decoding(kv, 1, 9)
    waiting.evict(one)
    assert waiting.details(one) == {"how": "recompute", "num_tokens": 9, "num_bytes": 0}
    assert waiting.bring_back() is one and one.num_computed == 0 and len(one.block_ids) == 3
    assert waiting.take_swaps() == ([], [])
    waiting.check()


def test_in_before_out_would_overwrite_what_comes_back() -> None:
    waiting, kv = queue()
    waiting.evict(decoding(kv, 1, 4))
    other = decoding(kv, 2, 4)
    waiting.take_swaps()
    waiting.bring_back()
    with pytest.raises(AssertionError, match="after another was brought back"):
        waiting.evict(other)


def test_host_memory_of_nobody_is_found() -> None:
    waiting, kv = queue()
    one = decoding(kv, 1, 4)
    waiting.evict(one)
    waiting._order.clear()
    with pytest.raises(AssertionError, match="not preempted"):
        waiting.check()


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 20)), max_size=60), st.integers(1, 12))
def test_every_block_is_free_or_held_once_on_both_sides(steps: list[tuple[bool, int]], num_host_blocks: int) -> None:
    """Sequences come, go out and come back; what the copies move is what each of them had."""
    waiting, kv = queue(15, num_host_blocks)
    device: dict[int, int] = {}
    host: dict[int, int] = {}
    members: list[Sequence] = []

    def copy() -> None:
        outs, ins = waiting.take_swaps()
        for source, target in outs:
            host[target] = device.pop(source)
        for target, source in ins:
            device[target] = host.pop(source)

    for id, (is_new, num_tokens) in enumerate(steps):
        if num_tokens % 3:  # else out and in may come in one iteration
            copy()
        if is_new and kv.num_free_tokens >= num_tokens:
            copy()  # computed KV is written after the copies
            members.append(decoding(kv, id, num_tokens))
            device |= dict.fromkeys(members[-1].block_ids, id)
        elif members and num_tokens % 2:
            if waiting._ins:
                copy()
            waiting.evict(members.pop())
        elif len(waiting) and kv.can_hold(waiting.first, waiting.first.num_tokens):
            members.append(waiting.bring_back())
            if not members[-1].num_computed:  # the recomputation
                copy()
                members[-1].num_computed = members[-1].num_tokens - 1
                device |= dict.fromkeys(members[-1].block_ids, members[-1].request.id)
        kv.check(members)
        waiting.check()
    copy()
    for one in members:
        num_written = kv.blocks_for(one.num_computed)
        assert {device[block] for block in one.block_ids[:num_written]} == {one.request.id}
