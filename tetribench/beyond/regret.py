"""Regret of single dispatches: what the other choices would have brought, by dispatcher and by age of its loads."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.beyond.periods import PERIODS, OverPeriods, period_axis
from tetribench.metrics.intervals import Interval, mean_interval
from tetribench.metrics.regret import Regret
from tetribench.report.style import INK, SYSTEMS, Look, Margins, label, legend, new_figure

SCOPES = {"own": "JCT of the request", "all": "JCTs of all requests, summed"}
PANELS = {"best": "Against the best", "chance": "Against chance"}
LATER = {"kept": "all other decisions as they were", "policy": "later decisions as the policy then takes them"}
"""By what becomes of the decisions after the one that is changed."""

LINEAR_S = 1.0
"""Regrets are drawn to scale up to here, and on a logarithmic scale beyond: the worst dispatcher is that far off."""

TICKS_S = (-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30, 100)


class RegretFigure(OverPeriods):
    """Means over the decisions of a run, then over the seeds with 95 % intervals; `metrics.regret` says of what.

    In seconds of the JCT of the request, and of the sum of the JCTs of all requests.
    """

    def __init__(self, *, workload: str, blind: list[str]) -> None:
        super().__init__(blind)
        self.title = f"Regret of a dispatch: {workload}"

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each dispatcher, period, scope and comparison; `mean_jct_s` is that of the runs as they were."""
        found = []
        for (dispatcher, period), own in rows.groupby(["dispatcher", "period_ms"], sort=False):
            by_seed = own.groupby("seed").mean(numeric_only=True)
            facts = by_seed["mean_jct_s"].mean(), own["later"].iloc[0]
            for scope in SCOPES:
                for against in Regret._fields:
                    seconds = by_seed[f"{scope}_{against}_s"].dropna().tolist()
                    interval = mean_interval(seconds) if seconds else Interval(np.nan, np.nan, np.nan)
                    for shown in self.shown(rows, str(dispatcher), str(period)):
                        found.append((dispatcher, shown, scope, against, *interval, *facts))
        columns = ["dispatcher", "period_ms", "scope", "against", "regret_s", "low_s", "high_s", "mean_jct_s", "later"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, table: pd.DataFrame) -> Figure:
        dispatchers = list(dict.fromkeys(table["dispatcher"]))
        looks = dict(zip(dispatchers, SYSTEMS, strict=False))
        subtitle = (
            "Seconds that the best choice, or the mean of all (chance), would have saved, "
            f"{LATER[table['later'].iloc[0]]}; bars are 95 % over seeds"
        )
        margins = Margins(left=0.8, top=0.98, wspace=0.7, hspace=0.6)
        figure, axes = new_figure(self.title, subtitle, 4.6, margins=margins, num_rows=2, num_columns=2)
        for row, (against, title) in zip(axes, PANELS.items(), strict=True):
            for panel, (scope, whose) in zip(row, SCOPES.items(), strict=True):
                own = table[(table["against"] == against) & (table["scope"] == scope)]
                handles = [
                    _curve(panel, own[own["dispatcher"] == one], looks[one], place)
                    for place, one in enumerate(dispatchers)
                ]
                panel.axhline(0.0, color=INK, linewidth=0.6)
                _regret_axis(panel, own)
                period_axis(panel, table)
                panel.set_title(f"{title}: {whose}")
                label(panel, x=PERIODS if row is axes[-1] else "", y="regret (s)")
        legend(figure, handles)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        best = self._by_dispatcher(table, "own", "best", " of {mean_jct_s:.1f} s")
        chance = self._by_dispatcher(table, "all", "chance")
        seeing = table[~table["dispatcher"].isin(self.blind)]
        return [
            f"Knowing what comes would have shortened the request's JCT, in the mean of single decisions: {best}.",
            f"Against a draw by chance, a decision made the sum of all JCTs longer (below 0, shorter): {chance}.",
            "The other candidate would have shortened the request's JCT (below 0, lengthened it): "
            f"{self._by_dispatcher(seeing, 'own', 'other')}.",
            f"Each decision was changed by itself, {LATER[table['later'].iloc[0]]}.",
        ]

    def _by_dispatcher(self, table: pd.DataFrame, scope: str, against: str, more: str = "") -> str:
        """Each one's regret; of those that look at loads, with the shortest period and with the longest."""
        chosen = table[(table["scope"] == scope) & (table["against"] == against)].sort_values(
            "period_ms", kind="stable"
        )
        texts = []
        for name in dict.fromkeys(table["dispatcher"]):
            own = chosen[chosen["dispatcher"] == name].to_dict("records")
            text = "{regret_s:.2f} s [{low_s:.2f}, {high_s:.2f}]" + more
            if name not in self.blind:
                text += " at {period_ms:g} ms"
            ends = own[:1] if name in self.blind or len(own) == 1 else [own[0], own[-1]]
            texts.append(f"with {name} {', '.join(text.format_map(end) for end in ends)}")
        return "; ".join(texts)


def _curve(panel: Axes, rows: pd.DataFrame, look: Look, place: int) -> Line2D:
    """Each dispatcher's points stand a little beside the period, so that no bar hides another."""
    rows = rows.sort_values("period_ms")
    spread = np.array([rows["regret_s"] - rows["low_s"], rows["high_s"] - rows["regret_s"]])
    at = rows["period_ms"] * 1.06 ** (place - 1)
    drawn = panel.errorbar(at, rows["regret_s"], spread, color=look.colour, ls=look.line, capsize=2, linewidth=1.3)
    line: Line2D = drawn.lines[0]
    line.set_label(rows["dispatcher"].iloc[0])
    return line


def _regret_axis(panel: Axes, rows: pd.DataFrame) -> None:
    """Room for the intervals and for 0; to scale near it and logarithmic farther off."""
    panel.set_yscale("symlog", linthresh=LINEAR_S, linscale=0.8)
    low, high = min(1.2 * float(rows["low_s"].min()), -0.1), max(1.2 * float(rows["high_s"].max()), LINEAR_S)
    shown = [tick for tick in TICKS_S if low <= tick <= high]
    panel.set_ylim(low, high)
    panel.set_yticks(shown, [f"{tick:g}" for tick in shown])
    panel.set_yticks([], minor=True)
