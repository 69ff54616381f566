"""The decode scheduler with `preemption: swap`; blocks of 4 tokens and 400 bytes."""

from tests.decode.test_decode_scheduler import arrive, events, granted, reserve, step
from tests.support.builders import info
from tetribench.core.events import EventKind
from tetribench.core.messages import Arrived, Lost
from tetribench.decode.admit import Greedy
from tetribench.decode.preempt import Preemption
from tetribench.decode.scheduler import DecodePolicies, DecodeScheduler
from tetribench.engine.base import Batch


def scheduler(num_blocks: int, num_host_blocks: int = 20, recompute_chunk_size: int = 512) -> DecodeScheduler:
    policies = DecodePolicies(
        admit=Greedy(), preemption=Preemption.swap, recompute_chunk_size=recompute_chunk_size, watermark=0.0
    )
    return policies.build("decode-0", info(num_blocks, 4, num_host_blocks=num_host_blocks))


def full(num_host_blocks: int = 20) -> DecodeScheduler:
    """Two members with 4 + 1 tokens in 4 blocks: after 3 more tokens each needs a third block and there is none."""
    made = scheduler(4, num_host_blocks)
    arrive(made, 0, 1, output=10)
    for _ in range(4):
        step(made)
    return made


def how(made: DecodeScheduler) -> list[tuple[int, str]]:
    found = [event for event in made.outbox.events if event.kind is EventKind.PREEMPTED]
    return [(event.requests[0], event.details["how"]) for event in found]


def ids(batch: Batch) -> list[int]:
    return [one.request.id for one in batch.decode]


def drain(made: DecodeScheduler) -> list[Batch]:
    batches = []
    while (batch := made.next_batch(9.0)) is not None:
        batches.append(batch)
        made.complete(batch, {one.request.id: 0 for one in [*batch.decode, *(c.sequence for c in batch.prefill)]}, 9.0)
    return batches


def test_the_last_admitted_goes_out_and_the_others_decode_in_the_same_iteration() -> None:
    made = full()
    batch = step(made, 7.0)
    assert ids(batch) == [0] and len(batch.swap_out) == 2 and batch.swap_in == []
    (event,) = [event for event in made.outbox.events if event.kind is EventKind.PREEMPTED]
    assert (event.requests, event.time_s) == ((1,), 7.0)
    assert event.details == {"how": "swap", "num_tokens": 9, "num_bytes": 800}


def test_it_decodes_in_the_iteration_that_brings_it_back() -> None:
    made = full()
    batches = [step(made)]
    while not batches[-1].swap_in:
        batches.append(step(made))
    assert ids(batches[-1]) == [1] and batches[-1].swap_out == []
    assert [host for _, host in batches[-1].swap_in] == [host for _, host in batches[0].swap_out]
    assert events(made, EventKind.ADMITTED) == [0, 1, 1]
    assert not any(batch.prefill for batch in [*batches, *drain(made)]), "nothing is computed twice"
    assert [output.request_id for output in made.outbox.outputs].count(1) == 9
    made.check()


def test_it_comes_before_all_that_ask() -> None:
    made = full()
    reserve(made, 2)
    step(made)
    assert granted(made) == [0, 1]
    while 1 not in ids(step(made)):
        assert granted(made) == []
    assert granted(made) == [2]


def test_with_the_host_memory_full_it_is_recomputed() -> None:
    made = full(num_host_blocks=1)
    step(made)
    assert how(made) == [(1, "recompute")]
    batches = drain(made)
    assert sum(batch.num_prefill_tokens for batch in batches) == 9 and not any(batch.swap_in for batch in batches)
    made.check()


def test_the_swapped_and_the_recomputed_come_back_in_one_line() -> None:
    """Host memory for one of two: the earlier is recomputed, and the swapped one does not overtake it."""
    made = scheduler(6, num_host_blocks=2)
    arrive(made, 0, 1, 2, output=20)
    while len(how(made)) < 2:
        step(made)
    assert how(made) == [(2, "swap"), (1, "recompute")]
    drain(made)
    assert events(made, EventKind.ADMITTED)[3:5] == [1, 2]
    made.check()


def test_a_member_that_makes_room_for_itself_leaves_a_batch_of_swaps_alone() -> None:
    """Memory of 3 blocks: a member of 8 tokens needs its third, which a request on its way holds."""
    made = scheduler(3)
    reserve(made, 0, prompt=8, output=5)
    reserve(made, 1, prompt=4, output=2)
    made.receive(Arrived("prefill-0", 0, 70), 1.0)
    batch = step(made)
    assert (batch.decode, batch.prefill, len(batch.swap_out)) == ([], [], 2)
    assert made.next_batch(2.0) is None
    made.receive(Arrived("prefill-0", 1, 71), 3.0)
    batches = drain(made)
    assert [ids(batch) for batch in batches[:2]] == [[1], [0]]
    assert batches[1].swap_in and events(made, EventKind.ADMITTED) == [0, 1, 0]
    made.check()


def test_nobody_comes_back_while_somebody_must_leave() -> None:
    made = scheduler(7)
    arrive(made, 0, 1, 2, output=24)
    batches = drain(made)
    assert any(batch.swap_out for batch in batches) and any(batch.swap_in for batch in batches)
    assert not any(batch.swap_out and batch.swap_in for batch in batches)
    made.check()


def test_several_may_come_back_at_once() -> None:
    made = scheduler(9)
    arrive(made, 0, prompt=4, output=26)
    arrive(made, 1, 2, prompt=4, output=20)
    batches = drain(made)
    back = [batch for batch in batches if batch.swap_in]
    assert max(len(batch.decode) for batch in back) > 1
    made.check()


def test_a_swapped_request_that_begins_again_elsewhere_gives_back_its_host_memory() -> None:
    made = scheduler(6)
    arrive(made, 0, 1, 2, output=20)
    while not how(made):
        step(made)
    assert how(made) == [(2, "swap")]
    made.receive(Lost("prefill-9", {2: 2}), 5.0)
    drain(made)
    assert events(made, EventKind.ADMITTED)[:3] == [0, 1, 2] and 2 not in events(made, EventKind.ADMITTED)[3:]
    made.check()
