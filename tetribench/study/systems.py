"""Experiments on whole systems: the cells of some axes, each simulated with every seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from tetribench.experiment import Composed
from tetribench.report.finding import SystemFigure
from tetribench.study.base import Study
from tetribench.study.cells import Cell, cells_of, check_seeds
from tetribench.study.simulate import OnDone, simulate_all


class SystemStudy(Study):
    """Every combination of the configuration's `axes` with every one of `seeds`, in virtual time."""

    def __init__(self, *, name: str, figure: SystemFigure, out: str, seeds: list[int] | None = None) -> None:
        super().__init__(name=name, figure=figure, out=out)
        self.seeds = check_seeds(seeds)
        self._quantities = figure.quantities

    def cells(self, composed: Composed) -> list[Cell]:
        """What is simulated."""
        return cells_of(composed.axes(), self.seeds)

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        return self.simulate(composed, self.cells(composed), console)

    def simulate(self, composed: Composed, cells: list[Cell], console: Console) -> pd.DataFrame:
        """A row for each of `cells`."""
        with self._progress(cells, console) as on_done:
            return simulate_all(composed, cells, self._quantities, on_done)

    @contextmanager
    def _progress(self, cells: list[Cell], console: Console) -> Iterator[OnDone]:
        """Call the result for each cell that is done."""
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(self.name, total=len(cells))
            yield lambda: progress.advance(bar)
