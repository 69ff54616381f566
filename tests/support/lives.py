"""What the events of a run that went well say of each of its requests."""

from collections import defaultdict
from collections.abc import Sequence as SequenceOf
from itertools import pairwise

from tetribench.core.events import CLIENT, Event, EventKind
from tetribench.core.request import Request


def times(events: SequenceOf[Event], kind: EventKind) -> dict[int, list[float]]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for event in events:
        if event.kind is kind:
            for request_id in event.requests:
                found[request_id].append(event.time_s)
    return found


HANDED_OVER = [
    EventKind.ARRIVED,
    EventKind.SENT,
    EventKind.ROUTED,
    EventKind.PREFILL_STARTED,
    EventKind.DISPATCHED,
    EventKind.RESERVED,
    EventKind.TRANSFER_STARTED,
    EventKind.TRANSFER_DONE,
    EventKind.ADMITTED,
    EventKind.FINISHED,
]
NOT_HANDED_OVER = [
    EventKind.ARRIVED,
    EventKind.SENT,
    EventKind.ROUTED,
    EventKind.PREFILL_STARTED,
    EventKind.PREFILL_DONE,
    EventKind.FIRST_TOKEN,
    EventKind.FINISHED,
]
ONCE = set(HANDED_OVER + NOT_HANDED_OVER) - {EventKind.ADMITTED}
"""Edges that a life has at most once; a preempted request is admitted again."""
CLIENTS = {EventKind.ARRIVED, EventKind.SENT, EventKind.FIRST_TOKEN, EventKind.FINISHED}
"""Edges that every life has once, whatever happened to the instances."""


def assert_served(events: SequenceOf[Event], requests: SequenceOf[Request]) -> None:
    """Every request lived exactly one life, with its edges in the documented order and the right number of tokens."""
    lives: defaultdict[int, list[Event]] = defaultdict(list)
    for event in events:
        for request_id in event.requests:
            lives[request_id].append(event)
    assert lives.keys() == {one.id for one in requests}
    for one in requests:
        _assert_life(one, lives[one.id])


def _assert_life(one: Request, life: list[Event]) -> None:
    """Of a life that began again only what the client saw is in order: its attempts overlap in the event log."""
    first: dict[EventKind, float] = {}
    was_retried = any(event.kind is EventKind.RETRIED for event in life)
    for event in life:
        is_second = event.kind in (CLIENTS if was_retried else ONCE) and event.kind in first
        assert not is_second, f"request {one.id} has two {event.kind}"
        first.setdefault(event.kind, event.time_s)
    assert EventKind.FAILED not in first
    _assert_deliveries(one, life)
    if was_retried:
        _assert_order(first, [EventKind.ARRIVED, EventKind.SENT, EventKind.FIRST_TOKEN, EventKind.FINISHED])
        return
    was_handed_over = EventKind.TRANSFER_DONE in first
    _assert_order(first, HANDED_OVER if was_handed_over else NOT_HANDED_OVER)
    _assert_order(first, [EventKind.PREFILL_STARTED, EventKind.PREFILL_DONE, EventKind.FIRST_TOKEN, EventKind.FINISHED])
    if was_handed_over:
        _assert_order(first, [EventKind.PREFILL_DONE, EventKind.TRANSFER_DONE])
        _assert_order(first, [EventKind.ROUTED, EventKind.PREDICTED, EventKind.DISPATCHED])
    seats = [event.kind for event in life if event.kind in (EventKind.ADMITTED, EventKind.PREEMPTED)]
    for before, after in pairwise(seats):
        assert (before, after) != (EventKind.ADMITTED, EventKind.ADMITTED), "admitted twice"
        assert before is not after or not was_handed_over, "preempted twice without running"
    assert not seats or seats[0] is EventKind.ADMITTED or not was_handed_over


def _assert_deliveries(one: Request, life: list[Event]) -> None:
    deliveries = [event for event in life if event.kind in (EventKind.FIRST_TOKEN, EventKind.TOKEN)]
    assert all(event.source == CLIENT for event in deliveries)
    assert deliveries[0].kind is EventKind.FIRST_TOKEN
    finished = (
        life[-1] if life[-1].kind is EventKind.FINISHED else next(e for e in life if e.kind is EventKind.FINISHED)
    )
    assert finished.details == {"num_output_tokens": len(deliveries)}
    assert len(deliveries) == one.max_output_tokens or (one.natural_stop and len(deliveries) < one.max_output_tokens)


def _assert_order(first: dict[EventKind, float], edges: list[EventKind]) -> None:
    assert set(edges) <= first.keys(), f"missing: {set(edges) - first.keys()}"
    ordered = [first[edge] for edge in edges]
    assert ordered == sorted(ordered), dict(zip(edges, ordered, strict=True))
