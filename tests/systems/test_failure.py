import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.clock import BoundedClock
from tests.support.engine import CheckingFactory
from tests.support.factories import TroubleFactory, never_returns, raises
from tests.support.lives import times
from tetribench.core.clock import WallClock
from tetribench.core.events import CLIENT, EventKind
from tetribench.instance.launch import InstanceFailed
from tetribench.kv.links import LinkSpeed
from tetribench.prefill.chunk import Chunker
from tetribench.systems.base import System

REQUESTS = [request(id, 40, 10) for id in range(6)]


def assert_all_accounted_for(bench: Bench, reason: str) -> None:
    """Each request has ended exactly once, those that failed with `reason`; nothing was logged behind our back."""
    ended = {kind: times(bench.log.events, kind) for kind in (EventKind.FINISHED, EventKind.FAILED)}
    assert sorted([*ended[EventKind.FINISHED], *ended[EventKind.FAILED]]) == [one.id for one in REQUESTS]
    failed = [event for event in bench.log.events if event.kind is EventKind.FAILED]
    assert failed and all(reason in event.details["reason"] for event in failed)
    assert bench.swallowed == []
    stopped = [event for event in bench.log.events if event.kind is EventKind.INSTANCE_STOPPED]
    assert len(stopped) == len(bench.system.plan(bench.factory).instances)
    assert all(engine.is_closed for engine in bench.factory.engines)


@pytest.mark.parametrize(
    ("system", "index", "at", "name"),
    [
        (tetri(), 0, 1, "prefill-0"),
        (tetri(), 1, 5, "decode-0"),
        (vllm_like(), 0, 2, "colocated-0"),
        (sarathi_like(), 0, 2, "colocated-0"),
    ],
)
def test_the_last_engine_of_a_role_that_raises_fails_the_run_with_its_instances_name(
    system: System, index: int, at: int, name: str
) -> None:
    bench = Bench(system, TroubleFactory(raises, index=index, at=at), clock=BoundedClock(limit_s=100.0))
    with pytest.raises(InstanceFailed, match=f"^{name}: RuntimeError: the device fell off the bus$"):
        bench.run_only(REQUESTS)
    assert_all_accounted_for(bench, f"{name}: RuntimeError")


@pytest.mark.parametrize(
    ("system", "index", "at", "name"),
    [
        (tetri(num_prefill=2), 0, 2, "prefill-0"),
        (tetri(num_decode=2), 2, 3, "decode-1"),
        (vllm_like(2), 1, 2, "colocated-1"),
    ],
)
def test_an_engine_that_raises_costs_its_instance_and_no_request_where_another_has_its_role(
    system: System, index: int, at: int, name: str
) -> None:
    bench = Bench(system, TroubleFactory(raises, index=index, at=at), clock=BoundedClock(limit_s=100.0))
    bench.run(REQUESTS)
    (lost,) = [event for event in bench.log.events if event.kind is EventKind.INSTANCE_LOST]
    assert (lost.source, lost.details["reason"]) == (name, "RuntimeError: the device fell off the bus")
    assert times(bench.log.events, EventKind.RETRIED)


def test_a_neighbour_in_mid_iteration_does_not_disturb_the_failure() -> None:
    """decode-0 fails while prefill-0 computes the only token of request 1, which then comes too late."""
    requests = [request(0, 10, 10), request(2, 10, 10), request(1, 200, 1, 0.0001), *REQUESTS[3:]]
    slow = tetri(chunk=Chunker(chunk_size=200), link=LinkSpeed(bandwidth_bytes_per_s=1e5))
    bench = Bench(slow, TroubleFactory(raises, index=1, at=2), clock=BoundedClock(limit_s=100.0))
    with pytest.raises(InstanceFailed):
        bench.run_only(requests)
    assert_all_accounted_for(bench, "decode-0")
    ended: set[int] = set()
    for event in bench.log.events:
        if event.source == CLIENT:
            assert not ended & set(event.requests), f"{event} comes after the request has ended"
            ended |= set(event.requests) if event.kind in (EventKind.FINISHED, EventKind.FAILED) else set()
    (failed_s,) = times(bench.log.events, EventKind.FAILED)[1]
    assert times(bench.log.events, EventKind.PREFILL_DONE)[1][0] > failed_s


def test_a_stall_names_the_requests_that_wait() -> None:
    factory = TroubleFactory(never_returns, index=1, at=3)
    bench = Bench(tetri(), factory, clock=BoundedClock(limit_s=500.0), stall_timeout_s=50.0)
    with pytest.raises(TimeoutError, match=r"no token for 50 s; waiting: requests 0, 1, 2, 3, 4, 5"):
        bench.run_only(REQUESTS)
    assert_all_accounted_for(bench, "no token for 50 s")


@pytest.mark.alone
def test_a_stall_in_real_time_ends_too() -> None:
    bench = Bench(vllm_like(), TroubleFactory(never_returns), clock=WallClock(), stall_timeout_s=0.2)
    with pytest.raises(TimeoutError, match=r"no token for .* waiting: requests 0, 1, 2, 3, 4, 5"):
        bench.run_only(REQUESTS)
    assert_all_accounted_for(bench, "no token for")


@pytest.mark.alone
def test_real_time_serves_like_virtual_time() -> None:
    bench = Bench(tetri(num_prefill=2, num_decode=2), CheckingFactory(num_blocks=12), clock=WallClock())
    bench.run(REQUESTS)


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """Also where the tests run in the background, with that signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_fails_what_is_open_and_ends_the_run() -> None:
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)

    bench = Bench(tetri(), TroubleFactory(interrupt, index=1, at=4), clock=BoundedClock(limit_s=100.0))
    with pytest.raises(KeyboardInterrupt):
        bench.run_only(REQUESTS)
    assert_all_accounted_for(bench, "interrupted")


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_an_interrupted_system_does_not_go_on_serving_while_it_stops() -> None:
    """The link is slow, so that KV is under way the whole time; what is under way may end, nothing more may begin."""
    interrupted_s = []

    async def interrupt() -> None:
        interrupted_s.append(bench.clock.now())
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)

    slow = tetri(link=LinkSpeed(bandwidth_bytes_per_s=1e5))
    bench = Bench(slow, TroubleFactory(interrupt, at=4, num_blocks=100), clock=BoundedClock(limit_s=100.0))
    with pytest.raises(KeyboardInterrupt):
        bench.run_only([request(id, 40, 10) for id in range(100)])
    iterations = [event.details for event in bench.log.events if event.kind is EventKind.ITERATION]
    assert max(details["started_s"] for details in iterations) <= interrupted_s[0]
