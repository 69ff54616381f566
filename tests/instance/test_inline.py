import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, tetri, vllm_like
from tests.support.clock import BoundedClock
from tests.support.engine import CheckingFactory
from tests.support.factories import TroubleFactory, never_returns, raises
from tetribench.core.clock import Clock, run_virtual
from tetribench.core.events import EventKind
from tetribench.core.messages import Broken, LoadBroadcast, LoadReport, Message, Progress, Submit
from tetribench.engine.base import Engine
from tetribench.instance.inline import InlineLauncher
from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.systems.base import System

Body = Callable[[InlineLauncher, list[Message]], Coroutine[Any, Any, None]]


class Refusing(CheckingFactory):
    """The second engine does not come up."""

    def build(self, clock: Clock, device: int | None) -> Engine:
        if self.engines:
            raise ValueError("model.path=nowhere: no such directory")
        return super().build(clock, device)


def launch(system: System, factory: CheckingFactory, body: Body) -> list[Message]:
    """Start, run `body`, stop; everything that control was sent. Errors in callbacks must not be left to asyncio."""
    clock, received, swallowed = BoundedClock(limit_s=100.0), list[Message](), list[str]()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: swallowed.append(repr(context)))
        launcher = InlineLauncher(clock)
        try:
            await launcher.start(system.plan(factory).instances, received.append)
            await body(launcher, received)
        finally:
            await launcher.stop()
            await launcher.stop()

    run_virtual(clock, main())
    assert not swallowed
    return received


async def nothing(launcher: InlineLauncher, received: list[Message]) -> None:
    """Straight to the stop."""


def test_instances_are_ready_with_the_facts_of_their_engines() -> None:
    async def main() -> None:
        launcher = InlineLauncher(BoundedClock())
        specs: list[InstanceSpec] = tetri().plan(CheckingFactory(num_blocks=7)).instances
        ready = await launcher.start(specs, lambda message: None)
        assert list(ready) == ["prefill-0", "decode-0"]
        assert ready["decode-0"].facts["num_blocks"] == 7 and ready["decode-0"].link_handle
        launcher.check()
        await launcher.stop()

    run_virtual(BoundedClock(), main())


@pytest.mark.parametrize("system", [tetri(), vllm_like(num_instances=2)])
def test_messages_may_take_time(system: System) -> None:
    """As in processes of their own: each leg of a request's way is longer by one, and nothing is lost at the end."""
    requests = [request(id, 40, 3, 0.001 * id) for id in range(4)]
    bench = Bench(system, CheckingFactory())
    bench.launcher = InlineLauncher(bench.clock, message_s=0.25)
    bench.run(requests)
    events = bench.log.events
    ended_s = {event.time_s for event in events if event.kind is EventKind.ITERATION}
    first, routed, started, admitted, arrived = (
        bench.times(kind)
        for kind in (
            EventKind.FIRST_TOKEN,
            EventKind.ROUTED,
            EventKind.PREFILL_STARTED,
            EventKind.ADMITTED,
            EventKind.TRANSFER_DONE,
        )
    )
    assert started[0][0] == pytest.approx(routed[0][0] + 0.25)
    assert all(min(abs(first[id][0] - 0.25 - end_s) for end_s in ended_s) < 1e-9 for id in range(4))
    for id, (done_s,) in arrived.items():
        assert admitted[id][0] == pytest.approx(done_s + 0.25)


def test_messages_arrive_in_the_order_of_sending_after_the_senders_step() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        for id in range(3):
            launcher.send("control", Broken("x", str(id)))
        assert received == []
        await asyncio.sleep(0)
        assert [message for message in received if isinstance(message, Broken)] == [
            Broken("x", str(id)) for id in range(3)
        ]

    launch(tetri(), CheckingFactory(), body)


def test_every_instance_reports_its_load() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    found = launch(tetri(num_decode=2), CheckingFactory(), body)
    assert {message.instance for message in found if isinstance(message, LoadReport)} == {
        "prefill-0",
        "decode-0",
        "decode-1",
    }


