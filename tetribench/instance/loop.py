"""The one instance loop: ask the scheduler for the next batch, run it on the engine, hand the result back."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import (
    Arrived,
    Closed,
    Drain,
    Drained,
    LoadBroadcast,
    LoadReport,
    Lost,
    Message,
    Peers,
    Progress,
    Released,
    Reserve,
    Stop,
    Submit,
)
from tetribench.core.roles import Role
from tetribench.engine.base import Batch, Engine, LengthPredictor
from tetribench.instance.post import CONTROL, Post
from tetribench.instance.run_ahead import RunAhead
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
        self._turn = None if predictor.is_parallel else asyncio.Lock()
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
        self._reported_s = 0.0
        self._ahead: RunAhead | None = None
        """The iterations in flight, where these are several."""
        self._drain: Drain | None = None
        self._notified_s = 0.0
        self._is_idle = False
        self._lacks_memory_from_s: float | None = None
        self._lost: set[str] = set()

    def receive(self, message: Message) -> None:
        """Take in a message; called by the launcher, between two awaits of the loop."""
        self._catch_up()
        match message:
            case LoadBroadcast():
                self.scheduler.receive(message, self._clock.now())
                if not self._flush():
                    return  # it comes often, and most often there is nothing to do for it
            case Stop():
                self._stop()
            case Peers(link_handles):
                self._link.connect(link_handles)
            case Reserve() | Arrived() | Released() | Closed() if message.sender in self._lost:
                pass  # overtaken by the news that its sender is gone, by which all is said
            case _:
                self._note(message)
                self.scheduler.receive(message, self._clock.now())
                if self._ahead is not None:
                    self._ahead.shorten()
                self._flush()
        self._wake()
        if isinstance(message, Submit):
            self._predictable.set()

    def _wake(self) -> None:
        """Something has changed: iterate, if there is anything to do for it."""
        if self.scheduler.may_have_batch or self._drain is not None or self._is_stopping:
            self._work.set()

    def _note(self, message: Message) -> None:
        """What the loop itself has to do with a message for its scheduler."""
        if isinstance(message, Lost) or (isinstance(message, Reserve) and message.attempt > 1):
            self._deliver()  # before somebody who has produced it is dropped
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
        others = [
            asyncio.ensure_future(one) for one in (self._push(), self._report(), self._predict(), self._engine.watch())
        ]
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
            has_run = False
            if self.scheduler.may_have_batch:
                has_run = await self._in_turn(self._run_next_batch())
            if not has_run:
                self._work.clear()
                self._is_idle = True
                self._flush()
                await self._work.wait()
        await self.settle()

    async def _in_turn(self, part: Coroutine[Any, Any, bool]) -> bool:
        if self._turn is None:
            return await part
        async with self._turn:
            return await part

    async def _run_next_batch(self) -> bool:
        """Whether there was one."""
        self._num_layers_done = 0
        batch = self.scheduler.next_batch(self._clock.now())
        started_s = self._clock.now()
        num_used_blocks = self.scheduler.num_used_blocks
        self._is_idle = batch is None
        self._flush()  # before the engine runs, which may fail
        if batch is None:
            return False
        self._busy_from_s = started_s
        foreseen = self._engine.foresee(batch, self.scheduler.num_steady_iterations)
        if foreseen is not None:
            self._ahead = RunAhead(self.scheduler, batch, foreseen, started_s, num_used_blocks)
            await self._run_ahead(self._ahead, batch)
            return True
        tokens = await self._engine.run(batch, self._on_layer if batch.by_layer else None)
        now_s = self._clock.now()
        self._count_busy(now_s)
        self._busy_from_s = None
        self._on_layer(self._engine.info.num_layers - 1)
        self.scheduler.outbox.events.append(self._iteration(batch, started_s, now_s, num_used_blocks))
        self.scheduler.complete(batch, tokens, now_s)
        self._flush()
        return True

    async def _run_ahead(self, ahead: RunAhead, batch: Batch) -> None:
        """The same for several iterations of one batch at once."""
        await ahead.foreseen.wait()
        self._count_ended(ahead.finish())
        now_s = self._clock.now()
        self._count_busy(now_s)
        self._busy_from_s = self._ahead = None
        outbox = self.scheduler.outbox
        self.scheduler.complete(batch, dict.fromkeys([one.request.id for one in batch.decode], 0), now_s)
        outputs, outbox.outputs = outbox.outputs, []
        run, event = ahead.completed(self.name, outputs)
        outbox.runs.append(run)
        outbox.events.insert(0, event)
        self._flush()

    def _catch_up(self) -> None:
        """Bring everything to the present that a run of iterations has left behind."""
        if self._ahead is not None:
            self._count_ended(self._ahead.catch_up())

    def held_back(self) -> Progress | None:
        """What the iterations that have ended have produced and was to come with the last of their run."""
        self._catch_up()
        return None if self._ahead is None else self._ahead.held_back(self.name)

    def _deliver(self) -> None:
        progress = self.held_back()
        if progress is not None:
            self._post.send(CONTROL, progress)

    def _stop(self) -> None:
        self._is_stopping = True
        self._is_idle = False
        self._deliver()
        self._flush()
        if self._ahead is not None:
            self._ahead.stop()

    async def _predict(self) -> None:
        """One group of requests after the other, beside the iterations or between them."""
        while True:
            self._predictable.clear()
            has_run = True
            while has_run:
                has_run = await self._in_turn(self._run_next_prediction())
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
        self._wake()
        return True

    def _count_ended(self, ends_s: list[float]) -> None:
        """Count iterations that have ended one after the other."""
        busy_s, from_s = self._busy_s, self._busy_from_s
        assert from_s is not None
        for end_s in ends_s:
            busy_s += end_s - from_s
            from_s = end_s
        self._busy_s, self._busy_from_s = busy_s, from_s

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
        if not self._held:
            return
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
                self._wake()  # the push gave back memory that the next batch may have waited for
            self._pushable.clear()
            self._settled.set()
            await self._pushable.wait()

    async def _report(self) -> None:
        self._reported_s = self._clock.now()
        await self._clock.every(self._report_period_s, self._report_load)

    def _report_load(self) -> None:
        now_s = self._clock.now()
        self._catch_up()
        self._count_busy(now_s)
        load = self.scheduler.load(now_s)
        load.busy_share = self._busy_s / (now_s - self._reported_s) if now_s > self._reported_s else 0.0
        self._post.send(CONTROL, LoadReport(self.name, load))
        self._busy_s, self._reported_s = 0.0, now_s

    def _note_memory(self) -> None:
        """Record for how long there was nothing to run for want of memory, once that has ended."""
        lacks_memory = self._is_idle and self.scheduler.lacks_memory
        from_s = self._lacks_memory_from_s
        if lacks_memory == (from_s is not None):
            return
        now_s = self._clock.now()
        self._lacks_memory_from_s = now_s if lacks_memory else None
        if from_s is not None and now_s > from_s:
            event = Event(now_s, EventKind.MEMORY_WAIT, self.name, (), {"started_s": from_s})
            self.scheduler.outbox.events.append(event)

    def _flush(self) -> bool:
        """Carry out what the scheduler has written into its outbox; whether there was anything."""
        self._note_memory()
        outbox = self.scheduler.outbox
        has_any = bool(outbox.outputs or outbox.events or outbox.runs or outbox.messages or outbox.pushes)
        if outbox.outputs or outbox.events or outbox.runs:
            self._post.send(CONTROL, Progress(self.name, outbox.outputs, outbox.events, outbox.runs))
            outbox.outputs, outbox.events, outbox.runs = [], [], []
        if outbox.messages:
            for to, message in outbox.messages:
                self._post.send(to, message)
            outbox.messages.clear()
        if outbox.pushes:
            self._held += outbox.pushes
            outbox.pushes.clear()
            self._release()
        return has_any
