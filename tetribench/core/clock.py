"""The first seam: real time, or virtual time in which waiting costs nothing.

Everything that waits for time to pass calls `clock.sleep`; `asyncio.sleep`, `asyncio.wait_for` and sockets do not work
in virtual time, so they appear only in the launchers and clients of real time.
"""

import asyncio
import heapq
import itertools
import select
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the start of the run."""

    async def sleep(self, seconds: float) -> None:
        """Wait; a duration of zero or less still lets the others run once."""

    async def sleep_until(self, time_s: float, rank: int = 0) -> None:
        """Wait for a deadline; one that has passed still lets the others run once.

        Where moments can be equal, in virtual time, the lower `rank` wakes first.
        """

    async def every(self, period_s: float, do: Callable[[], None]) -> None:
        """Call `do` now and then after each `period_s`, until cancelled; an error of its ends this and is raised."""


class WallClock:
    """Monotonic real time, counted from `origin_s` on the machine's monotonic clock.

    Processes of one machine that share `origin_s` share the clock: on Linux the monotonic clock is one for all.
    """

    def __init__(self, origin_s: float | None = None) -> None:
        self.origin_s = time.monotonic() if origin_s is None else origin_s

    def now(self) -> float:
        return time.monotonic() - self.origin_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))

    async def sleep_until(self, time_s: float, rank: int = 0) -> None:
        await self.sleep(time_s - self.now())

    async def every(self, period_s: float, do: Callable[[], None]) -> None:
        while True:
            do()
            await self.sleep(period_s)


class _Sleeper(Protocol):
    """Whom the virtual clock wakes: a future that somebody waits for, or a ticker."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...


class VirtualClock:
    """Time that jumps to the earliest sleeper when nothing else can run; on ties by rank, then first in, first out.

    Its event loop (see `run_virtual`) asks it to do so. Virtual time is kept out of asyncio's timers because those wake
    equal deadlines out of order.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._rank = 0
        self._sleepers: list[tuple[float, int, int, _Sleeper]] = []
        self._order = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is the one whose tasks this clock wakes."""
        self._loop = loop

    def future(self) -> "asyncio.Future[None]":
        """For somebody to wait for. To ask asyncio for the loop each time would be a system call each time."""
        return asyncio.Future(loop=self._loop)

    def now(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return self.sleep_until(self._now_s + seconds)

    async def sleep_until(self, time_s: float, rank: int = 0) -> None:
        wake = self.future()
        self.wake(wake, time_s, rank)
        await wake

    async def every(self, period_s: float, do: Callable[[], None]) -> None:
        await _Ticker(self, period_s, do).ended

    def wake(self, sleeper: _Sleeper, time_s: float, rank: int = 0) -> None:
        """End the wait for `sleeper` at `time_s`, or at the earliest of several such times."""
        heapq.heappush(self._sleepers, (max(time_s, self._now_s), rank, next(self._order), sleeper))

    def has_passed(self, time_s: float, rank: int) -> bool:
        """Whether whoever had slept until `time_s` with this rank would be awake by now."""
        return time_s < self._now_s or (time_s == self._now_s and rank < self._rank)

    def jump(self) -> None:
        """No task is ready: wake the earliest sleeper."""
        while self._sleepers:
            wake_s, rank, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                self._rank = rank if wake_s > self._now_s else max(rank, self._rank)
                self._now_s = wake_s
                wake.set_result(None)
                return
        raise RuntimeError("deadlock in virtual time: every task waits and nobody sleeps")


class _Ticker:
    """Does something again and again as a sleeper that goes back to sleep: no task has to be woken for it."""

    def __init__(self, clock: VirtualClock, period_s: float, do: Callable[[], None]) -> None:
        self.ended = clock.future()
        self._clock = clock
        self._period_s = period_s
        self._do = do
        self.set_result(None)

    def done(self) -> bool:
        return self.ended.done()

    def set_result(self, result: None, /) -> None:
        """It is time."""
        try:
            self._do()
        except Exception as error:
            self.ended.set_exception(error)
        else:
            self._clock.wake(self, self._clock.now() + self._period_s)


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that knows callbacks and nothing else: no files, no threads, no timers, no handles to cancel, and
    no context but a task's.

    asyncio's own takes several times as long for a callback, which is most of what a virtual event costs.
    """

    _stopping: bool
    """asyncio's own: `stop` was called."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        clock.run_on(self)
        self._jump = clock.jump
        self._callbacks: deque[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = deque()

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> Any:
        self._callbacks.append((callback, args, context))

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> Any:
        self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> Any:
        raise AssertionError("something waits on asyncio's own timers, which stand still in virtual time")

    def _run_once(self) -> None:
        """Whatever there is to do until the loop is to stop; `run_forever` calls this again where it is not."""
        callbacks, jump = self._callbacks, self._jump
        while not self._stopping:
            while not callbacks:
                jump()
            callback, args, context = callbacks.popleft()
            try:
                if context is None:
                    callback(*args)
                else:
                    context.run(callback, *args)
            except Exception as error:
                self.call_exception_handler({"message": f"exception in {callback}", "exception": error})


def run_virtual(clock: VirtualClock, main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end on an event loop whose time is `clock`."""
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock)) as runner:
        return runner.run(main)


class _ExactSelector(selectors.DefaultSelector):
    """Waits by `select` for the system's own, because epoll by itself takes whole milliseconds and rounds up."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            select.select([self.fileno()], [], [], timeout)
        return super().select(0)


def run_real(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end on an event loop whose waits end within microseconds of their time.

    asyncio's own loop is late by half a millisecond in the mean; one on `select` alone takes the longer the more files
    it watches, and knows none above 1023.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_ExactSelector())) as runner:
        return runner.run(main)
