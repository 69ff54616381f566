"""When a decode instance admits one more request (paper figure 18)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from tetribench.core.roles import Role
from tetribench.metrics.compare import SystemResult
from tetribench.paper.pairs import change_text, summarise
from tetribench.paper.quantities import mean_of, resource
from tetribench.report.bars import draw_bars, patches
from tetribench.report.finding import Quantity
from tetribench.report.style import Margins, label, legend, new_figure, system_looks

PANELS = {
    "jct_s": "Mean JCT (s)",
    "resource_time_s": "Resource usage time (s)",
    "num_preemptions": "Preemptions",
    "kv_occupancy_max": "Peak KV occupancy (share)",
}
SUBTITLE = "OPT-13B on V100, 256 requests with heavy decodes all at once, simulated; whiskers are 95 % intervals"


def _kv_tokens(result: SystemResult) -> float:
    instances = result.instances
    return float(instances.loc[instances["role"] == Role.decode.value, "kv_capacity_tokens"].sum())


def _requests_over_kv(result: SystemResult) -> float:
    """How many times the decode instance's KV memory all requests would fill at their ends."""
    return float(result.requests[["num_prompt_tokens", "num_output_tokens"]].sum().sum()) / _kv_tokens(result)


class Admission:
    """Bars of the three policies, with the paper's accuracy of prediction and with a perfect predictor."""

    title = "Figure 18: admission to the decode batch"
    baseline = "greedy"

    def __init__(self) -> None:
        self.quantities: Mapping[str, Quantity] = {
            "jct_s": mean_of("jct_s"),
            **{name: resource(name) for name in list(PANELS)[1:]},
            "kv_tokens": _kv_tokens,
            "requests_over_kv": _requests_over_kv,
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        return summarise(rows, list(self.quantities), {"admit": self.baseline})

    def draw(self, table: pd.DataFrame) -> Figure:
        policies, predictors = (list(dict.fromkeys(table[axis])) for axis in ("admit", "predictor"))
        looks = system_looks(policies, self.baseline)
        margins = Margins(top=1.05, bottom=0.5, hspace=0.7, wspace=0.6)
        figure, axes = new_figure(self.title, SUBTITLE, 4.2, margins=margins, num_rows=2, num_columns=2)
        legend(figure, patches(policies, looks))
        panels = [panel for row in axes for panel in row]
        for panel, (metric, title) in zip(panels, PANELS.items(), strict=True):
            own = table[table["metric"] == metric].set_index(["predictor", "admit"])
            draw_bars(panel, own, policies, looks, predictors)
            panel.set_title(title)
            label(panel)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        by_cell = table.set_index(["predictor", "admit", "metric"]).to_dict("index")
        policies = [policy for policy in dict.fromkeys(table["admit"]) if policy != self.baseline]
        first = next(iter(by_cell))
        tokens, times = (by_cell[(*first[:2], metric)]["mean"] for metric in ("kv_tokens", "requests_over_kv"))
        sentences = [
            f"The decode instance holds {tokens:,.0f} tokens of KV; all requests together have {times:.1f} times that."
        ]
        for predictor in dict.fromkeys(table["predictor"]):
            changes = [f"{policy} {change_text(by_cell[predictor, policy, 'jct_s'])}" for policy in policies]
            peak = by_cell[predictor, self.baseline, "kv_occupancy_max"]["mean"]
            preemptions = by_cell[predictor, self.baseline, "num_preemptions"]["mean"]
            sentences.append(
                f"Predictor {predictor}: mean JCT against greedy {', '.join(changes)}. Greedy fills {peak:.0%} of the "
                f"KV memory at its peak and preempts {preemptions:.0f} times."
            )
        return sentences
