"""A waterfall from one system to another: the change of a mean latency, split among the mechanisms that part them."""

from collections.abc import Mapping
from math import exp, log, nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tetribench.beyond.quantities import mean_of
from tetribench.beyond.shapley import Causes, Precedence, shapley
from tetribench.beyond.ticks import plain_ticks
from tetribench.metrics.intervals import mean_interval
from tetribench.report.style import INK, MUTED, Look, Margins, label, new_figure

METRICS = {"ttft_s": "TTFT", "jct_s": "JCT"}
WITH, WITHOUT = "with", "without"
TOTAL = "all together"

BETTER, WORSE, WHOLE = Look("#0072B2"), Look("#D55E00", hatch="////"), Look("#5c5c5c", hatch="....")


class Attribution:
    """Shapley values of log mean TTFT and log mean JCT over the mechanisms `causes`, for each workload.

    Each cause is an axis with the labels `with` and `without`; `after` says which come only after others, as in
    `disaggregation after twice_the_hardware`. Those of `idle` cannot change anything in this set-up and are drawn as
    nothing, without an axis. TTFT is the paper's, to the end of the last chunk. `start` and `end` are for the title.
    """

    def __init__(self, *, start: str, end: str, causes: list[str], after: list[str], idle: list[str]) -> None:
        self.title = f"From {start} to {end}: what each mechanism brings"
        self.idle = idle
        self.causes = causes
        needs: dict[str, list[str]] = dict([_parse(text) for text in after])
        self.precedence = Precedence([cause for cause in causes if cause not in idle], needs)
        self.quantities = {"ttft_s": mean_of("ttft_engine_s"), "jct_s": mean_of("jct_s")}

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels are a system that occurs in some order."""
        return self.precedence.admits(self._on(labels))

    def _on(self, labels: Mapping[Any, Any]) -> Causes:
        return frozenset(cause for cause in self.precedence.causes if labels[cause] == WITH)

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each workload, metric and cause: the factor it brings, with its interval over the seeds.

        `share` is that of the whole change, in logarithms; `least` and `most` are the mean factors in the orders in
        which the cause brings the smallest and the largest.
        """
        found = []
        for workload, own in rows.groupby("workload", sort=False):
            for metric in METRICS:
                found += [{"workload": workload, "metric": metric, **row} for row in self._shares(own, metric)]
        return pd.DataFrame(found)

    def _shares(self, rows: pd.DataFrame, metric: str) -> list[dict[str, object]]:
        worths = [self._worth(own, metric) for _, own in rows.groupby("seed")]
        everything = frozenset(self.precedence.causes)
        by_seed = [{cause: share.mean for cause, share in shapley(self.precedence, one).items()} for one in worths]
        mean_worth = {on: float(np.mean([one[on] for one in worths])) for on in self.precedence.sets}
        bounds = shapley(self.precedence, mean_worth)
        total = [one[everything] - one[frozenset()] for one in worths]
        found: list[dict[str, object]] = []
        for cause in self.causes:
            if cause in self.idle:
                nothing = {"least": 1.0, "most": 1.0, "share": 0.0}
                found.append({"cause": cause, **_factors([0.0] * len(worths)), **nothing})
                continue
            changes = [one[cause] for one in by_seed]
            extremes = {"least": exp(bounds[cause].most), "most": exp(bounds[cause].least)}
            found.append({"cause": cause, **_factors(changes), **extremes, "share": _part(changes, total)})
        return [*found, {"cause": TOTAL, **_factors(total), "share": 1.0}]

    def _worth(self, rows: pd.DataFrame, metric: str) -> dict[Causes, float]:
        return {self._on(row): log(row[metric]) for row in rows.to_dict("records")}

    def draw(self, table: pd.DataFrame) -> Figure:
        workloads = list(dict.fromkeys(table["workload"]))
        subtitle = (
            "Factors averaged over every possible order of switching on (Shapley); hatched: for the worse; "
            "whiskers: 95 % over the seeds"
        )
        margins = Margins(top=0.78, bottom=1.25, hspace=0.55, wspace=0.8)
        height_in = 2.1 * len(workloads) + 0.55 * (len(workloads) - 1)
        figure, axes = new_figure(
            self.title, subtitle, height_in, margins=margins, num_rows=len(workloads), num_columns=len(METRICS)
        )
        for row, workload in zip(axes, workloads, strict=True):
            for panel, metric in zip(row, METRICS, strict=True):
                own = table[(table["workload"] == workload) & (table["metric"] == metric)]
                _waterfall(panel, own, self.idle)
                panel.set_title(f"{workload}: mean {METRICS[metric]}")
                label(panel, y="relative to the start")
        for panel in [panel for row in axes[:-1] for panel in row]:
            panel.set_xticklabels([])
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        sentences = []
        for (workload, metric), own in table.groupby(["workload", "metric"], sort=False):
            rows = own.set_index("cause")
            total, parts = rows.loc[TOTAL], rows.drop([TOTAL, *self.idle]).sort_values("share", ascending=False)
            named = ", ".join(f"{_words(cause)} {_whole(row['share'])}" for cause, row in parts.iterrows())
            sentences.append(
                f"{workload}: mean {METRICS[str(metric)]} {total['factor'] - 1:+.0%} [{total['low'] - 1:+.0%}, "
                f"{total['high'] - 1:+.0%}]; of its logarithm {named}."
            )
        return [*sentences, self._nothing(table)]

    def _nothing(self, table: pd.DataFrame) -> str:
        parts = table[~table["cause"].isin([TOTAL, *self.idle])]
        is_open = (parts["low"] <= 1) & (parts["high"] >= 1)
        none = [cause for cause in self.causes if is_open[parts["cause"] == cause].all() and cause not in self.idle]
        undecided = f"Not told from nothing in any panel: {', '.join(map(_words, none)) or 'none of them'}."
        if not self.idle:
            return undecided
        return f"{undecided} Cannot change anything in this set-up: {', '.join(map(_words, self.idle))}."


