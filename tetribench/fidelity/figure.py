"""Predicted against measured, where the time goes that is wrong, and what both say in words."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tetribench.fidelity.errors import error_table, headlines, ratio_table, run_table, seed_means, stage_table
from tetribench.fidelity.rows import MACHINE, MEASURED, OUTSIDE, VIRTUAL
from tetribench.metrics.compare import OVERALL
from tetribench.report.style import INK, Look, Margins, label, legend, new_figure, system_looks

POINTS = {"ttft_s": "Mean TTFT (s)", "jct_s": "Mean JCT (s)"}
BAND = 0.05
"""Drawn around equality."""
MAX_PART = 0.5
"""Of a cause's share of the measured mean. The replay that parts the causes computes the recorded batches, whatever has
arrived meanwhile: what its iterations take too long adds up over the run, and where requests hardly wait, as in a mean
TTFT of some iterations, soon outweighs everything. Larger parts say nothing, and are not shown."""
PARTS = {"steps": "iterations", "overheads": "in between", "decisions": "other decisions"}
SHARES = "% of the measured mean"
STAGE_NAMES = {
    "send_delay_s": "send delay",
    "route_s": "routing",
    "prefill_queue_s": "prefill queue",
    "prefill_s": "prefill",
    "delivery_s": "delivery",
    "transfer_exposed_s": "handover",
    "decode_s": "decode",
}
"""Those that follow one another."""
MARKERS = ("o", "s", "^", "D", "v", "P")


class FidelityFigure:
    """Drawn from the rows of the experiment."""

    title = "Virtual time against real time"

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The means of all requests of each run, and what is known of the machine."""
        is_overall = (rows["class"] == OVERALL) & rows["statistic"].isin(("mean", "total", "p95"))
        return rows[is_overall | (rows["class"] == MACHINE)].reset_index(drop=True)

    def draw(self, table: pd.DataFrame) -> Figure:
        systems = list(dict.fromkeys(table["system"]))
        looks = system_looks(systems, systems[-1])
        num_seeds = table["seed"].nunique()
        num_servings = table["serving"].nunique()
        quiet = quietness(table).split(" (")[0].split(", ")[0]  # for the rest a line has no room
        subtitle = f"{num_seeds} seeds, each served {num_servings} times; {calibration(table)}; {quiet}"
        margins = Margins(left=0.7, top=1.0, wspace=1.15, hspace=0.9)
        figure, grid = new_figure(self.title, subtitle, 4.7, margins=margins, num_rows=2, num_columns=3)
        errors = error_table(table)
        errors, stages = errors[errors["statistic"] == "mean"], stage_table(table)
        for (metric, title), panels in zip(POINTS.items(), grid, strict=True):
            is_own = (table["class"] == OVERALL) & (table["metric"] == metric) & (table["statistic"] == "mean")
            _points(panels[0], seed_means(table[is_own]), looks)
            panels[0].set_title(f"{title}, a point for each seed")
            own = stages[stages["of"] == metric].pivot_table(index="stage", columns="system", values="share")
            _bars(
                panels[1],
                own.reindex([stage for stage in STAGE_NAMES if stage in own.index]).rename(STAGE_NAMES),
                looks,
            )
            parts = errors[errors["metric"] == metric].set_index("system")[list(PARTS)]
            is_parted = (parts.abs() <= MAX_PART).all(axis="columns")
            _bars(panels[2], parts.where(is_parted, axis="index").T.rename(PARTS), looks)
            if not is_parted.all():
                label(panels[2], x=f"{SHARES}\n{', '.join(parts.index[~is_parted])}: cannot be parted")
            panels[1].set_title("Its error by stage")
            panels[2].set_title("Its error by cause")
        marks = [
            Line2D([], [], linestyle="", marker=marker, markerfacecolor=look.tint, color=look.colour, label=system)
            for (system, look), marker in zip(looks.items(), MARKERS, strict=False)
        ]
        line = Line2D([], [], color=INK, linewidth=1, label=f"equal, and {BAND:.0%} around it")
        legend(figure, [*marks, line])
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        errors = headlines(error_table(table))
        said = [_bounded(row) for row in errors.to_dict("records") if row["within_bounds"]]
        said += [_order(row) for row in ratio_table(table).to_dict("records") if row["order"] != "undecided"]
        return [*said, f"{calibration(table)}.".capitalize(), f"{quietness(table)}.".capitalize()]


