"""How every figure looks: colours that survive colour blindness and grey print, margins in inches, two file formats.

Colours are those of Okabe and Ito, "Color Universal Design" (2008). A role keeps its colour and hatch in every figure;
a system keeps its colour, line, hatch and marker by its place in the run, the baseline first.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

WIDTH_IN = 9.0
"""Of every figure."""

LOG_FROM_RATIO = 100.0
"""An axis turns logarithmic when its largest value is more than this many times the 5th percentile."""

INK = "#1a1a1a"
MUTED = "#5c5c5c"
GRID = "#dcdcdc"
ALARM = "#a4262c"
"""Dark enough to stand out without its hue."""

RC: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    # a fixed place, because finding one measures every text of the axes each time they are drawn
    "axes.titley": 1.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "tetribench",
    "svg.fonttype": "path",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one thing is drawn: `line`, `hatch` and `marker` are those of matplotlib."""

    colour: str
    hatch: str = ""
    line: Any = "-"
    marker: str = "o"

    @property
    def tint(self) -> tuple[float, float, float]:
        """The colour on white at a third; opaque, because an SVG hatch vanishes in a transparent face."""
        red, green, blue = to_rgb(self.colour)
        return (red + 2) / 3, (green + 2) / 3, (blue + 2) / 3


ROLES = {
    "prefill": Look("#E69F00"),
    "decode": Look("#0072B2"),
    "mixed": Look("#009E73", hatch="////"),
    "transfer": Look("#CC79A7"),
    "idle": Look("#e4e4e4"),
    "not told": Look("#f4f4f4", hatch="...."),
}

SYSTEMS = (
    Look("#000000"),
    Look("#D55E00", hatch="////", line=(0, (5, 1.6)), marker="s"),
    Look("#56B4E9", hatch="\\\\\\\\", line=(0, (5, 1.4, 1, 1.4)), marker="^"),
    Look("#009E73", hatch="xxxx", line=(0, (1.2, 1.2)), marker="D"),
    Look("#CC79A7", hatch="----", line=(0, (9, 2)), marker="v"),
    Look("#E69F00", hatch="++++", line=(0, (3, 1, 1, 1, 1, 1)), marker="P"),
)


MANY_LOOK = SYSTEMS[1]
"""Of every system but the baseline where they are more than there are looks, and each has a place of its own."""


def system_looks(systems: Sequence[str], baseline: str) -> dict[str, Look]:
    """A look for each system; the baseline has the first one, the others theirs in the order given.

    Where there are more systems than looks, all but the baseline share one: place has to tell them apart.
    """
    ordered = [baseline, *(system for system in systems if system != baseline)]
    looks = SYSTEMS if len(ordered) <= len(SYSTEMS) else (SYSTEMS[0], *[MANY_LOOK] * (len(ordered) - 1))
    return dict(zip(ordered, looks, strict=False))


@dataclass(frozen=True, slots=True)
class Margins:
    """Room around the axes of a figure, and between them, in inches."""

    left: float = 0.7
    right: float = 0.2
    top: float = 0.72
    bottom: float = 0.55
    wspace: float = 0.45
    hspace: float = 0.45


