"""Iterations whose ends are known when the first begins: those of unchanging decodes in virtual time."""

from bisect import bisect_left

from tetribench.core.clock import VirtualClock


class Foreseen:
    """The ends of coming iterations, of which only the last that is not cut off is waited for.

    `rank` is the device's: an iteration that ends at this very moment has ended if a device of higher rank is awake.
    """

    def __init__(self, clock: VirtualClock, rank: int, ends_s: list[float]) -> None:
        self.ends_s = ends_s
        self._clock = clock
        self._rank = rank
        self._last_ended = clock.future()
        self._wake()

    def _wake(self) -> None:
        self._clock.wake(self._last_ended, self.ends_s[-1], self._rank)

    async def wait(self) -> None:
        """Until the last has ended."""
        await self._last_ended

    def num_ended(self, num_known: int) -> int:
        """How many before the last have ended; of `num_known` it is known that they have."""
        ends_s, num_before_last = self.ends_s, len(self.ends_s) - 1
        num_ended = bisect_left(ends_s, self._clock.now(), num_known, num_before_last)
        while num_ended < num_before_last and self._clock.has_passed(ends_s[num_ended], self._rank):
            num_ended += 1  # at this very moment
        return num_ended

    def cut(self, num_iterations: int) -> None:
        """Leave off those after the first `num_iterations`."""
        if num_iterations < len(self.ends_s):
            del self.ends_s[num_iterations:]
            self._wake()
