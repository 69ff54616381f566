"""All instances in this process, on this event loop: the launcher of virtual time, and of tests in real time."""

import asyncio
from collections.abc import Callable

from tetribench.core.clock import Clock
from tetribench.core.messages import Broken, Message, Peers, Ready, Stop
from tetribench.engine.base import Engine, LengthPredictor, with_predictor
from tetribench.instance.launch import InstanceSpec
from tetribench.instance.loop import InstanceLoop
from tetribench.instance.post import CONTROL
from tetribench.kv.links import Link, link_for


class InlineLauncher:
    """Messages are delivered in the order in which they were sent, after the sender's current step, in no time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._instances: dict[str, InstanceLoop] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._resources: list[Engine | Link | LengthPredictor] = []
        self._on_message: Callable[[Message], None] = lambda message: None

    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        self._on_message = on_message
        ready = {}
        for spec in specs:
            engine = spec.engine.build(self._clock, spec.index)
            link = link_for(engine, spec.link, self._clock)
            predictor = spec.predictor.build(engine, self._clock, None)
            info = with_predictor(engine.info, predictor)
            self._resources += [link, predictor, engine]
            self._instances[spec.name] = InstanceLoop(
                name=spec.name,
                scheduler=spec.scheduler.build(spec.name, info),
                engine=engine,
                predictor=predictor,
                link=link,
                post=self,
                clock=self._clock,
                report_period_s=spec.report_period_s,
            )
            handle = engine.pool.handle() if engine.pool is not None else b""
            ready[spec.name] = Ready(spec.name, info.as_dict(), handle)
        handles = {name: one.pool_handle for name, one in ready.items() if one.pool_handle}
        for name, loop in self._instances.items():
            loop.receive(Peers(handles))
            self._tasks.append(asyncio.create_task(self._run(name, loop)))
        return ready

    async def _run(self, name: str, loop: InstanceLoop) -> None:
        try:
            await loop.run()
        except Exception as error:
            self._on_message(_broken(name, error))

    def send(self, to: str, message: Message) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, to, message)

    def _deliver(self, to: str, message: Message) -> None:
        if to == CONTROL:
            self._on_message(message)
            return
        try:
            self._instances[to].receive(message)
        except Exception as error:
            self._on_message(_broken(to, error))

    async def stop(self) -> None:
        """Nothing new is begun. Copies under way end, which returns the memory they touch; iterations are cut off."""
        for loop in self._instances.values():
            loop.receive(Stop())
        for loop, task in zip(self._instances.values(), self._tasks, strict=False):
            settled = asyncio.ensure_future(loop.settle())
            await asyncio.wait([settled, task], return_when=asyncio.FIRST_COMPLETED)
            settled.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for resource in self._resources:
            resource.close()
        self._resources.clear()

    def check(self) -> None:
        """Invariants of every scheduler, once all requests are done."""
        for loop in self._instances.values():
            loop.scheduler.check()


def _broken(name: str, error: Exception) -> Broken:
    return Broken(name, f"{type(error).__name__}: {error}")
