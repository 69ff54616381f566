"""Which engines can be measured alone, in a process of their own."""

from tetribench.engine.base import EngineFactory
from tetribench.engine.hf.schema import HFEngine


def measurable(task: str, engine: EngineFactory) -> HFEngine:
    """Raises ValueError, naming `task`, for anything that is not a real model on one device: the cost model that is
    fitted knows of several devices by `hardware.num_devices`, and floors are those of one."""
    if not isinstance(engine, HFEngine):
        raise ValueError(f"task={task} measures a real engine; it needs engine=hf")
    if engine.tensor_parallel > 1:
        raise ValueError(
            f"engine.tensor_parallel={engine.tensor_parallel}: task={task} measures an engine on one device; must be 1 "
            f"with it"
        )
    return engine
