"""Experiments in which not every combination of labels is a system of its own."""

from collections.abc import Mapping
from typing import Protocol

from tetribench.experiment import Composed
from tetribench.report.finding import Figure, SystemFigure
from tetribench.study.cells import Cell
from tetribench.study.systems import SystemStudy


class Choosing(Figure, Protocol):
    """Drawn from some of the cells."""

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Whether the figure wants the cells with these labels: not where they are impossible, or equal to others."""


class ChoosingFigure(SystemFigure, Choosing, Protocol):
    """Drawn from runs of systems, in some of the cells."""


class ChosenStudy(SystemStudy):
    """The combinations of the configuration's `axes` that `figure` admits, with every one of `seeds`."""

    def __init__(self, *, name: str, figure: ChoosingFigure, out: str, seeds: list[int] | None = None) -> None:
        super().__init__(name=name, figure=figure, out=out, seeds=seeds)
        self._admits = figure.admits

    def cells(self, composed: Composed) -> list[Cell]:
        return [cell for cell in super().cells(composed) if self._admits(cell.labels)]
