"""Experiments on single iterations: asked of the cost model, or timed on a real engine."""

import pandas as pd
from rich.console import Console

from tetribench.engine.cost_engine import CostModelFactory
from tetribench.experiment import Composed
from tetribench.paper.steps import StepFigure
from tetribench.study.base import Study
from tetribench.study.timing import timer_of

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
        timer = timer_of(setup, self.name, num_busy=1, seconds=self.seconds)
        if isinstance(setup.engine, CostModelFactory):
            names = setup.model.name, setup.engine.hardware.name
            on = f"{names[0]} on {names[1]}, the cost model's iterations"
            return self._figure.rows(timer, on, names != PAPERS)
        return self._figure.rows(timer, f"{setup.model.name} on this machine, timed in a process of its own", True)
