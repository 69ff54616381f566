"""Figure 3: what prompts in the same iteration do to each other."""

import pandas as pd
from matplotlib.figure import Figure

from tetribench.calibrate.section3 import figure_3
from tetribench.paper.panels import Panel, draw_panels
from tetribench.paper.points import Timer, milliseconds, point_table

OTHERS = "N, other prompts in the iteration"

PANELS = (
    Panel("(a) a light prefill", "3", ("light prefill, N light", "light prefill, N heavy"), OTHERS, "latency (ms)"),
    Panel("(b) a heavy prefill", "3", ("heavy prefill, N light",), OTHERS, "latency (ms)"),
)


def table(timer: Timer) -> pd.DataFrame:
    """Milliseconds of an iteration of 1 + N prompts."""
    return point_table(figure_3(), timer, milliseconds)


def draw(table: pd.DataFrame, subtitle: str, *, relative: bool = False) -> Figure:
    return draw_panels(table, PANELS, "Prefill with prefill", subtitle, relative=relative)
