from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import info, request
from tests.support.engine import STOP_TOKEN
from tetribench.colocated.mixed import MixedPolicies, MixedScheduler
from tetribench.core.events import EventKind
from tetribench.core.messages import Submit, TokenOutput
from tetribench.core.request import Request
from tetribench.engine.base import Batch

Iteration = tuple[list[tuple[int, int, int]], list[int]]
"""Chunks as (request, start, number of tokens), and the requests that decode."""


def scheduler(num_blocks: int = 100, *requests: Request, **policies: Any) -> MixedScheduler:
    """Blocks of 4 tokens, ten tokens an iteration, with `requests` already submitted."""
    bounds: dict[str, Any] = {"max_num_batched_tokens": 10, "max_num_seqs": 10, "watermark": 0.0}
    made = MixedPolicies(**bounds | policies).build("colocated-0", info(num_blocks, 4, (STOP_TOKEN,)))
    for one in requests:
        made.receive(Submit(one), 0.5)
    return made


def seen(batch: Batch) -> Iteration:
    chunks = [(chunk.sequence.request.id, chunk.start, chunk.num_tokens) for chunk in batch.prefill]
    return chunks, [one.request.id for one in batch.decode]


def run(made: MixedScheduler, batch: Batch, now_s: float = 1.0, **token_ids: int) -> None:
    """The engine's part: a token for every decode and for every chunk that reaches its prompt's end."""
    due = [*(chunk.sequence for chunk in batch.prefill if chunk.yields_token), *batch.decode]
    ids = [one.request.id for one in due]
    made.complete(batch, {id: token_ids.get(f"r{id}", 0) for id in ids}, now_s)


def step(made: MixedScheduler, now_s: float = 1.0, **token_ids: int) -> Iteration:
    batch = made.next_batch(now_s)
    assert batch is not None
    run(made, batch, now_s, **token_ids)
    return seen(batch)


def events(made: MixedScheduler, kind: EventKind) -> list[int]:
    return [event.requests[0] for event in made.outbox.events if event.kind is kind]


def test_decodes_first_then_the_prompt_begun_earlier_then_new_ones() -> None:
    made = scheduler(100, request(0, 4, output=9), request(1, 15), request(2, 3), request(3, 9))
    assert step(made) == ([(0, 0, 4), (1, 0, 6)], [])
    assert step(made) == ([(1, 6, 9)], [0])
    assert step(made) == ([(2, 0, 3), (3, 0, 5)], [0, 1])
    assert step(made) == ([(3, 5, 4)], [0, 1, 2])
    assert step(made) == ([], [0, 1, 2, 3])


def test_a_long_prompt_does_not_hold_up_the_decodes() -> None:
    made = scheduler(100, request(0, 2, output=9))
    step(made)
    made.receive(Submit(request(1, 40)), 1.0)
    for index in range(4):
        assert step(made) == ([(1, 9 * index, 9)], [0])
    assert step(made) == ([(1, 36, 4)], [0])
    assert step(made) == ([], [0, 1])


def test_the_edges_of_a_life() -> None:
    made = scheduler(100, request(0, 12, output=2))
    for now_s in (1.0, 3.0):
        batch = made.next_batch(now_s)
        assert batch is not None
        run(made, batch, now_s + 1.0, r0=9)
    assert [(event.kind, event.time_s) for event in made.outbox.events] == [
        (EventKind.PREFILL_STARTED, 1.0),
        (EventKind.PREFILL_DONE, 4.0),
        (EventKind.ADMITTED, 4.0),
    ]
    assert made.outbox.outputs == [TokenOutput(0, 1, 0, 9, False)]


def test_seats_count_prompts_that_are_begun() -> None:
    made = scheduler(100, *[request(id, 4, output=2) for id in range(3)], max_num_seqs=2)
    assert [step(made) for _ in range(4)] == [
        ([(0, 0, 4), (1, 0, 4)], []),
        ([], [0, 1]),
        ([(2, 0, 4)], []),
        ([], [2]),
    ]


def test_the_watermark_holds_beside_others_and_not_for_a_lone_prompt() -> None:
    made = scheduler(10, request(0, 5), request(1, 33), watermark=0.1)
    assert step(made) == ([(0, 0, 5)], [])
    made = scheduler(10, request(1, 39), watermark=0.9)
    assert step(made) == ([(1, 0, 10)], [])


def test_nobody_overtakes_the_first_in_line() -> None:
    made = scheduler(5, request(0, 8, output=3), request(1, 16), request(2, 1))
    assert [step(made) for _ in range(3)] == [([(0, 0, 8)], []), ([], [0]), ([], [0])]
    assert step(made) == ([(1, 0, 10)], [])
    assert step(made) == ([(1, 10, 6), (2, 0, 1)], [])


