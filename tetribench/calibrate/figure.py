"""Plots of a calibration: the residuals of every step, and prefill throughput by the size of an iteration."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.calibrate.fit import Residual
from tetribench.calibrate.knee import ENOUGH, Knee
from tetribench.calibrate.timer import Timing
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


def draw_sweep(sweep: Mapping[int, Timing], knee: Knee, title: str, subtitle: str) -> Figure:
    """Tokens a second by the tokens of an iteration, as the paper's figure 2a, the middle half of samples shaded."""
    figure, ((axes,),) = new_figure(title, subtitle, 2.8, margins=Margins(left=0.85, top=0.98, bottom=0.62))
    sizes, look = list(sweep), SYSTEMS[1]
    low, rates, high = (
        [size / seconds for size, seconds in zip(sizes, column, strict=True)]
        for column in zip(*((one.high_s, one.seconds, one.low_s) for one in sweep.values()), strict=True)
    )
    axes.fill_between(sizes, low, high, color=look.colour, alpha=0.15, lw=0)
    axes.plot(sizes, rates, color=look.colour, marker="o", ms=4, mfc="none", lw=1.4)
    axes.axhline(ENOUGH * knee.best_tokens_per_s, color=MUTED, lw=0.8, ls=(0, (4, 2)))
    axes.axvline(knee.chunk_size, color=INK, lw=0.8)
    axes.set_xscale("log", base=2)
    axes.set(ylim=(0, 1.08 * max(high)), xticks=[size for size in sizes if size & (size - 1) == 0])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    label(axes, "prompt tokens in an iteration", "tokens/s")
    handles = [
        Line2D([], [], color=look.colour, marker="o", mfc="none", label="measured"),
        Line2D([], [], color=MUTED, lw=0.8, ls=(0, (4, 2)), label=f"{ENOUGH:.0%} of the best"),
        Line2D([], [], color=INK, lw=0.8, label=f"ChunkSize {knee.chunk_size}"),
    ]
    legend(figure, handles)
    return figure
