"""Figures of latency for more systems than colours can tell apart: each has a place of its own."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.report.figure_latency import (
    PANELS,
    Values,
    class_labels,
    class_title,
    of_class,
    steps,
    time_unit,
)
from tetribench.report.style import (
    GRID,
    INK,
    MANY_LOOK,
    SYSTEMS,
    Look,
    Margins,
    label,
    legend,
    new_figure,
    room_for,
    scale_axis,
    shorten,
)

NUM_COLUMNS = 4
"""Panels beside each other."""


def latency_grid(requests: Mapping[str, pd.DataFrame], baseline: str, subtitle: str) -> Figure:
    """A panel for each system and metric: its curve over the baseline's, the other systems' in grey behind them.

    `requests` are by system those of all its servings.
    """
    others = [system for system in requests if system != baseline]
    num_rows = -(-len(others) // NUM_COLUMNS)
    margins = Margins(top=1.3, wspace=0.18, hspace=0.66)
    title = f"How long requests waited, and how long they took, each system against {baseline}"
    figure, axes = new_figure(
        title, subtitle, 2 * num_rows * 1.5, margins=margins, num_rows=2 * num_rows, num_columns=NUM_COLUMNS,
        share_y="row",
    )  # fmt: skip
    for start, (column, name) in zip((0, num_rows), PANELS.items(), strict=True):
        values = {system: np.sort(table[column].dropna().to_numpy()) for system, table in requests.items()}
        factor, unit = time_unit(np.concatenate(list(values.values())))
        curves = {system: (values[system] * factor, len(table)) for system, table in requests.items()}
        panels = [panel for row in axes[start : start + num_rows] for panel in row]
        for panel in panels[len(others) :]:
            panel.set_visible(False)
        for panel, system in zip(panels, others, strict=False):
            _curves(panel, curves, system, baseline)
            panel.set_title(shorten(system, 28))
            scale_axis(panel, "x", np.concatenate([found for found, _ in curves.values()]))
            panel.tick_params(labelsize=8)
        axes[start][0].annotate(
            f"{name}, {unit}", (0, 1), (-28, 19), xycoords="axes fraction", textcoords="offset points", weight="bold"
        )
        for row in axes[start : start + num_rows]:
            label(row[0], y="share")
    lines = {baseline: SYSTEMS[0], "the system named": MANY_LOOK, "the others": Look(GRID)}
    legend(figure, [_line(text, look) for text, look in lines.items()])
    return figure


def _line(text: str, look: Look) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.line, linewidth=1.8, label=text)


def _curves(panel: Axes, curves: dict[str, tuple[Values, int]], system: str, baseline: str) -> None:
    """`curves` are the sorted values of each system and the number of its requests; the system is drawn last."""
    order = [*(other for other in curves if other not in (system, baseline)), baseline, system]
    for other in order:
        found, num_requests = curves[other]
        look = {baseline: SYSTEMS[0], system: MANY_LOOK}.get(other, Look(GRID))
        panel.step(
            *steps(found, num_requests),
            where="post",
            color=look.colour,
            linestyle=look.line,
            linewidth=0.8 if look.colour == GRID else 1.5,
        )
    panel.set_ylim(0, 1.02)


def class_rows(requests: Mapping[str, pd.DataFrame], looks: dict[str, Look], subtitle: str) -> Figure | None:
    """A row for each system in a panel for each class, TTFT above JCT; None where there is one class only.

    A box spans the middle half with the median in it, whiskers reach the 10th and 90th percentile. `requests` are by
    system those of all its servings.
    """
    names = class_labels(requests)
    if len(names) < 2:
        return None
    systems = list(requests)
    margins = Margins(left=room_for(systems), wspace=0.15, hspace=0.75)
    height_in = 2 * (0.19 * len(systems) + 0.4) + margins.hspace
    figure, axes = new_figure(
        "Latency by class of request", subtitle, height_in, margins=margins, num_rows=2, num_columns=len(names),
        share_y="row",
    )  # fmt: skip
    for row, column in zip(axes, PANELS, strict=True):
        values = pd.concat([table[column].dropna() for table in requests.values()]).to_numpy()
        factor, unit = time_unit(values)
        for panel, name in zip(row, names, strict=True):
            members = [
                np.asarray(factor * of_class(table, name, column).dropna(), np.float64) for table in requests.values()
            ]
            _rows(panel, members, [looks[system] for system in systems])
            panel.set_title(class_title(requests, name), weight="bold")
            scale_axis(panel, "x", values * factor)
            panel.tick_params(axis="x", labelsize=8)
            log = ", log" if panel.get_xscale() == "log" else ""
            label(panel, x=f"{column.removesuffix('_s').upper()} ({unit}{log})")
        row[0].set_yticks(range(len(systems)), [shorten(system) for system in systems])
        row[0].set_ylim(len(systems) - 0.4, -0.6)
    return figure


def _rows(panel: Axes, members: list[Values], looks: list[Look]) -> None:
    """Horizontal boxes, the first at the top."""
    boxes = panel.boxplot(
        members,
        positions=range(len(members)),
        orientation="horizontal",
        whis=(10, 90),
        widths=0.62,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        medianprops={"color": INK, "linewidth": 1.8},
    )
    for patch, look in zip(boxes["boxes"], looks, strict=True):
        patch.set(facecolor=look.tint, edgecolor=look.colour)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
