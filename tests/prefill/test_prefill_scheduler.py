from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import info, load, request
from tests.support.engine import STOP_TOKEN
from tetribench.core.events import EventKind
from tetribench.core.messages import (
    Arrived,
    Granted,
    LoadBroadcast,
    Message,
    Released,
    Reserve,
    Stop,
    Submit,
    TokenOutput,
)
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.engine.base import Batch
from tetribench.kv.transfer import Granularity, Moved, Push
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.prefill.order import FCFS, SJF
from tetribench.prefill.predict import Oracle
from tetribench.prefill.scheduler import PrefillPolicies, PrefillScheduler

LOADS = {"decode-0": load(1000, time_s=0.25), "decode-1": load(900, time_s=0.5)}
"""decode-0 has more free memory, so it is the first choice."""


def scheduler(num_blocks: int = 100, *requests: Request, **changes: Any) -> PrefillScheduler:
    """Blocks of 4 tokens, chunks of 8, with `requests` already submitted; `num_layers` is 1."""
    num_layers = changes.pop("num_layers", 1)
    policies: dict[str, Any] = {"order": FCFS(), "chunk": Chunker(chunk_size=8), "predict": Oracle()}
    policies |= {"dispatch": PowerOfTwo()} | changes
    made = PrefillPolicies(**policies).build("prefill-0", info(num_blocks, 4, (STOP_TOKEN,), num_layers=num_layers))
    made.receive(LoadBroadcast(LOADS), 0.5)
    for one in requests:
        submit(made, one, 1.0)
    return made


def submit(made: PrefillScheduler, one: Request, now_s: float) -> None:
    """Submitted, and predicted at once."""
    made.receive(Submit(one), now_s)
    predict(made, now_s)
    made.outbox.events = [event for event in made.outbox.events if event.kind is not EventKind.PREDICTED]


def predict(made: PrefillScheduler, now_s: float, high: int = 200) -> list[int]:
    """The next group of requests is predicted; who they were."""
    group = made.next_prediction()
    made.predicted({one.id: LengthRange(0, high) for one in group}, now_s - 0.5, now_s)
    return [one.id for one in group]


def step(made: PrefillScheduler, now_s: float, token_id: int = 77) -> Batch:
    """One iteration that ends at `now_s`."""
    batch = made.next_batch(now_s)
    assert batch is not None
    finish(made, batch, now_s, token_id)
    return batch


def finish(made: PrefillScheduler, batch: Batch, now_s: float, token_id: int = 77) -> None:
    tokens = {chunk.sequence.request.id: token_id for chunk in batch.prefill if chunk.yields_token}
    made.complete(batch, tokens, now_s)


def taken(of: list[Any]) -> list[Any]:
    found = list(of)
    of.clear()
    return found


def kinds(made: PrefillScheduler) -> list[tuple[EventKind, float, int]]:
    return [(event.kind, event.time_s, event.requests[0]) for event in taken(made.outbox.events)]


def moved(push: Push, started_s: float, ended_s: float) -> Moved:
    return Moved(push, started_s, ended_s, 100 * len(push.source_ids))


def test_a_prompt_of_three_chunks_from_submission_to_hand_over() -> None:
    made = scheduler(100, request(5, prompt=20, output=30))
    step(made, 2.0)
    dispatched = made.outbox.events[-1]
    assert kinds(made) == [(EventKind.PREFILL_STARTED, 2.0, 5), (EventKind.DISPATCHED, 2.0, 5)]
    assert dispatched.details == {
        "to": "decode-0",
        "candidates": {"decode-0": [1000, 0, 0, 1.75], "decode-1": [900, 0, 0, 1.5]},
        "low": 0,
        "high": 200,
        "num_fitting": 2,
    }
    assert taken(made.outbox.messages) == [
        ("decode-0", Reserve("prefill-0", 0, request(5, 20, 30), 1, [], LengthRange(0, 200)))
    ]
    assert made.outbox.pushes == []

    made.receive(Granted(0, [50, 51, 52, 53, 54]), 2.1)
    (first,) = taken(made.outbox.pushes)
    assert first == Push(5, 0, "decode-0", first.source_ids, [50, 51], is_last=False)
    step(made, 3.0)
    (second,) = taken(made.outbox.pushes)
    assert kinds(made) == [] and made.outbox.outputs == []
    made.moved(moved(first, 2.1, 3.1))
    assert kinds(made) == [(EventKind.TRANSFER_STARTED, 2.1, 5)]

    step(made, 4.0)
    (third,) = taken(made.outbox.pushes)
    assert (third.target_ids, third.is_last) == ([54], True)
    assert kinds(made) == [(EventKind.PREFILL_DONE, 4.0, 5)]
    assert taken(made.outbox.outputs) == [TokenOutput(5, 1, 0, 77, False)]
    made.moved(moved(second, 3.1, 4.1))
    assert made.num_used_blocks == 5 and made.outbox.messages == []
    made.moved(moved(third, 4.1, 4.6))
    (done,) = made.outbox.events
    assert (done.kind, done.time_s) == (EventKind.TRANSFER_DONE, 4.6)
    assert done.details == {"to": "decode-0", "num_bytes": 500, "busy_s": pytest.approx(2.5)}
    assert taken(made.outbox.messages) == [("decode-0", Arrived("prefill-0", 0, 77))]
    assert made.num_used_blocks == 0 and made.next_batch(5.0) is None
    made.check()


