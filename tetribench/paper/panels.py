"""How the figures of section 3 look: panels side by side, the paper's points as marks, ours as lines."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.report.style import INK, SYSTEMS, Margins, label, new_figure

MARKERS = "os^Dv"


@dataclass(frozen=True, slots=True)
class Panel:
    """Some `series` of one of the paper's `figure`s, such as `2a`; the axes say `x` and `y`."""

    title: str
    figure: str
    series: tuple[str, ...]
    x: str
    y: str


def draw_panels(table: pd.DataFrame, panels: Sequence[Panel], title: str, subtitle: str, *, relative: bool) -> Figure:
    """`relative` draws multiples of each series' first point, for engines that are not the paper's."""
    margins = Margins(left=0.75, top=0.98, bottom=0.62, wspace=0.75)
    figure, axes = new_figure(title, subtitle, 3.0, margins=margins, num_columns=len(panels))
    for one, panel in zip(axes[0], panels, strict=True):
        _draw_panel(one, table[table["figure"] == panel.figure], panel, relative)
    handles = [
        Line2D([], [], color=INK, marker="o", ls="", mfc="none", label="paper, read off"),
        Line2D([], [], color=INK, label="here"),
    ]
    width_in, height_in = figure.get_size_inches()
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.05 / width_in, 1 - 0.46 / height_in), ncols=2)
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, panel: Panel, relative: bool) -> None:
    suffix = "_relative" if relative else ""
    table = table[table["series"].isin(panel.series)]
    places = {x: place for place, x in enumerate(sorted(table["x"].unique()))}  # sizes double: evenly spaced
    handles = []
    for index, name in enumerate(panel.series):
        mine, look, marker = table[table["series"] == name], SYSTEMS[index], MARKERS[index]
        at = [places[x] for x in mine["x"]]
        axes.plot(at, mine[f"paper{suffix}"], color=look.colour, marker=marker, ls="", ms=5, mfc="none")
        axes.plot(at, mine[f"ours{suffix}"], color=look.colour, ls=look.line, lw=1.4)
        if not relative:
            axes.fill_between(at, mine["low"], mine["high"], color=look.colour, alpha=0.15, lw=0)
        handles.append(Line2D([], [], color=look.colour, ls=look.line, marker=marker, mfc="none", label=name))
    axes.set_xticks(list(places.values()), [f"{x:g}" for x in places])
    room_for_legend = 1.0 + 0.09 * len(handles) if len(handles) > 1 else 1.0
    axes.set(title=panel.title, ylim=(0, axes.get_ylim()[1] * room_for_legend))
    label(axes, panel.x, f"{panel.y.partition(' (')[0]}, relative to the first" if relative else panel.y)
    if len(handles) > 1:
        axes.legend(handles=handles, loc="upper left", fontsize=8, handlelength=3)
