"""A decode instance when others are lost or close their ways, and when it drains itself."""

from itertools import permutations

import pytest

from tests.decode.test_decode_scheduler import LIGHT, arrive, events, granted, reserve, scheduler, step
from tests.support.builders import request
from tetribench.core.events import EventKind
from tetribench.core.messages import (
    Arrived,
    Close,
    Closed,
    Drain,
    Granted,
    LoadBroadcast,
    Lost,
    Message,
    Orphaned,
    Released,
    Reserve,
    TokenOutput,
)
from tetribench.core.roles import Role
from tetribench.decode.scheduler import DecodeScheduler


def again(made: DecodeScheduler, id: int, output_ids: list[int], *, ticket: int = 50, prompt: int = 4) -> None:
    """Attempt 2 of a request asks for memory, from another instance."""
    made.receive(Reserve("prefill-1", ticket, request(id, prompt, 100), 2, output_ids, LIGHT), 3.0)


def orphaned(made: DecodeScheduler) -> list[tuple[str, Message]]:
    found: list[tuple[str, Message]] = [one for one in made.outbox.messages if isinstance(one[1], Orphaned)]
    made.outbox.messages.clear()
    return found


def test_a_request_that_begins_again_gets_room_for_its_tokens_too_and_goes_on_after_them() -> None:
    made = scheduler()
    again(made, 3, [70, 71], prompt=7)
    assert made.num_used_blocks == 3
    made.receive(Arrived("prefill-1", 50, 72), 3.5)
    (one,) = step(made, r3=73).decode
    assert one.output_ids == [70, 71, 72, 73] and one.num_computed == 10
    assert made.outbox.outputs == [TokenOutput(3, 2, 3, 73, False)]


def test_tickets_are_the_senders_own() -> None:
    made = scheduler()
    reserve(made, 0)
    made.receive(Reserve("prefill-1", 0, request(1), 1, [], LIGHT), 1.0)
    made.receive(Released("prefill-1", 0), 2.0)
    made.receive(Arrived("prefill-0", 0, 70), 3.0)
    assert [one.request.id for one in step(made).decode] == [0]


def test_what_was_to_come_from_a_lost_instance_is_dropped_and_reported() -> None:
    made = scheduler(num_blocks=1)
    reserve(made, 0)
    reserve(made, 1)
    granted(made)
    made.receive(Lost("prefill-0", {}), 2.0)
    assert orphaned(made) == [("control", Orphaned("decode-0", {1: 1, 0: 1}))]
    made.check()


def test_what_has_come_from_a_lost_instance_goes_on() -> None:
    made = scheduler()
    arrive(made, 0, output=2)
    made.receive(Lost("prefill-0", {}), 2.0)
    assert orphaned(made) == []
    assert [output.is_last for output in (step(made), made.outbox.outputs[-1])[1:]] == [True]


def test_what_comes_from_others_is_left_alone() -> None:
    made = scheduler()
    reserve(made, 0)
    made.receive(Lost("prefill-1", {}), 2.0)
    assert orphaned(made) == [] and made.num_used_blocks == 1


def test_memory_of_what_is_dropped_goes_to_those_that_ask() -> None:
    made = scheduler(num_blocks=1)
    reserve(made, 0)
    again(made, 1, [])
    granted(made)
    made.receive(Lost("prefill-0", {}), 2.0)
    assert granted(made) == [50]


def test_a_late_arrival_of_what_was_dropped_is_nobodys() -> None:
    made = scheduler()
    reserve(made, 0)
    made.receive(Lost("prefill-0", {0: 2}), 2.0)
    made.receive(Arrived("prefill-0", 0, 70), 2.5)
    assert made.next_batch(3.0) is None
    made.check()


def test_an_attempt_that_was_given_up_is_dropped_wherever_it_is() -> None:
    """Running, preempted, on its way, or asking."""
    made = scheduler(num_blocks=4)
    arrive(made, 0, 1, output=10)
    for _ in range(5):
        step(made)
    assert events(made, EventKind.PREEMPTED) == [1]
    reserve(made, 2)
    made.receive(Lost("prefill-9", {0: 2, 1: 2, 2: 2}), 3.0)
    assert made.next_batch(4.0) is None
    made.check()


def test_the_present_attempt_is_not_dropped() -> None:
    made = scheduler()
    again(made, 0, [])
    made.receive(Lost("prefill-0", {0: 2}), 3.0)
    assert made.num_used_blocks == 1


