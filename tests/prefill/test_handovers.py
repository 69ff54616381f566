"""A prefill instance's way out when the other end is lost, closed, or cannot be reached, and when it drains itself."""

from typing import Any

import pytest

from tests.prefill.test_prefill_scheduler import finish, kinds, moved, predict, scheduler, step, taken
from tests.support.builders import load, request
from tests.support.engine import STOP_TOKEN
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
    Submit,
    TokenOutput,
)
from tetribench.core.roles import Role
from tetribench.core.sequence import LengthRange
from tetribench.kv.transfer import Granularity, Moved, Push
from tetribench.prefill.handovers import MAX_LINK_FAILURES
from tetribench.prefill.scheduler import PrefillScheduler


def asked(made: PrefillScheduler) -> list[tuple[str, int]]:
    """Whom it has asked for room, on which ticket."""
    return [(to, message.ticket) for to, message in taken(made.outbox.messages) if isinstance(message, Reserve)]


def failed(push: Push) -> Moved:
    return Moved(push, 2.0, 2.5, 0, "the cable is cut")


def retried(made: PrefillScheduler) -> list[dict[str, Any]]:
    return [event.details for event in taken(made.outbox.events) if event.kind is EventKind.RETRIED]


def pushing(output: int = 30, **changes: Any) -> tuple[PrefillScheduler, Push]:
    """A prompt of 8 tokens, which is one chunk, with its KV on the way to decode-0."""
    made = scheduler(100, request(0, prompt=8, output=output), **changes)
    step(made, 1.0)
    made.receive(Granted(0, [5, 6]), 1.5)
    (push,) = taken(made.outbox.pushes)
    taken(made.outbox.messages)
    taken(made.outbox.events)
    return made, push


def arrives(made: PrefillScheduler, to: str, ticket: int, token_id: int = 77) -> None:
    """The handover on `ticket` goes to its end."""
    made.receive(Granted(ticket, [1, 2]), 5.0)
    (push,) = taken(made.outbox.pushes)
    assert (push.to, push.ticket, push.is_last) == (to, ticket, True)
    made.moved(moved(push, 5.0, 6.0))
    assert taken(made.outbox.messages)[-1] == (to, Arrived("prefill-0", ticket, token_id))
    made.check()


def test_a_request_that_begins_again_is_prefilled_with_its_tokens_and_continues_after_them() -> None:
    made = scheduler(100)
    made.receive(Submit(request(0, prompt=8, output=30), 2, [70, 71]), 1.0)
    predict(made, 1.0)
    assert made.load(1.0).num_queued_tokens == 10
    step(made, 2.0)
    assert made.outbox.messages == [
        ("decode-0", Reserve("prefill-0", 0, request(0, 8, 30), 2, [70, 71], LengthRange(0, 200)))
    ]
    step(made, 3.0)
    assert made.outbox.outputs == [TokenOutput(0, 2, 2, 77, False)]
    made.receive(Granted(0, [1, 2, 3]), 4.0)
    (push,) = made.outbox.pushes
    assert len(push.source_ids) == 3 and push.is_last


def test_a_request_of_which_only_the_last_token_is_missing_is_not_dispatched() -> None:
    made = scheduler(100)
    made.receive(Submit(request(0, prompt=4, output=3), 2, [70, 71]), 1.0)
    predict(made, 1.0)
    step(made, 2.0)
    assert made.outbox.messages == [] and made.outbox.outputs == [TokenOutput(0, 2, 2, 77, True)]
    made.check()


# --- the other end is lost --------------------------------------------------------------------------------------------


def test_what_was_asked_of_a_lost_instance_is_asked_of_another_on_a_new_ticket() -> None:
    made = scheduler(100, request(0, prompt=8))
    step(made, 1.0)
    assert asked(made) == [("decode-0", 0)]
    made.receive(Lost("decode-0"), 2.0)
    assert retried(made) == [{"how": "resend", "attempt": 1, "reason": "decode-0 is gone"}]
    assert asked(made) == [("decode-1", 1)]
    arrives(made, "decode-1", 1)


def test_kv_is_sent_again_without_the_token_that_came_after_it() -> None:
    made, push = pushing()
    made.receive(Lost("decode-0"), 2.0)
    ((to, reserve),) = [one for one in made.outbox.messages if isinstance(one[1], Reserve)]
    assert to == "decode-1" and isinstance(reserve, Reserve) and reserve.output_ids == []
    made.moved(moved(push, 1.5, 3.0))
    taken(made.outbox.messages)
    arrives(made, "decode-1", 1)


def test_a_copy_to_a_lost_instance_that_is_under_way_keeps_its_ticket_until_it_ends() -> None:
    made, push = pushing()
    made.receive(Lost("decode-0"), 2.0)
    assert Released not in [type(message) for _, message in made.outbox.messages]
    taken(made.outbox.events)
    made.moved(failed(push))
    assert ("decode-0", Released("prefill-0", 0)) in taken(made.outbox.messages)
    assert retried(made) == [], "a failed copy to a lost instance is no second reason"
    arrives(made, "decode-1", 1)


