from typing import Any

import pytest

from tests.support.builders import info, request
from tests.support.engine import STOP_TOKEN
from tetribench.colocated.prefill_first import PrefillFirstPolicies, PrefillFirstScheduler
from tetribench.core.events import EventKind
from tetribench.core.messages import Drain, Lost, Stop, Submit, TokenOutput
from tetribench.core.request import Request
from tetribench.engine.base import Batch
from tetribench.kv.transfer import Moved, Push


def scheduler(num_blocks: int = 100, *requests: Request, **policies: Any) -> PrefillFirstScheduler:
    """Blocks of 4 tokens, with `requests` already submitted."""
    made = PrefillFirstPolicies(**policies).build("colocated-0", info(num_blocks, 4, (STOP_TOKEN,)))
    for one in requests:
        made.receive(Submit(one), 0.5)
    return made


def step(made: PrefillFirstScheduler, now_s: float = 1.0, **token_ids: int) -> tuple[list[int], list[int]]:
    """Run an iteration; ids of the requests that it prefilled and decoded."""
    batch = made.next_batch(now_s)
    assert batch is not None and not (batch.prefill and batch.decode)
    ids = prefilled(batch), [one.request.id for one in batch.decode]
    made.complete(batch, {id: token_ids.get(f"r{id}", 0) for id in [*ids[0], *ids[1]]}, now_s)
    return ids


def prefilled(batch: Batch) -> list[int]:
    assert all(chunk.start == 0 and chunk.yields_token for chunk in batch.prefill)
    return [chunk.sequence.request.id for chunk in batch.prefill]


def events(made: PrefillFirstScheduler, kind: EventKind) -> list[int]:
    return [event.requests[0] for event in made.outbox.events if event.kind is kind]


def test_whole_prompts_go_first_then_one_token_for_everyone() -> None:
    made = scheduler(100, request(0, 30, output=3), request(1, 5, output=3))
    assert step(made) == ([0, 1], [])
    assert step(made) == ([], [0, 1])
    made.receive(Submit(request(2, 9, output=1)), 1.5)
    assert step(made, 2.0) == ([2], [])
    assert step(made) == ([], [0, 1])
    assert made.next_batch(3.0) is None
    assert [(output.request_id, output.is_last) for output in made.outbox.outputs] == [
        (0, False), (1, False), (0, False), (1, False), (2, True), (0, True), (1, True)
    ]  # fmt: skip
    made.check()


def test_the_edges_of_a_life() -> None:
    made = scheduler(100, request(0, 30, output=2))
    batch = made.next_batch(1.0)
    assert batch is not None
    made.complete(batch, {0: 9}, 2.0)
    assert [(event.kind, event.time_s) for event in made.outbox.events] == [
        (EventKind.PREFILL_STARTED, 1.0),
        (EventKind.PREFILL_DONE, 2.0),
        (EventKind.ADMITTED, 2.0),
    ]
    assert made.outbox.outputs == [TokenOutput(0, 1, 0, 9, False)]


def test_at_most_so_many_run() -> None:
    made = scheduler(100, *[request(id, 4, output=2) for id in range(5)], max_num_seqs=2)
    assert [step(made) for _ in range(6)] == [
        ([0, 1], []),
        ([], [0, 1]),
        ([2, 3], []),
        ([], [2, 3]),
        ([4], []),
        ([], [4]),
    ]


def test_seats_that_are_taken_count() -> None:
    made = scheduler(100, request(0, 4, output=9), max_num_seqs=2)
    step(made)
    for id in (1, 2):
        made.receive(Submit(request(id, 4)), 1.0)
    assert step(made) == ([1], [])
    assert step(made) == ([], [0, 1])


def test_prompts_of_one_iteration_keep_to_the_token_budget_together() -> None:
    prompts = [50, 50, 1, 101, 99]
    made = scheduler(100, *[request(id, prompt) for id, prompt in enumerate(prompts)], max_num_batched_tokens=100)
    assert [step(made)[0] for _ in range(4)] == [[0, 1], [2], [3], [4]]


def test_a_prompt_longer_than_the_budget_runs_by_itself() -> None:
    made = scheduler(100, request(0, 150), request(1, 1), max_num_batched_tokens=100)
    assert [step(made)[0] for _ in range(2)] == [[0], [1]]


def test_the_watermark_keeps_blocks_free_when_a_prompt_is_admitted_beside_others() -> None:
    """20 % of 10 blocks: two stay free, so beside a prompt of 3 blocks one of 5 may run and one of 6 not."""
    for prompt, expected in ((20, ([1], [])), (21, ([], [0]))):
        made = scheduler(10, request(0, 12, output=9), watermark=0.2)
        step(made)
        made.receive(Submit(request(1, prompt)), 1.0)
        assert step(made) == expected


def test_the_watermark_holds_within_one_iteration_too() -> None:
    made = scheduler(10, request(0, 12), request(1, 21), watermark=0.2)
    assert step(made)[0] == [0]


def test_a_lone_prompt_may_take_all_memory() -> None:
    made = scheduler(10, request(0, 40, output=1), watermark=0.9)
    assert step(made) == ([0], [])