def test_an_engine_that_raises_is_told_with_its_instances_name() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        launcher.send("colocated-1", Submit(request()))
        for _ in range(5):
            await asyncio.sleep(0)

    found = launch(vllm_like(2), TroubleFactory(raises, index=1), body)
    assert [message for message in found if isinstance(message, Broken)] == [
        Broken("colocated-1", "RuntimeError: the device fell off the bus")
    ]


def test_a_scheduler_that_cannot_take_a_message_is_told_with_its_instances_name() -> None:
    """Nothing may be swallowed: without this, the request would only be missed when the run stalls."""

    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        launcher.send("decode-0", Submit(request()))
        for _ in range(5):
            await asyncio.sleep(0)

    found = launch(tetri(), CheckingFactory(), body)
    assert [message.instance for message in found if isinstance(message, Broken)] == ["decode-0"]


def test_stop_ends_an_instance_whose_engine_never_returns() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        launcher.send("colocated-0", Submit(request()))
        await launcher._clock.sleep(1.0)

    factory = TroubleFactory(never_returns)
    launch(vllm_like(), factory, body)
    assert factory.engines[0].is_closed


def test_stop_closes_what_was_started_when_another_did_not_come_up() -> None:
    factory = Refusing()
    with pytest.raises(Exception, match="no such directory"):
        launch(vllm_like(2), factory, nothing)
    assert factory.engines[0].is_closed


def test_check_asks_every_scheduler() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        launcher.check()
        launcher.send("prefill-0", LoadBroadcast({}))
        launcher.send("prefill-1", Submit(request(prompt=1000)))
        await asyncio.sleep(0)
        with pytest.raises(AssertionError, match="forgot a request"):
            launcher.check()

    launch(tetri(num_prefill=2), CheckingFactory(num_blocks=1), body)


def added(name: str, index: int, factory: CheckingFactory) -> InstanceSpec:
    return replace(tetri().plan(factory).instances[1], name=name, index=index)


def test_one_that_joins_is_known_to_all_and_serves() -> None:
    factory = CheckingFactory()

    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        ready = await launcher.join(added("decode-1", 2, factory))
        assert ready.facts["num_blocks"] == 1000
        await launcher._clock.sleep(1.0)
        assert set(launcher._instances["prefill-0"].link._peers) == {"prefill-0", "decode-0", "decode-1"}  # type: ignore[attr-defined]
        assert set(launcher._instances["decode-1"].link._peers) == {"prefill-0", "decode-0", "decode-1"}  # type: ignore[attr-defined]

    found = launch(tetri(), factory, body)
    assert "decode-1" in {message.instance for message in found if isinstance(message, LoadReport)}
    assert len(factory.engines) == 3 and factory.engines[2].is_closed


def test_one_that_does_not_come_up_leaves_the_others_alone() -> None:
    factory = Refusing()

    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        with pytest.raises(InstanceFailed, match="no such directory"):
            await launcher.join(added("decode-1", 1, factory))
        await launcher._clock.sleep(1.0)

    assert not [message for message in launch(vllm_like(1), factory, body) if isinstance(message, Broken)]


def test_a_killed_instance_is_told_once_and_gets_nothing_more() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        launcher.send("colocated-0", Submit(request(0, output=3)))
        await launcher._clock.sleep(0.0)
        launcher.kill("colocated-0")
        launcher.kill("colocated-0")
        launcher.send("colocated-0", Submit(request(1)))
        num_messages = len(received)
        await launcher._clock.sleep(1.0)
        assert not any(isinstance(message, Progress) for message in received[num_messages:])

    factory = CheckingFactory()
    found = launch(vllm_like(2), factory, body)
    assert [message for message in found if isinstance(message, Broken)] == [Broken("colocated-0", "killed")]
    assert all(engine.is_closed for engine in factory.engines)


def test_one_that_leaves_ends_without_a_word() -> None:
    async def body(launcher: InlineLauncher, received: list[Message]) -> None:
        await launcher.leave("colocated-0")
        await launcher._clock.sleep(1.0)
        assert launcher._open[0].task is not None and launcher._open[0].task.done()
        await launcher.leave("colocated-0")

    assert not [message for message in launch(vllm_like(2), CheckingFactory(), body) if isinstance(message, Broken)]
