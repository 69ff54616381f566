"""A workload on TetriInfer and on the paper's baseline (paper section 5.2, figures 11 to 15)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tetribench.paper.pairs import PERF_PER_DOLLAR, change_text, summarise
from tetribench.paper.quantities import mean_of, quantile_of, resource
from tetribench.report.bars import draw_bars, patches
from tetribench.report.finding import Quantity
from tetribench.report.style import Look, Margins, label, legend, new_figure, system_looks

MEANS = {"ttft_s": "Mean TTFT (s)", "jct_s": "Mean JCT (s)", "resource_time_s": "Resource usage time (s)"}
CURVES = {"ttft_s": "TTFT (s)", "jct_s": "JCT (s)"}
SOURCES = {"ttft_s": "ttft_engine_s", "jct_s": "jct_s"}
NAMES = {"vllm_like_cap16": "vLLM-like, cap 16", "ts_roce": "TS-RoCE", "ts_nvlink": "TS-NVLink"}
PERCENTS = range(0, 101, 5)

SUBTITLE = "OPT-13B on two V100 an instance, simulated; means over the seeds, whiskers and bands are 95 % intervals"


class EndToEnd:
    """The paper's form: the distributions of TTFT and JCT, the means, the resource usage time and perf/$.

    TTFT is the paper's: up to the end of the request's last chunk (`ttft_engine_s`). perf/$ is read in both ways, on
    the ratios of each seed. A curve is the mean over the seeds of each percentile. `workload` is for the title.
    """

    def __init__(self, *, figure: int, workload: str, baseline: str) -> None:
        self.title = f"Figure {figure}: {workload}"
        self.baseline = baseline
        self.quantities: Mapping[str, Quantity] = {
            "ttft_s": mean_of("ttft_engine_s"),
            "jct_s": mean_of("jct_s"),
            "resource_time_s": resource("resource_time_s"),
            **{
                _percentile(metric, percent): quantile_of(column, percent / 100)
                for metric, column in SOURCES.items()
                for percent in PERCENTS
            },
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each system and metric, the percentiles last."""
        metrics = [*MEANS, *PERF_PER_DOLLAR, *(name for name in self.quantities if name not in MEANS)]
        table = summarise(rows, metrics, {"system": self.baseline})
        is_curve = ~table["metric"].isin([*MEANS, *PERF_PER_DOLLAR])
        return pd.concat([table[~is_curve], table[is_curve]], ignore_index=True)

    def draw(self, table: pd.DataFrame) -> Figure:
        systems = list(dict.fromkeys(table["system"]))
        looks = system_looks(systems, self.baseline)
        margins = Margins(top=1.05, bottom=0.5, hspace=0.75, wspace=0.6)
        figure, axes = new_figure(self.title, SUBTITLE, 4.6, margins=margins, num_rows=2, num_columns=3)
        legend(figure, patches(systems, looks, NAMES))
        for panel, (metric, title) in zip(axes[0], MEANS.items(), strict=True):
            draw_bars(panel, _by_series(table, {metric: ""}), systems, looks)
            panel.set_title(title)
            label(panel)
        for panel, (metric, title) in zip(axes[1][:2], CURVES.items(), strict=True):
            for system in systems:
                _draw_curve(panel, table[table["system"] == system], metric, looks[system])
            panel.set_title(f"Share of requests by {title.partition(' ')[0]}")
            panel.set(xlim=(0, None), ylim=(0, 1.02))
            label(panel, title)
        perf = axes[1][2]
        readings = {
            metric: f"the {reading}'s" if reading == "paper" else reading for metric, reading in PERF_PER_DOLLAR.items()
        }
        draw_bars(perf, _by_series(table, readings), systems, looks, list(readings.values()))
        perf.axhline(1, color=looks[self.baseline].colour, linewidth=0.8)
        perf.set_title(f"perf/$ against {NAMES.get(self.baseline, self.baseline)}")
        label(perf, "reading of the term")
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        """A sentence for each of the other systems."""
        sentences = []
        for system in dict.fromkeys(table["system"]):
            if system == self.baseline:
                continue
            own = table[table["system"] == system].set_index("metric").to_dict("index")
            changes = [f"{title.partition(' (')[0]} {change_text(own[metric])}" for metric, title in MEANS.items()]
            perf = [f"{own[metric]['ratio']:.2f}" for metric in PERF_PER_DOLLAR]
            sentences.append(
                f"{system} against {self.baseline}: {', '.join(changes)}; perf/$ {perf[0]} as the paper reads it, "
                f"{perf[1]} as usual."
            )
        return sentences


def _percentile(metric: str, percent: int) -> str:
    return f"{metric.removesuffix('_s')}_p{percent:02}_s"


def _by_series(table: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Mean and bounds by group and system; `groups` has by metric the name of its group."""
    own = table[table["metric"].isin(groups)]
    return own.assign(group=own["metric"].map(groups)).set_index(["group", "system"])


def _draw_curve(panel: Axes, own: pd.DataFrame, metric: str, look: Look) -> None:
    by_metric = own.set_index("metric")
    points = by_metric.loc[[_percentile(metric, percent) for percent in PERCENTS]]
    shares = [percent / 100 for percent in PERCENTS]
    panel.plot(points["mean"], shares, color=look.colour, linestyle=look.line, linewidth=1.6)
    panel.fill_betweenx(shares, points["low"], points["high"], color=look.tint, linewidth=0, alpha=0.7)
