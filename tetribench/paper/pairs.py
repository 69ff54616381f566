"""Cells against cells: means over the seeds, and ratios that are paired by seed."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from tetribench.metrics.intervals import Interval, mean_interval, ratio_interval
from tetribench.metrics.resources import PerfPerDollar, perf_per_dollar
from tetribench.report.quantities import DASH

PERF_PER_DOLLAR = {f"perf_per_dollar_{reading}": reading for reading in PerfPerDollar._fields}
"""Metrics that exist only against another cell, made of the columns `jct_s` and `resource_time_s`."""


def axes_of(rows: pd.DataFrame) -> list[str]:
    """The columns of labels, which come before the seed."""
    columns = list(rows.columns)
    return columns[: columns.index("seed")]


def cell(rows: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The rows of a cell, by seed. Raises ValueError where there is none."""
    chosen = rows
    for axis, label in labels.items():
        if axis not in rows.columns or not (chosen[axis] == label).any():
            raise ValueError(f"{axis}={label}: no such cell")
        chosen = chosen[chosen[axis] == label]
    return chosen.sort_values("seed")


def ratio(of: pd.DataFrame, against: pd.DataFrame, metric: str) -> Interval:
    """Of a metric in two cells. perf/$ is a ratio by itself."""
    assert of["seed"].tolist() == against["seed"].tolist(), "cells are paired by seed"
    reading = PERF_PER_DOLLAR.get(metric)
    if reading is None:
        return ratio_interval(of[metric].tolist(), against[metric].tolist())
    columns = [one[column].tolist() for one in (of, against) for column in ("jct_s", "resource_time_s")]
    values = [getattr(perf_per_dollar(*each), reading) for each in zip(*columns, strict=True)]
    return ratio_interval(values, [1.0] * len(values))


def summarise(rows: pd.DataFrame, metrics: Sequence[str], against: Mapping[str, str]) -> pd.DataFrame:
    """A row for each cell and metric: its mean over the seeds, and its ratio to the cell with the labels `against`.

    Both have the bounds of their 95 % intervals. Axes that `against` does not name are the same on both sides.
    """
    axes, found = axes_of(rows), []
    for key, own in rows.groupby(axes, sort=False):
        labels = {axis: str(label) for axis, label in zip(axes, key, strict=True)}
        of, base = own.sort_values("seed"), cell(rows, {**labels, **against})
        for metric in metrics:
            compared = ratio(of, base, metric)
            value = compared if metric in PERF_PER_DOLLAR else mean_interval(of[metric].tolist())
            found.append((*key, metric, *value, *compared))
    columns = [*axes, "metric", "mean", "low", "high", "ratio", "ratio_low", "ratio_high"]
    return pd.DataFrame(found, columns=columns)


def change_text(row: Mapping[Any, Any]) -> str:
    """A ratio of a summary as a change: `-44% [-47%, -41%]`."""
    value, low, high = (percent(row[name] - 1) for name in ("ratio", "ratio_low", "ratio_high"))
    return f"{value} [{low}, {high}]"


def percent(change: float) -> str:
    """A change with its sign, -44%, below 1 % with a decimal; a dash where it is undefined."""
    if isnan(change):
        return DASH
    points = round(100 * change, 1) + 0.0  # which makes no negative zero
    return f"{points:+.1f}%" if 0 < abs(points) < 1 else f"{points:+.0f}%"
