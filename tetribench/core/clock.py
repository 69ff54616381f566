"""The first seam: real time, or virtual time in which waiting costs nothing.

Everything that waits for time to pass calls `clock.sleep`; `asyncio.sleep`, `asyncio.wait_for` and sockets do not work
in virtual time, so they appear only in the launchers and clients of real time.
"""

import asyncio
import heapq
import itertools
import selectors
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the start of the run."""

    async def sleep(self, seconds: float) -> None:
        """Wait; a duration of zero or less still lets the others run once."""

    async def sleep_until(self, time_s: float, rank: int = 0) -> None:
        """Wait for a deadline; one that has passed still lets the others run once.

        Where moments can be equal, in virtual time, the lower `rank` wakes first.
        """


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


class VirtualClock(selectors.DefaultSelector):
    """Time that jumps to the earliest sleeper when nothing else can run; on ties by rank, then first in, first out.

    It is the selector of its own event loop (see `run_virtual`): asyncio asks its selector to wait exactly when no task
    is ready. Virtual time is kept out of asyncio's timers because those wake equal deadlines out of order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._rank = 0
        self._sleepers: list[tuple[float, int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        await self.sleep_until(self._now_s + seconds)

    async def sleep_until(self, time_s: float, rank: int = 0) -> None:
        wake = asyncio.get_running_loop().create_future()
        self.wake(wake, time_s, rank)
        await wake

    def wake(self, sleeper: "asyncio.Future[None]", time_s: float, rank: int = 0) -> None:
        """End the wait for `sleeper` at `time_s`, or at the earliest of several such times."""
        heapq.heappush(self._sleepers, (max(time_s, self._now_s), rank, next(self._order), sleeper))

    def has_passed(self, time_s: float, rank: int) -> bool:
        """Whether whoever had slept until `time_s` with this rank would be awake by now."""
        return time_s < self._now_s or (time_s == self._now_s and rank < self._rank)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no task is ready, and asyncio itself has no timer
            while self._sleepers:
                wake_s, rank, _, wake = heapq.heappop(self._sleepers)
                if not wake.done():
                    self._rank = rank if wake_s > self._now_s else max(rank, self._rank)
                    self._now_s = wake_s
                    wake.set_result(None)
                    return []
            raise RuntimeError("deadlock in virtual time: every task waits and nobody sleeps")
        assert timeout <= 0, "something waits on asyncio's own timers, which stand still in virtual time"
        return []  # without asking the system: nothing in virtual time comes through a file


def run_virtual(clock: VirtualClock, main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end on an event loop whose time is `clock`."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
        return runner.run(main)
