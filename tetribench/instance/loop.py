"""The one instance loop: ask the scheduler for the next batch, run it on the engine, hand the result back."""

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import LoadReport, Message, Peers, Progress, Stop
from tetribench.engine.base import Batch, Engine, LengthPredictor
from tetribench.instance.post import CONTROL, Post
from tetribench.instance.scheduler import Scheduler
from tetribench.kv.links import Link
from tetribench.kv.transfer import Moved, Push


class InstanceLoop:
    """Runs a scheduler on an engine until told to stop. It owns the instance's time; the scheduler owns its state."""

    def __init__(
        self,
        *,
        name: str,
        scheduler: Scheduler,
        engine: Engine,
        predictor: LengthPredictor,
        link: Link,
        post: Post,
        clock: Clock,
        report_period_s: float,
    ) -> None:
        self.name = name
        self.scheduler = scheduler
        self._engine = engine
        self._predictor = predictor
        self._link = link
        self._post = post
        self._clock = clock
        self._report_period_s = report_period_s
        self._work = asyncio.Event()
        self._predictable = asyncio.Event()
        self._device: AbstractAsyncContextManager[Any] = nullcontext() if predictor.is_parallel else asyncio.Lock()
        """Held by an iteration or by a prediction where these take turns."""
        self._pushes: deque[Push] = deque()
        self._pushable = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._is_stopping = False

    def receive(self, message: Message) -> None:
        """Take in a message; called by the launcher, between two awaits of the loop."""
        if isinstance(message, Stop):
            self._is_stopping = True
        elif isinstance(message, Peers):
            self._link.connect(message.pool_handles)
        else:
            self.scheduler.receive(message, self._clock.now())
            self._flush()
        self._work.set()
        self._predictable.set()

    async def settle(self) -> None:
        """Until no KV is on its way out, and what that set off has been sent."""
        await self._settled.wait()

    async def run(self) -> None:
        """Until `Stop`. An exception in any part ends all of them and is raised."""
        others = [asyncio.ensure_future(one) for one in (self._push(), self._report(), self._predict())]
        iterate = asyncio.ensure_future(self._iterate())
        try:
            done, _ = await asyncio.wait([iterate, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (iterate, *others):
                task.cancel()
            await asyncio.gather(iterate, *others, return_exceptions=True)

    async def _iterate(self) -> None:
        while not self._is_stopping:
            async with self._device:
                has_run = await self._run_next_batch()
            if not has_run:
                self._work.clear()
                await self._work.wait()
        await self.settle()

    async def _run_next_batch(self) -> bool:
        """Whether there was one."""
        batch = self.scheduler.next_batch(self._clock.now())
        started_s = self._clock.now()
        num_used_blocks = self.scheduler.num_used_blocks
        self._flush()  # before the engine runs, which may fail
        if batch is None:
            return False
        tokens = await self._engine.run(batch)
        now_s = self._clock.now()
        self.scheduler.outbox.events.append(self._iteration(batch, started_s, now_s, num_used_blocks))
        self.scheduler.complete(batch, tokens, now_s)
        self._flush()
        return True

    async def _predict(self) -> None:
        """One group of requests after the other, beside the iterations or between them."""
        while True:
            self._predictable.clear()
            has_run = True
            while has_run:
                async with self._device:
                    has_run = await self._run_next_prediction()
            await self._predictable.wait()

    async def _run_next_prediction(self) -> bool:
        """Whether there was one."""
        requests = self.scheduler.next_prediction()
        if not requests:
            return False
        started_s = self._clock.now()
        ranges = await self._predictor.predict(requests)
        self.scheduler.predicted(ranges, started_s, self._clock.now())
        self._flush()
        self._work.set()
        return True

    def _iteration(self, batch: Batch, started_s: float, now_s: float, num_used_blocks: int) -> Event:
        details = {
            "started_s": started_s,
            "num_prefill_tokens": batch.num_prefill_tokens,
            "num_decode_tokens": len(batch.decode),
            "num_used_blocks": num_used_blocks,
        }
        return Event(now_s, EventKind.ITERATION, self.name, (), details)

    async def _push(self) -> None:
        """One push at a time: an instance has one way out, which its requests share."""
        while True:
            while self._pushes:
                push = self._pushes.popleft()
                started_s = self._clock.now()
                num_bytes = await self._link.write(push.to, push.source_ids, push.target_ids)
                now_s = self._clock.now()
                details = {"started_s": started_s, "num_bytes": num_bytes, "to": push.to}
                outbox = self.scheduler.outbox
                outbox.events.append(Event(now_s, EventKind.TRANSFER, self.name, (push.request_id,), details))
                self.scheduler.moved(Moved(push, started_s, now_s, num_bytes))
                self._flush()
                self._work.set()  # the push gave back memory that the next batch may have waited for
            self._pushable.clear()
            self._settled.set()
            await self._pushable.wait()

    async def _report(self) -> None:
        while True:
            self._post.send(CONTROL, LoadReport(self.name, self.scheduler.load(self._clock.now())))
            await self._clock.sleep(self._report_period_s)

    def _flush(self) -> None:
        """Carry out what the scheduler has written into its outbox."""
        outbox = self.scheduler.outbox
        if outbox.outputs or outbox.events:
            self._post.send(CONTROL, Progress(self.name, outbox.outputs, outbox.events))
            outbox.outputs, outbox.events = [], []
        for to, message in outbox.messages:
            self._post.send(to, message)
        outbox.messages.clear()
        if outbox.pushes:
            self._pushes.extend(outbox.pushes)
            outbox.pushes.clear()
            self._settled.clear()
            self._pushable.set()
