"""The figure of several runs: how each system compares with the baseline under each workload."""

from math import isnan

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from tetribench.report.quantities import ratio_text
from tetribench.report.style import (
    GRID,
    INK,
    MANY_LOOK,
    MUTED,
    Look,
    Margins,
    label,
    legend,
    legend_room,
    new_figure,
    room_for,
    shorten,
    system_patch,
)

RATIO_METRICS = ("mean_ttft_s", "mean_jct_s", "resource_time_s")

INSIDE = "inside the A/A band"

_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0, 30.0, 100.0)


def ratio_bars(frame: pd.DataFrame, looks: dict[str, Look], baseline: str, subtitle: str) -> Figure:
    """A panel for each of `RATIO_METRICS`, a group of bars for each workload; `frame` is that of `ratio_frame`."""
    compared = frame[frame["system"] != baseline]
    workloads, systems = list(compared["workload"].unique()), list(compared["system"].unique())
    margins = Margins(left=room_for(workloads), top=1.12 + legend_room([baseline, *systems]), wspace=0.25)
    height_in = (0.2 + 0.26 * len(systems)) * len(workloads)
    figure, [axes] = new_figure(
        f"Ratio to {baseline}", subtitle, height_in, margins=margins, num_columns=len(RATIO_METRICS), share_y="row"
    )
    for panel, metric in zip(axes, RATIO_METRICS, strict=True):
        found = compared[compared["metric"] == metric]
        _panel(panel, found, workloads, looks)
        panel.set_title(found["title"].iloc[0], weight="bold")
        label(panel, x="ratio, logarithmic")
    axes[0].set_ylim(len(workloads) - 0.5, -0.5)
    axes[0].set_yticks(range(len(workloads)), [shorten(workload) for workload in workloads])
    line = Line2D([], [], color=INK, linewidth=1.2, label=f"{baseline} = 1")
    inside = [Patch(facecolor=GRID, edgecolor=MUTED, label=INSIDE)] if compared["is_inside_band"].any() else []
    legend(figure, [line, *(system_patch(system, looks) for system in systems), *inside])
    return figure


def ratio_dots(frame: pd.DataFrame, baseline: str, subtitle: str) -> Figure:
    """A row for each system, a dot for each run: for more systems than colours can tell apart."""
    compared = frame[(frame["system"] != baseline) & (frame["ratio"] > 0)]
    systems = list(compared["system"].unique())
    margins = Margins(left=room_for(systems), top=0.8, wspace=0.25)
    height_in = 0.26 * len(systems)
    figure, [axes] = new_figure(
        f"Ratio to {baseline}", subtitle, height_in, margins=margins, num_columns=len(RATIO_METRICS), share_y="row"
    )
    for panel, metric in zip(axes, RATIO_METRICS, strict=True):
        found = compared[compared["metric"] == metric]
        is_inside = found["is_inside_band"].to_numpy(bool)
        for own, colour, fill in ((found[~is_inside], MANY_LOOK.colour, None), (found[is_inside], MUTED, "white")):
            places = own["system"].map(systems.index)
            panel.plot(own["ratio"], places, "o", color=colour, markerfacecolor=fill, alpha=0.6, markersize=4)
        means = found.groupby("system", sort=False)["ratio"].mean()
        panel.plot(means, [systems.index(str(system)) for system in means.index], "|", color=INK, markersize=11)
        panel.axvline(1.0, color=INK, linewidth=1.2)
        _ratio_axis(panel, found["ratio"], found["ratio"], 1.15)
        panel.set_title(found["title"].iloc[0], weight="bold")
        label(panel, x="ratio, logarithmic")
    axes[0].set_ylim(len(systems) - 0.5, -0.5)
    axes[0].set_yticks(range(len(systems)), [shorten(system) for system in systems])
    return figure


def _panel(panel: Axes, found: pd.DataFrame, workloads: list[str], looks: dict[str, Look]) -> None:
    """Bars from 1 to each ratio, so that twice and half are equally long."""
    systems = list(found["system"].unique())
    height = 0.8 / len(systems)
    for row in found[found["ratio"] > 0].itertuples():
        look, ratio = looks[str(row.system)], float(str(row.ratio))
        place = workloads.index(str(row.workload)) - 0.4 + height * (systems.index(str(row.system)) + 0.5)
        is_inside = bool(row.is_inside_band)
        fill, edge = (GRID, MUTED) if is_inside else (look.tint, look.colour)
        panel.barh(place, ratio - 1, 0.82 * height, 1.0, color=fill, edgecolor=edge, hatch=look.hatch)
        low, high = float(str(row.low)), float(str(row.high))
        end = ratio if isnan(low) else low if ratio < 1 else high
        if not isnan(low):
            panel.plot([low, high], [place, place], color=MUTED if is_inside else INK, linewidth=1.0)
        side, offset = ("right", -3) if ratio < 1 else ("left", 3)
        panel.annotate(
            ratio_text(ratio), (end, place), (offset, 0), textcoords="offset points", ha=side, va="center", fontsize=8,
            color=MUTED if is_inside else INK,
        )  # fmt: skip
    panel.axvline(1.0, color=INK, linewidth=1.2)
    # a label is about a third of a panel wide, and stands outside of its bar and its interval
    ends = pd.concat([found["ratio"], found["low"], found["high"]]).dropna()
    span = max(ends.max(), 1.0) / min(ends.min(), 1.0)
    room = max(span, 2.0) ** 0.55
    _ratio_axis(panel, found["ratio"], ends, room)
    panel.grid(axis="y", visible=False)


def _ratio_axis(panel: Axes, ratios: "pd.Series[float]", ends: "pd.Series[float]", room: float) -> None:
    """A logarithmic axis that holds 1, all ratios and the `ends` of what is drawn of them, with a factor of `room` on
    each side on which there are ratios."""
    panel.set_xscale("log")
    low = min(ends.min(), 1.0) / (room if ratios.min() < 1 else 1.15)
    high = max(ends.max(), 1.0) * (room if ratios.max() >= 1 else 1.15)
    panel.set_xlim(low, high)
    panel.set_xticks([tick for tick in _TICKS if low <= tick <= high and _is_kept(tick, low, high)])
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="y", length=0)


def _is_kept(tick: float, low: float, high: float) -> bool:
    """Fewer ticks on a longer axis, so that their labels stay apart."""
    if high / low > 50:
        return tick in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    return high / low <= 12 or tick not in (0.5, 2.0)
