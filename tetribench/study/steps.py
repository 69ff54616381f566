"""Experiments on single iterations: asked of the cost model, or timed on a real engine."""

import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Timing, predict_steps, time_steps
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.cost_model import CostModel
from tetribench.experiment import Composed, Setup
from tetribench.paper.steps import StepFigure
from tetribench.study.base import Study

PAPERS = ("opt_13b", "v100_tp2")
"""The model and the hardware of the paper."""


class StepStudy(Study):
    """The iterations of one of the paper's figures 2 to 5, of the cost model in virtual time.

    In real time they are timed for `seconds` on the engine in a process of its own, as an instance has it.
    """

    def __init__(self, *, name: str, figure: StepFigure, out: str, seconds: float = 20.0) -> None:
        super().__init__(name=name, figure=figure, out=out)
        if seconds <= 0:
            raise ValueError(f"task.seconds={seconds}: must be positive")
        self._figure = figure
        self.seconds = seconds

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        setup = composed.setup()
        engine = setup.engine
        if isinstance(engine, CostModelFactory):
            names = setup.model.name, engine.hardware.name
            cost = CostModel(setup.model.shape(), engine.hardware)
            on = f"{names[0]} on {names[1]}, the cost model's iterations"
            return self._figure.rows(partial(predict_steps, cost), on, names != PAPERS)
        on = f"{setup.model.name} on this machine, timed in a process of its own"
        return self._figure.rows(partial(self._time, setup), on, True)

    def _time(self, setup: Setup, steps: list[Step]) -> list[Timing]:
        engine = setup.engine.sized(1)
        num_blocks = max(step.num_blocks(engine.block_size) for step in steps)
        if num_blocks > engine.num_blocks():
            raise ValueError(
                f"engine.kv_memory_gib: holds {engine.num_blocks()} blocks of KV, and the largest iteration of "
                f"{self.name} needs {num_blocks}; must hold it"
            )
        with tempfile.TemporaryDirectory() as logs:
            timings, _ = time_steps(engine, steps, num_busy=1, seconds=self.seconds, log_folder=Path(logs))
        return timings
