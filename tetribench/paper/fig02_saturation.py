"""Figure 2: prefill saturates the accelerator at a chunk of 512 tokens, decode only at large batches."""

import pandas as pd
from matplotlib.figure import Figure

from tetribench.calibrate.section3 import figure_2a, figure_2b
from tetribench.paper.panels import Panel, draw_panels
from tetribench.paper.points import Timer, point_table, tokens_per_s

PANELS = (
    Panel("(a) prefill", "2a", ("prefill",), "prompt tokens in an iteration", "tokens/s"),
    Panel("(b) decode", "2b", ("decode",), "sequences in an iteration", "tokens/s"),
)


def table(timer: Timer) -> pd.DataFrame:
    """Tokens a second, by the size of an iteration."""
    return point_table([*figure_2a(), *figure_2b()], timer, tokens_per_s)


def draw(table: pd.DataFrame, subtitle: str, *, relative: bool = False) -> Figure:
    return draw_panels(table, PANELS, "Throughput by the size of an iteration", subtitle, relative=relative)