def test_request_level_transfer_waits_for_the_last_chunk() -> None:
    made = scheduler(100, request(0, prompt=16), granularity=Granularity.request)
    step(made, 1.0)
    made.receive(Granted(0, [1, 2, 3, 4]), 1.5)
    assert made.outbox.pushes == []
    step(made, 2.0)
    (push,) = made.outbox.pushes
    assert push.target_ids == [1, 2, 3, 4] and push.is_last


def test_layers_that_arrive_before_their_chunk_ends_wait_for_its_token() -> None:
    """The engine has two layers; the last one can be there before the iteration is over."""
    made = scheduler(100, request(0, prompt=16), granularity=Granularity.layer, num_layers=2)
    assert step(made, 1.0).by_layer
    made.receive(Granted(0, [1, 2, 3, 4]), 1.5)
    (whole,) = taken(made.outbox.pushes)
    assert (whole.layer, whole.target_ids) == (None, [1, 2])
    batch = made.next_batch(2.0)
    assert batch is not None
    layers = taken(made.outbox.pushes)
    assert [(push.layer, push.target_ids, push.is_last) for push in layers] == [(0, [3, 4], False), (1, [3, 4], True)]
    for push in (whole, *layers):
        made.moved(moved(push, 2.1, 2.2))
    kinds(made)
    assert taken(made.outbox.messages)[1:] == [] and made.num_used_blocks == 4
    finish(made, batch, 3.0)
    assert kinds(made) == [(EventKind.PREFILL_DONE, 3.0, 0), (EventKind.TRANSFER_DONE, 3.0, 0)]
    assert taken(made.outbox.messages) == [("decode-0", Arrived("prefill-0", 0, 77))]
    made.check()


def test_a_grant_during_the_last_chunk_sends_that_by_layers_too() -> None:
    made = scheduler(100, request(0, prompt=16), granularity=Granularity.layer, num_layers=2)
    step(made, 1.0)
    assert made.next_batch(2.0) is not None
    made.receive(Granted(0, [1, 2, 3, 4]), 2.5)
    pushes = taken(made.outbox.pushes)
    assert [(push.layer, push.target_ids) for push in pushes] == [(None, [1, 2]), (0, [3, 4]), (1, [3, 4])]


def test_a_dispatch_counts_for_the_next_one_without_a_broadcast() -> None:
    """4 tokens less make the first choice the fuller one, so the second request of the chunk goes elsewhere."""
    big = [request(id, prompt=4, output=300) for id in range(2)]
    made = scheduler(100, *big, dispatch=PowerOfTwo())
    made.receive(LoadBroadcast({"decode-0": load(800), "decode-1": load(798)}), 1.0)
    step(made, 2.0)
    assert [to for to, _ in made.outbox.messages] == ["decode-0", "decode-1"]


def test_the_view_is_replaced_by_the_next_broadcast() -> None:
    made = scheduler(100, *[request(id, prompt=4, output=300) for id in range(2)], chunk=Chunker(chunk_size=4))
    step(made, 2.0)
    made.receive(LoadBroadcast(LOADS), 2.1)
    step(made, 3.0)
    assert [to for to, _ in made.outbox.messages] == ["decode-0", "decode-0"]


