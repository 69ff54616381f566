"""A figure's points as a table: the paper's value, ours, and both as multiples of the series' first point."""

from collections.abc import Callable, Sequence

import pandas as pd

from tetribench.calibrate.steps import Point, Step
from tetribench.calibrate.timer import Timing

Timer = Callable[[Sequence[Step]], list[Timing]]

Value = Callable[[Point, float], float]
"""What a figure shows of a point that takes so many seconds."""


def milliseconds(point: Point, seconds: float) -> float:
    return 1e3 * seconds


def tokens_per_s(point: Point, seconds: float) -> float:
    """Prompt tokens computed, and a token for each decode."""
    return (sum(size for _, size in point.step.chunks) + len(point.step.contexts)) / seconds


def point_table(points: Sequence[Point], timer: Timer, value: Value) -> pd.DataFrame:
    """One row for each point, in order.

    `low` and `high` bound the middle half of our samples. `error` is ours against the paper's, which means something
    only on the paper's model and hardware; the two `_relative` columns can be held against each other anywhere.
    """
    steps = list(dict.fromkeys(point.step for point in points))  # one prompt alone begins several series
    timings = dict(zip(steps, timer(steps), strict=True))
    rows = []
    for point in points:
        timing = timings[point.step]
        ours, ends = value(point, timing.seconds), (value(point, timing.low_s), value(point, timing.high_s))
        rows.append(
            {
                "figure": point.group,
                "series": point.series,
                "x": point.x,
                "paper": value(point, point.measured_s),
                "ours": ours,
                "low": min(ends),
                "high": max(ends),
            }
        )
    table = pd.DataFrame(rows)
    table["error"] = table["ours"] / table["paper"] - 1.0
    for column in ("paper", "ours"):
        first = table.groupby(["figure", "series"])[column].transform("first")
        table[f"{column}_relative"] = table[column] / first
    return table
