"""The load generator. Latencies count from the intended arrival, so a slow system cannot make its load lighter."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from types import MappingProxyType

from tetribench.core.clock import Clock
from tetribench.core.events import CLIENT, Event, EventKind, EventLog
from tetribench.core.messages import Ended, TokenOutput, TokenRun
from tetribench.core.request import Request
from tetribench.systems.base import Serving

START_S = 1.0
"""Of a run: less than connections that are opened before it are kept idle (`servers/connection.py`)."""

NO_REASONS: Mapping[int, str] = MappingProxyType({})


class OpenLoop:
    """Sends each request at its arrival time, on absolute deadlines, however the system is doing."""

    async def send(self, requests: SequenceOf[Request], client: "Client") -> None:
        for request in requests:
            due_s = client.due_s(request)
            await client.wait_until(due_s)
            client.send(request, due_s)

    def num_at_start(self, requests: SequenceOf[Request]) -> int:
        """How many are sent within `START_S`."""
        return sum(request.arrival_s < START_S for request in requests)


class ClosedLoop:
    """Keeps `concurrency` requests in the system; arrival times are not used, a request arrives when it is sent."""

    def __init__(self, *, concurrency: int = 8) -> None:
        if concurrency < 1:
            raise ValueError(f"drive.concurrency={concurrency}: must be at least 1")
        self.concurrency = concurrency

    async def send(self, requests: SequenceOf[Request], client: "Client") -> None:
        waiting = deque(requests)
        while waiting:
            if client.num_in_system >= self.concurrency:
                await client.wait_for_ended()
            client.send(waiting.popleft(), client.now_s)

    def num_at_start(self, requests: SequenceOf[Request]) -> int:
        """How many are sent before one has ended."""
        return min(self.concurrency, len(requests))


Loop = OpenLoop | ClosedLoop


class Client:
    """Sends requests to a system that is ready, collects what comes back, and ends every request as finished or failed.

    `stall_timeout_s` without any token while requests are in the system is taken as their failure.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        log: EventLog,
        stall_timeout_s: float,
        on_progress: Callable[[int, int], None] = lambda num_ended, num_tokens: None,
    ) -> None:
        self._clock = clock
        self._log = log
        self._stall_timeout_s = stall_timeout_s
        self._on_progress = on_progress
        self._start_s = 0.0
        self._last_progress_s = 0.0
        self._serving: Serving | None = None
        self._open: dict[int, Request] = {}
        self._ended = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: Exception | None = None
        self._num_ended = 0
        self._num_tokens = 0
        self.outputs: dict[int, list[int]] = {}

    @property
    def now_s(self) -> float:
        """The run's clock."""
        return self._clock.now()

    def due_s(self, request: Request) -> float:
        """When `request` is to arrive, on the run's clock."""
        return self._start_s + request.arrival_s

    @property
    def num_in_system(self) -> int:
        return len(self._open)

    async def run(self, requests: SequenceOf[Request], loop: Loop, serving: Serving) -> None:
        """Until every request has ended. Raises the system's failure, after the requests it took down are recorded."""
        self._serving = serving
        self._start_s = self._last_progress_s = self._clock.now()
        parts = (self._send_and_wait(requests, loop), self._watch_for_stall(), self._watch_for_failure())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except BaseException as error:
            self._catch_up()
            self._fail_open("interrupted" if isinstance(error, asyncio.CancelledError) else str(error))
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _catch_up(self) -> None:
        """Have delivered what was produced up to now."""
        assert self._serving is not None
        self._serving.catch_up()

    async def _send_and_wait(self, requests: SequenceOf[Request], loop: Loop) -> None:
        await loop.send(requests, self)
        while self._open:
            await self.wait_for_ended()

    async def _watch_for_failure(self) -> None:
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    async def _watch_for_stall(self) -> None:
        while True:
            await self._clock.sleep(self._stall_timeout_s)
            self._catch_up()
            if self._open and self._clock.now() - self._last_progress_s >= self._stall_timeout_s:
                stuck = ", ".join(str(request_id) for request_id in sorted(self._open)[:8])
                raise TimeoutError(f"no token for {self._stall_timeout_s:.0f} s; waiting: requests {stuck}")

    async def wait_for_ended(self) -> None:
        """Until one more request has ended."""
        self._ended.clear()
        await self._ended.wait()

    async def wait_until(self, time_s: float) -> None:
        if time_s > self.now_s:
            await self._clock.sleep_until(time_s)

    def send(self, request: Request, arrived_s: float) -> None:
        """Record the intended and the real time of sending, and hand the request to the system."""
        assert self._serving is not None
        details = {
            "num_prompt_tokens": request.num_prompt_tokens,
            "max_output_tokens": request.max_output_tokens,
            "label": request.label,
            "sla_class": request.sla_class,
        }
        self._log.record(Event(arrived_s, EventKind.ARRIVED, CLIENT, (request.id,), details))
        sent = {"num_prompt_ids": len(request.prompt_ids)} if request.prompt_ids else {}
        self._record(EventKind.SENT, request.id, **sent)
        if not self._open:
            self._last_progress_s = self._clock.now()  # an empty system was not stalled, it had nothing to do
        self._open[request.id] = request
        self.outputs[request.id] = []
        self._serving.submit(request)

    def _record(self, kind: EventKind, *requests: int, **details: str | int) -> None:
        self._log.record(Event(self._clock.now(), kind, CLIENT, requests, dict(details)))

    def deliver(
        self, outputs: SequenceOf[TokenOutput], runs: SequenceOf[TokenRun] = (), ended: SequenceOf[Ended] = ()
    ) -> None:
        """Tokens reach the client: the moment that TTFT, ITL and JCT are about.

        What still comes for a request that has failed is not counted: its life has ended.
        """
        if outputs:
            self._deliver_now(outputs)
        for run in runs:
            self._deliver_run(run)
        if ended:
            self._deliver_ends([one for one in ended if one.request_id in self._open])

    def _deliver_now(self, outputs: SequenceOf[TokenOutput]) -> None:
        self._last_progress_s = self._clock.now()
        later, outputs = [], [output for output in outputs if output.request_id in self._open]
        for output in outputs:
            tokens = self.outputs[output.request_id]
            tokens.append(output.token_id)
            if len(tokens) == 1:
                self._record(EventKind.FIRST_TOKEN, output.request_id)
            else:
                later.append(output.request_id)
        if later:
            self._record(EventKind.TOKEN, *later)
        self._end([output.request_id for output in outputs if output.is_last], len(outputs))

    def _deliver_run(self, run: TokenRun) -> None:
        """Tokens that have come one after the other, each at its time, and now the last of them."""
        times_s = run.times_s
        self._last_progress_s = max(self._last_progress_s, times_s[-1])
        lasts = [last for last in run.lasts if last.request_id in self._open]
        if not lasts:
            return
        requests, token_ids = tuple([last.request_id for last in lasts]), [0] * len(times_s)
        for request_id in requests:
            self.outputs[request_id] += token_ids
        self._log.record(Event(times_s[-1], EventKind.TOKENS, CLIENT, requests, {"times_s": times_s}))
        self._end([last.request_id for last in lasts if last.is_last], len(requests) * len(times_s))

    def _deliver_ends(self, ended: SequenceOf[Ended]) -> None:
        """Each ends by itself: one that has failed says nothing of the others."""
        self._end([one.request_id for one in ended], 0, {one.request_id: one.reason for one in ended if one.reason})

    def _end(self, ended: list[int], num_tokens: int, reasons: Mapping[int, str] = NO_REASONS) -> None:
        """Tokens have come, and with them the ends of some responses; those with a reason have failed."""
        for request_id in ended:
            del self._open[request_id]
            if request_id in reasons:
                self._record(EventKind.FAILED, request_id, reason=reasons[request_id])
            else:
                self._record(EventKind.FINISHED, request_id, num_output_tokens=len(self.outputs[request_id]))
        self._num_tokens += num_tokens
        self._num_ended += len(ended)
        self._on_progress(self._num_ended, self._num_tokens)
        if ended:
            self._ended.set()

    def fail(self, error: Exception) -> None:
        """The system cannot go on: `run` ends with this error."""
        self._failure = self._failure or error
        self._failed.set()

    def _fail_open(self, reason: str) -> None:
        """Every request still in the system has failed, for this reason."""
        for request_id in self._open:
            self._record(EventKind.FAILED, request_id, reason=reason)
        self._open.clear()
