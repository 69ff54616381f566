import asyncio
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.builders import request
from tests.support.clock import BoundedClock
from tests.support.lives import times
from tetribench.core.clock import VirtualClock, run_virtual
from tetribench.core.events import CLIENT, EventKind, EventLog
from tetribench.core.messages import Ended, TokenOutput
from tetribench.core.request import Request
from tetribench.drive.loadgen import Client, ClosedLoop, Loop, OpenLoop
from tetribench.systems.base import Deliver, Fail


class Station:
    """A system in which `service` says what happens to each request after it was submitted."""

    def __init__(self, clock: VirtualClock, stall_timeout_s: float = 100.0) -> None:
        self.clock = clock
        self.log = EventLog()
        self.progress: list[tuple[int, int]] = []
        self.client = Client(
            clock=clock,
            log=self.log,
            stall_timeout_s=stall_timeout_s,
            on_progress=lambda num_ended, num_tokens: self.progress.append((num_ended, num_tokens)),
        )
        self.num_in_system: list[int] = []
        self.service: Callable[[Request], Any] = self.serve_at_once_after(1.0)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, deliver: Deliver, fail: Fail) -> dict[str, dict[str, Any]]:
        return {}

    def catch_up(self) -> None:
        """Nothing is held back."""

    async def stop(self) -> None:
        """Nothing runs."""

    def submit(self, one: Request) -> None:
        self.num_in_system.append(self.client.num_in_system)
        self._tasks.append(asyncio.create_task(self.service(one)))

    def serve_at_once_after(self, seconds: float) -> Callable[[Request], Any]:
        async def service(one: Request) -> None:
            await self.clock.sleep(seconds)
            self.client.deliver([TokenOutput(one.id, 1, 0, 1, is_last=True)])

        return service

    def run(self, requests: SequenceOf[Request], loop: Loop) -> "Station":
        run_virtual(self.clock, self.client.run(requests, loop, self))
        return self

    def at(self, kind: EventKind) -> list[float]:
        return [event.time_s for event in self.log.events if event.kind is kind]


async def never(one: Request) -> None:
    """A request that is lost."""


class LateClock(BoundedClock):
    """An event loop so slow that every sleep takes `late_s` too long."""

    def __init__(self, late_s: float) -> None:
        super().__init__()
        self._late_s = late_s

    async def sleep_until(self, time_s: float, rank: int = 0) -> None:
        await super().sleep_until(time_s + self._late_s, rank)


def test_the_open_loop_sends_when_due_however_the_system_is_doing() -> None:
    station = Station(BoundedClock())
    station.service = station.serve_at_once_after(50.0)
    station.run([request(id, arrival_s=float(id)) for id in range(4)], OpenLoop())
    assert station.at(EventKind.ARRIVED) == station.at(EventKind.SENT) == [0.0, 1.0, 2.0, 3.0]
    assert station.num_in_system == [1, 2, 3, 4]


def test_how_many_requests_the_start_brings() -> None:
    requests = [request(id, arrival_s=arrival_s) for id, arrival_s in enumerate((0.0, 0.0, 0.9, 1.0, 7.0))]
    assert OpenLoop().num_at_start(requests) == 3 and OpenLoop().num_at_start(requests[4:]) == 0
    assert ClosedLoop(concurrency=2).num_at_start(requests) == 2
    assert ClosedLoop(concurrency=8).num_at_start(requests) == 5


def test_deadlines_are_absolute_so_that_a_slow_event_loop_does_not_add_up() -> None:
    station = Station(LateClock(0.3))
    station.run([request(id, arrival_s=float(id)) for id in range(20)], OpenLoop())
    assert station.at(EventKind.ARRIVED) == [float(id) for id in range(20)]
    assert station.at(EventKind.SENT) == pytest.approx([0.0, *(id + 0.3 for id in range(1, 20))])


def test_what_is_overdue_is_sent_at_once_with_its_intended_arrival() -> None:
    station = Station(LateClock(2.5))
    station.run([request(id, arrival_s=float(id)) for id in range(5)], OpenLoop())
    assert station.at(EventKind.ARRIVED) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert station.at(EventKind.SENT) == [0.0, 3.5, 3.5, 3.5, 6.5]


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=8))
@example([0.1, 0.7, 1.1, 1.3])
def test_nothing_is_sent_before_it_is_due(arrivals_s: list[float]) -> None:
    station = Station(BoundedClock())
    requests = [request(id, arrival_s=arrival_s) for id, arrival_s in enumerate(sorted(arrivals_s))]
    station.run(requests, OpenLoop())
    sent, arrived = station.at(EventKind.SENT), station.at(EventKind.ARRIVED)
    assert arrived == sorted(arrivals_s)
    assert all(sent_s >= arrived_s for sent_s, arrived_s in zip(sent, arrived, strict=True))


