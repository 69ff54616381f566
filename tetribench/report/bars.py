"""Bars of means with the whiskers of their intervals, grouped where there are two axes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from tetribench.report.style import INK, Look


def draw_bars(
    panel: Axes, table: pd.DataFrame, series: Sequence[str], looks: Mapping[str, Look], groups: Sequence[str] = ("",)
) -> None:
    """A bar for each of `series` in each of `groups`.

    `table` has `mean`, `low` and `high` by (group, series); a pair that it has not got is left out.
    """
    by_bar = table.to_dict("index")
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        found = [(place, by_bar[group, name]) for place, group in enumerate(groups) if (group, name) in by_bar]
        places = np.array([place - 0.4 + width * (number + 0.5) for place, _ in found])
        mean, low, high = (np.array([float(row[column]) for _, row in found]) for column in ("mean", "low", "high"))
        look = looks[name]
        panel.bar(places, mean, width, color=[look.tint], edgecolor=look.colour, hatch=look.hatch)
        spread = np.nan_to_num(np.array([mean - low, high - mean]))
        panel.errorbar(places, mean, spread, fmt="none", ecolor=INK, capsize=2.5, linewidth=1)
    panel.set_xticks(range(len(groups)), list(groups))
    panel.tick_params(axis="x", length=0)
    panel.set_ylim(bottom=0)
    panel.grid(visible=False, axis="x")


def patches(series: Sequence[str], looks: Mapping[str, Look], names: Mapping[str, str] | None = None) -> list[Patch]:
    """The entries of `series` in a legend, by their `names` where they have one."""
    return [
        Patch(
            facecolor=looks[one].tint,
            edgecolor=looks[one].colour,
            hatch=looks[one].hatch,
            label=(names or {}).get(one, one),
        )
        for one in series
    ]