def test_a_late_grant_on_a_ticket_that_was_given_up_starts_nothing() -> None:
    made = scheduler(100, request(0, prompt=8))
    step(made, 1.0)
    made.receive(Lost("decode-0"), 2.0)
    made.receive(Granted(0, [5, 6]), 2.5)
    assert made.outbox.pushes == []


def test_the_loss_of_an_instance_does_not_touch_what_goes_to_others() -> None:
    made, push = pushing()
    made.receive(Lost("decode-1"), 2.0)
    assert made.outbox.messages == [] == retried(made)
    made.moved(moved(push, 1.5, 3.0))
    made.check()


def test_what_was_delivered_before_the_loss_is_no_longer_this_instances() -> None:
    made, push = pushing()
    made.moved(moved(push, 1.5, 3.0))
    taken(made.outbox.messages)
    made.receive(Lost("decode-0"), 4.0)
    assert made.outbox.messages == []


def test_without_a_decode_instance_kv_waits_for_a_broadcast_that_names_one() -> None:
    made = scheduler(100, request(0, prompt=8))
    made.receive(LoadBroadcast({"decode-0": load()}), 0.5)
    step(made, 1.0)
    made.receive(Lost("decode-0"), 2.0)
    taken(made.outbox.messages)
    assert made.num_used_blocks == 2 and made.load(2.0).num_running == 1
    made.receive(LoadBroadcast({}), 2.5)
    assert asked(made) == []
    made.receive(LoadBroadcast({"decode-5": load()}), 3.0)
    assert asked(made) == [("decode-5", 1)]
    arrives(made, "decode-5", 1)


def test_a_request_that_stops_while_it_waits_for_a_decode_instance_waits_no_more() -> None:
    made = scheduler(100, request(0, prompt=16, natural_stop=True))
    made.receive(LoadBroadcast({}), 0.5)
    step(made, 1.0)
    step(made, 2.0, STOP_TOKEN)
    made.receive(LoadBroadcast({"decode-0": load()}), 3.0)
    assert made.outbox.messages == []
    made.check()


# --- the link fails ---------------------------------------------------------------------------------------------------


def test_kv_that_could_not_be_sent_goes_elsewhere_and_the_room_is_given_back() -> None:
    made, push = pushing()
    made.moved(failed(push))
    assert kinds(made)[0] == (EventKind.RETRIED, 2.5, 0)
    assert asked(made) == [("decode-1", 1)], "what is still on its way to decode-0 may yet land there"
    made.receive(LoadBroadcast({"decode-1": load()}), 3.0)
    assert taken(made.outbox.messages) == [("decode-0", Released("prefill-0", 0))]
    arrives(made, "decode-1", 1)


def test_a_failed_link_to_an_instance_that_is_then_lost_leaves_nothing_to_give_back() -> None:
    made, push = pushing()
    made.moved(failed(push))
    made.receive(Lost("decode-0"), 3.0)
    arrives(made, "decode-1", 1)


def test_a_failed_link_is_on_record_with_its_reason() -> None:
    made, push = pushing()
    made.moved(failed(push))
    assert retried(made) == [{"how": "resend", "attempt": 1, "reason": "the cable is cut"}]


def test_where_there_is_no_other_kv_waits_for_the_next_broadcast() -> None:
    made, push = pushing()
    made.receive(LoadBroadcast({"decode-0": load()}), 2.0)
    made.moved(failed(push))
    assert asked(made) == []
    made.receive(LoadBroadcast({"decode-0": load()}), 3.0)
    assert asked(made) == [("decode-0", 1)]


def test_a_request_whose_kv_could_not_be_sent_so_often_ends_the_instance() -> None:
    made, push = pushing()
    for ticket in range(1, MAX_LINK_FAILURES):
        made.moved(failed(push))
        made.receive(Granted(ticket, [5, 6]), 3.0)
        (push,) = taken(made.outbox.pushes)
    with pytest.raises(RuntimeError, match=rf"request 0: .* not be sent {MAX_LINK_FAILURES} times: the cable"):
        made.moved(failed(push))


def test_pushes_of_a_ticket_that_was_given_up_end_before_its_room_is_given_back() -> None:
    made = scheduler(100, request(0, prompt=16))
    step(made, 1.0)
    made.receive(Granted(0, [1, 2, 3, 4]), 1.5)
    step(made, 2.0)
    first, second = taken(made.outbox.pushes)
    taken(made.outbox.messages)
    made.moved(failed(first))
    assert [to for to, message in taken(made.outbox.messages)] == ["decode-1"]
    made.receive(LoadBroadcast({"decode-1": load()}), 2.75)
    assert taken(made.outbox.messages) == []
    made.moved(moved(second, 2.5, 3.0))
    assert taken(made.outbox.messages) == [("decode-0", Released("prefill-0", 0))]