def test_a_new_attempt_takes_the_place_of_the_one_before_it_before_the_loss_is_known() -> None:
    made = scheduler()
    arrive(made, 0)
    again(made, 0, [70])
    assert made.num_used_blocks == 2 and made.next_batch(3.0) is None
    made.receive(Arrived("prefill-1", 50, 71), 3.5)
    (one,) = step(made).decode
    assert one.attempt == 2


def test_a_sequence_dropped_while_an_iteration_computes_it_keeps_its_blocks_until_that_ends() -> None:
    made = scheduler(num_blocks=4)
    arrive(made, 0, 1)
    batch = made.next_batch(2.0)
    assert batch is not None
    blocks = [list(one.block_ids) for one in batch.decode]
    made.receive(Lost("prefill-9", {0: 2, 1: 2}), 2.5)
    again(made, 0, [])
    assert [one.block_ids for one in batch.decode] == blocks
    assert granted(made) == [0, 1], "there is no room while they are computed"
    with pytest.raises(AssertionError, match="forgot a request"):
        made.check()
    made.complete(batch, {0: 7, 1: 8}, 3.0)
    assert made.outbox.outputs == [] and granted(made) == [50]
    made.receive(Released("prefill-1", 50), 3.5)
    made.check()


def test_a_recomputed_sequence_dropped_meanwhile_keeps_its_blocks_until_that_ends() -> None:
    made = scheduler(num_blocks=4)
    arrive(made, 0, 1, output=10)
    batch = made.next_batch(2.0)
    while batch is not None and not batch.prefill:
        made.complete(batch, {one.request.id: 0 for one in batch.decode}, 2.0)
        batch = made.next_batch(2.0)
    assert batch is not None
    made.outbox.outputs.clear()
    made.receive(Lost("prefill-9", {1: 2}), 2.5)
    assert made.num_used_blocks == 3
    made.complete(batch, {1: 5}, 3.0)
    assert made.outbox.outputs == []
    made.check()


def test_a_sequence_in_recomputation_may_be_dropped_between_two_chunks() -> None:
    made = scheduler(num_blocks=4, recompute_chunk_size=2)
    arrive(made, 0, 1, output=10)
    while not step(made).prefill:
        pass
    made.receive(Lost("prefill-9", {1: 2}), 2.5)
    made.check()


def test_a_new_attempt_that_joins_while_the_old_one_is_computed_does_not_get_its_token() -> None:
    made = scheduler()
    arrive(made, 0)
    batch = made.next_batch(2.0)
    assert batch is not None
    again(made, 0, [70, 71, 72])
    made.receive(Arrived("prefill-1", 50, 73), 2.5)
    made.complete(batch, {0: 9999}, 3.0)
    assert made.outbox.outputs == []
    (one,) = step(made, r0=74).decode
    assert one.output_ids == [70, 71, 72, 73, 74]


# --- drain ------------------------------------------------------------------------------------------------------------


def test_it_is_drained_once_all_have_closed_their_ways_in_whatever_order_the_news_comes() -> None:
    messages: list[Message] = [Drain(Role.prefill, ["prefill-0", "prefill-1"])]
    messages += [Closed("prefill-0"), Closed("prefill-1")]
    for order in permutations(messages):
        made = scheduler()
        for message in order:
            assert not made.is_drained
            made.receive(message, 1.0)
        assert made.is_drained


def test_a_lost_instance_closes_its_way_too() -> None:
    made = scheduler()
    made.receive(Drain(None, ["prefill-0"]), 1.0)
    made.receive(Lost("prefill-0"), 2.0)
    assert made.is_drained


def test_it_finishes_what_it_has_first() -> None:
    made = scheduler()
    arrive(made, 0, output=2)
    reserve(made, 1)
    made.receive(Closed("prefill-0"), 1.0)
    made.receive(Drain(None, ["prefill-0"]), 1.0)
    step(made)
    assert not made.is_drained
    made.receive(Released("prefill-0", 1), 3.0)
    assert made.is_drained


def test_it_is_not_drained_while_an_iteration_computes_what_was_dropped() -> None:
    made = scheduler()
    arrive(made, 0)
    batch = made.next_batch(2.0)
    assert batch is not None
    made.receive(Drain(None, []), 2.0)
    made.receive(Lost("prefill-9", {0: 2}), 2.5)
    assert not made.is_drained
    made.complete(batch, {0: 1}, 3.0)
    assert made.is_drained


def test_what_comes_for_the_prefill_instance_that_it_was() -> None:
    made = scheduler()
    for message in (LoadBroadcast({}), Granted(3, [1, 2])):
        made.receive(message, 1.0)
    assert made.outbox.messages == []
    made.receive(Close("decode-7"), 1.0)
    assert made.outbox.messages == [("decode-7", Closed("decode-0"))]
    made.check()
