"""Messages that overtake each other: between processes only those from one actor to another keep their order.

Each pair of actors has a channel of its own here, on which a message takes as long as chance says.
"""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import tetri
from tests.support.engine import CheckingFactory
from tests.systems.test_any_churn import churns, flips, kinds
from tests.systems.test_any_workload import loops, memories, profile, tetris, workloads
from tetribench.core.clock import Clock
from tetribench.core.events import EventKind
from tetribench.core.messages import Message, Ready
from tetribench.core.request import Request
from tetribench.drive.loadgen import Loop
from tetribench.instance.inline import InlineLauncher
from tetribench.instance.launch import InstanceSpec
from tetribench.instance.post import CONTROL

pytestmark = pytest.mark.no_cover


class Channels:
    """The post of one actor."""

    def __init__(self, launcher: "ScramblingLauncher", sender: str) -> None:
        self._launcher = launcher
        self._sender = sender

    def send(self, to: str, message: Message) -> None:
        self._launcher.carry(self._sender, to, message)

    def forget(self, name: str) -> None:
        """What is under way to an instance that is gone finds nobody."""


class ScramblingLauncher(InlineLauncher):
    """Up to `most_s` from the sending of a message to its delivery, in order on each channel."""

    def __init__(self, clock: Clock, most_s: float, seed: int) -> None:
        super().__init__(clock)
        self._most_s = most_s
        self._rng = random.Random(seed)
        self._free_s: dict[tuple[str, str], float] = {}
        self._carrying: set[asyncio.Task[None]] = set()

    async def _build(self, spec: InstanceSpec) -> Ready:
        ready = await super()._build(spec)
        self._instances[spec.name].loop._post = Channels(self, spec.name)
        return ready

    def send(self, to: str, message: Message) -> None:
        self.carry(CONTROL, to, message)

    def carry(self, sender: str, to: str, message: Message) -> None:
        arrival_s = self._clock.now() + self._most_s * self._rng.choice([0.0, 0.01, 0.1, self._rng.random()])
        self._free_s[sender, to] = max(self._free_s.get((sender, to), 0.0), arrival_s)
        task = asyncio.create_task(self._arrive(self._free_s[sender, to], to, message))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _arrive(self, time_s: float, to: str, message: Message) -> None:
        await self._clock.sleep_until(time_s)
        self._deliver(to, message)

    async def stop(self) -> None:
        """The last request's end finds messages still under way, and some of them let another begin its own."""
        await self._clock.sleep(10 * self._most_s)
        await super().stop()
        await self._clock.sleep(10 * self._most_s)


@profile
@given(
    workloads(), memories(), tetris(), loops, flips, st.integers(1, 3), st.integers(1, 3), st.data(), st.integers(0, 9)
)
def test_in_whatever_order_messages_come_every_request_is_served_once(
    requests: list[Request],
    factory: CheckingFactory,
    changes: dict[str, Any],
    loop: Loop,
    flip: Any,
    num_prefill: int,
    num_decode: int,
    data: st.DataObject,
    seed: int,
) -> None:
    num_decode += num_prefill == num_decode == 1
    churn = data.draw(churns(num_prefill, num_decode))
    changes |= {"num_prefill": num_prefill, "num_decode": num_decode, "flip": flip, "churn": churn}
    positions = data.draw(st.lists(st.integers(0, 60), min_size=len(requests), max_size=len(requests)))
    stopping = CheckingFactory(factory.num_blocks(), factory.block_size, dict(enumerate(positions)))
    requests = [replace(one, natural_stop=True) for one in requests]
    bench = Bench(tetri(**changes), stopping)
    bench.launcher = ScramblingLauncher(bench.clock, data.draw(st.sampled_from([0.001, 0.01, 0.1])), seed)
    bench.run_only(requests, loop)
    lost = [event.details["reason"] for event in kinds(bench.log.events, EventKind.INSTANCE_LOST)]
    assert set(lost) <= {"killed"}
    bench.assert_well(requests)
