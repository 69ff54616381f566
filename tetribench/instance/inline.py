"""All instances in this process, on this event loop: the launcher of virtual time, and of tests in real time."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tetribench.core.clock import Clock
from tetribench.core.messages import Broken, Message, Peers, Progress, Ready, Stop
from tetribench.engine.base import Engine, LengthPredictor, with_predictor
from tetribench.engine.cost_engine import CostModelEngine
from tetribench.engine.shared_device import SharedDevice
from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.instance.loop import InstanceLoop
from tetribench.instance.post import CONTROL
from tetribench.kv.links import Link, link_for


@dataclass(slots=True)
class _Instance:
    """What is alive of an instance."""

    loop: InstanceLoop
    engine: Engine
    link: Link
    predictor: LengthPredictor
    task: asyncio.Task[None] | None = None

    def close(self) -> None:
        self.link.close()
        self.predictor.close()
        self.engine.close()


class InlineLauncher:
    """Messages are delivered in the order in which they were sent, after the sender's current step and `message_s`."""

    def __init__(self, clock: Clock, message_s: float = 0.0) -> None:
        self._clock = clock
        self._message_s = message_s
        self._on_their_way: set[asyncio.Task[None]] = set()
        self._instances: dict[str, _Instance] = {}
        self._handles: dict[str, bytes] = {}
        self._devices: dict[int, SharedDevice] = {}
        self._open: list[_Instance] = []
        """All that were built, whatever became of them, until `stop` closes them."""
        self._sent: deque[tuple[str, Message]] = deque()
        self._on_message: Callable[[Message], None] = lambda message: None
        self._call_soon: Callable[[Callable[[], None]], object]

    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        self._on_message = on_message
        self._call_soon = asyncio.get_running_loop().call_soon  # to ask each time would be a system call each time
        ready = {spec.name: await self._build(spec) for spec in specs}
        for name in ready:
            self._begin(name)
        return ready

    async def join(self, spec: InstanceSpec) -> Ready:
        try:
            ready = await self._build(spec)
        except Exception as error:
            raise InstanceFailed(_reason(error)) from error
        for name in self._instances:
            if name != spec.name:
                self.send(name, Peers({spec.name: ready.link_handle}))
        self._begin(spec.name)
        return ready

    async def _build(self, spec: InstanceSpec) -> Ready:
        engine = spec.engine.build(self._clock, spec.device)
        self._place(engine, spec.device)
        link = link_for(engine, spec.link, self._clock)
        await link.open()
        predictor = spec.predictor.build(engine, self._clock, None)
        info = with_predictor(engine.info, predictor)
        loop = InstanceLoop(
            name=spec.name,
            role=spec.role,
            scheduler_for=lambda role: spec.schedulers[role].build(spec.name, info),
            engine=engine,
            predictor=predictor,
            link=link,
            post=self,
            clock=self._clock,
            report_period_s=spec.report_period_s,
        )
        self._instances[spec.name] = _Instance(loop, engine, link, predictor)
        self._open.append(self._instances[spec.name])
        self._handles[spec.name] = link.handle()
        return Ready(spec.name, spec.facts(info), link.handle())

    def _place(self, engine: Engine, device: int) -> None:
        """A cost model on the device of another one shares its time, and one beside others may feel them; what computes
        finds its machine occupied anyway."""
        if not isinstance(engine, CostModelEngine):
            return
        if device in self._devices:
            engine.device.share(self._devices[device])
        elif self._devices and engine.device.beside_slowdown > 1.0:
            engine.device.stand_beside(next(iter(self._devices.values())))
        self._devices.setdefault(device, engine.device)

    def _begin(self, name: str) -> None:
        instance = self._instances[name]
        instance.loop.receive(Peers(dict(self._handles)))
        instance.task = asyncio.create_task(self._run(name, instance.loop))

    async def _run(self, name: str, loop: InstanceLoop) -> None:
        try:
            await loop.run()
        except Exception as error:
            self._lose(name, _reason(error))

    def _lose(self, name: str, reason: str) -> None:
        """An instance is gone: nobody reaches it any more, and control is told."""
        instance = self._instances.get(name)
        if instance is not None:
            self._catch_up(instance)
            del self._instances[name]
            self._handles.pop(name, None)
            if instance.task is not None and instance.task is not asyncio.current_task():
                instance.task.cancel()
            self._on_message(Broken(name, reason))

    def catch_up(self) -> None:
        for instance in list(self._instances.values()):
            self._catch_up(instance)

    def _catch_up(self, instance: _Instance) -> None:
        progress = instance.loop.held_back()
        if progress is not None:
            self._on_message(progress)

    def kill(self, name: str) -> None:
        self._lose(name, "killed")

    async def leave(self, name: str) -> None:
        instance = self._instances.pop(name, None)
        if instance is not None:  # else it was lost at the last moment, which is said already
            self._handles.pop(name, None)
            instance.loop.receive(Stop())

    def send(self, to: str, message: Message) -> None:
        if self._message_s:
            task = asyncio.create_task(self._deliver_later(to, message))
            self._on_their_way.add(task)
            task.add_done_callback(self._on_their_way.discard)
            return
        if not self._sent:
            self._call_soon(self._deliver_all)
        self._sent.append((to, message))

    def _deliver_all(self) -> None:
        """With what is sent meanwhile."""
        while self._sent:
            self._deliver(*self._sent[0])
            self._sent.popleft()  # only now: as long as there is one, nobody need ask for this call

    async def _deliver_later(self, to: str, message: Message) -> None:
        if isinstance(message, Progress):
            for run in message.runs:  # each token of which would have been under way as long
                run.times_s = [time_s + self._message_s for time_s in run.times_s]
        await self._clock.sleep(self._message_s)
        self._deliver(to, message)

    def _deliver(self, to: str, message: Message) -> None:
        if to == CONTROL:
            self._on_message(message)
            return
        instance = self._instances.get(to)
        if instance is None:
            return
        try:
            instance.loop.receive(message)
        except Exception as error:
            self._lose(to, _reason(error))

    def forget(self, name: str) -> None:
        """Nothing waits for an instance that is gone: messages are delivered at once or dropped."""

    async def stop(self) -> None:
        """Nothing new is begun. Copies under way end, which returns the memory they touch; iterations are cut off."""
        if self._on_their_way:
            await asyncio.wait(self._on_their_way)
        for instance in self._instances.values():
            instance.loop.receive(Stop())
        for instance in list(self._instances.values()):  # one that breaks meanwhile is no longer among them
            if instance.task is not None:
                settled = asyncio.ensure_future(instance.loop.settle())
                await asyncio.wait([settled, instance.task], return_when=asyncio.FIRST_COMPLETED)
                settled.cancel()
        tasks = [instance.task for instance in self._open if instance.task is not None]
        tasks += self._on_their_way
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for instance in self._open:
            instance.close()
            instance.task = None
        self._open.clear()

    def check(self) -> None:
        """Invariants of every scheduler, once all requests are done."""
        for instance in self._instances.values():
            instance.loop.scheduler.check()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
