"""Tokens counted at every place: whatever the schedulers do with a request, the counts agree; what is changed shows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tetribench.core.events import Event, EventKind
from tetribench.core.request import Request
from tetribench.decode.preempt import Preemption
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.timeline import request_table, token_times
from tetribench.metrics.token_audit import TokenAudit, token_audit
from tetribench.prefill.chunk import Chunker
from tetribench.systems.base import System

SYSTEMS: dict[str, Callable[[], System]] = {
    "split": lambda: tetri(),
    "split, swapping": lambda: tetri(preemption=Preemption.swap, num_decode=2),
    "split, small chunks": lambda: tetri(chunk=Chunker(chunk_size=5), num_prefill=2),
    "prompts first": lambda: vllm_like(2, max_num_seqs=6),
    "mixed": lambda: sarathi_like(1, max_num_batched_tokens=24, max_num_seqs=8),
}


def audited(events: Sequence[Event], requests: Sequence[Request]) -> TokenAudit:
    log = EventsByKind(events)
    return token_audit(log, request_table(log), token_times(log), requests)


def with_ids(id: int, prompt: int, output: int, **others: Any) -> Request:
    return request(id, prompt, output, arrival_s=0.001 * id, prompt_ids=tuple(range(prompt)), **others)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(SYSTEMS)),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=14),
    st.integers(23, 60),
)
def test_counts_agree_whatever_the_schedulers_do(system: str, sizes: list[tuple[int, int]], num_blocks: int) -> None:
    """In memory that hardly holds the longest request, so that most are preempted."""
    requests = [with_ids(id, *size) for id, size in enumerate(sizes)]
    bench = Bench(SYSTEMS[system](), CheckingFactory(num_blocks=num_blocks, block_size=4)).run(requests)
    found = audited(bench.log.events, requests)
    assert found.num_requests == len(requests)
    assert found.prompt_asked == found.prompt_sent == found.prompt_computed == sum(prompt for prompt, _ in sizes)
    assert found.output_asked == found.output_delivered == found.all_delivered == sum(output for _, output in sizes)
    assert found.all_computed == found.all_delivered
    assert (found.num_wrong, found.wrong, found.num_unaccounted, found.num_stopped) == (0, [], 0, 0)


def test_a_response_that_stops_by_itself_is_not_wrong() -> None:
    requests = [with_ids(id, 9, 20, natural_stop=True) for id in range(4)]
    bench = Bench(vllm_like(), CheckingFactory(stops={0: 3, 2: 19})).run(requests)
    found = audited(bench.log.events, requests)
    assert (found.num_stopped, found.num_wrong, found.num_unaccounted) == (1, 0, 0) and found.may_stop
    assert (found.output_asked, found.output_delivered) == (80, 64)
    must_not_stop = [replace(one, natural_stop=False) for one in requests]
    found = audited(bench.log.events, must_not_stop)
    assert found.num_wrong == 1
    assert found.wrong == ["request 0: prompt of 9 tokens, 9 sent, 9 computed; response of 20, 4 delivered, 4 reported"]


@pytest.fixture
def served() -> tuple[list[Event], list[Request]]:
    requests = [with_ids(id, 20, 6) for id in range(3)]
    return Bench(tetri(), CheckingFactory()).run(requests).log.events, requests


def change(events: list[Event], kind: EventKind, **details: Any) -> list[Event]:
    """The first event of this kind with other details."""
    changed = list(events)
    index = next(index for index, event in enumerate(events) if event.kind is kind)
    changed[index] = replace(events[index], details=events[index].details | details)
    return changed


def test_a_prompt_that_was_sent_with_another_length_is_wrong(served: tuple[list[Event], list[Request]]) -> None:
    events, requests = served
    found = audited(change(events, EventKind.SENT, num_prompt_ids=19), requests)
    assert (found.num_wrong, found.prompt_asked, found.prompt_sent) == (1, 60, 59)


def test_a_prefix_that_was_not_computed_is_wrong(served: tuple[list[Event], list[Request]]) -> None:
    """As if its KV had come out of a cache."""
    events, requests = served
    assert audited(events, requests).num_wrong == 0
    found = audited(change(events, EventKind.ITERATION, chunks=[[16, 4]]), requests)
    assert (found.num_wrong, found.prompt_computed) == (1, 44)


def test_a_token_that_came_twice_or_never_is_wrong(served: tuple[list[Event], list[Request]]) -> None:
    events, requests = served
    token = next(event for event in events if event.kind is EventKind.TOKEN)
    twice = audited([*events, token], requests)
    assert twice.num_wrong == twice.num_unaccounted == len(token.requests)
    never = audited([event for event in events if event is not token], requests)
    assert never.num_wrong == never.num_unaccounted == len(token.requests)


def test_a_response_shorter_than_asked_is_wrong(served: tuple[list[Event], list[Request]]) -> None:
    events, requests = served
    found = audited(events, [replace(one, max_output_tokens=7) for one in requests])
    assert (found.num_wrong, found.output_asked, found.output_delivered) == (3, 21, 18)
    assert len(found.wrong) == 3


def test_tokens_of_requests_that_did_not_end_may_be_lost_and_never_be_more(
    served: tuple[list[Event], list[Request]],
) -> None:
    events, requests = served
    cut = [event for event in events if event.kind is not EventKind.FINISHED or event.requests != (2,)]
    last = max((event for event in cut if event.kind is EventKind.TOKEN), key=lambda event: event.time_s)
    without_last = [event for event in cut if event is not last]
    assert audited(cut, requests).num_requests == 2 and audited(cut, requests).num_unaccounted == 0
    assert audited(without_last, requests).num_unaccounted == 0
    assert audited([*cut, last], requests).num_unaccounted == len(last.requests)


def test_what_was_begun_again_is_not_counted(served: tuple[list[Event], list[Request]]) -> None:
    events, requests = served
    retried = Event(0.05, EventKind.RETRIED, "global_scheduler", (1,), {"how": "restart", "attempt": 2, "reason": "x"})
    found = audited([*events, retried], requests)
    assert (found.num_requests, found.all_computed, found.num_unaccounted, found.num_wrong) == (2, None, 0, 0)
    assert found.all_delivered == 18


def test_where_only_lengths_are_sent_they_are_not_counted_as_ids(served: tuple[list[Event], list[Request]]) -> None:
    events, requests = served
    without = [replace(event, details={}) if event.kind is EventKind.SENT else event for event in events]
    found = audited(without, requests)
    assert (found.prompt_sent, found.num_wrong) == (None, 0)


def test_runs_of_iterations_count_each(served: tuple[list[Event], list[Request]]) -> None:
    """As virtual time writes them: three decodes of two requests in one event."""
    events, requests = served
    details = {"started_s": 1.0, "ends_s": [1.1, 1.2, 1.3], "num_used_blocks": [1, 1, 1], "num_decode_tokens": 2}
    found = audited([*events, Event(1.3, EventKind.ITERATIONS, "decode-0", (), details)], requests)
    assert found.all_computed == 18 + 6
