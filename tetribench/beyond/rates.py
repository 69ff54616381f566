"""Open-loop arrivals: goodput and latency against the request rate."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.beyond.quantities import steady_attainment, steady_quantile
from tetribench.metrics.intervals import mean_interval
from tetribench.report.style import MUTED, Look, Margins, label, legend, legend_room, new_figure, system_looks

GOOD_SHARE = 0.9
"""Of the requests within their bounds, up to which a rate counts as served; the share in use in the field."""

PANELS = {
    "goodput": "Goodput (good requests/s/device)",
    "attained": "Within the SLO (share)",
    "ttft_p50_s": "TTFT, median (s)",
    "ttft_p90_s": "TTFT, p90 (s)",
    "tpot_p50_s": "TPOT, median (s)",
    "tpot_p90_s": "TPOT, p90 (s)",
}
BOUNDS = {"ttft": "slo_ttft_s", "tpot": "slo_tpot_s"}


class Rates:
    """Curves of each system over the rate per device: means over the seeds with 95 % intervals.

    All is of the steady requests, the middle half of the arrivals; goodput is the offered rate times the share of
    them that finished within both bounds. `workload` and `hardware` are for the title.
    """

    def __init__(self, *, workload: str, hardware: str, baseline: str) -> None:
        self.title = f"Open-loop arrivals: {workload}, {hardware}"
        self.baseline = baseline
        self.quantities = {
            "attained": steady_attainment,
            "ttft_p50_s": steady_quantile("ttft_s", 0.5),
            "ttft_p90_s": steady_quantile("ttft_s", 0.9),
            "tpot_p50_s": steady_quantile("tpot_s", 0.5),
            "tpot_p90_s": steady_quantile("tpot_s", 0.9),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each system, rate and metric; rates and goodput are per device."""
        rows = rows.assign(rate=rows["rate_per_s"] / rows["num_devices"])
        rows = rows.assign(goodput=rows["rate"] * rows["attained"])
        found = []
        for (system, load), own in rows.groupby(["system", "load"], sort=False):
            first = own.iloc[0]
            facts = {column: first[column] for column in ("rate", "num_devices", "slo_ttft_s", "slo_tpot_s")}
            for metric in PANELS:
                interval = mean_interval(own[metric].dropna().tolist())
                found.append({"system": system, "load": load, "metric": metric} | facts | interval._asdict())
        return pd.DataFrame(found).rename(columns={"rate": "rate_per_s", "value": "mean"})

    def draw(self, table: pd.DataFrame) -> Figure:
        systems = list(dict.fromkeys(table["system"]))
        looks = system_looks(systems, self.baseline)
        first = table.iloc[0]
        subtitle = (
            f"SLO: TTFT {first['slo_ttft_s']:.2f} s, TPOT {1000 * first['slo_tpot_s']:.0f} ms (dashed); "
            "middle half of the arrivals; bars are 95 % over the seeds"
        )
        margins = Margins(top=0.95 + legend_room(systems), wspace=0.5, hspace=0.7)
        figure, axes = new_figure(self.title, subtitle, 4.6, margins=margins, num_rows=2, num_columns=3)
        for place, (metric, title) in enumerate(PANELS.items()):
            panel = axes[place % 2][place // 2]
            own = table[table["metric"] == metric]
            for place_of_system, system in enumerate(systems):
                _curve(panel, own[own["system"] == system], looks[system], place_of_system - len(systems) // 2)
            kind = metric.partition("_")[0]
            if kind in BOUNDS:
                panel.axhline(first[BOUNDS[kind]], color=MUTED, linestyle="--", linewidth=1)
            if kind == "ttft":
                panel.set_yscale("log")
                panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            else:
                panel.set_ylim(0, 1.04 if kind == "attained" else None)
            if metric == "goodput":
                top = float(own["rate_per_s"].max())  # where every request is good
                panel.plot([0, top], [0, top], color=MUTED, linewidth=0.8, linestyle=":")
            if metric == "attained":
                panel.axhline(GOOD_SHARE, color=MUTED, linestyle=":", linewidth=1)
            panel.set_xlim(0, None)
            panel.set_title(title)
            label(panel, x="requests/s/device" if place % 2 else "")
        legend(figure, [Line2D([], [], color=looks[one].colour, ls=looks[one].line, label=one) for one in systems])
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        attained = table[table["metric"] == "attained"]
        served = {}
        for system, own in attained.groupby("system", sort=False):
            kept = own.sort_values("rate_per_s")
            is_kept = (kept["mean"] >= GOOD_SHARE).cummin()
            served[str(system)] = float(kept["rate_per_s"][is_kept].max()) if is_kept.any() else 0.0
        rates = ", ".join(f"{system} {rate:.2g}" for system, rate in sorted(served.items(), key=lambda one: -one[1]))
        best = table[table["metric"] == "goodput"].groupby("system", sort=False)["mean"].max()
        peaks = ", ".join(f"{system} {value:.2f}" for system, value in best.sort_values(ascending=False).items())
        return [
            f"Highest rate tried (requests/s/device) with {GOOD_SHARE:.0%} within the SLO, at it and below: {rates}.",
            f"Highest goodput at any rate tried (good requests/s/device): {peaks}.",
        ]


def _curve(panel: Axes, rows: pd.DataFrame, look: Look, place: int) -> None:
    """Each system's points stand a little beside the rate, so that no bar hides another."""
    spread = np.clip([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0, 0.9 * rows["mean"])
    aside = 0.008 * place * rows["rate_per_s"].max()
    panel.errorbar(
        rows["rate_per_s"] + aside, rows["mean"], spread, color=look.colour, ls=look.line, capsize=2, linewidth=1.3
    )