def _parse(text: str) -> tuple[str, list[str]]:
    cause, separator, before = text.partition(" after ")
    if not separator:
        raise ValueError(f"task.figure.after={text!r}: must be like 'disaggregation after twice_the_hardware'")
    return cause.strip(), [name.strip() for name in before.split(" and ")]


def _part(changes: list[float], total: list[float]) -> float:
    """NaN where nothing changes on the whole."""
    return sum(changes) / sum(total) if sum(total) else nan


def _factors(changes: list[float]) -> dict[str, float]:
    return dict(zip(("factor", "low", "high"), map(exp, mean_interval(changes)), strict=True))


def _whole(share: float) -> str:
    """In percent, without a sign where it rounds to nothing."""
    return f"{share:.0%}".replace("-0%", "0%")


def _words(cause: object) -> str:
    return str(cause).replace("_", " ")


def _waterfall(panel: Axes, rows: pd.DataFrame, idle: list[str]) -> None:
    """Each bar goes on where the one before it ended; the last goes all the way."""
    level, tops = 1.0, []
    for place, row in enumerate(rows.to_dict("records")):
        begin = 1.0 if row["cause"] == TOTAL else level
        end = begin * row["factor"]
        look = WHOLE if row["cause"] == TOTAL else BETTER if row["factor"] <= 1 else WORSE
        low, high = min(begin, end), max(begin, end)
        panel.bar(place, high - low, bottom=low, width=0.7, color=[look.tint], edgecolor=look.colour, hatch=look.hatch)
        whiskers = begin * np.array([[row["factor"] - row["low"]], [row["high"] - row["factor"]]])
        if row["cause"] not in idle:
            panel.errorbar(place, end, whiskers, fmt="none", ecolor=INK, capsize=2.5, linewidth=0.9)
        tops.append((place, max(high, begin * row["high"]), "0" if row["cause"] in idle else f"x{row['factor']:.2f}"))
        level = end
        if row["cause"] != TOTAL:
            panel.plot([place + 0.35, place + 0.65], [end, end], color=MUTED, linewidth=0.8)
    panel.set_yscale("log")
    for place, top, text in tops:
        panel.annotate(text, (place, top), (0, 2), textcoords="offset points", ha="center", va="bottom", size=7.5)
    low, high = panel.get_ylim()
    panel.set_ylim(low, high * (high / low) ** 0.12)
    plain_ticks(panel, "y")
    panel.set_xticks(range(len(rows)), [_words(cause) for cause in rows["cause"]], rotation=40, ha="right", size=8)
    panel.grid(visible=False, axis="x")
