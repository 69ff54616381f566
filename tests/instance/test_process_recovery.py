"""Instances in processes of their own that are killed, come and leave while the others go on serving."""

import asyncio
from pathlib import Path

import pytest

from tests.engine.test_cost_model import round_numbers, small
from tests.support.builders import request, tetri
from tests.support.lives import assert_served
from tetribench.core.clock import WallClock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.messages import Broken, Message, Ready
from tetribench.drive.loadgen import Client, OpenLoop
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.instance.launch import InstanceFailed
from tetribench.instance.process import ProcessLauncher
from tetribench.systems.stack import Stack
from tetribench.systems.tetri import Tetri

pytestmark = pytest.mark.alone

SLOW = CostModelFactory(model=small(), hardware=round_numbers(overhead_s=0.02, bytes_per_s=1e12, flops_per_s=1e12))
"""An iteration takes 20 ms; there is nothing to load."""

REQUESTS = [request(id, 4, 40) for id in range(4)]


def serve(system: Tetri, folder: Path) -> list[Event]:
    """The events of `REQUESTS`, each of which is served once, and of the instances; all processes have ended."""
    clock, log = WallClock(), EventLog()
    client = Client(clock=clock, log=log, stall_timeout_s=20.0)

    async def main() -> None:
        launcher = ProcessLauncher(clock=clock, log_folder=folder)
        stack = Stack(system.plan(SLOW), launcher, clock, log)
        try:
            await stack.start(client.deliver, client.fail)
            await client.run(REQUESTS, OpenLoop(), stack)
        finally:
            await stack.stop()
        assert all(process.returncode is not None for process in launcher._processes.values())

    asyncio.run(asyncio.wait_for(main(), 60.0))
    assert_served(log.events, REQUESTS)
    return log.events


def of(events: list[Event], kind: EventKind) -> list[Event]:
    return [event for event in events if event.kind is kind]


def test_a_process_that_is_killed_is_told_and_the_others_serve_its_requests(tmp_path: Path) -> None:
    events = serve(tetri(num_decode=2, churn=["0.3 kill decode-0"]), tmp_path)
    (lost,) = of(events, EventKind.INSTANCE_LOST)
    assert lost.source == "decode-0" and "process ended with code -9" in lost.details["reason"]
    assert lost.details["num_restarted"] == len(of(events, EventKind.RETRIED)) > 0


def test_a_process_comes_and_another_leaves_when_it_is_empty(tmp_path: Path) -> None:
    events = serve(tetri(num_decode=2, churn=["0.1 add decode", "0.2 remove decode-0"]), tmp_path)
    assert "decode-2" in {event.source for event in of(events, EventKind.INSTANCE_READY)}
    assert of(events, EventKind.INSTANCE_LOST) == []
    assert [event.source for event in of(events, EventKind.FLIPPED)] == ["decode-0"]


class ShortLived(ProcessLauncher):
    """Whoever is ready dies at once."""

    def _receive(self, message: Message) -> None:
        super()._receive(message)
        if isinstance(message, Ready):
            super()._receive(Broken(message.instance, "no memory"))


def test_one_that_dies_while_others_start_ends_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        launcher = ShortLived(clock=WallClock(), log_folder=tmp_path)
        try:
            with pytest.raises(InstanceFailed, match=r"^(prefill|decode)-0: (no memory|ended while others started)"):
                await launcher.start(tetri().plan(SLOW).instances, lambda message: None)
        finally:
            await launcher.stop()

    asyncio.run(main())


def test_killing_and_leaving_what_is_gone_does_nothing(tmp_path: Path) -> None:
    async def main() -> list[Message]:
        received: list[Message] = []
        launcher = ProcessLauncher(clock=WallClock(), log_folder=tmp_path)
        try:
            await launcher.start(tetri().plan(SLOW).instances, received.append)
            launcher.kill("decode-0")
            await launcher._processes["decode-0"].wait()
            launcher.kill("decode-0")
            while not any(isinstance(message, Broken) for message in received):
                await asyncio.sleep(0.01)
            launcher.kill("decode-0")
            await launcher.leave("decode-0")
        finally:
            await launcher.stop()
            await launcher.stop()
        return received

    broken = [message for message in asyncio.run(main()) if isinstance(message, Broken)]
    assert [message.instance for message in broken] == ["decode-0"]
