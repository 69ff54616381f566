"""Length predictors that need no model: for nothing, for free, or for the time that a classifier would take."""

from collections.abc import Callable, Sequence

from tetribench.core.clock import Clock
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.core.sequence import Sequence as TokenSequence
from tetribench.engine.base import Batch, Engine, LengthPredictor, PrefillChunk
from tetribench.engine.cost_model import CostModel
from tetribench.engine.shared_device import SharedDevice


class InstantPredictor:
    """Answers at once and costs nothing, as an oracle in real time does."""

    def __init__(self, answer: Callable[[Request], LengthRange], description: str, is_parallel: bool) -> None:
        self._answer = answer
        self.description = f"{description}, takes no time"
        self.is_parallel = is_parallel

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        return {request.id: self._answer(request) for request in requests}

    def close(self) -> None:
        """Nothing is held."""


class ChargedPredictor:
    """Another predictor's answers, after the time that OPT-125M takes for the batch padded to its longest prompt."""

    def __init__(self, inner: LengthPredictor, cost: CostModel, device: SharedDevice) -> None:
        self.description = f"{inner.description.removesuffix(', takes no time')}, charged as OPT-125M"
        self.is_parallel = inner.is_parallel
        self._inner = inner
        self._cost = cost
        self._device = device

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        await self._device.run(self._cost.seconds(_padded(requests)))
        return await self._inner.predict(requests)

    def close(self) -> None:
        self._inner.close()


def _padded(requests: list[Request]) -> Batch:
    num_tokens = max(request.num_prompt_tokens for request in requests)
    rows = [TokenSequence(request, LengthRange(0, 1)) for request in requests]
    return Batch(prefill=[PrefillChunk(row, 0, num_tokens) for row in rows])


class NothingToPredict:
    """For instances whose scheduler never asks for a prediction."""

    def check(self, requests: Sequence[Request]) -> None:
        """All requests are fine."""

    def build(self, engine: Engine, clock: Clock, spare_core: int | None) -> LengthPredictor:
        return _Idle()


class _Idle:
    description = "nothing to predict"
    is_parallel = True

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        raise AssertionError("a scheduler without a predictor asked for a prediction")

    def close(self) -> None:
        """Nothing is held."""