def test_the_window_is_taken_from_those_that_wait() -> None:
    """Twenty of 1 to 20 tokens, longest first in arrival order, window 10: two groups, each sorted."""
    requests = [request(id, prompt=20 - id) for id in range(20)]
    made = scheduler(100, *requests, order=SJF(window=10), chunk=Chunker(chunk_size=1000))
    batch = made.next_batch(1.0)
    assert batch is not None
    assert [chunk.num_tokens for chunk in batch.prefill] == [*range(11, 21), *range(1, 11)]


def test_a_group_is_taken_only_when_less_than_a_chunk_is_scheduled() -> None:
    """A late short prompt is ordered into the next group, and not behind one that was taken too early."""
    made = scheduler(100, request(0, 8), request(1, 8), request(2, 8), order=SJF(window=2))
    step(made, 1.0)
    submit(made, request(3, 1), 1.5)
    assert [chunk.sequence.request.id for chunk in step(made, 2.0).prefill] == [1]
    assert [chunk.sequence.request.id for chunk in step(made, 3.0).prefill] == [3, 2]


def test_a_response_of_one_token_is_never_dispatched() -> None:
    made = scheduler(100, request(0, prompt=8, output=1))
    step(made, 1.0)
    assert [kind for kind, _, _ in kinds(made)] == [EventKind.PREFILL_STARTED, EventKind.PREFILL_DONE]
    assert made.outbox.outputs == [TokenOutput(0, 1, 0, 77, True)] and made.outbox.messages == []
    made.check()


def stopping(prompt: int) -> PrefillScheduler:
    return scheduler(100, request(0, prompt=prompt, output=30, natural_stop=True))


def test_stopping_at_the_first_token_before_the_grant_comes() -> None:
    made = stopping(8)
    step(made, 1.0, STOP_TOKEN)
    assert made.outbox.outputs == [TokenOutput(0, 1, 0, STOP_TOKEN, True)]
    assert [type(message) for _, message in made.outbox.messages] == [Reserve, Released]
    assert made.num_used_blocks == 0
    made.receive(Granted(0, [1, 2]), 1.5)
    assert made.outbox.pushes == []
    made.check()


def test_stopping_at_the_first_token_after_the_grant_and_between_pushes() -> None:
    made = stopping(16)
    step(made, 1.0)
    made.receive(Granted(0, [1, 2, 3, 4]), 1.5)
    (push,) = taken(made.outbox.pushes)
    made.moved(moved(push, 1.5, 1.6))
    step(made, 2.0, STOP_TOKEN)
    assert made.outbox.pushes == [] and made.outbox.messages[-1] == ("decode-0", Released("prefill-0", 0))
    assert made.num_used_blocks == 0
    made.check()


def test_stopping_at_the_first_token_while_a_push_is_in_flight_keeps_both_sides_blocks_until_it_has_ended() -> None:
    made = stopping(24)
    step(made, 1.0)
    made.receive(Granted(0, [1, 2, 3, 4, 5, 6]), 1.5)
    step(made, 2.0)
    first, second = taken(made.outbox.pushes)
    taken(made.outbox.messages)
    step(made, 3.0, STOP_TOKEN)
    assert made.outbox.outputs[-1].is_last and made.outbox.pushes == []
    made.moved(moved(first, 1.5, 3.5))
    assert made.outbox.messages == [] and made.num_used_blocks == 6
    made.moved(moved(second, 3.5, 4.5))
    assert made.outbox.messages == [("decode-0", Released("prefill-0", 0))] and made.num_used_blocks == 0
    assert EventKind.TRANSFER_DONE not in [kind for kind, _, _ in kinds(made)]
    made.check()


def test_kv_that_nobody_takes_stops_the_intake_and_nothing_is_dropped() -> None:
    made = scheduler(4, request(0, prompt=8), request(1, prompt=8), request(2, prompt=8))
    step(made, 1.0)
    step(made, 2.0)
    assert made.num_used_blocks == 4 and made.next_batch(3.0) is None
    made.receive(Granted(0, [9, 8]), 3.5)
    (push,) = made.outbox.pushes
    assert made.next_batch(3.6) is None
    made.moved(moved(push, 3.5, 4.0))
    assert [chunk.sequence.request.id for chunk in step(made, 5.0).prefill] == [2]


def test_load_counts_prompt_tokens_that_are_not_yet_computed() -> None:
    made = scheduler(100, request(0, prompt=12), request(1, prompt=7), order=FCFS(window=1))
    before = made.load(1.0)
    assert (before.num_queued_tokens, before.num_waiting, before.num_running, before.num_free_tokens) == (19, 2, 0, 400)
    step(made, 2.0)
    after = made.load(2.0)
    assert (after.time_s, after.num_queued_tokens, after.num_waiting, after.num_running) == (2.0, 11, 2, 1)
    assert (after.num_free_tokens, after.num_total_tokens) == (400 - 12, 400)