def new_figure(
    title: str,
    subtitle: str,
    axes_in: float,
    *,
    margins: Margins | None = None,
    num_rows: int = 1,
    num_columns: int = 1,
    share_y: Literal["none", "row"] = "none",
) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure with a headline above a grid of axes.

    `axes_in` is the height of the grid. Margins are set by hand, because a layout engine is slow.
    """
    margins = margins or Margins()
    width_in, height_in = WIDTH_IN, margins.top + axes_in + margins.bottom
    figure = Figure(figsize=(width_in, height_in))
    FigureCanvasAgg(figure)
    inner_width = (width_in - margins.left - margins.right - margins.wspace * (num_columns - 1)) / num_columns
    inner_height = (axes_in - margins.hspace * (num_rows - 1)) / num_rows
    axes = figure.subplots(
        num_rows,
        num_columns,
        squeeze=False,
        sharey=share_y,
        gridspec_kw={
            "left": margins.left / width_in,
            "right": 1 - margins.right / width_in,
            "top": 1 - margins.top / height_in,
            "bottom": margins.bottom / height_in,
            "wspace": margins.wspace / inner_width,
            "hspace": margins.hspace / inner_height,
        },
    )
    figure.text(0.12 / width_in, 1 - 0.1 / height_in, title, ha="left", va="top", size=11, weight="bold")
    figure.text(0.12 / width_in, 1 - 0.31 / height_in, subtitle, ha="left", va="top", size=8.5, color=MUTED)
    return figure, [list(row) for row in axes]


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """Axis labels at a fixed distance in inches, for the reason for which titles have a fixed place."""
    assert isinstance(axes.figure, Figure)
    place, (width_in, height_in) = axes.get_position(), axes.figure.get_size_inches()
    axes.set_xlabel(x)
    axes.xaxis.set_label_coords(0.5, -0.3 / (place.height * height_in))
    axes.set_ylabel(y)
    axes.yaxis.set_label_coords(-0.5 / (place.width * width_in), 0.5)


def scale_axis(axes: Axes, direction: str, values: npt.NDArray[np.float64]) -> None:
    """Make the axis `x` or `y` logarithmic where the values span too much for a linear one, else start it at 0."""
    is_log = len(values) > 0 and values.min() > 0 and values.max() > LOG_FROM_RATIO * np.percentile(values, 5)
    if not is_log:
        axes.set(**{f"{direction}lim": (0, float(values.max(initial=0.0)) * 1.04 or 1.0)})
        return
    low, high = float(values.min()) / 1.15, float(values.max()) * 1.15
    axes.set(**{f"{direction}scale": "log", f"{direction}lim": (low, high)})
    axis = axes.xaxis if direction == "x" else axes.yaxis
    exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
    steps = (1, 3) if high / low < 1000 else (1,)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    """Under the subtitle, outside of the data; needs `legend_room` above the axes beyond that for one line."""
    width_in, height_in = figure.get_size_inches()
    anchor = (0.05 / width_in, 1 - 0.46 / height_in)
    labels = [str(handle.get_label()) for handle in handles]
    for handle, text in zip(handles, labels, strict=True):
        handle.set_label(shorten(text, 40))
    num_columns = _legend_columns(labels)
    figure.legend(handles=list(handles), loc="upper left", bbox_to_anchor=anchor, ncols=num_columns, handlelength=2.6)


def legend_room(labels: Sequence[str]) -> float:
    """Inches that the lines of a legend need beyond its first."""
    return 0.2 * (ceil(len(labels) / _legend_columns(labels)) - 1)


def _legend_columns(labels: Sequence[str]) -> int:
    entry_in = 0.65 + 0.085 * max(len(shorten(text, 40)) for text in labels)
    return max(min(floor(WIDTH_IN / entry_in), len(labels)), 1)


def system_patch(system: str, looks: dict[str, Look]) -> Patch:
    """A system's entry in a legend of filled shapes."""
    look = looks[system]
    return Patch(facecolor=look.tint, edgecolor=look.colour, hatch=look.hatch, label=system)


def mark(figure: Figure, text: str) -> None:
    """A stamp in the upper right corner, which nobody can overlook."""
    width_in, height_in = figure.get_size_inches()
    place = (1 - 0.16 / width_in, 1 - 0.14 / height_in)
    frame = {"boxstyle": "square,pad=0.3", "edgecolor": ALARM, "facecolor": "white", "linewidth": 1.5}
    figure.text(*place, text, ha="right", va="top", size=11, weight="bold", color=ALARM, bbox=frame)


def shorten(name: str, num_letters: int = 24) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= num_letters else f"{name[: num_letters - 1]}…"


def room_for(names: Iterable[str]) -> float:
    """Inches that the longest of these names needs beside the axes."""
    return 0.3 + 0.085 * max(len(shorten(name)) for name in names)


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write `stem`.svg and `stem`.png (150 dots an inch) without dates or versions, so that equal figures are equal."""
    svg, png = folder / f"{stem}.svg", folder / f"{stem}.png"
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    figure.savefig(png, dpi=150, metadata={"Software": None})
    return svg, png


def drawing() -> AbstractContextManager[None]:
    """The context in which figures are made and saved."""
    return mpl.rc_context(RC)