def test_what_stops_while_a_copy_on_an_earlier_ticket_reads_its_blocks_keeps_them_until_that_ends() -> None:
    made = scheduler(100, request(0, prompt=16, output=30, natural_stop=True))
    step(made, 1.0)
    made.receive(Granted(0, [1, 2, 3, 4]), 1.5)
    (push,) = taken(made.outbox.pushes)
    made.receive(Lost("decode-0"), 1.75)
    step(made, 2.0, STOP_TOKEN)
    assert made.num_used_blocks == 4
    made.moved(moved(push, 1.5, 3.0))
    assert made.num_used_blocks == 0
    made.check()


# --- closing and draining ---------------------------------------------------------------------------------------------


def test_a_way_that_is_closed_gets_nothing_new_and_what_is_on_it_goes_on() -> None:
    made, push = pushing()
    made.receive(Close("decode-0"), 2.0)
    assert taken(made.outbox.messages) == [("decode-0", Closed("prefill-0"))]
    made.receive(Submit(request(1, prompt=8)), 2.0)
    predict(made, 2.0)
    step(made, 3.0)
    assert asked(made) == [("decode-1", 1)]
    made.moved(moved(push, 1.5, 3.5))
    assert made.outbox.messages == [("decode-0", Arrived("prefill-0", 0, 77))]


def test_closed_is_said_after_all_that_was_asked() -> None:
    """Between two instances messages keep their order, so that the other knows that nothing more comes."""
    made = scheduler(100, request(0, prompt=8))
    step(made, 1.0)
    made.receive(Close("decode-0"), 1.0)
    assert [type(message) for to, message in made.outbox.messages if to == "decode-0"] == [Reserve, Closed]


def test_it_is_drained_when_all_that_it_has_is_handed_over() -> None:
    made, push = pushing()
    made.receive(Submit(request(1, prompt=8, output=1)), 2.0)
    predict(made, 2.0)
    made.receive(Drain(Role.decode), 2.0)
    assert not made.is_drained
    step(made, 3.0)
    assert not made.is_drained
    made.moved(moved(push, 1.5, 4.0))
    assert made.is_drained


def test_it_is_not_drained_while_it_computes() -> None:
    made = scheduler(100, request(0, prompt=8, output=1))
    batch = made.next_batch(1.0)
    assert batch is not None and not made.is_drained
    finish(made, batch, 2.0)
    assert made.is_drained


def test_a_drained_instance_gives_back_what_nobody_takes() -> None:
    made = scheduler(100, request(0, prompt=8))
    made.receive(LoadBroadcast({}), 0.5)
    step(made, 1.0)
    assert made.outbox.messages == []
    made.receive(Drain(Role.decode), 2.0)
    assert made.outbox.messages == [("control", Orphaned("prefill-0", {0: 1}))]
    assert made.is_drained
    made.check()


@pytest.mark.parametrize("granularity", list(Granularity))
def test_what_it_still_computes_is_given_back_when_it_is_done(granularity: Granularity) -> None:
    made = scheduler(100, request(0, prompt=16), granularity=granularity)
    made.receive(LoadBroadcast({}), 0.5)
    made.receive(Drain(Role.decode), 0.5)
    step(made, 1.0)
    assert made.outbox.messages == []
    step(made, 2.0)
    assert made.outbox.outputs == [TokenOutput(0, 1, 0, 77, False)]
    assert made.outbox.messages == [("control", Orphaned("prefill-0", {0: 1}))]
    made.check()


def test_what_loses_its_decode_instance_while_it_drains_is_given_back() -> None:
    made, push = pushing()
    made.receive(LoadBroadcast({"decode-0": load()}), 2.0)
    made.receive(Drain(None), 2.0)
    made.receive(Lost("decode-0"), 2.5)
    assert made.outbox.messages == [("control", Orphaned("prefill-0", {0: 1}))]
    assert made.num_used_blocks == 2 and not made.is_drained, "the copy still reads them"
    made.moved(moved(push, 1.5, 3.0))
    assert made.num_used_blocks == 0 and made.is_drained


def test_a_prompt_of_one_chunk_gives_its_token_to_the_client_before_it_is_given_back() -> None:
    """The token goes with the outputs, which leave before the messages: control restarts the request after it."""
    made = scheduler(100, request(0, prompt=8))
    made.receive(LoadBroadcast({}), 0.5)
    made.receive(Drain(Role.decode), 0.5)
    step(made, 1.0)
    assert made.outbox.outputs == [TokenOutput(0, 1, 0, 77, False)]
    assert made.outbox.messages == [("control", Orphaned("prefill-0", {0: 1}))]
    made.check()


@pytest.mark.parametrize("message", [Reserve("prefill-1", 0, request(), 1, [], LengthRange(0, 9)), Closed("prefill-1")])
def test_what_is_for_a_decode_instance_is_our_own_error(message: Message) -> None:
    with pytest.raises(AssertionError, match="a prefill instance got"):
        scheduler().receive(message, 0.0)
