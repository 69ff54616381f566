"""A workload on TetriInfer and on the paper's baseline (paper section 5.2, figures 11 to 15)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tetribench.metrics.compare import OVERALL, SystemResult
from tetribench.metrics.intervals import mean_interval, ratio_interval
from tetribench.metrics.resources import perf_per_dollar
from tetribench.report.style import Margins, label, new_figure, system_looks

PANELS = {
    "ttft_s": "Mean TTFT (s)",
    "jct_s": "Mean JCT (s)",
    "resource_time_s": "Resource usage time (s)",
    "perf_per_dollar": "perf/$ (the paper's)",
}


def _mean(column: str, result: SystemResult) -> float:
    return float(result.summary["metrics"][OVERALL][column]["mean"])


class EndToEnd:
    """Bars of each system's mean over the seeds, with 95 % intervals; ratios are paired by seed.

    TTFT is the paper's: up to the end of the request's last chunk (`ttft_engine_s`). perf/$ is the formula that
    reproduces what the paper prints, on the ratios of each seed. `workload` is for the title.
    """

    def __init__(self, *, figure: int, workload: str, baseline: str) -> None:
        self.title = f"Figure {figure}: {workload}"
        self.baseline = baseline
        self.quantities = {
            "ttft_s": lambda result: _mean("ttft_engine_s", result),
            "jct_s": lambda result: _mean("jct_s", result),
            "resource_time_s": lambda result: float(result.summary["resources"]["resource_time_s"]),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each system and metric: mean, its bounds, and the ratio to the baseline with its bounds."""
        rows = _with_perf_per_dollar(rows, self.baseline)
        by_system = {str(system): own.sort_values("seed") for system, own in rows.groupby("system", sort=False)}
        found = []
        for system, own in by_system.items():
            for metric in PANELS:
                values, base = own[metric].tolist(), by_system[self.baseline][metric].tolist()
                mean, ratio = mean_interval(values), ratio_interval(values, base)
                found.append((system, metric, *mean, *ratio))
        columns = ["system", "metric", "mean", "low", "high", "ratio", "ratio_low", "ratio_high"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, table: pd.DataFrame) -> Figure:
        systems = list(dict.fromkeys(table["system"]))
        looks = system_looks(systems, self.baseline)
        subtitle = "OPT-13B on V100, simulated; mean over the seeds, whiskers are 95 % intervals"
        figure, axes = new_figure(self.title, subtitle, 2.2, margins=Margins(bottom=0.75), num_columns=len(PANELS))
        for panel, (metric, title) in zip(axes[0], PANELS.items(), strict=True):
            own = table[table["metric"] == metric].set_index("system").loc[systems]
            places = np.arange(len(systems))
            for place, system in zip(places, systems, strict=True):
                look = looks[system]
                panel.bar(place, own["mean"][system], color=[look.tint], edgecolor=look.colour, hatch=look.hatch)
            spread = np.array([own["mean"] - own["low"], own["high"] - own["mean"]])
            panel.errorbar(places, own["mean"], spread, fmt="none", ecolor="#1a1a1a", capsize=3, linewidth=1)
            panel.set_xticks(places, [system.replace("_", "\n") for system in systems])
            panel.set_title(title)
            panel.grid(visible=False, axis="x")
            label(panel)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        others = table[(table["system"] != self.baseline) & (table["metric"] != "perf_per_dollar")]
        return [
            f"{row['system']}: {PANELS[row['metric']].partition(' (')[0]} {row['ratio'] - 1:+.0%} "
            f"[{row['ratio_low'] - 1:+.0%}, {row['ratio_high'] - 1:+.0%}] against {self.baseline}."
            for row in others.to_dict("records")
        ]


def _with_perf_per_dollar(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Against the baseline's row of the same seed."""
    base = {row["seed"]: row for row in rows[rows["system"] == baseline].to_dict("records")}
    paper = [
        perf_per_dollar(
            row["jct_s"], row["resource_time_s"], base[row["seed"]]["jct_s"], base[row["seed"]]["resource_time_s"]
        ).paper
        for row in rows.to_dict("records")
    ]
    return rows.assign(perf_per_dollar=paper)
