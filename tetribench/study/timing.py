"""What iterations take on the engine of a run: asked of its cost model, or timed where runs would have it."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Timing, predict_steps, time_steps
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.cost_model import CostModel
from tetribench.experiment import Setup
from tetribench.paper.points import Timer


def timer_of(setup: Setup, name: str, *, num_busy: int, seconds: float) -> Timer:
    """In real time `num_busy` engines run at once for `seconds`, each in a process of its own, as instances do.

    `name` is the experiment's, for its errors.
    """
    if isinstance(setup.engine, CostModelFactory):
        return partial(predict_steps, CostModel(setup.model.shape(), setup.engine.hardware))
    return partial(_time, setup.engine.sized(num_busy), name, num_busy, seconds)


def _time(engine: EngineFactory, name: str, num_busy: int, seconds: float, steps: Sequence[Step]) -> list[Timing]:
    num_blocks = max(step.num_blocks(engine.block_size) for step in steps)
    if num_blocks > engine.num_blocks():
        raise ValueError(
            f"engine.kv_memory_gib: holds {engine.num_blocks()} blocks of KV, and the largest iteration of "
            f"{name} needs {num_blocks}; must hold it"
        )
    with tempfile.TemporaryDirectory() as logs:
        timings, _ = time_steps(engine, steps, num_busy=num_busy, seconds=seconds, log_folder=Path(logs))
    return timings
