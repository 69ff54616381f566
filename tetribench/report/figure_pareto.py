"""The figure of what a device delivers against what a user sees: neither can be had without giving up the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.metrics.paired import MEDIAN_TPOT, PER_DEVICE, point_values
from tetribench.report.runs import Run
from tetribench.report.style import INK, MUTED, SYSTEMS, Look, Margins, label, legend, legend_room, new_figure

X = "tokens/s that a user sees (1 / median TPOT)"
Y = "output tokens/s per device"

AXES = ["interactivity", "throughput"]

HEIGHT_IN = 3.4


def serving_points(run: Run) -> pd.DataFrame:
    """A row for each serving: `system`, `interactivity` and `throughput`, both in tokens/s; more of both is better.

    Servings in which no response has a second token, or no device was there, have no place and are left out.
    """
    return points_frame((one.result.system, point_values(one.result)) for one in run.served)


def points_frame(servings: Iterable[tuple[str, Mapping[str, float | None]]]) -> pd.DataFrame:
    """The same from systems and their `POINT_VALUES`, None or NaN where they are undefined."""
    rows = [(system, values[MEDIAN_TPOT], values[PER_DEVICE]) for system, values in servings]
    found = pd.DataFrame(rows, columns=["system", *AXES]).astype(dict.fromkeys(AXES, "float64"))
    found[AXES[0]] = 1 / found[AXES[0]].where(found[AXES[0]] > 0)
    return found.dropna().reset_index(drop=True)


def pareto(points: pd.DataFrame, looks: dict[str, Look], subtitle: str) -> Figure | None:
    """A small mark for each serving, a large one at the mean of each system, with lines as long as its servings spread.

    None where there is no point. Where systems share a look, their means have numbers, which the legend explains.
    """
    if points.empty:
        return None
    systems = [system for system in looks if system in set(points["system"])]
    is_crowded = len(looks) > len(SYSTEMS)
    names = [f"{number}  {name}" if is_crowded else name for number, name in enumerate(systems, 1)]
    figure, axes = _axes("What a device delivers, and what a user sees", subtitle, names, points)
    for number, system in enumerate(systems, 1):
        look, own = looks[system], points.loc[points["system"] == system, AXES]
        mean = own.mean()
        low, high = mean - own.min(), own.max() - mean
        axes.plot(own[AXES[0]], own[AXES[1]], look.marker, color=look.colour, alpha=0.45, markersize=4.5, mew=0)
        x, y = float(mean.iloc[0]), float(mean.iloc[1])
        axes.errorbar(
            x,
            y,
            xerr=[[low.iloc[0]], [high.iloc[0]]],
            yerr=[[low.iloc[1]], [high.iloc[1]]],
            fmt=look.marker,
            color=look.colour,
            markeredgecolor=INK,
            markersize=9,
            elinewidth=1.0,
            zorder=3,
        )
        if is_crowded:
            axes.annotate(str(number), (x, y), (6, 5), textcoords="offset points", fontsize=8.5)
    legend(figure, [_mark(name, looks[system], "") for name, system in zip(names, systems, strict=True)])
    return figure


def pareto_curves(points: pd.DataFrame, looks: dict[str, Look], subtitle: str) -> Figure | None:
    """A curve for each system through its means in each run, which `points` name by number in `run`.

    Large marks are the efficient points among all systems and runs. None where there is no point.
    """
    if points.empty:
        return None
    systems = [system for system in looks if system in set(points["system"])]
    figure, axes = _axes("What a device delivers, and what a user sees, over the runs", subtitle, systems, points)
    points = points.assign(is_efficient=efficient(points[AXES].to_numpy()))
    for system in systems:
        look, own = looks[system], points[points["system"] == system].sort_values(AXES)
        best = own[own["is_efficient"]]
        axes.plot(own[AXES[0]], own[AXES[1]], color=look.colour, linestyle=look.line, linewidth=1.4, alpha=0.8)
        axes.plot(own[AXES[0]], own[AXES[1]], look.marker, color=look.colour, markerfacecolor="white", markersize=5)
        axes.plot(best[AXES[0]], best[AXES[1]], look.marker, color=look.colour, markeredgecolor=INK, markersize=9.5)
        for row in own.itertuples():
            place = (float(str(row.interactivity)), float(str(row.throughput)))
            axes.annotate(str(row.run), place, (6, 4), textcoords="offset points", fontsize=8, color=MUTED)
    handles = [_mark(system, looks[system], looks[system].line) for system in systems]
    legend(figure, handles)
    return figure


def efficient(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Of points, which are rows: whether no other one is at least as good in both and better in one; more is better."""
    at_least = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] > points[None, :, :]).any(axis=2)
    is_efficient: npt.NDArray[np.bool_] = np.logical_not(np.any(at_least & better, axis=0))
    return is_efficient


def _axes(title: str, subtitle: str, names: Sequence[str], points: pd.DataFrame) -> tuple[Figure, Axes]:
    """Axes that hold all points with room around them, and say where better is."""
    figure, [[axes]] = new_figure(title, subtitle, HEIGHT_IN, margins=Margins(top=0.9 + legend_room(names)))
    for direction, column in zip("xy", AXES, strict=True):
        low, high = points[column].min(), points[column].max()
        pad = max(0.15 * (high - low), 0.04 * high)
        axes.set(**{f"{direction}lim": (max(low - pad, 0.0), high + pad)})
    label(axes, x=X, y=Y)
    arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.2}
    in_axes = axes.transAxes
    axes.annotate("", (0.995, 1.075), (0.965, 1.015), xycoords=in_axes, textcoords=in_axes, arrowprops=arrow)
    axes.text(0.96, 1.045, "better", transform=in_axes, ha="right", va="center", color=MUTED, style="italic")
    return figure, axes


def _mark(name: str, look: Look, line: Any) -> Line2D:
    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=line,
        linewidth=1.4,
        marker=look.marker,
        markersize=7,
        markeredgecolor=INK,
        label=name,
    )
