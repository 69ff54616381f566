"""In which order waiting prompts are prefilled (paper section 3.3.1)."""

from collections import deque
from typing import Protocol

from tetribench.core.messages import Submit


class Order(Protocol):
    def next_group(self, raw: deque[Submit]) -> list[Submit]:
        """Take the next group from the raw queue, in the order in which it is to be prefilled."""


class _Window:
    """Takes up to `window` requests (the paper's PrefillSchedBatch) in arrival order; the window bounds starvation."""

    def __init__(self, *, window: int = 16) -> None:
        if window < 1:
            raise ValueError(f"prefill.order.window={window}: must be at least 1")
        self.window = window

    def _take(self, raw: deque[Submit]) -> list[Submit]:
        return [raw.popleft() for _ in range(min(self.window, len(raw)))]


class FCFS(_Window):
    """First come, first served."""

    def next_group(self, raw: deque[Submit]) -> list[Submit]:
        return self._take(raw)


class SJF(_Window):
    """Shortest prompt first within the window; ties in arrival order."""

    def next_group(self, raw: deque[Submit]) -> list[Submit]:
        return sorted(self._take(raw), key=lambda one: one.num_tokens)


class LJF(_Window):
    """Longest prompt first within the window; ties in arrival order."""

    def next_group(self, raw: deque[Submit]) -> list[Submit]:
        return sorted(self._take(raw), key=lambda one: -one.num_tokens)
