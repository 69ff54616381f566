"""The system against baselines on as much hardware, and without the paper's bound on their batch."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.beyond.quantities import mean_of, resource
from tetribench.beyond.ticks import ratio_axis
from tetribench.metrics.intervals import ratio_interval
from tetribench.report.style import INK, MUTED, Margins, label, legend, legend_room, new_figure, system_looks

METRICS = {"ttft_s": "Mean TTFT", "jct_s": "Mean JCT", "device_seconds": "Device-seconds"}

MARKERS = "os^DvP"


class EqualHardware:
    """Ratios of `system` to every other, paired by seed; below 1 `system` is better. TTFT is the client's.

    `half` is a baseline on half of the hardware: the paper's.
    """

    title = "Equal hardware: TetriInfer against honest baselines"

    def __init__(self, *, system: str, half: str) -> None:
        self.system = system
        self.half = half
        self.quantities = {
            "ttft_s": mean_of("ttft_s"),
            "jct_s": mean_of("jct_s"),
            "device_seconds": resource("device_seconds"),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each workload, baseline and metric."""
        found = []
        for workload, own in rows.groupby("workload", sort=False):
            by_system = {str(name): runs.sort_values("seed") for name, runs in own.groupby("system", sort=False)}
            ours = by_system.pop(self.system)
            for baseline, theirs in by_system.items():
                for metric in METRICS:
                    ratio = ratio_interval(ours[metric].tolist(), theirs[metric].tolist())
                    means = ours[metric].mean(), theirs[metric].mean()
                    found.append((workload, baseline, metric, *means, *ratio))
        columns = ["workload", "baseline", "metric", "mean", "baseline_mean", "ratio", "low", "high"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, table: pd.DataFrame) -> Figure:
        workloads, baselines = (list(dict.fromkeys(table[column])) for column in ("workload", "baseline"))
        looks = system_looks(baselines, self.half)
        subtitle = f"{self.system} over each baseline, left of 1 it is better; {self.half}: half of the hardware"
        margins = Margins(left=0.75, top=0.95 + legend_room(baselines), wspace=0.3)
        figure, axes = new_figure(
            self.title, subtitle, 0.75 * len(workloads), margins=margins, num_columns=len(METRICS)
        )
        for panel, (metric, title) in zip(axes[0], METRICS.items(), strict=True):
            own = table[table["metric"] == metric].set_index(["workload", "baseline"])
            for index, baseline in enumerate(baselines):
                ratios = pd.DataFrame([own.loc[(workload, baseline)] for workload in workloads])
                places = np.arange(len(workloads)) + (index - (len(baselines) - 1) / 2) * 0.15
                spread = np.array([ratios["ratio"] - ratios["low"], ratios["high"] - ratios["ratio"]])
                panel.errorbar(
                    ratios["ratio"],
                    places,
                    xerr=spread,
                    color=looks[baseline].colour,
                    linestyle="none",
                    marker=MARKERS[index],
                    markersize=4.5,
                    capsize=2,
                    linewidth=1,
                )
            panel.axvline(1.0, color=INK, linewidth=1.0)
            for line in range(1, len(workloads)):
                panel.axhline(line - 0.5, color=MUTED, linewidth=0.5)
            ratio_axis(panel, "x", table[table["metric"] == metric])
            panel.set_yticks(range(len(workloads)), workloads if panel is axes[0][0] else [])
            panel.set_ylim(len(workloads) - 0.5, -0.5)
            panel.grid(visible=False, axis="y")
            panel.set_title(title)
            label(panel, x="ratio")
        handles = [
            Line2D([], [], color=looks[one].colour, linestyle="none", marker=marker, markersize=4.5, label=one)
            for one, marker in zip(baselines, MARKERS, strict=False)
        ]
        legend(figure, handles)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        equal = table[table["baseline"] != self.half]
        sentences = []
        for metric, title in METRICS.items():
            own = equal[equal["metric"] == metric]
            counts = {
                "better": int((own["high"] < 1).sum()),
                "worse": int((own["low"] > 1).sum()),
            }
            best = own.loc[own.groupby("workload", sort=False)["baseline_mean"].idxmin()]
            each = ", ".join(
                f"{row['workload']} {row['ratio'] - 1:+.0%} [{row['low'] - 1:+.0%}, {row['high'] - 1:+.0%}] "
                f"({row['baseline']})"
                for row in best.to_dict("records")
            )
            sentences.append(
                f"{title} of {self.system} on equal hardware: better than {counts['better']}, worse than "
                f"{counts['worse']} of {len(own)} baselines and workloads; against the best of each workload {each}."
            )
        return sentences
