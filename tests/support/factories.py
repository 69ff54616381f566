"""Engines with something the matter, and one that looks as if it had a GPU."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support.engine import CheckingFactory
from tetribench.engine.cost_engine import CostModelFactory


class BesideCores(CostModelFactory):
    """Has cores beside its device, as on a GPU."""

    runs_on_a_core = False


class TroubleFactory(CheckingFactory):
    """Engine `index` does `trouble` instead of its iteration `at`."""

    def __init__(
        self, trouble: Callable[[], Coroutine[Any, Any, None]], *, index: int = 0, at: int = 1, **sizes: Any
    ) -> None:
        super().__init__(**sizes)
        self._trouble, self._index, self._at = trouble, index, at

    async def before_iteration(self, index: int, num_iterations: int) -> None:
        if (index, num_iterations) == (self._index, self._at):
            await self._trouble()


async def raises() -> None:
    raise RuntimeError("the device fell off the bus")


async def never_returns() -> None:
    await asyncio.get_running_loop().create_future()
