"""Figures of latency: how it is distributed over the requests, and over the requests of each class."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.report.style import INK, Look, Margins, label, legend, legend_room, new_figure, scale_axis, system_patch

Values = npt.NDArray[np.float64]

PANELS = {"ttft_s": "Time to first token (TTFT)", "jct_s": "Job completion time (JCT)"}


def latency_cdfs(servings: dict[str, list[pd.DataFrame]], looks: dict[str, Look], subtitle: str) -> Figure:
    """Two panels, TTFT and JCT, from the request tables of every system; a curve is of all its servings together, its
    band the range of their own curves. A curve ends below 1 where requests failed: shares are of all that arrived."""
    margins = Margins(top=1.12 + legend_room(list(servings)))
    title = "How long requests waited, and how long they took"
    figure, [axes] = new_figure(title, subtitle, 2.1, margins=margins, num_columns=2)
    for panel, (column, name) in zip(axes, PANELS.items(), strict=True):
        everything = np.concatenate([table[column].dropna() for tables in servings.values() for table in tables])
        factor, unit = time_unit(everything)
        for system, tables in servings.items():
            look = looks[system]
            values = np.sort(np.concatenate([table[column].dropna() for table in tables])) * factor
            curve = steps(values, sum(map(len, tables)))
            panel.step(*curve, where="post", color=look.colour, linestyle=look.line, linewidth=1.8)
            if len(tables) > 1:
                own = [_shares(table[column] * factor, curve[0]) for table in tables]
                bounds = np.min(own, axis=0), np.max(own, axis=0)
                panel.fill_between(curve[0], *bounds, step="post", color=look.colour, alpha=0.18, linewidth=0)
        panel.set_title(name, weight="bold")
        panel.set_ylim(0, 1.02)
        scale_axis(panel, "x", everything * factor)
        log = ", logarithmic" if panel.get_xscale() == "log" else ""
        y = "share of requests at or below" if panel is axes[0] else ""
        label(panel, x=f"{column.removesuffix('_s').upper()} ({unit}{log})", y=y)
    handles = [
        Line2D([], [], color=looks[system].colour, linestyle=looks[system].line, linewidth=1.8, label=system)
        for system in servings
    ]
    legend(figure, handles)
    return figure


def latency_by_class(requests: Mapping[str, pd.DataFrame], looks: dict[str, Look], subtitle: str) -> Figure | None:
    """A column of panels for each class of request, TTFT above JCT; None where there is one class only.

    `requests` are by system those of all its servings.

    A box spans the middle half with the median in it, whiskers reach the 10th and 90th percentile, dots are the
    requests beyond them.
    """
    names = class_labels(requests)
    if len(names) < 2:
        return None
    title = "Latency by class of request"
    room = legend_room(list(requests))
    margins = Margins(top=1.12 + room, bottom=0.3, wspace=0.12, hspace=0.3)
    figure, axes = new_figure(title, subtitle, 3.8, margins=margins, num_rows=2, num_columns=len(names), share_y="row")
    for row, column in zip(axes, PANELS, strict=True):
        values = pd.concat([table[column].dropna() for table in requests.values()]).to_numpy()
        factor, unit = time_unit(values)
        for panel, name in zip(row, names, strict=True):
            _boxes(panel, {system: of_class(table, name, column) * factor for system, table in requests.items()}, looks)
            panel.set_xlim(-0.6, len(requests) - 0.4)
            panel.set_xticks([])
            panel.tick_params(axis="y", length=0)
        scale_axis(row[0], "y", values * factor)
        log = ", logarithmic" if row[0].get_yscale() == "log" else ""
        label(row[0], y=f"{column.removesuffix('_s').upper()} ({unit}{log})")
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(class_title(requests, name), weight="bold")
    legend(figure, [system_patch(system, looks) for system in requests])
    return figure


def steps(found: Values, num_requests: int) -> tuple[Values, Values]:
    """The points of a cumulative curve: sorted values, and the share of all requests at or below each."""
    share = np.arange(1, len(found) + 1) / num_requests
    return np.r_[found[:1], found], np.r_[np.zeros(len(found[:1])), share]


def _shares(values: "pd.Series[float]", places: Values) -> Values:
    """The share of all requests at or below each place."""
    shares: Values = np.searchsorted(np.sort(values.dropna().to_numpy()), places, side="right") / len(values)
    return shares


def class_labels(requests: Mapping[str, pd.DataFrame]) -> list[str]:
    """The classes of the requests, sorted."""
    return sorted({name for table in requests.values() for name in table["label"].unique()})


def of_class(table: pd.DataFrame, name: str, column: str) -> "pd.Series[float]":
    return table.loc[table["label"] == name, column]


def class_title(requests: Mapping[str, pd.DataFrame], name: str) -> str:
    """With the number of requests of a system."""
    num_requests = int((next(iter(requests.values()))["label"] == name).sum())
    return f"{name or 'no class'}  ({num_requests})"


def time_unit(values_s: Values) -> tuple[float, str]:
    """The factor and name of the unit in which these seconds read best."""
    largest_s = float(values_s.max()) if len(values_s) else 1.0
    return (1000.0, "ms") if largest_s < 1.0 else (1.0, "s")


def _boxes(panel: Axes, values: dict[str, "pd.Series[float]"], looks: dict[str, Look]) -> None:
    """A box for each system, whiskers at the 10th and 90th percentile, the requests beyond them as dots.

    A system in which nothing has finished keeps its place, empty.
    """
    drawn = [system for system, found in values.items() if found.notna().any()]
    if not drawn:
        return
    seaborn.boxplot(
        pd.concat(values, names=["system"]).rename("value").reset_index(),
        x="system",
        y="value",
        hue="system",
        order=list(values),
        hue_order=list(values),
        palette={system: looks[system].tint for system in values},
        saturation=1.0,
        whis=(10, 90),
        width=0.62,
        fliersize=3.0,
        medianprops={"color": INK, "linewidth": 1.8},
        flierprops={"marker": "o", "alpha": 0.5},
        legend=False,
        ax=panel,
    )
    for patch, system in zip(panel.patches, drawn, strict=True):
        patch.set_edgecolor(looks[system].colour)
        patch.set_hatch(looks[system].hatch)
    panel.set_xlabel("")
    panel.set_ylabel("")
