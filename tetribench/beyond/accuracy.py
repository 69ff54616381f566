"""What right length predictions are worth to the policies that use them, and what predicting costs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tetribench.beyond.quantities import mean_of, resource
from tetribench.beyond.ticks import ratio_axis
from tetribench.metrics.intervals import ratio_interval
from tetribench.report.style import INK, MUTED, SYSTEMS, Look, Margins, label, legend, new_figure

METRICS = {"jct_s": "Mean JCT", "ttft_s": "Mean TTFT"}


class Accuracy:
    """Every admission policy with every dispatcher, over the accuracy of the predictor, relative to one of the cells.

    That cell has the labels `admission`, `dispatcher` and `none`: no prediction, which costs nothing either. Labels of
    `accuracy` are `none` and shares.
    """

    def __init__(self, *, workload: str, admission: str, dispatcher: str) -> None:
        self.title = f"Predictor accuracy: {workload}"
        self.baseline = {"admission": admission, "dispatcher": dispatcher, "accuracy": "none"}
        self.quantities = {
            "jct_s": mean_of("jct_s"),
            "ttft_s": mean_of("ttft_s"),
            "num_recomputations": resource("num_recomputations"),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each cell and metric: the ratio to the baseline's cell, paired by seed."""
        cells = {key: own.sort_values("seed") for key, own in rows.groupby(list(self.baseline), sort=False)}
        base = cells[tuple(self.baseline.values())]
        found = []
        for key, own in cells.items():
            preempted = own["num_recomputations"].mean()
            for metric in METRICS:
                ratio = ratio_interval(own[metric].tolist(), base[metric].tolist())
                found.append((*key, metric, own[metric].mean(), *ratio, preempted))
        columns = [*self.baseline, "metric", "mean", "ratio", "low", "high", "num_recomputations"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, table: pd.DataFrame) -> Figure:
        dispatchers, admissions = (list(dict.fromkeys(table[axis])) for axis in ("dispatcher", "admission"))
        accuracies = list(dict.fromkeys(table["accuracy"]))
        subtitle = (
            f"Relative to {self.baseline['admission']} admission, {self.baseline['dispatcher']} dispatching, no "
            "prediction; bars are 95 % over the seeds"
        )
        margins = Margins(left=0.8, top=0.98, wspace=0.7, hspace=0.75)
        height_in = 2.1 * len(dispatchers) + 0.75 * (len(dispatchers) - 1)
        figure, axes = new_figure(
            self.title, subtitle, height_in, margins=margins, num_rows=len(dispatchers), num_columns=len(METRICS)
        )
        handles = []
        for row, dispatcher in zip(axes, dispatchers, strict=True):
            for panel, (metric, title) in zip(row, METRICS.items(), strict=True):
                own = table[(table["dispatcher"] == dispatcher) & (table["metric"] == metric)]
                for place, admission in enumerate(admissions):
                    rows = own[own["admission"] == admission].set_index("accuracy").loc[accuracies]
                    handles.append(_line(panel, rows, SYSTEMS[place], 0.1 * (place - 1), admission))
                ratio_axis(panel, "y", own)
                panel.axhline(1.0, color=INK, linewidth=0.6)
                panel.axvline(0.5, color=MUTED, linewidth=0.6, linestyle=":")
                panel.set_xticks(range(len(accuracies)), [_percent(accuracy) for accuracy in accuracies])
                panel.set_title(f"{title}, {dispatcher}")
                label(panel, x="accuracy" if row is axes[-1] else "", y="ratio")
        legend(figure, handles[: len(admissions)])
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        sentences = []
        accuracies = list(dict.fromkeys(table["accuracy"]))
        least, most = accuracies[1], accuracies[-1]
        for metric, title in METRICS.items():
            own = table[table["metric"] == metric]
            best = own.iloc[int(own["ratio"].argmin())]
            ratios = own.pivot_table(index=["admission", "dispatcher"], columns="accuracy", values="ratio")
            changes = ratios[most] / ratios[least] - 1
            cost = ratios.loc[(self.baseline["admission"], self.baseline["dispatcher"]), least] - 1
            sentences.append(
                f"{title}: best with {best['admission']} and {best['dispatcher']} at accuracy "
                f"{_percent(best['accuracy'])} ({best['ratio'] - 1:+.1%}); predicting at all {cost:+.1%} where nobody "
                f"uses it; from {_percent(least)} to {_percent(most)} right {changes.min():+.1%} to "
                f"{changes.max():+.1%}, by policies."
            )
        return sentences


def _percent(accuracy: object) -> str:
    return str(accuracy) if accuracy == "none" else f"{float(str(accuracy)):.0%}"


def _line(panel: Axes, rows: pd.DataFrame, look: Look, aside: float, name: str):  # type: ignore[no-untyped-def]
    spread = np.array([rows["ratio"] - rows["low"], rows["high"] - rows["ratio"]])
    places = np.arange(len(rows)) + aside
    drawn = panel.errorbar(
        places, rows["ratio"], spread, color=look.colour, ls=look.line, capsize=2, linewidth=1.3, marker="o", ms=3
    )
    drawn.lines[0].set_label(name)
    return drawn.lines[0]
