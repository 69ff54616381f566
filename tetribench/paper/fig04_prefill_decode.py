"""Figure 4: what prompts and decodes in the same iteration do to each other."""

import pandas as pd
from matplotlib.figure import Figure

from tetribench.calibrate.section3 import figure_4
from tetribench.paper.panels import Panel, draw_panels
from tetribench.paper.points import Timer, milliseconds, point_table

PANELS = (
    Panel(
        "(a) a light decode",
        "4",
        ("light decode, N light prefills", "light decode, N heavy prefills"),
        "N, prompts in the iteration",
        "latency (ms)",
    ),
    Panel(
        "(b) a prefill",
        "4",
        ("light prefill, N light decodes", "heavy prefill, N light decodes"),
        "N, decodes in the iteration",
        "latency (ms)",
    ),
)


def table(timer: Timer) -> pd.DataFrame:
    """Milliseconds of an iteration of prompts and decodes."""
    return point_table(figure_4(), timer, milliseconds)


def draw(table: pd.DataFrame, subtitle: str, *, relative: bool = False) -> Figure:
    return draw_panels(table, PANELS, "Prefill with decode", subtitle, relative=relative)
