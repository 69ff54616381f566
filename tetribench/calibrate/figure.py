"""The residual plot: measured and predicted seconds of every step, and the error below."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.calibrate.fit import Residual
from tetribench.report.style import INK, MUTED, SYSTEMS, Margins, label, legend, new_figure

MARKERS = "os^Dvx"

LIMIT = 0.1
"""The band drawn in the lower half."""


def draw_residuals(found: Sequence[Residual], title: str, subtitle: str) -> Figure:
    """Every point by what was measured: above what was predicted, below by how much that is off."""
    groups = list(dict.fromkeys(one.point.group for one in found))
    looks = dict(zip(groups, SYSTEMS, strict=False))
    figure, axes = new_figure(title, subtitle, 5.2, margins=Margins(left=0.75, top=0.98, hspace=0.55), num_rows=2)
    (above,), (below,) = axes
    for group, look in looks.items():
        mine = [one for one in found if one.point.group == group]
        measured_ms, predicted_ms = zip(*(one.shown_ms for one in mine), strict=True)
        marks: Any = {"color": look.colour, "marker": MARKERS[groups.index(group)], "ls": "", "ms": 4, "mfc": "none"}
        above.plot(measured_ms, predicted_ms, **marks)
        below.plot(measured_ms, [100 * one.error for one in mine], **marks)
    every_ms = [one.shown_ms[0] for one in found]
    ends = [min(every_ms) / 1.2, max(every_ms) * 1.2]
    above.plot(ends, ends, color=MUTED, lw=0.8, zorder=0)
    above.set(xscale="log", yscale="log", xlim=ends, title="Prediction; on the line it is right")
    below.axhspan(-100 * LIMIT, 100 * LIMIT, color="#eeeeee", zorder=0)
    below.axhline(0, color=INK, lw=0.8)
    below.set(xscale="log", xlim=ends, title=f"Error; the band is {LIMIT:.0%}")
    for axis in (above.xaxis, above.yaxis, below.xaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    label(above, "", "predicted (ms)")
    label(below, "measured (ms)", "error (%)")
    handles = [
        Line2D([], [], color=look.colour, marker=MARKERS[index], ls="", mfc="none", label=group)
        for index, (group, look) in enumerate(looks.items())
    ]
    legend(figure, handles)
    return figure
