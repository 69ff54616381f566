"""The workloads of the evaluation, as they are drawn here (paper section 5.1)."""

import pandas as pd
from matplotlib.figure import Figure

from tetribench.metrics.intervals import mean_interval
from tetribench.paper.pairs import axes_of
from tetribench.report.bars import draw_bars
from tetribench.report.style import INK, SYSTEMS, Margins, label, new_figure

PAPER_PROMPT_TOKENS = {"LPLD": 216, "LPHD": 78, "HPLD": 920, "HPHD": 920, "Mixed": 295}
"""Mean prompt lengths: upper bounds, padding included, inferred from the paper's prefill times."""

COUNTS = ("num_requests", "heavy_prompts", "heavy_outputs", "num_cut", "kv_tokens")
PANELS = {"prompt_tokens": "Mean prompt (tokens)", "output_tokens": "Mean output (tokens)"}


class Workloads:
    """A row for each workload: how many requests, how long, and how long the paper's prompts are at most."""

    title = "Table 1: workloads"

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Means over the seeds; those of lengths with their bounds."""
        (axis,) = axes_of(rows)
        found = []
        for workload, own in rows.groupby(axis, sort=False):
            row: dict[str, object] = {axis: workload}
            for column in PANELS:
                interval = mean_interval(own[column].tolist())
                row |= {column: interval.value, f"{column}_low": interval.low, f"{column}_high": interval.high}
            row["paper_prompt_tokens"] = PAPER_PROMPT_TOKENS.get(str(workload), float("nan"))
            found.append(row | {column: float(own[column].mean()) for column in COUNTS})
        return pd.DataFrame(found)

    def draw(self, table: pd.DataFrame) -> Figure:
        subtitle = "As drawn, and cut to 2,048 tokens; whiskers are 95 % intervals, lines the paper's upper bounds"
        figure, axes = new_figure(self.title, subtitle, 2.1, margins=Margins(top=0.85), num_columns=2)
        workloads = table[table.columns[0]].tolist()
        for panel, (column, title) in zip(axes[0], PANELS.items(), strict=True):
            bars = pd.DataFrame(
                {"mean": table[column], "low": table[f"{column}_low"], "high": table[f"{column}_high"]}
            ).set_index(pd.MultiIndex.from_arrays([workloads, [""] * len(workloads)]))
            draw_bars(panel, bars, [""], {"": SYSTEMS[2]}, workloads)
            panel.set_title(title)
            label(panel)
        for place, bound in enumerate(table["paper_prompt_tokens"]):
            axes[0][0].plot([place - 0.45, place + 0.45], [bound, bound], color=INK, linewidth=1.6)
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        longer = [
            f"{row[table.columns[0]]} {row['prompt_tokens']:.0f} for {row['paper_prompt_tokens']:.0f}"
            for row in table.to_dict("records")
            if row["prompt_tokens_low"] > row["paper_prompt_tokens"]
        ]
        return [
            "Mean prompts that are longer than the paper's can have been, in tokens: "
            + (", ".join(longer) if longer else "none")
            + ". Lengths come from figure 1's quantiles of conversation, restricted to the class; nothing is fitted.",
            f"The KV memory of one instance holds {table['kv_tokens'].iloc[0]:,.0f} tokens.",
        ]
