from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request, sequence
from tetribench.core.messages import TokenOutput
from tetribench.core.sequence import Sequence
from tetribench.decode.running import RunningBatch
from tetribench.kv.blocks import BlockAllocator


def running(num_blocks: int, *prompts: int) -> tuple[RunningBatch, BlockAllocator, list[Sequence]]:
    """Members with a full prompt computed and their first token, in blocks of 4."""
    kv = BlockAllocator(num_blocks=num_blocks, block_size=4)
    batch, members = RunningBatch(kv), []
    for id, prompt in enumerate(prompts):
        one = sequence(id, prompt)
        kv.extend(one, prompt)
        one.num_computed, one.output_ids = prompt, [0]
        batch.members.append(one)
        members.append(one)
    return batch, kv, members


def test_growing_gives_room_for_one_more_token() -> None:
    batch, _, (first, second) = running(4, 4, 3)
    assert batch.grow() == [] and len(batch) == 2
    assert (len(first.block_ids), len(second.block_ids)) == (2, 1)


def test_who_came_last_makes_room() -> None:
    batch, kv, (first, second, third) = running(4, 4, 4, 8)
    assert batch.grow() == [third]
    assert batch.members == [first, second] and third.block_ids == [] and third.num_computed == 0
    assert third.num_tokens == 9
    kv.check([first, second])


def test_several_make_room_one_after_the_other_the_last_first() -> None:
    batch, _, (first, second, third) = running(3, 4, 4, 4)
    assert batch.grow() == [third, second]
    assert batch.members == [first]


def test_a_member_may_have_to_make_room_for_itself() -> None:
    batch, kv, (first,) = running(2, 8)
    assert batch.grow() == [first]
    assert batch.members == [] and kv.num_free == 2


def test_tokens_go_to_those_that_ran_and_ended_ones_give_back_their_memory() -> None:
    batch, kv, (first, second, third) = running(6, 3, 3, 3)
    second.request = request(1, 3, 2)
    outputs = batch.take({first, second}, {0: 50, 1: 51}, frozenset())
    assert outputs == [TokenOutput(0, 1, 1, 50, False), TokenOutput(1, 1, 1, 51, True)]
    assert batch.members == [first, third]
    assert (first.output_ids, first.num_computed, first.num_uncomputed) == ([0, 50], 4, 1)
    assert third.output_ids == [0] and third.num_computed == 3
    kv.check([first, third])


def test_a_member_in_its_prefill_has_its_memory_and_gets_a_token_when_its_prompt_is_done() -> None:
    batch, kv, (_, second, third) = running(9, 3, 7, 7)
    for prompt, num_computed in ((second, 3), (third, 3)):
        prompt.output_ids, prompt.num_computed = [], num_computed
    assert batch.grow() == [] and [len(one.block_ids) for one in batch.members] == [1, 2, 2]
    assert batch.take(set(batch.members), {0: 50, 1: 51}, frozenset()) == [
        TokenOutput(0, 1, 1, 50, False),
        TokenOutput(1, 1, 0, 51, False),
    ]
    assert (second.output_ids, second.num_computed, second.num_uncomputed) == ([51], 7, 1)
    assert (third.output_ids, third.num_computed) == ([], 3)
    kv.check(batch.members)


def test_a_member_in_its_prefill_that_came_last_makes_room_first() -> None:
    batch, _, (first, second) = running(3, 4, 7)
    second.output_ids, second.num_computed = [], 3
    assert batch.grow() == [second] and second.num_computed == 0
    assert batch.members == [first]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(2, 30)), min_size=1, max_size=6), st.integers(0, 20), st.data()
)
def test_many_iterations_at_once_are_those_one_by_one(
    sizes: list[tuple[int, int]], num_spare: int, data: st.DataObject
) -> None:
    num_blocks = sum(-(-(prompt + 1) // 4) for prompt, _ in sizes) + num_spare
    (fast, kv, members), (slow, _, _) = (running(num_blocks, *[prompt for prompt, _ in sizes]) for _ in range(2))
    for batch in (fast, slow):
        for one, (prompt, output) in zip(batch.members, sizes, strict=True):
            one.request = request(one.request.id, prompt, output)
        assert batch.grow() == []
    num_steady = fast.num_steady_iterations()
    num_iterations = data.draw(st.integers(1, num_steady))
    num_used = []
    for _ in range(num_iterations - 1):
        outputs = slow.take(set(slow.members), {one.request.id: 0 for one in slow.members}, frozenset())
        assert not any(output.is_last for output in outputs)
        assert slow.grow() == []
        num_used.append(sum(len(one.block_ids) for one in slow.members))
    if num_iterations > 1:
        assert fast.advance(num_iterations - 1) == num_used
    facts = [(one.output_ids, one.num_computed, len(one.block_ids)) for one in fast.members]
    assert facts == [(one.output_ids, one.num_computed, len(one.block_ids)) for one in slow.members]
    kv.check(members)
    if num_iterations == num_steady:
        outputs = slow.take(set(slow.members), {one.request.id: 0 for one in slow.members}, frozenset())
        assert any(output.is_last for output in outputs) or slow.grow() != [], "it could have been longer"
