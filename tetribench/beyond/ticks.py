"""Axes of ratios: logarithmic, so that half and double are as far from 1."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes


def ratio_axis(panel: Axes, direction: Literal["x", "y"], rows: pd.DataFrame) -> None:
    """Room for the intervals `low` to `high` of `rows`, and for 1 between them; plain numbers at the ticks."""
    low, high = min(float(rows["low"].min()), 0.97), max(float(rows["high"].max()), 1.03)
    room = (high / low) ** 0.08
    panel.set(**{f"{direction}scale": "log", f"{direction}lim": (low / room, high * room)})
    plain_ticks(panel, direction)


def plain_ticks(panel: Axes, direction: Literal["x", "y"]) -> None:
    """On a logarithmic axis, as many as its span can hold."""
    low, high = panel.get_xlim() if direction == "x" else panel.get_ylim()
    shown = [tick for tick in _ticks(high / low) if low <= tick <= high]
    axis = panel.xaxis if direction == "x" else panel.yaxis
    axis.set_ticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_ticks([], minor=True)


def _ticks(span: float) -> list[float]:
    if span < 2:
        return [number / 20 for number in range(1, 40)] if span < 1.4 else [number / 10 for number in range(1, 40)]
    steps = (1.0,) if span > 1000 else (1, 2, 5) if span > 10 else (1, 1.5, 2, 3, 5, 7)
    return [float(f"{step}e{exponent}") for exponent in range(-6, 6) for step in steps]
