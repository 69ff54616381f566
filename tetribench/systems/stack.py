"""A running stack of our own: control plane here, instances wherever the launcher puts them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from tetribench.control.churn import Action, Step
from tetribench.control.plane import ControlPlane
from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Message, Ready
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.instance.launch import InstanceSpec, Launcher
from tetribench.systems.base import Deliver, Fail, Plan


class Stack:
    """Carries messages between a plan's instances and the control plane; serves one run and is then stopped."""

    def __init__(self, plan: Plan, launcher: Launcher, clock: Clock, log: EventLog) -> None:
        self._plan = plan
        self._launcher = launcher
        self._clock = clock
        self._log = log
        self._control = ControlPlane(plan.router, plan.flip)
        self._num_started: Counter[Role] = Counter()
        self._running: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._deliver: Deliver = lambda outputs, runs, ended: None
        self._fail: Fail = lambda error: None

    async def start(self, deliver: Deliver, fail: Fail) -> dict[str, dict[str, Any]]:
        self._deliver, self._fail = deliver, fail
        specs = self._plan.instances
        for spec in specs:
            self._started(spec)
        ready = await self._launcher.start(specs, self._receive)
        facts = {spec.name: self._ready(spec, ready[spec.name]) for spec in specs}
        self._carry_out()
        self._tasks = [asyncio.create_task(self._keep(part)) for part in (self._lead, self._churn)]
        return facts

    def _started(self, spec: InstanceSpec) -> None:
        self._num_started[spec.role] += 1
        self._running.add(spec.name)
        self._record(EventKind.INSTANCE_STARTED, spec.name, role=spec.role.value)

    def _ready(self, spec: InstanceSpec, ready: Ready) -> dict[str, Any]:
        facts = {"role": spec.role.value, **ready.facts}
        self._record(EventKind.INSTANCE_READY, spec.name, **facts)
        num_tokens = ready.facts.get("num_blocks", 0) * ready.facts.get("block_size", 0)  # a server may not say
        now_s = self._clock.now()
        empty = InstanceLoad(time_s=now_s, num_total_tokens=num_tokens, num_free_tokens=num_tokens)
        self._control.join(spec.name, spec.role, empty, now_s)
        return facts

    def _record(self, kind: EventKind, source: str, **details: Any) -> None:
        self._log.record(Event(self._clock.now(), kind, source, (), details))

    async def _keep(self, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A part of the control plane that runs by itself; its error fails the run."""
        try:
            await part()
        except Exception as error:
            self._fail(error)

    async def _lead(self) -> None:
        await self._clock.sleep(self._plan.broadcast_period_s)
        await self._clock.every(self._plan.broadcast_period_s, self._lead_once)

    def _lead_once(self) -> None:
        """The cluster monitor's period: broadcast loads, look for flips."""
        self._control.broadcast()
        self._control.watch(self._clock.now())
        self._carry_out()

    async def _churn(self) -> None:
        ready_s = self._clock.now()
        for step in self._plan.churn:
            await self._clock.sleep_until(ready_s + step.at_s)
            await self._apply(step)
            self._carry_out()

    async def _apply(self, step: Step) -> None:
        now_s = self._clock.now()
        match step.action:
            case Action.kill:
                self._launcher.kill(step.target)
            case Action.remove:
                self._control.leave(step.target, now_s)
            case Action.flip:
                self._control.flip(step.target, now_s)
            case Action.add:
                await self._add(Role(step.target))

    async def _add(self, role: Role) -> None:
        spec = self._plan.instance(role, self._num_started[role], self._num_started.total())
        self._started(spec)
        self._ready(spec, await self._launcher.join(spec))

    def submit(self, request: Request) -> None:
        self._control.submit(request, self._clock.now())
        self._carry_out()

    def _receive(self, message: Message) -> None:
        """Called from the launcher, which could do nothing with an error: it fails the run from here."""
        try:
            try:
                self._control.receive(message, self._clock.now())
            finally:
                self._carry_out()  # the loss that ends a run is on record too
        except Exception as error:
            self._fail(error)

    def _carry_out(self) -> None:
        """Do what the control plane has written into its outbox."""
        outbox = self._control.outbox
        if outbox.events:
            events, outbox.events = outbox.events, []
            self._log.extend(events)
        if outbox.lost:
            for name in outbox.lost:
                self._stopped(name)
            outbox.lost.clear()
        if outbox.outputs or outbox.runs or outbox.ended:
            outputs, outbox.outputs = outbox.outputs, []
            runs, outbox.runs = outbox.runs, []
            ended, outbox.ended = outbox.ended, []
            self._deliver(outputs, runs, ended)
        if outbox.messages:
            for to, message in outbox.messages:
                self._launcher.send(to, message)
            outbox.messages.clear()
        if outbox.leaving:
            for name in outbox.leaving:
                self._tasks.append(asyncio.create_task(self._keep(partial(self._end, name))))
            outbox.leaving.clear()

    async def _end(self, name: str) -> None:
        await self._launcher.leave(name)
        self._stopped(name)

    def _stopped(self, name: str) -> None:
        if name in self._running:
            self._running.remove(name)
            self._record(EventKind.INSTANCE_STOPPED, name)

    def catch_up(self) -> None:
        self._launcher.catch_up()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._launcher.stop()
        for name in sorted(self._running):
            self._stopped(name)