def in_parallel(*requests: Request, granularity: Granularity = Granularity.chunk) -> PrefillScheduler:
    policies = PrefillPolicies(
        order=FCFS(), chunk=Chunker(chunk_size=8), predict=Oracle(), dispatch=PowerOfTwo(), granularity=granularity
    )
    made = policies.build("prefill-0", replace(info(100, 4, (STOP_TOKEN,)), predicts_in_parallel=True))
    made.receive(LoadBroadcast(LOADS), 0.5)
    for one in requests:
        made.receive(Submit(one), 1.0)
    return made


def test_in_sequence_a_prompt_waits_for_its_prediction() -> None:
    made = scheduler()
    made.receive(Submit(request(5, prompt=8, output=30)), 1.0)
    assert made.next_batch(1.0) is None
    assert (made.load(1.0).num_queued_tokens, made.load(1.0).num_waiting) == (8, 1)
    assert predict(made, 2.0) == [5] and predict(made, 2.0) == []
    assert made.outbox.events[0].details == {"low": 0, "high": 200, "duration_s": 0.5}
    step(made, 3.0)
    assert kinds(made)[:2] == [(EventKind.PREDICTED, 2.0, 5), (EventKind.PREFILL_STARTED, 3.0, 5)]


def test_in_parallel_a_prompt_whose_prediction_is_there_is_dispatched_after_its_first_chunk() -> None:
    made = in_parallel(request(5, prompt=16, output=30))
    batch = made.next_batch(1.0)
    assert batch is not None and predict(made, 1.5) == [5]
    assert kinds(made) == [(EventKind.PREFILL_STARTED, 1.0, 5), (EventKind.PREDICTED, 1.5, 5)]
    finish(made, batch, 2.0)
    assert kinds(made) == [(EventKind.DISPATCHED, 2.0, 5)]
    (message,) = made.outbox.messages
    assert message == ("decode-0", Reserve("prefill-0", 0, request(5, 16, 30), 1, [], LengthRange(0, 200)))


@pytest.mark.parametrize("granularity", Granularity)
def test_in_parallel_a_prompt_that_is_done_first_is_dispatched_with_its_prediction(granularity: Granularity) -> None:
    made = in_parallel(request(5, prompt=16, output=30), granularity=granularity)
    step(made, 2.0)
    step(made, 3.0)
    assert [kind for kind, _, _ in kinds(made)] == [EventKind.PREFILL_STARTED, EventKind.PREFILL_DONE]
    assert made.num_used_blocks == 4 and not made.outbox.messages
    predict(made, 4.0)
    assert kinds(made) == [(EventKind.PREDICTED, 4.0, 5), (EventKind.DISPATCHED, 4.0, 5)]
    made.receive(Granted(0, [50, 51, 52, 53]), 4.5)
    (push,) = taken(made.outbox.pushes)
    assert push.target_ids == [50, 51, 52, 53] and push.is_last
    made.moved(moved(push, 4.5, 5.0))
    assert kinds(made)[-1] == (EventKind.TRANSFER_DONE, 5.0, 5)
    made.check()


@pytest.mark.parametrize("output", [1, 30])
@pytest.mark.parametrize("is_in_flight", [True, False])
def test_a_prediction_that_comes_after_the_response_has_ended_changes_nothing(output: int, is_in_flight: bool) -> None:
    made = in_parallel(request(5, prompt=8, output=output, natural_stop=True))
    group = made.next_prediction() if is_in_flight else []
    step(made, 2.0, STOP_TOKEN)
    assert kinds(made)[-1][0] is EventKind.PREFILL_DONE
    assert made.next_prediction() == []
    made.predicted({one.id: LengthRange(0, 200) for one in group}, 1.0, 3.0)
    assert not made.outbox.messages and made.num_used_blocks == 0
    made.check()


def test_a_message_for_someone_else_is_our_own_error() -> None:
    message: Message = Stop()
    with pytest.raises(AssertionError, match="a prefill instance got"):
        scheduler().receive(message, 0.0)


def test_an_idle_instance_that_forgot_a_request_is_found() -> None:
    with pytest.raises(AssertionError, match="forgot a request"):
        scheduler(100, request()).check()