def test_a_prompt_that_is_begun_makes_room_first_and_begins_again_later() -> None:
    """Request 0 outgrows its block while request 1, whose prompt holds the other three, is at its second chunk."""
    made = scheduler(4, request(0, 3, output=4), request(1, 12, output=2), max_num_batched_tokens=4, max_num_seqs=4)
    assert step(made) == ([(0, 0, 3), (1, 0, 1)], [])
    assert step(made) == ([(1, 1, 3)], [0])
    assert step(made, 7.0) == ([], [0])
    (event,) = [event for event in made.outbox.events if event.kind is EventKind.PREEMPTED]
    assert (event.requests, event.time_s, event.details) == (
        (1,),
        7.0,
        {"how": "recompute", "num_tokens": 12, "num_bytes": 0},
    )
    assert step(made) == ([], [0])
    assert [step(made) for _ in range(4)] == [([(1, 0, 4)], []), ([(1, 4, 4)], []), ([(1, 8, 4)], []), ([], [1])]
    assert events(made, EventKind.PREFILL_STARTED) == events(made, EventKind.PREFILL_DONE) == [0, 1]
    assert made.next_batch(9.0) is None
    made.check()


def test_a_preempted_response_is_recomputed_in_chunks_ahead_of_all_that_wait() -> None:
    """Two sequences of 4 + 5 tokens need a third block each, and there are 4."""
    made = scheduler(4, request(0, 4, output=7), request(1, 4, output=7), max_num_batched_tokens=8, max_num_seqs=8)
    assert step(made) == ([(0, 0, 4), (1, 0, 4)], [])
    for _ in range(4):
        step(made)
    made.receive(Submit(request(2, 1, output=1)), 1.5)
    assert step(made) == ([], [0])
    assert events(made, EventKind.PREEMPTED) == [1]
    assert step(made) == ([], [0])
    assert step(made) == ([(1, 0, 8)], [])
    assert step(made, r1=55) == ([(1, 8, 1), (2, 0, 1)], [])
    assert events(made, EventKind.PREFILL_DONE) == [0, 1, 2] and events(made, EventKind.ADMITTED) == [0, 1, 1]
    assert (1, 55) in [(output.request_id, output.token_id) for output in made.outbox.outputs]
    assert step(made) == ([], [1])
    assert [output.request_id for output in made.outbox.outputs].count(1) == 7
    made.check()


def test_a_natural_stop_at_the_first_token_gives_the_memory_back() -> None:
    made = scheduler(100, request(0, 4, output=9, natural_stop=True), request(1, 4, output=9))
    step(made, r0=STOP_TOKEN, r1=STOP_TOKEN)
    assert [output.is_last for output in made.outbox.outputs] == [True, False]
    assert made.num_used_blocks == 1 and step(made) == ([], [1])
    assert events(made, EventKind.ADMITTED) == [1]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 40)), min_size=1, max_size=20),
    st.integers(20, 40),
    st.integers(1, 12),
    st.integers(0, 30),
)
def test_no_iteration_breaks_its_bounds_or_leaves_a_running_sequence_out(
    rows: list[tuple[int, int, int]], num_blocks: int, max_num_seqs: int, spare_tokens: int
) -> None:
    """Requests come before the iteration of their row; each gets its tokens in the end."""
    budget = max_num_seqs + spare_tokens
    made = scheduler(num_blocks, max_num_batched_tokens=budget, max_num_seqs=max_num_seqs)
    arrivals = sorted((at, id, prompt, output) for id, (prompt, output, at) in enumerate(rows))
    running: set[int] = set()
    index = 0
    while True:
        while arrivals and arrivals[0][0] <= index:
            _, id, prompt, output = arrivals.pop(0)
            made.receive(Submit(request(id, prompt, output)), float(index))
        batch = made.next_batch(float(index))
        index += 1
        if batch is None:
            if not arrivals:
                break
            continue
        chunks, decodes = seen(batch)
        running -= {event.requests[0] for event in made.outbox.events if event.kind is EventKind.PREEMPTED}
        assert set(decodes) == running, "a running sequence stalled"
        assert len(decodes) + sum(num_tokens for _, _, num_tokens in chunks) <= budget
        assert len(decodes) + len(chunks) <= max_num_seqs
        assert all(chunk.yields_token for chunk in batch.prefill[:-1]), "two prompts are unfinished"
        made.outbox.events.clear()
        run(made, batch, float(index))
        running |= set(events(made, EventKind.ADMITTED))
        running -= {output.request_id for output in made.outbox.outputs if output.is_last}
    produced = [output.request_id for output in made.outbox.outputs]
    assert all(produced.count(id) == output for id, (_, output, _) in enumerate(rows))
    made.check()


def test_a_budget_that_could_not_give_everyone_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_num_batched_tokens=100: must be at least scheduler.max_num_seqs=101"):
        MixedPolicies(max_num_batched_tokens=100, max_num_seqs=101)
