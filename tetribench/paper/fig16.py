"""Prefill policies: vLLM's batches against chunks, in three orders and four windows (paper figure 16)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from tetribench.paper.pairs import change_text, summarise
from tetribench.paper.quantities import mean_of, quantile_of
from tetribench.report.bars import draw_bars, patches
from tetribench.report.finding import Quantity
from tetribench.report.style import Margins, label, legend, legend_room, new_figure, system_looks

METRICS = ("ttft_s", "ttft_p95_s")
SUBTITLE = (
    "OPT-13B on two V100, mixed requests all at once, simulated; means over the seeds, whiskers are 95 % intervals"
)


class PrefillPolicies:
    """Bars of mean TTFT: of all policies with the first window, and of the orders with every window.

    The baselines have no window: theirs repeat in the table.

    `vllm_prefills` is the baseline with responses of one token: its batches of prompts without the decodes between
    them. TTFT is the paper's, up to the end of the last chunk.
    """

    title = "Figure 16: prefill policies"
    baseline = "vllm_like_cap16"

    def __init__(self) -> None:
        self.quantities: Mapping[str, Quantity] = {
            "ttft_s": mean_of("ttft_engine_s"),
            "ttft_p95_s": quantile_of("ttft_engine_s", 0.95),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        return summarise(rows, list(METRICS), {"policy": self.baseline})

    def draw(self, table: pd.DataFrame) -> Figure:
        policies, windows = (list(dict.fromkeys(table[axis])) for axis in ("policy", "window"))
        looks = system_looks(policies, self.baseline)
        figure, axes = new_figure(
            self.title, SUBTITLE, 2.3, margins=Margins(top=1.05 + legend_room(policies), wspace=0.6), num_columns=2
        )
        legend(figure, patches(policies, looks))
        own = table[table["metric"] == "ttft_s"].set_index(["window", "policy"])
        for panel, chosen, by in zip(axes[0], (policies, _orders(policies)), (windows[:1], windows), strict=True):
            draw_bars(panel, own, chosen, looks, by)
            panel.set_title("Mean TTFT (s)" + ", by window" * (len(by) > 1))
            label(panel, "window (requests)")
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        means = table[table["metric"] == "ttft_s"].set_index(["window", "policy"]).to_dict("index")
        windows = list(dict.fromkeys(table["window"]))
        first, last = windows[0], windows[-1]
        orders = _orders(list(dict.fromkeys(table["policy"])))
        found = [
            f"{policy} with window {first}: mean TTFT {change_text(means[first, policy])} against {self.baseline}."
            for policy in orders
        ]
        found += [
            f"{policy}, window {first} to {last}: mean TTFT {means[first, policy]['mean']:.2f} s to "
            f"{means[last, policy]['mean']:.2f} s."
            for policy in orders
        ]
        return [*found, "Sorting is not charged in virtual time; the paper has it at 10 to 100s of microseconds."]


def _orders(policies: list[str]) -> list[str]:
    """Those of the system's own policies, which have a window."""
    return [policy for policy in policies if not policy.startswith("vllm")]