@given(st.floats(0.0, 10.0), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
@example(0.1, [0.7])
def test_in_a_closed_loop_arriving_and_being_sent_are_one(start_s: float, services_s: list[float]) -> None:
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        await station.clock.sleep(services_s[one.id])
        station.client.deliver([TokenOutput(one.id, 1, 0, 1, is_last=True)])

    async def main() -> None:
        await station.clock.sleep(start_s)
        requests = [request(id) for id in range(len(services_s))]
        await station.client.run(requests, ClosedLoop(concurrency=1), station)

    station.service = service
    run_virtual(station.clock, main())
    assert station.at(EventKind.SENT) == station.at(EventKind.ARRIVED)


def test_arrivals_count_from_the_start_of_the_run_and_not_of_the_clock() -> None:
    station = Station(BoundedClock())

    async def main() -> None:
        await station.clock.sleep(5.0)
        await station.client.run([request(0, arrival_s=1.0)], OpenLoop(), station)

    run_virtual(station.clock, main())
    assert station.at(EventKind.ARRIVED) == station.at(EventKind.SENT) == [6.0]


def test_the_closed_loop_keeps_exactly_so_many_in_the_system() -> None:
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        await station.clock.sleep(1.0 + one.id % 3)
        station.client.deliver([TokenOutput(one.id, 1, 0, 1, is_last=True)])

    station.service = service
    station.run([request(id, arrival_s=77.0) for id in range(20)], ClosedLoop(concurrency=4))
    assert station.num_in_system == [1, 2, 3, *[4] * 17]
    ends, starts = station.at(EventKind.FINISHED), station.at(EventKind.SENT)
    assert starts == [0.0] * 4 + ends[:16]
    assert station.at(EventKind.ARRIVED) == starts


def test_two_ends_at_once_let_two_more_in() -> None:
    station, held = Station(BoundedClock()), []

    async def in_pairs(one: Request) -> None:
        held.append(TokenOutput(one.id, 1, 0, 1, is_last=True))
        if len(held) == 2:
            await station.clock.sleep(1.0)
            both, held[:] = list(held), []
            station.client.deliver(both)

    station.service = in_pairs
    station.run([request(id) for id in range(8)], ClosedLoop(concurrency=2))
    assert station.at(EventKind.SENT) == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_a_closed_loop_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drive.concurrency=0: must be at least 1"):
        ClosedLoop(concurrency=0)


def test_what_the_client_writes_down() -> None:
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        if one.id == 1:
            return
        for outputs in ([(0, 7, False), (1, 8, False)], [(0, 9, False)], [(1, 5, True), (0, 6, True)]):
            await station.clock.sleep(1.0)
            station.client.deliver([TokenOutput(id, 1, 0, token_id, is_last) for id, token_id, is_last in outputs])

    station.service = service
    station.run([request(0, 11, 3, label="LPLD", sla_class="batch"), request(1, 12, 2)], OpenLoop())
    events = station.log.events
    assert all(event.source == CLIENT for event in events)
    assert [(event.kind, event.time_s, event.requests) for event in events] == [
        (EventKind.ARRIVED, 0.0, (0,)),
        (EventKind.SENT, 0.0, (0,)),
        (EventKind.ARRIVED, 0.0, (1,)),
        (EventKind.SENT, 0.0, (1,)),
        (EventKind.FIRST_TOKEN, 1.0, (0,)),
        (EventKind.FIRST_TOKEN, 1.0, (1,)),
        (EventKind.TOKEN, 2.0, (0,)),
        (EventKind.TOKEN, 3.0, (1, 0)),
        (EventKind.FINISHED, 3.0, (1,)),
        (EventKind.FINISHED, 3.0, (0,)),
    ]
    lengths = {"num_prompt_tokens": 11, "max_output_tokens": 3}
    assert events[0].details == lengths | {"label": "LPLD", "sla_class": "batch"}
    assert events[2].details["sla_class"] == "default"
    assert events[-1].details == {"num_output_tokens": 3}
    assert station.client.outputs == {0: [7, 9, 6], 1: [8, 5]}
    assert station.progress == [(0, 2), (0, 3), (2, 5)]


def test_no_token_for_too_long_is_a_failure_that_names_the_requests() -> None:
    station = Station(BoundedClock(limit_s=100.0), stall_timeout_s=10.0)
    station.service = never
    with pytest.raises(TimeoutError, match=r"no token for 10 s; waiting: requests 0, 1, 2, 3, 4, 5, 6, 7$"):
        station.run([request(id) for id in range(9)], OpenLoop())
    failed = [event for event in station.log.events if event.kind is EventKind.FAILED]
    assert sorted(event.requests[0] for event in failed) == list(range(9))
    assert all("no token for 10 s" in event.details["reason"] for event in failed)
    assert station.clock.now() <= 20.0


def test_a_system_that_goes_on_slowly_is_not_stalled() -> None:
    station = Station(BoundedClock(), stall_timeout_s=10.0)

    async def service(one: Request) -> None:
        for position in range(10):
            await station.clock.sleep(9.9)
            station.client.deliver([TokenOutput(one.id, 1, position, position, is_last=position == 9)])

    station.service = service
    assert len(station.run([request(output=10)], OpenLoop()).at(EventKind.FINISHED)) == 1


@pytest.mark.parametrize("arrival_s", [19.9, 20.0, 95.0])
def test_an_empty_system_is_not_stalled_however_late_the_next_request_comes(arrival_s: float) -> None:
    """Time without a token counts only while a request is in the system."""
    station = Station(BoundedClock(), stall_timeout_s=10.0)
    station.service = station.serve_at_once_after(5.0)
    station.run([request(0), request(1, arrival_s=arrival_s)], OpenLoop())
    assert len(station.at(EventKind.FINISHED)) == 2


def test_a_failure_of_the_system_fails_all_open_requests_with_its_reason() -> None:
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        await station.clock.sleep(2.0 + one.id)
        if one.id < 2:
            station.client.deliver([TokenOutput(one.id, 1, 0, 1, is_last=True)])
            return
        station.client.fail(RuntimeError("first reason"))
        station.client.fail(RuntimeError("second reason"))

    station.service = service
    with pytest.raises(RuntimeError, match="first reason"):
        station.run([request(id) for id in range(4)], OpenLoop())
    assert times(station.log.events, EventKind.FAILED) == {2: [4.0], 3: [4.0]}
    assert station.log.events[-1].details == {"reason": "first reason"}
    assert station.client.num_in_system == 0


def test_an_interrupted_run_says_so_of_every_open_request() -> None:
    station = Station(BoundedClock())
    station.service = never

    async def main() -> None:
        running = asyncio.create_task(station.client.run([request(0), request(1, arrival_s=50.0)], OpenLoop(), station))
        await station.clock.sleep(3.0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        run_virtual(station.clock, main())
    (event,) = [event for event in station.log.events if event.kind is EventKind.FAILED]
    assert (event.time_s, event.requests, event.details) == (3.0, (0,), {"reason": "interrupted"})


def test_a_token_that_comes_after_its_request_has_failed_is_not_counted() -> None:
    """An iteration in flight ends after a failure elsewhere, and its tokens still come."""
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        station.client.fail(RuntimeError("elsewhere"))

    station.service = service
    with pytest.raises(RuntimeError, match="elsewhere"):
        station.run([request(0), request(1)], OpenLoop())
    num_events = len(station.log.events)
    station.client.deliver([TokenOutput(0, 1, 0, 1, is_last=False), TokenOutput(1, 1, 0, 1, is_last=True)])
    assert len(station.log.events) == num_events


def test_what_goes_wrong_in_sending_is_raised() -> None:
    station = Station(BoundedClock())
    station.submit = lambda one: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        station.run([request(0)], OpenLoop())
    assert len(station.at(EventKind.FAILED)) == 1


def test_a_request_fails_by_itself_and_lets_the_next_one_in() -> None:
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        await station.clock.sleep(1.0)
        if one.id == 0:
            station.client.deliver([TokenOutput(0, 1, 0, 1, is_last=False)])
            station.client.deliver([], [], [Ended("colocated-0", 0, 1, "HTTP 429")])
            station.client.deliver([TokenOutput(0, 1, 1, 1, is_last=True)])  # too late
        else:
            station.client.deliver([TokenOutput(one.id, 1, 0, 1, is_last=True)])

    station.service = service
    station.run([request(0, 5, 2), request(1, 5, 1)], ClosedLoop(concurrency=1))
    assert [event.details for event in station.log.events if event.kind is EventKind.FAILED] == [{"reason": "HTTP 429"}]
    assert station.at(EventKind.FAILED) == [1.0] and station.at(EventKind.FINISHED) == [2.0]
    assert station.client.outputs == {0: [1], 1: [1]} and station.progress[-1] == (2, 2)


def test_a_response_may_end_after_its_last_token() -> None:
    station = Station(BoundedClock())

    async def service(one: Request) -> None:
        station.client.deliver([TokenOutput(0, 1, 0, 1, is_last=False)])
        await station.clock.sleep(1.0)
        station.client.deliver([], [], [Ended("colocated-0", 0, 1)])

    station.service = service
    station.run([request(0, 5, 9)], OpenLoop())
    (end,) = [event for event in station.log.events if event.kind is EventKind.FINISHED]
    assert (end.time_s, end.details) == (1.0, {"num_output_tokens": 1})
