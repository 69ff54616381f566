"""The figures of section 3, whose points are iterations: one experiment each."""

import pandas as pd
from matplotlib.figure import Figure

from tetribench.paper import fig02_saturation, fig03_prefill_prefill, fig04_prefill_decode, fig05_decode_decode
from tetribench.paper.points import Timer

FIGURES = {
    2: ("throughput by the size of an iteration", fig02_saturation),
    3: ("prefill with prefill", fig03_prefill_prefill),
    4: ("prefill with decode", fig04_prefill_decode),
    5: ("decode with decode", fig05_decode_decode),
}


class StepFigure:
    """One of figures 2 to 5. Its rows are its table; two columns say on what, and whether it is the paper's."""

    def __init__(self, *, figure: int) -> None:
        if figure not in FIGURES:
            raise ValueError(f"task.figure.figure={figure}: must be one of {', '.join(map(str, FIGURES))}")
        name, self._module = FIGURES[figure]
        self.title = f"Figure {figure}: {name}"

    def rows(self, timer: Timer, engine: str, relative: bool) -> pd.DataFrame:
        """`relative` says that seconds do not compare with the paper's, so that multiples are drawn."""
        table: pd.DataFrame = self._module.table(timer)
        return table.assign(engine=engine, is_relative=int(relative))

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows

    def draw(self, table: pd.DataFrame) -> Figure:
        drawn: Figure = self._module.draw(
            table, str(table["engine"].iloc[0]), relative=bool(table["is_relative"].iloc[0])
        )
        drawn.texts[0].set_text(self.title)
        return drawn

    def reading(self, table: pd.DataFrame) -> list[str]:
        """How far ours are from the paper's points; as multiples of each series' first where seconds do not compare."""
        if not table["is_relative"].iloc[0]:
            return [_distance(table["error"], table, "the paper's points, on which the cost model was fitted")]
        off = table["ours_relative"] / table["paper_relative"] - 1.0
        return [_distance(off, table, "the paper's points, both as multiples of their series' first")]


def _distance(off: "pd.Series[float]", table: pd.DataFrame, what: str) -> str:
    worst = table.iloc[int(off.abs().to_numpy().argmax())]
    return (
        f"The median distance from {what}, is {off.abs().median():.1%}; the largest is {off.abs().max():.0%}, at "
        f"{worst['x']:g} of {worst['series']!r} in {worst['figure']}."
    )
