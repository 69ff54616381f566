"""To which of several decode instances a request goes (paper figure 19)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from tetribench.core.roles import Role
from tetribench.metrics.compare import SystemResult
from tetribench.paper.pairs import change_text, summarise
from tetribench.paper.quantities import mean_of
from tetribench.report.bars import draw_bars, patches
from tetribench.report.finding import Quantity
from tetribench.report.style import Margins, label, legend, new_figure, system_looks

PANELS = {"slowest_decode_s": "Decode time of the slowest instance (s)", "spread": "Slowest over mean (ratio)"}
SUBTITLE = (
    "32 mixed requests a decode instance, all at once, simulated; means over the seeds, whiskers are 95 % intervals"
)


def _decode_times(result: SystemResult) -> "pd.Series[float]":
    """What each decode instance spent in iterations of decodes."""
    instances = result.instances
    return instances.loc[instances["role"] == Role.decode.value, "busy_decode_s"]


class Dispatching:
    """Bars of the three dispatchers by the number of decode instances."""

    title = "Figure 19: dispatching over decode instances"
    baseline = "random"

    def __init__(self) -> None:
        self.quantities: Mapping[str, Quantity] = {
            "slowest_decode_s": lambda result: float(_decode_times(result).max()),
            "spread": lambda result: float(_decode_times(result).max() / _decode_times(result).mean()),
            "jct_s": mean_of("jct_s"),
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        return summarise(rows, list(self.quantities), {"dispatch": self.baseline})

    def draw(self, table: pd.DataFrame) -> Figure:
        dispatchers, sizes = (list(dict.fromkeys(table[axis])) for axis in ("dispatch", "instances"))
        looks = system_looks(dispatchers, self.baseline)
        figure, axes = new_figure(self.title, SUBTITLE, 2.3, margins=Margins(top=1.05, wspace=0.6), num_columns=2)
        legend(figure, patches(dispatchers, looks))
        for panel, (metric, title) in zip(axes[0], PANELS.items(), strict=True):
            own = table[table["metric"] == metric].set_index(["instances", "dispatch"])
            draw_bars(panel, own, dispatchers, looks, sizes)
            panel.set_title(title)
            label(panel, "decode instances")
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        own = table[(table["metric"] == "slowest_decode_s") & (table["dispatch"] != self.baseline)]
        by_size = own.groupby("instances", sort=False)
        return [
            f"{size} decode instances, decode time of the slowest against {self.baseline}: "
            + ", ".join(f"{row['dispatch']} {change_text(row)}" for row in rows.to_dict("records"))
            + "."
            for size, rows in by_size
        ]
