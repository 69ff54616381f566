"""The figures of a length predictor's report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tetribench.report.style import GRID, INK, MUTED, ROLES, Margins, label, legend, legend_room, new_figure

BLUE = ROLES["decode"]
LENGTH_BIN_TOKENS = 20


def confusion_figure(results: Sequence[dict[str, Any]], subtitle: str) -> Figure:
    """A panel for each granularity: a row for each true bucket, shaded by the share of it that each guess got."""
    figure, [axes] = new_figure(
        "Predicted against true bucket",
        subtitle,
        2.6,
        margins=Margins(left=0.95, top=0.95, bottom=0.85, wspace=0.95),
        num_columns=len(results),
    )
    for panel, result in zip(axes, results, strict=True):
        _confusion_panel(panel, np.array(result["confusion"]), result["granularity"])
    return figure


def _confusion_panel(panel: Axes, counts: Any, granularity: int) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.55 else INK
        panel.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    names = [f"{bucket * granularity}+" for bucket in range(len(counts))]
    panel.set_xticks(range(len(names)), names, rotation=45 if len(names) > 4 else 0)
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(length=0)
    panel.grid(visible=False)
    panel.set_title(f"granularity {granularity}", weight="bold")
    panel.set_xlabel("predicted, from … tokens")
    panel.set_ylabel("true, from … tokens")


def calibration_figure(results: Sequence[dict[str, Any]], subtitle: str) -> Figure:
    """Above, how often the classifier is right where it is so sure; below, how many prompts that is about."""
    figure, (above, below) = new_figure(
        "Confidence against accuracy",
        subtitle,
        3.7,
        margins=Margins(top=1.12, hspace=0.35),
        num_rows=2,
        num_columns=len(results),
        share_y="row",
    )
    for panel, counts, result in zip(above, below, results, strict=True):
        _reliability_panel(panel, result)
        _count_panel(counts, result["calibration"])
    label(above[0], y="share that is right")
    label(below[0], y="prompts")
    right = Line2D([], [], color=BLUE.colour, marker="o", label="right, with its 95 % interval")
    legend(figure, [right, Line2D([], [], color=MUTED, linestyle="--", label="as sure as right")])
    return figure


def _reliability_panel(panel: Axes, result: dict[str, Any]) -> None:
    bins = result["calibration"]
    confidence, accuracy = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
    errors = [
        [one["accuracy"] - one["interval"][0] for one in bins],
        [one["interval"][1] - one["accuracy"] for one in bins],
    ]
    panel.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.0)
    panel.errorbar(confidence, accuracy, yerr=errors, color=BLUE.colour, marker="o", markersize=4, elinewidth=0.9)
    panel.set(xlim=(0, 1), ylim=(0, 1.03))
    panel.set_title(f"granularity {result['granularity']}", weight="bold")


def _count_panel(panel: Axes, bins: list[dict[str, Any]]) -> None:
    for one in bins:
        width = one["high"] - one["low"]
        panel.bar(one["low"], one["count"], 0.94 * width, align="edge", color=BLUE.tint, edgecolor=BLUE.colour)
        centre = one["low"] + 0.47 * width
        panel.annotate(
            str(one["count"]), (centre, one["count"]), (0, 2), textcoords="offset points", ha="center", fontsize=7.5
        )
    panel.set(xlim=(0, 1))
    panel.margins(y=0.2)
    label(panel, x="confidence")


def accuracy_figure(results: Sequence[dict[str, Any]], names: dict[str, str], subtitle: str) -> Figure:
    """The classifier beside what does not read the prompt."""
    looks = (BLUE, ROLES["prefill"], ROLES["mixed"], ROLES["transfer"])
    figure, [[panel]] = new_figure(
        "Accuracy on unseen prompts", subtitle, 2.4, margins=Margins(top=1.12 + legend_room(list(names.values())))
    )
    width = 0.8 / len(names)
    for place, (name, look) in enumerate(zip(names, looks, strict=True)):
        for group, result in enumerate(results):
            share, (low, high) = result["accuracy"][name], result["interval"][name]
            at = group - 0.4 + width * (place + 0.5)
            panel.bar(at, share, 0.88 * width, color=look.tint, edgecolor=look.colour, hatch=look.hatch)
            panel.errorbar([at], [share], yerr=[[share - low], [high - share]], color=INK, elinewidth=0.9)
            panel.annotate(f"{share:.0%}", (at, high), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    panel.set_xticks(range(len(results)), [f"granularity {result['granularity']}" for result in results])
    panel.set(ylim=(0, 1.1), xlim=(-0.5, len(results) - 0.5))
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    panel.grid(axis="x", visible=False)
    patches = [
        Patch(facecolor=look.tint, edgecolor=look.colour, hatch=look.hatch, label=title)
        for title, look in zip(names.values(), looks, strict=True)
    ]
    legend(figure, patches)
    return figure


def length_figure(output_tokens: Sequence[int], max_output_tokens: int, subtitle: str) -> Figure:
    """How long the target model's responses are."""
    figure, [[panel]] = new_figure("Response lengths of the target model", subtitle, 1.6)
    edges = range(0, max_output_tokens + 2 * LENGTH_BIN_TOKENS, LENGTH_BIN_TOKENS)
    panel.hist(output_tokens, bins=list(edges), color=BLUE.tint, edgecolor=BLUE.colour)
    panel.axvline(max_output_tokens, color=MUTED, linestyle="--", linewidth=1.0)
    panel.grid(axis="x", color=GRID)
    panel.set_xlim(0, edges[-1])
    label(panel, x="response length, tokens (the line is the limit)", y="prompts")
    return figure
