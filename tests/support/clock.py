"""Virtual time that comes to an end."""

import math

from tetribench.core.clock import VirtualClock


class BoundedClock(VirtualClock):
    """Virtual time that ends in an error at `limit_s`, so that what waits forever fails instead of spinning."""

    def __init__(self, limit_s: float = 10_000.0) -> None:
        super().__init__()
        self._limit_s = limit_s

    def jump(self) -> None:
        if self.now() > self._limit_s:
            limit_s, self._limit_s = self._limit_s, math.inf  # the clean-up after the error needs to go on
            raise RuntimeError(f"still running after {limit_s} virtual seconds")
        super().jump()
