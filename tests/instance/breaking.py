"""An engine that breaks, in a module that a worker can import."""

from tetribench.core.clock import Clock
from tetribench.engine.base import Batch, OnLayer
from tetribench.engine.cost_engine import CostModelEngine, CostModelFactory


class Breaking(CostModelFactory):
    """As a decode instance it breaks: when it is built, or in its third iteration."""

    part = 0
    when = "built"

    def in_part(self, part: int) -> "Breaking":
        own = Breaking(model=self.model, hardware=self.hardware)
        own.num_sharing, own.part, own.when = self.num_sharing, part, self.when
        return own

    def build(self, clock: Clock, device: int | None) -> CostModelEngine:
        if self.part == 1 and self.when == "built":
            raise ValueError("engine.kv_memory_gib: nothing is left")
        engine = super().build(clock, device)
        if self.part == 1:
            _break_soon(engine)
        return engine


def _break_soon(engine: CostModelEngine) -> None:
    run, num_iterations = engine.run, 0

    async def breaking(batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        nonlocal num_iterations
        num_iterations += 1
        if num_iterations == 3:
            raise RuntimeError("the device is gone")
        return await run(batch, on_layer)

    engine.run = breaking  # type: ignore[method-assign]
