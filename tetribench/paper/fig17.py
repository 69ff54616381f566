"""What predicting response lengths costs the prefill instance (paper figure 17)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from tetribench.metrics.compare import SystemResult
from tetribench.paper.pairs import change_text, summarise
from tetribench.paper.quantities import mean_of, overlaps, predictions, prefill_iterations
from tetribench.report.bars import draw_bars, patches
from tetribench.report.finding import Quantity
from tetribench.report.style import Margins, label, legend, new_figure, system_looks

PANELS = {
    "iteration_s": "Prefill iteration (s)",
    "unaffected_share": "Unaffected iterations",
    "prefill_tokens_per_s": "Prefill tokens/s",
    "ttft_s": "Mean TTFT (s)",
}
SUBTITLE = "OPT-13B beside OPT-125M on two V100, mixed requests all at once, simulated; whiskers are 95 % intervals"


def _mean_iteration_s(result: SystemResult) -> float:
    own = prefill_iterations(result)
    return float((own["ended_s"] - own["started_s"]).mean())


def _unaffected_share(result: SystemResult) -> float:
    """Of the iterations, those during which no prediction ran."""
    return float(1.0 - overlaps(prefill_iterations(result), predictions(result)).mean())


def _prefill_tokens_per_s(result: SystemResult) -> float:
    own = prefill_iterations(result)
    return float(own["num_prefill_tokens"].sum() / own["ended_s"].max())


def _prediction_s(result: SystemResult) -> float:
    own = predictions(result)
    return float((own["ended_s"] - own["started_s"]).mean()) if len(own) else 0.0


class PredictorModes:
    """Bars of the three modes: `off` has the same predictions for nothing."""

    title = "Figure 17: running the length predictor"
    baseline = "off"

    def __init__(self) -> None:
        self.quantities: Mapping[str, Quantity] = {
            "iteration_s": _mean_iteration_s,
            "unaffected_share": _unaffected_share,
            "prefill_tokens_per_s": _prefill_tokens_per_s,
            "ttft_s": mean_of("ttft_engine_s"),
            "jct_s": mean_of("jct_s"),
            "prediction_s": _prediction_s,
            "prediction_share": lambda result: _prediction_s(result) / _mean_iteration_s(result),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        return summarise(rows, list(self.quantities), {"mode": self.baseline})

    def draw(self, table: pd.DataFrame) -> Figure:
        modes = list(dict.fromkeys(table["mode"]))
        looks = system_looks(modes, self.baseline)
        margins = Margins(top=1.05, bottom=0.3, wspace=0.6)
        figure, axes = new_figure(self.title, SUBTITLE, 2.1, margins=margins, num_columns=len(PANELS))
        legend(figure, patches(modes, looks))
        for panel, (metric, title) in zip(axes[0], PANELS.items(), strict=True):
            own = table[table["metric"] == metric].assign(group="").set_index(["group", "mode"])
            draw_bars(panel, own, modes, looks)
            panel.set_title(title)
            label(panel)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        by_cell = table.set_index(["mode", "metric"]).to_dict("index")
        sentences = []
        for mode in dict.fromkeys(table["mode"]):
            if mode == self.baseline:
                continue
            changes = ", ".join(
                f"{name} {change_text(by_cell[mode, metric])}"
                for name, metric in {
                    "iteration": "iteration_s",
                    "prefill throughput": "prefill_tokens_per_s",
                    "mean TTFT": "ttft_s",
                }.items()
            )
            share = by_cell[mode, "unaffected_share"]["mean"]
            sentences.append(f"{mode} against off: {changes}; {share:.0%} of the iterations unaffected.")
        return sentences
