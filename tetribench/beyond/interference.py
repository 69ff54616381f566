"""Interference as matrices: what aggressors of each class do to victims of each class, on each system."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from math import isfinite, log
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from tetribench.metrics.compare import SystemResult
from tetribench.metrics.intervals import ratio_interval
from tetribench.metrics.latency import itl_values
from tetribench.report.finding import Quantity
from tetribench.report.style import INK, MUTED, Margins, label, legend, new_figure
from tetribench.workload.interference import RequestClass

Row = dict[Hashable, Any]

METRICS = {"ttft_s": "mean TTFT", "tpot_s": "mean TPOT", "itl_p99_s": "p99 ITL", "jct_s": "mean JCT"}
PANELS = ("ttft_s", "itl_p99_s", "jct_s")
"""Mean TPOT stands in the table only: mean JCT follows it where responses are long."""

VALUES: dict[str, Callable[[pd.DataFrame, "pd.Series[float]"], float]] = {
    "ttft_s": lambda victims, itl_s: float(victims["ttft_s"].mean()),
    "tpot_s": lambda victims, itl_s: float(victims["tpot_s"].mean()),
    "itl_p99_s": lambda victims, itl_s: float(itl_s.quantile(0.99)),
    "jct_s": lambda victims, itl_s: float(victims["jct_s"].mean()),
}
"""Of some requests and the gaps between their tokens."""

SLOWER, FASTER, OPEN = "#D55E00", "#0072B2", "#ececec"
FULL_AT = 8.0
"""The ratio from which a colour is at its strongest."""

CLASSES = [one.value for one in RequestClass]
KEYS = ["system", "victim", "aggressor", "load", "metric"]
OVER = " over "


class Interference:
    """How many times as long victims wait beside aggressors as alone: the same victims on the same system, paired by
    seed, with 95 % intervals; and how many times more that is on other systems than on `apart`, of which the one on
    `together` is drawn.

    Metrics of a class are over its victims that finished; ITL is pooled over their tokens.
    """

    title = "Interference: victims beside aggressors against the same victims alone"

    def __init__(self, *, together: str, apart: str) -> None:
        self.together = together
        self.apart = apart
        self.quantities: Mapping[str, Quantity] = {
            f"{one.value}_{metric}": partial(_of_victims, label=one.victim, metric=metric)
            for one in RequestClass
            for metric in METRICS
        }

    def check(self, systems: Sequence[str]) -> None:
        """Raises ValueError where the two that are compared are not among `systems`."""
        for option, system in {"together": self.together, "apart": self.apart}.items():
            if system not in systems:
                raise ValueError(f"task.figure.{option}={system}: must be one of axes.system: {', '.join(systems)}")

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each system, victim, aggressor, load and metric, then the same for every other system over `apart`,
        whose `ratio` is one of slowdowns."""
        systems = list(dict.fromkeys(rows["system"]))
        pairs = _pairs(rows)
        slowdowns = pairs.assign(slowdown=pairs["beside_s"] / pairs["alone_s"])
        keys = [*KEYS[1:], "seed"]
        apart = slowdowns[slowdowns["system"] == self.apart].set_index(keys)["slowdown"]
        found = [_intervals(pairs, "beside_s", "alone_s")]
        for other in systems:
            if other != self.apart:
                own = slowdowns[slowdowns["system"] == other].set_index(keys)
                both = own.assign(apart=apart, system=f"{other}{OVER}{self.apart}").reset_index()
                found.append(_intervals(both, "slowdown", "apart").drop(columns=["slowdown", "apart"]))
        columns = ["hardware", *KEYS, "alone_s", "beside_s", "ratio", "low", "high"]
        return pd.concat(found, ignore_index=True).assign(hardware=rows["hardware"].iloc[0])[columns]

    def draw(self, table: pd.DataFrame) -> Figure:
        systems = [str(one) for one in dict.fromkeys(table["system"]) if OVER not in str(one)]
        lines, loads = [*systems, self._over], sorted(set(table["load"]))
        figure, axes = new_figure(
            self.title,
            _subtitle(str(table["hardware"].iloc[0]), loads),
            1.4 * len(lines) - 0.42,
            margins=Margins(left=0.75, right=0.1, top=0.98, bottom=0.48, wspace=0.2, hspace=0.42),
            num_rows=len(lines),
            num_columns=len(PANELS),
        )
        for line, system in enumerate(lines):
            for panel, metric in zip(axes[line], PANELS, strict=True):
                own = table[(table["system"] == system) & (table["metric"] == metric)]
                for row in own.to_dict("records"):
                    place = len(loads) * CLASSES.index(row["aggressor"]) + loads.index(row["load"])
                    _cell(panel, place, CLASSES.index(row["victim"]), row)
                _frame(panel, len(loads), is_first=panel is axes[line][0], is_last=system == self._over)
                panel.set_title(f"{system}: {METRICS[metric]}", weight="bold" if system == self._over else "normal")
        legend(figure, _colours())
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        heaviest = table[table["load"] == table["load"].max()]
        num_drawn = int((table["metric"].isin(PANELS) & (table["system"] == self._over)).sum())
        return [
            *self._of_the_title(heaviest),
            *(self._of_metric(table, metric) for metric in PANELS),
            f"Undecided: the 95 % interval over the seeds holds 1. Of {num_drawn} such intervals about "
            f"{0.05 * num_drawn:.0f} do not, where nothing differs.",
        ]

    def in_short(self, table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
        """What a terminal has room for, and its title: one metric at the highest load."""
        load = table["load"].max()
        systems = [one for one in dict.fromkeys(table["system"]) if OVER not in str(one)]
        chosen = table[(table["load"] == load) & (table["metric"] == "itl_p99_s")]
        wide = chosen.pivot(index=["system", "victim"], columns="aggressor", values="ratio")[CLASSES]
        index = pd.MultiIndex.from_product([[*systems, self._over], CLASSES], names=["system", "victim"])
        return f"{METRICS['itl_p99_s']} beside aggressors at load {load:g}, over alone", wide.loc[index].reset_index()

    @property
    def _over(self) -> str:
        return f"{self.together}{OVER}{self.apart}"

    def _of_the_title(self, table: pd.DataFrame) -> list[str]:
        """The pair that the paper is about: what heavy prompts do to the tokens of light decodes."""
        is_pair = (table["victim"] == "LPLD") & (table["aggressor"] == "HPLD") & (table["metric"] == "itl_p99_s")
        rows = table[is_pair & (~table["system"].str.contains(OVER) | (table["system"] == self._over))]
        found = "; ".join(f"{row['system']} {_with_bounds(row)}" for row in rows.to_dict("records"))
        return [f"p99 ITL of LPLD beside HPLD at load {rows['load'].iloc[0]:g}: {found}."]

    def _of_metric(self, table: pd.DataFrame, metric: str) -> str:
        own = table[(table["metric"] == metric) & (table["system"] == self._over)]
        worse, better = own[own["low"] > 1], own[own["high"] < 1]
        counted = (
            f"Slowdown of {METRICS[metric]}, {self._over}, in {len(own)} pairs: larger in {len(worse)}, smaller in "
            f"{len(better)}, undecided in {len(own) - len(worse) - len(better)}"
        )
        extremes = [("most", worse, 1), ("least", better, -1)]
        named = [
            f"{word} {_pair(rows.to_dict('records')[int((sign * rows['ratio']).argmax())])}"
            for word, rows, sign in extremes
            if len(rows)
        ]
        return "; ".join([counted, *named]) + "."


def _of_victims(result: SystemResult, label: str, metric: str) -> float:
    victims = result.requests[result.requests["label"] == label]
    return VALUES[metric](victims, itl_values(victims, result.token_times))


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each of `KEYS` and seed: seconds of the victims alone and beside the aggressor."""
    rows = rows.assign(load=rows["load"].astype(float))
    columns = {f"{one}_{metric}": (one, metric) for one in CLASSES for metric in METRICS}
    long = rows.melt(["system", "aggressor", "load", "seed"], list(columns), var_name="column", value_name="beside_s")
    long = long.assign(
        victim=long["column"].map(lambda column: columns[column][0]),
        metric=long["column"].map(lambda column: columns[column][1]),
    )
    is_alone, keys = long["load"] == 0, ["system", "victim", "metric", "seed"]
    alone = long[is_alone].set_index(keys)["beside_s"].rename("alone_s")
    return long[~is_alone].join(alone, on=keys).drop(columns="column")


def _intervals(pairs: pd.DataFrame, numerator: str, denominator: str) -> pd.DataFrame:
    """By `KEYS` the ratio paired by seed, with its interval, and the means of both."""
    orders = {
        "system": list(dict.fromkeys(pairs["system"])),
        "victim": CLASSES,
        "aggressor": CLASSES,
        "metric": [*METRICS],
    }
    ordered = pairs.assign(**{key: pd.Categorical(pairs[key], order) for key, order in orders.items()})
    found = []
    for keys, own in ordered.groupby(KEYS, observed=True):
        ratio = ratio_interval(own[numerator].tolist(), own[denominator].tolist())
        means = {column: float(own[column].mean()) for column in (numerator, denominator)}
        found.append(dict(zip(KEYS, keys, strict=True)) | means | ratio._asdict())
    return pd.DataFrame(found).rename(columns={"value": "ratio"})


def _number(ratio: float) -> str:
    """Three digits; a question mark where it is undefined."""
    if not isfinite(ratio):
        return "?"
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:.0f}"


def _with_bounds(row: Row) -> str:
    return f"x{_number(row['ratio'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _pair(row: Row) -> str:
    return f"{_with_bounds(row)} for {row['victim']} beside {row['aggressor']} at load {row['load']:g}"


def _subtitle(hardware: str, loads: Sequence[float]) -> str:
    shares = " and ".join(f"{load:.0%}" for load in loads)
    side_by_side = ", side by side" if len(loads) > 1 else ""
    return f"{hardware}; seconds beside over seconds alone, mean of the seeds; aggressors' load {shares}{side_by_side}"


def _frame(panel: Axes, num_loads: int, is_first: bool, is_last: bool) -> None:
    """Room for the cells, a name for each class; what rows and columns are at the first panel of each and the last."""
    panel.set(xlim=(-0.5, num_loads * len(CLASSES) - 0.5), ylim=(len(CLASSES) - 0.5, -0.5))
    centres = num_loads * np.arange(len(CLASSES)) + (num_loads - 1) / 2
    panel.set_xticks(centres, CLASSES, size=7.5)
    panel.set_yticks(range(len(CLASSES)), CLASSES if is_first else [""] * len(CLASSES), size=7.5)
    label(panel, x="aggressors" if is_last else "", y="victims" if is_first else "")
    for line in range(1, len(CLASSES)):
        panel.axvline(num_loads * line - 0.5, color="white", linewidth=2.5)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, pad=2)


def _cell(panel: Axes, x: int, y: int, row: Row) -> None:
    ratio = row["ratio"]
    is_open = not (row["low"] > 1 or row["high"] < 1)
    colour = OPEN if is_open else _tint(ratio)
    panel.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, facecolor=colour, edgecolor="none"))
    is_dark = not is_open and np.dot(to_rgb(colour), (0.3, 0.59, 0.11)) < 0.55
    ink = "#ffffff" if is_dark else MUTED if is_open else INK
    panel.text(x, y + 0.03, _number(ratio), ha="center", va="center", size=6.8, color=ink)


def _tint(ratio: float) -> tuple[float, float, float]:
    """White at 1, a strong colour from `FULL_AT` or its inverse on."""
    strength = 0.12 + 0.88 * min(abs(log(ratio)) / log(FULL_AT), 1.0)
    red, green, blue = to_rgb(SLOWER if ratio > 1 else FASTER)
    return 1 + strength * (red - 1), 1 + strength * (green - 1), 1 + strength * (blue - 1)


def _colours() -> list[Patch]:
    shown = [1 / FULL_AT, 0.5, 1.1, 2.0, FULL_AT]
    patches = [Patch(facecolor=_tint(ratio), edgecolor=MUTED, linewidth=0.4, label=f"x{ratio:g}") for ratio in shown]
    return [*patches, Patch(facecolor=OPEN, edgecolor=MUTED, linewidth=0.4, label="undecided")]
