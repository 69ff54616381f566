"""Whole systems, run and checked."""

import asyncio
from collections.abc import Sequence as SequenceOf
from unittest import mock

from tests.support.clock import BoundedClock
from tests.support.engine import CheckingFactory
from tests.support.link import CheckingLink
from tests.support.lives import assert_served, times
from tetribench.core.clock import Clock, VirtualClock, WallClock, run_virtual
from tetribench.core.events import EventKind, EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import Client, Loop, OpenLoop
from tetribench.engine.base import Engine
from tetribench.instance.inline import InlineLauncher
from tetribench.kv.links import Link, Medium
from tetribench.systems.base import System
from tetribench.systems.stack import Stack


class Bench:
    """One run of a system in this process, with all that it leaves behind: in virtual time with links that check, or on
    a wall clock with the links that really copy."""

    def __init__(
        self,
        system: System,
        factory: CheckingFactory,
        *,
        clock: VirtualClock | WallClock | None = None,
        stall_timeout_s: float = 1000.0,
    ) -> None:
        self.clock = clock or BoundedClock()
        self.log = EventLog()
        self.client = Client(clock=self.clock, log=self.log, stall_timeout_s=stall_timeout_s)
        self.launcher = InlineLauncher(self.clock)
        self.factory = factory
        self.system = system
        self.swallowed: list[str] = []
        """Errors in callbacks, which asyncio would only have logged."""

    def run(self, requests: SequenceOf[Request], loop: Loop | None = None) -> "Bench":
        """Serve `requests` to the end, then check every invariant that holds of a run that went well."""
        self.run_only(requests, loop)
        return self.assert_well(requests)

    def assert_well(self, requests: SequenceOf[Request]) -> "Bench":
        """Every invariant that holds of a run that went well."""
        assert not self.swallowed
        self.launcher.check()
        assert all(engine.is_closed for engine in self.factory.engines)
        assert_served(self.log.events, requests)
        for one in requests:
            ended = self.client.outputs[one.id]
            assert ended == [self.factory.token(one.id, position) for position in range(len(ended))]
        return self

    def run_only(self, requests: SequenceOf[Request], loop: Loop | None = None) -> None:
        main = self._main(requests, loop or OpenLoop())
        if isinstance(self.clock, VirtualClock):
            with mock.patch("tetribench.instance.inline.link_for", self._link):
                run_virtual(self.clock, main)
        else:
            asyncio.run(asyncio.wait_for(main, 5.0))

    def _link(self, engine: Engine, medium: Medium, clock: Clock) -> Link:
        return CheckingLink(engine, medium.speed, clock)

    async def _main(self, requests: SequenceOf[Request], loop: Loop) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.swallowed.append(repr(context)))
        stack = Stack(self.system.plan(self.factory), self.launcher, self.clock, self.log)
        try:
            await stack.start(self.client.deliver, self.client.fail)
            await self.client.run(requests, loop, stack)
        finally:
            await stack.stop()

    def times(self, kind: EventKind) -> dict[int, list[float]]:
        """When each request had an event of this kind."""
        return times(self.log.events, kind)
