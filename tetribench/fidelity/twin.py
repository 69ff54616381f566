"""A recorded run once more in virtual time: the same requests, sent when they were really sent."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import OpenLoop
from tetribench.experiment import Prepared, Setup, serve
from tetribench.workload.request_set import RequestSet


def twin_requests(requests: RequestSet, events: Sequence[Event]) -> RequestSet:
    """As the recorded run really had them: sent late, and as long as the responses became.

    Raises ValueError where a request did not finish, because then there is nothing to compare it with.
    """
    sent_s = _times(events, EventKind.SENT)
    lengths = {event.requests[0]: event.details["num_output_tokens"] for event in _of(events, EventKind.FINISHED)}
    missing = sorted({request.id for request in requests.requests} - lengths.keys())
    if missing:
        raise ValueError(f"the recorded run did not finish request {missing[0]}; nothing can be compared with it")
    start_s = _start_s(requests.requests, events)
    twins = [
        replace(request, arrival_s=sent_s[request.id] - start_s, max_output_tokens=lengths[request.id])
        for request in requests.requests
    ]
    return replace(requests, requests=twins)


def simulate_twin(setup: Setup, system: str, requests: RequestSet, recorded: Sequence[Event]) -> list[Event]:
    """The events of the system in virtual time. Arrivals are the intended ones, as in the record: latencies of both
    runs count the same delay of sending."""
    twins = twin_requests(requests, recorded)
    setup = replace(setup, drive=OpenLoop())
    prepared = Prepared(twins, setup.engine.sized(len(setup.systems[system].plan(setup.engine).instances)), None)
    log = EventLog()
    serve(setup, system, prepared, log, Path(), lambda instances: None, lambda num_ended, num_tokens: None)
    delays_s = {
        id: sent_s - arrived_s
        for (id, sent_s), arrived_s in zip(
            sorted(_times(recorded, EventKind.SENT).items()),
            [time_s for _, time_s in sorted(_times(recorded, EventKind.ARRIVED).items())],
            strict=True,
        )
    }
    return [
        replace(event, time_s=event.time_s - delays_s[event.requests[0]]) if event.kind is EventKind.ARRIVED else event
        for event in log.events
    ]


def _start_s(requests: Sequence[Request], events: Sequence[Event]) -> float:
    """When the client began, on the clock of the recorded run."""
    arrived_s = _times(events, EventKind.ARRIVED)
    return arrived_s[requests[0].id] - requests[0].arrival_s


def _times(events: Sequence[Event], kind: EventKind) -> dict[int, float]:
    return {event.requests[0]: event.time_s for event in _of(events, kind)}


def _of(events: Sequence[Event], kind: EventKind) -> list[Event]:
    return [event for event in events if event.kind is kind]
