"""Figure 5: decodes of long contexts slow the decodes beside them."""

import pandas as pd
from matplotlib.figure import Figure

from tetribench.calibrate.section3 import BATCHES, DECODE_MIX_TOKENS_PER_S, figure_5
from tetribench.paper.panels import Panel, draw_panels
from tetribench.paper.points import Timer, point_table, tokens_per_s

MIXES = tuple(DECODE_MIX_TOKENS_PER_S)
SIZE = "sequences in an iteration"

PANELS = (
    Panel("(a) throughput", "5", MIXES, SIZE, "tokens/s"),
    Panel("(b) latency of a step", "5 latency", MIXES, SIZE, "latency (ms)"),
)


def table(timer: Timer) -> pd.DataFrame:
    """Tokens a second by batch and mix, and as a figure `5 latency` the milliseconds that a step takes."""
    speeds = point_table(figure_5(), timer, tokens_per_s)
    assert len(speeds) == len(BATCHES) * len(MIXES)
    latencies = speeds.assign(figure="5 latency")
    for column, source in {"paper": "paper", "ours": "ours", "low": "high", "high": "low"}.items():
        latencies[column] = 1e3 * speeds["x"] / speeds[source]
    latencies["error"] = latencies["ours"] / latencies["paper"] - 1.0
    for column in ("paper", "ours"):
        first = latencies.groupby("series")[column].transform("first")
        latencies[f"{column}_relative"] = latencies[column] / first
    return pd.concat([speeds, latencies], ignore_index=True)


def draw(table: pd.DataFrame, subtitle: str, *, relative: bool = False) -> Figure:
    return draw_panels(table, PANELS, "Decode with decode", subtitle, relative=relative)
