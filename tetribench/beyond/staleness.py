"""Dispatching on old loads: how often they are broadcast, and what the paper's dispatcher makes of that."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tetribench.beyond.periods import PERIODS, OverPeriods, period_axis
from tetribench.beyond.quantities import mean_of, tail_of
from tetribench.beyond.ticks import ratio_axis
from tetribench.metrics.intervals import Interval, ratio_interval
from tetribench.report.style import INK, SYSTEMS, Margins, label, legend, new_figure

METRICS = {"jct_s": "Mean JCT", "tpot_p90_s": "p90 TPOT"}


class Staleness(OverPeriods):
    """Dispatchers relative to `baseline`, over the period of load reports and of their broadcasts (equal periods)."""

    def __init__(self, *, workload: str, baseline: str, blind: list[str]) -> None:
        super().__init__(blind)
        self.title = f"Load staleness: {workload}"
        self.baseline = baseline
        self.quantities = {"jct_s": mean_of("jct_s"), "tpot_p90_s": tail_of("tpot_s", 90)}

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each dispatcher, period and metric: the ratio to the baseline, paired by seed."""
        base = rows[rows["dispatcher"] == self.baseline].sort_values("seed")
        found = []
        for (dispatcher, period), own in rows.groupby(["dispatcher", "period_ms"], sort=False):
            own = own.sort_values("seed")
            for metric in METRICS:
                ratio = ratio_interval(own[metric].tolist(), base[metric].tolist())
                for shown in self.shown(rows, str(dispatcher), str(period)):
                    found.append((dispatcher, shown, metric, own[metric].mean(), *ratio))
        return pd.DataFrame(found, columns=["dispatcher", "period_ms", "metric", "mean", "ratio", "low", "high"])

    def draw(self, table: pd.DataFrame) -> Figure:
        dispatchers = list(dict.fromkeys(table["dispatcher"]))
        subtitle = f"Relative to {self.baseline} dispatching; below 1 is better; bars are 95 % over the seeds"
        margins = Margins(left=0.8, top=0.98, wspace=0.7)
        figure, axes = new_figure(self.title, subtitle, 2.5, margins=margins, num_columns=len(METRICS))
        handles = []
        for panel, (metric, title) in zip(axes[0], METRICS.items(), strict=True):
            for place, dispatcher in enumerate(dispatchers):
                look = SYSTEMS[place]
                is_drawn = (table["metric"] == metric) & (table["dispatcher"] == dispatcher)
                own = table[is_drawn].sort_values("period_ms")
                spread = np.array([own["ratio"] - own["low"], own["high"] - own["ratio"]])
                drawn = panel.errorbar(
                    own["period_ms"] * 1.03 ** (place - 1),
                    own["ratio"],
                    0 * spread if dispatcher == self.baseline else spread,
                    color=look.colour,
                    ls=look.line,
                    capsize=2,
                    linewidth=1.3,
                )
                drawn.lines[0].set_label(dispatcher)
                handles.append(drawn.lines[0])
            panel.axhline(1.0, color=INK, linewidth=0.6)
            ratio_axis(panel, "y", table[table["metric"] == metric])
            period_axis(panel, table)
            panel.set_title(title)
            label(panel, x=PERIODS, y="ratio")
        legend(figure, handles[: len(dispatchers)])
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        sentences = []
        for metric, title in METRICS.items():
            own = table[table["metric"] == metric]
            seeing = own[~own["dispatcher"].isin(self.blind)].sort_values("period_ms")
            for dispatcher, rows in seeing.groupby("dispatcher", sort=False):
                first, last = rows.iloc[0], rows.iloc[-1]
                sentences.append(
                    f"{title} with {dispatcher} against {self.baseline}: {_percent(first)} with loads broadcast every "
                    f"{first['period_ms']:g} ms, {_percent(last)} every {last['period_ms']:g} ms."
                )
            others = own[own["dispatcher"].isin(self.blind) & (own["dispatcher"] != self.baseline)]
            for dispatcher, rows in others.groupby("dispatcher", sort=False):
                sentences.append(f"{title} with {dispatcher} against {self.baseline}: {_percent(rows.iloc[0])}.")
        return sentences


def _percent(row: "pd.Series[float]") -> str:
    ratio = Interval(row["ratio"], row["low"], row["high"])
    return f"{ratio.value - 1:+.1%} [{ratio.low - 1:+.1%}, {ratio.high - 1:+.1%}]"