def calibration(table: pd.DataFrame) -> str:
    """Whether the profile was fitted on what was predicted with it."""
    shares = table[(table["class"] == MACHINE) & (table["metric"] == OUTSIDE)][MEASURED]
    if shares.empty:
        return "the profile does not say what range it was calibrated on"
    if shares.max() == 0:
        return "all iterations inside the calibrated range"
    return f"OUTSIDE the calibrated range: {shares.mean():.1%} of the iterations"


def quietness(table: pd.DataFrame) -> str:
    """Whether real time was measured undisturbed."""
    runs = run_table(table)
    num_quiet, num_attempts = int((runs["quiet"] == "yes").sum()), int(runs["num_attempts"].sum())
    kept = f" (the quietest of {num_attempts} attempts)" if num_attempts > len(runs) else ""
    if num_quiet == len(runs):
        return f"machine quiet in all runs{kept}"
    worst = f", others took up to {runs['other_cores'].max():.2f} cores" if "other_cores" in runs else ""
    return f"machine NOT QUIET in {len(runs) - num_quiet} of {len(runs)} runs{kept}{worst}"


def _bounded(row: dict[Any, Any]) -> str:
    name = POINTS[str(row["metric"])].partition(" (")[0]
    verdict = "within" if row["within_bounds"] == "yes" else "NOT within"
    parts = [row[part] for part in PARTS]
    floor = ""
    if not np.isnan(row["real_median"]):
        floor = (
            f" Two real runs of the same requests differ by {row['real_median']:.1%} (median), {row['real_p90']:.1%} "
            f"(p90)."
        )
    causes = ": {:+.1%} by the time of iterations, {:+.1%} by what passes between them, {:+.1%} by other decisions."
    if any(abs(part) > MAX_PART for part in parts):
        causes = "; its causes cannot be parted."
    return (
        f"{row['system']}: {name} is off by {row['size_median']:.1%} (median over the seeds), {row['size_p90']:.1%} "
        f"(p90): {verdict} the bounds. On average {row['error']:+.1%}{causes.format(*parts)}{floor}"
    )


def _order(row: dict[Any, Any]) -> str:
    title = str(row["metric"]).removesuffix("_s").replace("_", " ")
    return (
        f"{title} ({row['statistic']}), {row['system']} / {row['baseline']}: measured {row['measured']:.2f} "
        f"[{row['measured_low']:.2f}, {row['measured_high']:.2f}], virtual {row['virtual']:.2f}: the order "
        f"{row['order']}."
    )


def _points(panel: Axes, points: pd.DataFrame, looks: dict[str, Look]) -> None:
    """A point for each seed; on the diagonal virtual time is right."""
    values = points[[MEASURED, VIRTUAL]].to_numpy()
    room = 0.08 * (values.max() - values.min()) + 0.02 * values.max()
    low, high = max(values.min() - room, 0.0), values.max() + room
    span = np.array([low, high])
    panel.fill_between(span, span * (1 - BAND), span * (1 + BAND), color="#e9e9e9", linewidth=0)
    panel.plot(span, span, color=INK, linewidth=1)
    for (system, look), marker in zip(looks.items(), MARKERS, strict=False):
        own = points[points["system"] == system]
        panel.plot(own[MEASURED], own[VIRTUAL], marker, color=look.colour, markerfacecolor=look.tint, markersize=6)
    panel.set(xlim=(low, high), ylim=(low, high))
    label(panel, x="measured", y="virtual")


def _bars(panel: Axes, shares: pd.DataFrame, looks: dict[str, Look]) -> None:
    """A group of bars for each row of `shares`, a bar for each system; all rows sum up to the error of the mean."""
    height = 0.8 / len(looks)
    for number, (system, look) in enumerate(looks.items()):
        places = np.arange(len(shares)) + (number - (len(looks) - 1) / 2) * height
        panel.barh(places, 100 * shares[system], height, color=[look.tint], edgecolor=look.colour, hatch=look.hatch)
    panel.axvline(0, color=INK, linewidth=1)
    panel.set_yticks(range(len(shares)), list(shares.index))
    panel.set_ylim(len(shares) - 0.5, -0.5)
    panel.grid(visible=False, axis="y")
    label(panel, x=SHARES)
