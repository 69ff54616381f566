"""The figure of benchmarks: each row's median with the range of its rounds, and its mark."""

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from tetribench.report.marks import Judged, Unit, Verdict
from tetribench.report.style import INK, MUTED, SYSTEMS, Margins, label, legend, new_figure, shorten

ROW_IN = 0.21
NUM_LETTERS = 62

LOOKS = {
    Verdict.met: (SYSTEMS[3].colour, "o"),
    Verdict.missed: (SYSTEMS[1].colour, "s"),
    Verdict.no_mark: (MUTED, "D"),
}
"""Colour and marker, so that it can be read in grey."""

_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)


def draw_marks(judged: Sequence[Judged], unit: Unit, subtitle: str) -> Figure:
    """Of the rows that were measured, those in `unit`, of which there must be some; ratios on a logarithmic axis."""
    rows = [one for one in judged if one.rounds and one.mark.unit == unit]
    margins = Margins(left=0.3 + 0.058 * max(len(shorten(one.mark.row, NUM_LETTERS)) for one in rows), top=0.8)
    figure, [[axes]] = new_figure("Benchmarks against their marks", subtitle, ROW_IN * (len(rows) + 1), margins=margins)
    for place, one in enumerate(rows):
        _row(axes, place, one)
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_yticks(range(len(rows)), [shorten(one.mark.row, NUM_LETTERS) for one in rows], size=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    if unit == "ratio":
        _logarithmic(axes, rows)
    label(axes, x="ratio, logarithmic" if unit == "ratio" else unit)
    legend(figure, _handles({one.verdict for one in rows}))
    return figure


def _row(axes: Axes, place: int, one: Judged) -> None:
    colour, marker = LOOKS[one.verdict]
    axes.plot([min(one.rounds), max(one.rounds)], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([median(one.rounds)], [place], marker, color=colour, markersize=4.5)
    if one.mark.bound is not None:
        axes.plot(one.mark.bound.ends, [place] * len(one.mark.bound.ends), "|", color=INK, markersize=9, mew=1.4)


def _logarithmic(axes: Axes, rows: Sequence[Judged]) -> None:
    ends = [end for one in rows if one.mark.bound is not None for end in one.mark.bound.ends]
    shown = [value for value in [1.0, *ends, *(value for one in rows for value in one.rounds)] if value > 0]
    low, high = min(shown) / 1.15, max(shown) * 1.15
    axes.set(xscale="log", xlim=(low, high))
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _handles(verdicts: set[Verdict]) -> list[Line2D]:
    drawn = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, label=verdict.value)
        for verdict, (colour, marker) in LOOKS.items()
        if verdict in verdicts
    ]
    return [*drawn, Line2D([], [], color=INK, marker="|", linestyle="", markersize=9, mew=1.4, label="mark")]
