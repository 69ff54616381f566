"""A running stack of our own: control plane here, instances wherever the launcher puts them."""

import asyncio
from typing import Any

from tetribench.control.monitor import ClusterMonitor
from tetribench.control.scheduler import GlobalScheduler
from tetribench.core.clock import Clock
from tetribench.core.events import GLOBAL_SCHEDULER, Event, EventKind, EventLog
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Broken, LoadBroadcast, LoadReport, Message, Progress, Ready, Submit
from tetribench.core.request import Request
from tetribench.instance.launch import InstanceFailed, Launcher
from tetribench.systems.base import Deliver, Fail, Plan


class Stack:
    """Wires a plan's instances to the global scheduler and the cluster monitor; serves one run and is then stopped."""

    def __init__(self, plan: Plan, launcher: Launcher, clock: Clock, log: EventLog) -> None:
        self._plan = plan
        self._launcher = launcher
        self._clock = clock
        self._log = log
        self._scheduler = GlobalScheduler(plan.router, plan.entries)
        self._monitor = ClusterMonitor({})
        self._broadcasting: asyncio.Task[None] | None = None
        self._deliver: Deliver = lambda outputs: None
        self._fail: Fail = lambda error: None

    async def start(self, deliver: Deliver, fail: Fail) -> dict[str, dict[str, Any]]:
        self._deliver, self._fail = deliver, fail
        roles = {spec.name: spec.role.value for spec in self._plan.instances}
        for name, role in roles.items():
            self._record(EventKind.INSTANCE_STARTED, name, role=role)
        ready = await self._launcher.start(self._plan.instances, self._receive)
        facts = {name: {"role": role, **ready[name].facts} for name, role in roles.items()}
        for name in roles:
            self._record(EventKind.INSTANCE_READY, name, **facts[name])
        self._monitor = ClusterMonitor({name: self._empty(ready[name]) for name in self._plan.decodes})
        self._broadcast()
        if self._plan.decodes:
            self._broadcasting = asyncio.create_task(self._broadcast_forever())
        return facts

    def _record(self, kind: EventKind, source: str, *requests: int, **details: Any) -> None:
        self._log.record(Event(self._clock.now(), kind, source, requests, details))

    def _empty(self, ready: Ready) -> InstanceLoad:
        num_tokens = ready.facts["num_blocks"] * ready.facts["block_size"]
        return InstanceLoad(time_s=self._clock.now(), num_total_tokens=num_tokens, num_free_tokens=num_tokens)

    def submit(self, request: Request) -> None:
        to = self._scheduler.route(request)
        self._record(EventKind.ROUTED, GLOBAL_SCHEDULER, request.id, to=to)
        self._launcher.send(to, Submit(request))

    def _receive(self, message: Message) -> None:
        """Called from the launcher, which could do nothing with an error: it fails the run from here."""
        try:
            self._take_in(message)
        except Exception as error:
            self._fail(error)

    def _take_in(self, message: Message) -> None:
        match message:
            case Progress(instance, outputs, events):
                self._log.extend(events)
                outputs = self._scheduler.take(instance, outputs)
                if outputs:
                    self._deliver(outputs)
            case LoadReport(instance, load):
                self._monitor.report(instance, load)
            case Broken(instance, reason):
                self._fail(InstanceFailed(f"{instance}: {reason}"))
            case _:
                raise AssertionError(f"the control plane got {message}")

    def _broadcast(self) -> None:
        if self._plan.decodes:
            for entry in self._plan.entries:
                self._launcher.send(entry, LoadBroadcast(self._monitor.broadcast()))

    async def _broadcast_forever(self) -> None:
        while True:
            await self._clock.sleep(self._plan.broadcast_period_s)
            self._broadcast()

    async def stop(self) -> None:
        if self._broadcasting is not None:
            self._broadcasting.cancel()
        await self._launcher.stop()
        for spec in self._plan.instances:
            self._record(EventKind.INSTANCE_STOPPED, spec.name)