def test_the_first_in_line_waits_for_memory_and_nobody_overtakes_it() -> None:
    made = scheduler(5, request(0, 8, output=3), request(1, 16), request(2, 1), watermark=0.0)
    assert [step(made) for _ in range(4)] == [([0], []), ([], [0]), ([], [0]), ([1, 2], [])]


def full(**policies: Any) -> PrefillFirstScheduler:
    """Two sequences of 4 + 5 tokens need a third block each, and there are 4."""
    made = scheduler(4, request(0, 4, output=10), request(1, 4, output=10), watermark=0.0, **policies)
    for _ in range(5):
        step(made)
    return made


def test_when_memory_runs_out_the_last_admitted_is_preempted_and_goes_ahead_of_all_that_wait() -> None:
    made = full()
    made.receive(Submit(request(2, 16, output=1)), 1.5)
    assert step(made, 9.0) == ([], [0])
    (event,) = [event for event in made.outbox.events if event.kind is EventKind.PREEMPTED]
    assert (event.requests, event.time_s, event.details) == (
        (1,),
        9.0,
        {"how": "recompute", "num_tokens": 4 + 5, "num_bytes": 0},
    )
    order = [step(made)[0] for _ in range(6)]
    assert [ids for ids in order if ids] == [[1]]


def test_prompt_and_response_so_far_are_recomputed_and_the_next_token_is_the_right_one() -> None:
    made = full()
    step(made)
    made.outbox.outputs.clear()
    while (batch := made.next_batch(2.0)) is not None and not batch.prefill:
        made.complete(batch, {0: 0}, 2.0)
    assert batch is not None
    (chunk,) = batch.prefill
    assert (chunk.start, chunk.num_tokens, chunk.sequence.num_tokens) == (0, 9, 9)
    made.complete(batch, {1: 55}, 3.0)
    assert made.outbox.outputs[-1] == TokenOutput(1, 1, 5, 55, False)
    assert chunk.sequence.output_ids == [0] * 5 + [55] and chunk.sequence.num_uncomputed == 1
    assert events(made, EventKind.PREFILL_STARTED) == events(made, EventKind.PREFILL_DONE) == [0, 1]
    assert events(made, EventKind.ADMITTED) == [0, 1, 1]
    while made.next_batch(4.0) is not None:
        step(made)
    assert [output.request_id for output in made.outbox.outputs].count(1) == 5
    made.check()


def test_a_natural_stop_at_the_first_token_gives_the_memory_back() -> None:
    made = scheduler(100, request(0, 4, output=9, natural_stop=True), request(1, 4, output=9))
    step(made, r0=STOP_TOKEN, r1=STOP_TOKEN)
    assert [output.is_last for output in made.outbox.outputs] == [True, False]
    assert made.num_used_blocks == 1 and step(made) == ([], [1])


def test_load() -> None:
    made = scheduler(100, request(0, 10), request(1, 20), max_num_seqs=1)
    step(made)
    found = made.load(3.0)
    assert (found.time_s, found.num_queued_tokens, found.num_waiting, found.num_running) == (3.0, 20, 1, 1)
    assert (found.num_free_tokens, found.num_total_tokens) == (400 - 12, 400)


def test_a_request_that_begins_again_is_prefilled_with_its_tokens_and_continues_after_them() -> None:
    made = scheduler()
    made.receive(Submit(request(0, 4, output=4), 2, [70, 71]), 0.5)
    batch = made.next_batch(1.0)
    assert batch is not None and batch.num_prefill_tokens == 6
    made.complete(batch, {0: 72}, 2.0)
    assert made.outbox.outputs == [TokenOutput(0, 2, 2, 72, False)]


def test_it_holds_nothing_for_others_and_drains_by_finishing() -> None:
    made = scheduler(100, request(0, 4, output=2))
    made.receive(Lost("colocated-1", {0: 2}), 0.5)
    made.receive(Drain(None), 0.5)
    step(made)
    assert not made.is_drained
    step(made)
    assert made.is_drained


def test_what_a_colocated_instance_never_gets() -> None:
    made = scheduler()
    with pytest.raises(AssertionError, match="a colocated instance got"):
        made.receive(Stop(), 0.0)
    with pytest.raises(AssertionError, match="pushes nothing"):
        made.moved(Moved(Push(0, 0, "x", [], [], True), 0.0, 1.0, 0))


def test_an_idle_instance_that_forgot_a_request_is_found() -> None:
    with pytest.raises(AssertionError, match="forgot a request"):
        scheduler(100, request()).check()


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"max_num_seqs": 0}, r"max_num_seqs=0: must be at least 1"),
        ({"max_num_batched_tokens": 0}, r"max_num_batched_tokens=0: must be at least 1"),
        ({"watermark": 1.0}, r"watermark=1.0: must be at least 0 and below 1"),
        ({"watermark": -0.1}, r"watermark=-0.1: must be at least 0 and below 1"),
    ],
)
def test_policies_that_cannot_work_are_refused(policies: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefillFirstPolicies(**policies)
