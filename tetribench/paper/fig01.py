"""Lengths of the prompts and generations of three tasks (paper figure 1)."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.core.request import HEAVY_DECODE_TOKENS, HEAVY_PREFILL_TOKENS
from tetribench.report.style import INK, MUTED, SYSTEMS, Margins, label, legend, new_figure
from tetribench.workload.lengths import OUTPUT_TOKENS, PROMPT_TOKENS, QUANTILES

PARTS = {"prompt": PROMPT_TOKENS, "generation": OUTPUT_TOKENS}
HEAVY_ABOVE = {"prompt": HEAVY_PREFILL_TOKENS, "generation": HEAVY_DECODE_TOKENS}
LOOKS = SYSTEMS[1:]


class Lengths:
    """Cumulative distributions of what is drawn, and the quantiles that were measured on the paper's curves."""

    title = "Figure 1: lengths of prompts and generations"

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The curves, with the paper's quantile where there is one; the lowest is ours, the paper shows none."""
        paper = [
            (task.value, part, share, float(tokens))
            for part, distributions in PARTS.items()
            for task, distribution in distributions.items()
            for share, tokens in zip(QUANTILES[1:], distribution.tokens[1:], strict=True)
        ]
        marks = pd.DataFrame(paper, columns=["task", "part", "share", "paper_tokens"])
        return rows.merge(marks, how="left", on=["task", "part", "share"])

    def draw(self, table: pd.DataFrame) -> Figure:
        tasks = list(dict.fromkeys(table["task"]))
        subtitle = "Lines: drawn from the generator, before any cut to a model's context; rings: the paper's quantiles"
        figure, axes = new_figure(self.title, subtitle, 2.6, margins=Margins(top=1.05), num_columns=2)
        legend(
            figure,
            [
                Line2D([], [], color=look.colour, linestyle=look.line, label=task)
                for task, look in zip(tasks, LOOKS, strict=False)
            ],
        )
        for panel, part in zip(axes[0], PARTS, strict=True):
            panel.axvline(HEAVY_ABOVE[part], color=MUTED, linewidth=0.8)
            panel.text(HEAVY_ABOVE[part] * 1.06, 0.02, f"heavy above {HEAVY_ABOVE[part]}", color=MUTED, size=8)
            for task, look in zip(tasks, LOOKS, strict=False):
                own = table[(table["task"] == task) & (table["part"] == part)]
                panel.plot(own["drawn_tokens"], own["share"], color=look.colour, linestyle=look.line, linewidth=1.6)
                panel.plot(own["paper_tokens"], own["share"], "o", mfc="white", mec=INK, ms=4.5, mew=1)
            panel.set(xscale="log", xlim=(4, 30_000), ylim=(0, 1.03))
            panel.set_title(f"Share of requests by length of {part}")
            label(panel, f"{part} (tokens)")
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        """How far what is drawn is from the paper's quantiles."""
        marks = table.dropna(subset=["paper_tokens"])
        off = (marks["drawn_tokens"] / marks["paper_tokens"] - 1).abs()
        worst = marks.iloc[int(off.to_numpy().argmax())]
        return [
            f"The quantiles drawn are within {off.max():.1%} of the paper's, {off.median():.1%} in the median; the "
            f"largest difference is the {worst['share']:.1%} quantile of {worst['task']}, {worst['part']}."
        ]
