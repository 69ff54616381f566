"""What was recorded is kept, and virtual time gets the requests as they really were."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, vllm_like
from tests.support.engine import CheckingFactory
from tetribench.calibrate.watch import MachineState
from tetribench.core.events import Event, EventKind
from tetribench.fidelity.recording import Key, Recording, Recordings
from tetribench.fidelity.twin import twin_requests
from tetribench.workload.request_set import RequestSet

EVENTS = [Event(0.5, EventKind.SENT, "client", (0,)), Event(1.0, EventKind.TOKEN, "client", (0, 1))]
KEY = Key(0, "tetri", 1)
MADE = Recording(KEY, EVENTS, MachineState(0.1, 0.2, 0.3), "today", 2)


def test_a_recording_is_found_again_where_it_is_of_the_same_run(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path)
    what: dict[str, Any] = {"requests": "abc", "system": {"num_decode": 1}}
    assert recordings.load(KEY, what) is None
    recordings.save(MADE, what)
    assert recordings.load(KEY, what) == MADE
    assert recordings.load(KEY._replace(seed=1), what) is None
    assert recordings.load(KEY._replace(serving=0), what) is None
    assert recordings.load(KEY, {**what, "requests": "abd"}) is None


def test_a_recording_that_was_broken_off_does_not_count(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path)
    recordings.save(MADE, {})
    (tmp_path / "tetri-0-1.json").unlink()
    assert recordings.load(KEY, {}) is None


def test_a_twin_is_sent_when_it_really_was_and_is_as_long_as_it_became() -> None:
    requests = [request(0, 10, 4, 1.0), request(1, 10, 6, 2.0)]
    events = Bench(vllm_like(), CheckingFactory()).run(requests).log.events
    late = [
        Event(event.time_s + 0.25, event.kind, event.source, event.requests, event.details)
        if event.kind is EventKind.SENT and event.requests == (1,)
        else event
        for event in events
    ]
    short = [
        Event(event.time_s, event.kind, event.source, event.requests, {"num_output_tokens": 3})
        if event.kind is EventKind.FINISHED and event.requests == (0,)
        else event
        for event in late
    ]
    twins = twin_requests(RequestSet(name="x", requests=requests), short).requests
    assert [one.arrival_s for one in twins] == pytest.approx([1.0, 2.25])
    assert [one.max_output_tokens for one in twins] == [3, 6]


def test_a_run_in_which_a_request_failed_is_refused() -> None:
    requests = [request(0, 10, 4)]
    events = Bench(vllm_like(), CheckingFactory()).run(requests).log.events
    unfinished = [event for event in events if event.kind is not EventKind.FINISHED]
    with pytest.raises(ValueError, match="did not finish request 0"):
        twin_requests(RequestSet(name="x", requests=requests), unfinished)
