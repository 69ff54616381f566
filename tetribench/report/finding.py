"""What comes of an experiment: a table, a figure, and what they say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure as Drawing

from tetribench.metrics.compare import SystemResult
from tetribench.report.style import drawing, save

Quantity = Callable[[SystemResult], float]


class Figure(Protocol):
    """From the rows of an experiment to a table and a drawing. Pure: equal rows give equal results."""

    title: str

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The numbers that are drawn, and nothing else; the columns say their units."""

    def draw(self, table: pd.DataFrame) -> Drawing:
        """Called inside `style.drawing()`."""

    def reading(self, table: pd.DataFrame) -> list[str]:
        """What the numbers say, a sentence each."""


class SystemFigure(Figure, Protocol):
    """Drawn from runs of systems; a row has the labels of its cell, the seed, and these quantities."""

    quantities: Mapping[str, Quantity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An experiment's outcome. `rows` are what it was drawn from."""

    name: str
    title: str
    rows: pd.DataFrame
    table: pd.DataFrame
    readings: list[str]
    drawing: Drawing

    def write(self, folder: Path) -> tuple[Path, Path]:
        """`<name>.csv`, `<name>_rows.csv`, `<name>.svg` and `<name>.png`; the last two are returned."""
        folder.mkdir(parents=True, exist_ok=True)
        for stem, frame in {self.name: self.table, f"{self.name}_rows": self.rows}.items():
            frame.to_csv(folder / f"{stem}.csv", index=False, float_format="%.6g")
        with drawing():
            return save(self.drawing, folder, self.name)


def finding_of(figure: Figure, name: str, rows: pd.DataFrame) -> Finding:
    """Everything that `figure` makes of `rows`."""
    table = figure.table(rows)
    with drawing():
        drawn = figure.draw(table)
    return Finding(name=name, title=figure.title, rows=rows, table=table, readings=figure.reading(table), drawing=drawn)
