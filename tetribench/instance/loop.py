"""The one instance loop: ask the scheduler for the next batch, run it on the engine, hand the result back."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any

from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import (
    Arrived,
    Closed,
    Drain,
    Drained,
    LoadReport,
    Lost,
    Message,
    Peers,
    Progress,
    Released,
    Reserve,
    Stop,
)
from tetribench.core.roles import Role
from tetribench.engine.base import Batch, Engine, LengthPredictor
from tetribench.instance.post import CONTROL, Post
from tetribench.instance.scheduler import Scheduler
from tetribench.kv.links import Link, LinkFailed
from tetribench.kv.transfer import Moved, Push


class InstanceLoop:
    """Runs a scheduler on an engine until told to stop. It owns the instance's time; the scheduler owns its state.

    A flip (paper section 3.5) hands it another scheduler, once the present one is drained; engine, KV memory and links
    stay as they are. `scheduler_for` builds a scheduler for each role that the instance can have.
    """

    def __init__(
        self,
        *,
        name: str,
        role: Role,
        scheduler_for: Callable[[Role], Scheduler],
        engine: Engine,
        predictor: LengthPredictor,
        link: Link,
        post: Post,
        clock: Clock,
        report_period_s: float,
    ) -> None:
        self.name = name
        self.scheduler = scheduler_for(role)
        self._scheduler_for = scheduler_for
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
        self._held: list[Push] = []
        self._num_layers_done = 0
        self._pushable = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._is_stopping = False
        self._busy_s = 0.0
        self._busy_from_s: float | None = None
        self._drain: Drain | None = None
        self._notified_s = 0.0
        self._lost: set[str] = set()

    def receive(self, message: Message) -> None:
        """Take in a message; called by the launcher, between two awaits of the loop."""
        match message:
            case Stop():
                self._is_stopping = True
            case Peers(link_handles):
                self._link.connect(link_handles)
            case Reserve(sender) | Arrived(sender) | Released(sender) | Closed(sender) if sender in self._lost:
                pass  # overtaken by the news that its sender is gone, by which all is said
            case _:
                self._note(message)
                self.scheduler.receive(message, self._clock.now())
                self._flush()
        self._work.set()
        self._predictable.set()

    def _note(self, message: Message) -> None:
        """What the loop itself has to do with a message for its scheduler."""
        if isinstance(message, Lost):
            self._lost.add(message.instance)
            self._link.disconnect(message.instance)
            self._post.forget(message.instance)
        elif isinstance(message, Drain):
            self._drain, self._notified_s = message, self._clock.now()

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
            self._finish_drain()
            async with self._device:
                has_run = await self._run_next_batch()
            if not has_run:
                self._work.clear()
                await self._work.wait()
        await self.settle()

    async def _run_next_batch(self) -> bool:
        """Whether there was one."""
        self._num_layers_done = 0
        batch = self.scheduler.next_batch(self._clock.now())
        started_s = self._clock.now()
        num_used_blocks = self.scheduler.num_used_blocks
        self._flush()  # before the engine runs, which may fail
        if batch is None:
            return False
        self._busy_from_s = started_s
        tokens = await self._engine.run(batch, self._on_layer if batch.by_layer else None)
        now_s = self._clock.now()
        self._count_busy(now_s)
        self._busy_from_s = None
        self._on_layer(self._engine.info.num_layers - 1)
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

    def _count_busy(self, now_s: float) -> None:
        """Count the iteration in flight up to now."""
        if self._busy_from_s is not None:
            self._busy_s += now_s - self._busy_from_s
            self._busy_from_s = now_s

    def _finish_drain(self) -> None:
        """Become what `Drain` asked for, if there is nothing left to do in the present role."""
        if self._drain is None or not self.scheduler.is_drained:
            return
        empty_s, to = self._clock.now(), self._drain.to
        self._drain = None
        self.scheduler.check()
        if to is not None:
            self.scheduler = self._scheduler_for(to)
        self._post.send(CONTROL, Drained(self.name, to, self._notified_s, empty_s))

    def _on_layer(self, layer: int) -> None:
        """The batch is computed up to this layer."""
        self._num_layers_done = layer + 1
        self._release()

    def _release(self) -> None:
        """Hand over to `_push` what need not wait: whole blocks, and the layers of blocks that are computed."""
        held: list[Push] = []
        num_pushes = len(self._pushes)
        for push in self._held:
            must_wait = push.layer is not None and push.layer >= self._num_layers_done
            (held if must_wait else self._pushes).append(push)
        self._held = held
        if len(self._pushes) > num_pushes:
            self._settled.clear()
            self._pushable.set()

    def _iteration(self, batch: Batch, started_s: float, now_s: float, num_used_blocks: int) -> Event:
        details: dict[str, Any] = {
            "started_s": started_s,
            "num_prefill_tokens": batch.num_prefill_tokens,
            "num_decode_tokens": len(batch.decode),
            "num_used_blocks": num_used_blocks,
            "num_swapped_bytes": batch.num_swapped_blocks * self._engine.info.block_bytes,
        }
        if batch.prefill:
            details["chunks"] = [[chunk.start, chunk.num_tokens] for chunk in batch.prefill]
            details["num_padding_tokens"] = batch.num_padding_tokens
        requests = tuple([one.sequence.request.id for one in batch.prefill] + [one.request.id for one in batch.decode])
        return Event(now_s, EventKind.ITERATION, self.name, requests, details)

    async def _push(self) -> None:
        """One push at a time: an instance has one way out, which its requests share."""
        while True:
            while self._pushes:
                push = self._pushes.popleft()
                started_s = self._clock.now()
                part = None if push.layer is None else self._engine.info.part_of(push.layer)
                num_bytes, error = 0, None
                try:
                    num_bytes = await self._link.move(push.to, push.source_ids, push.target_ids, part)
                except LinkFailed as failure:
                    error = str(failure)
                now_s = self._clock.now()
                details = {"started_s": started_s, "num_bytes": num_bytes, "to": push.to}
                outbox = self.scheduler.outbox
                outbox.events.append(Event(now_s, EventKind.TRANSFER, self.name, (push.request_id,), details))
                self.scheduler.moved(Moved(push, started_s, now_s, num_bytes, error))
                self._flush()
                self._work.set()  # the push gave back memory that the next batch may have waited for
            self._pushable.clear()
            self._settled.set()
            await self._pushable.wait()

    async def _report(self) -> None:
        reported_s = self._clock.now()
        while True:
            now_s = self._clock.now()
            self._count_busy(now_s)
            busy_share = self._busy_s / (now_s - reported_s) if now_s > reported_s else 0.0
            load = replace(self.scheduler.load(now_s), busy_share=busy_share)
            self._post.send(CONTROL, LoadReport(self.name, load))
            self._busy_s, reported_s = 0.0, now_s
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
        self._held += outbox.pushes
        outbox.pushes.clear()
        self._release()
