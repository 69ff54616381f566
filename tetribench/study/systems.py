"""Experiments on whole systems: the cells of some axes, each simulated with every seed."""

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from tetribench.experiment import Composed
from tetribench.report.finding import SystemFigure
from tetribench.study.base import Study
from tetribench.study.cells import cells_of, check_seeds
from tetribench.study.simulate import simulate_all


class SystemStudy(Study):
    """Every combination of the configuration's `axes` with every one of `seeds`, in virtual time."""

    def __init__(self, *, name: str, figure: SystemFigure, out: str, seeds: list[int] | None = None) -> None:
        super().__init__(name=name, figure=figure, out=out)
        self.seeds = check_seeds(seeds)
        self._quantities = figure.quantities

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        cells = cells_of(composed.axes(), self.seeds)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(self.name, total=len(cells))
            return simulate_all(composed, cells, self._quantities, lambda: progress.advance(bar))
