"""A map: together or apart, by prompt length, output length, load and hardware profile."""

from math import inf, isnan, log, nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from tetribench.beyond.quantities import steady_attainment
from tetribench.metrics.intervals import Interval, mean_interval
from tetribench.report.style import INK, MUTED, Margins, label, legend, new_figure

SPLIT = "tetri"
FAMILIES = {"tetri": "T", "vllm_like": "V", "vllm_like_chunked": "C", "sarathi_like": "S"}
"""A system's family is the part of its label before a space; what follows is its split of the instances."""

COLOURS = {"tetri": "#0072B2", "vllm_like": "#D55E00", "vllm_like_chunked": "#E69F00", "sarathi_like": "#009E73"}
FULL_AT = 2.0
"""The ratio of goodputs from which a colour is at its strongest."""

KEYS = ["profile", "load", "prompt", "output"]


class Winners:
    """Goodput per device of the best split against the best colocated system, all on as many devices.

    Best is the highest mean over the seeds, of the splits of the instances tried and of the colocated systems. A cell
    is undecided where the 95 % interval of the difference, paired by seed, holds 0: unlike a ratio, it has bounds where
    somebody serves next to nothing. Goodput is the offered rate times the share of the steady requests, the middle half
    of the arrivals, that kept their bounds. `instances` is for the title.
    """

    def __init__(self, *, instances: int) -> None:
        self.title = f"Together or apart: goodput per device, {instances} instances"
        self.quantities = {
            "attained": steady_attainment,
        }

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A row for each cell of the map: who is best on either side, their goodputs, and the split's ratio."""
        rows = rows.assign(goodput=rows["attained"] * rows["rate_per_s"] / rows["num_devices"])
        rows = rows.assign(family=rows["system"].map(_family))
        found = []
        for cell, own in rows.groupby(KEYS, sort=False):
            split, together = own[own["family"] == SPLIT], own[own["family"] != SPLIT]
            ours, theirs = _best(split), _best(together)
            difference = mean_interval((ours["goodput"].to_numpy() - theirs["goodput"].to_numpy()).tolist())
            means = float(ours["goodput"].mean()), float(theirs["goodput"].mean())
            found.append(
                dict(zip(KEYS, cell, strict=True))
                | {"split": ours["system"].iloc[0], "colocated": theirs["system"].iloc[0]}
                | {"split_goodput_per_s": means[0], "colocated_goodput_per_s": means[1], "ratio": _ratio(*means)}
                | {"split_attained": ours["attained"].mean(), "colocated_attained": theirs["attained"].mean()}
                | {"difference": difference.value, "low": difference.low, "high": difference.high}
                | {"winner": _winner(difference, str(theirs["system"].iloc[0]))}
                | {"rate_per_s": own["rate_per_s"].iloc[0], "slo_ttft_s": own["slo_ttft_s"].iloc[0]}
                | {"slo_tpot_s": own["slo_tpot_s"].iloc[0]}
            )
        return pd.DataFrame(found)

    def draw(self, table: pd.DataFrame) -> Figure:
        profiles, loads = (list(dict.fromkeys(table[key])) for key in ("profile", "load"))
        prompts, outputs = (list(dict.fromkeys(table[key])) for key in ("prompt", "output"))
        subtitle = (
            "Letter: winner; number: goodput of the best split over that of the best colocated system; "
            "=: undecided (95 % interval of the difference holds 0)"
        )
        height_in = (0.52 * len(prompts) + 0.15) * len(profiles) + 0.45 * (len(profiles) - 1)
        margins = Margins(left=0.85, top=1.05, wspace=0.35)
        figure, axes = new_figure(
            self.title, subtitle, height_in, margins=margins, num_rows=len(profiles), num_columns=len(loads)
        )
        for line, profile in enumerate(profiles):
            for column, load in enumerate(loads):
                panel = axes[line][column]
                own = table[(table["profile"] == profile) & (table["load"] == load)]
                for row in own.to_dict("records"):
                    _cell(panel, outputs.index(row["output"]), prompts.index(row["prompt"]), row)
                panel.set(xlim=(-0.5, len(outputs) - 0.5), ylim=(-0.5, len(prompts) - 0.5))
                panel.set_xticks(range(len(outputs)), [str(output) for output in outputs])
                panel.set_yticks(range(len(prompts)), [str(prompt) for prompt in prompts] if column == 0 else [])
                panel.grid(visible=False)
                panel.spines[:].set_visible(False)
                panel.tick_params(length=0)
                panel.set_title(f"{profile}, load {load:g}")
                is_last = line == len(profiles) - 1
                label(panel, x="output tokens (median)" if is_last else "", y="" if column else "prompt tokens")
        present = [family for family in FAMILIES if family in set(table["winner"])]
        patches = [Patch(facecolor=COLOURS[one], label=f"{FAMILIES[one]}: {one}") for one in present]
        legend(figure, [*patches, Patch(facecolor="#f2f2f2", edgecolor=MUTED, label="=: undecided")])
        return figure

    def reading(self, table: pd.DataFrame) -> list[str]:
        return [
            sentence
            for profile, own in table.groupby("profile", sort=False)
            for sentence in self._of_profile(str(profile), own)
        ]

    def _of_profile(self, profile: str, table: pd.DataFrame) -> list[str]:
        wins, losses = table[table["winner"] == SPLIT], table[~table["winner"].isin([SPLIT, "undecided"])]
        num_open = len(table) - len(wins) - len(losses)
        sentences = [
            f"{profile}: of {len(table)} cells the split wins {len(wins)}, a colocated system {len(losses)}, "
            f"{num_open} are undecided."
        ]
        if len(wins):
            sentences.append(
                f"The split wins at {_places(wins)}; most, by {wins['ratio'].max() - 1:.0%}, {_most(wins)}."
            )
        if len(losses):
            by_load = ", ".join(f"{count} at load {load:g}" for load, count in losses.groupby("load").size().items())
            worst = losses.iloc[int(losses["ratio"].argmin())]
            behind = f"{worst['ratio'] - 1:+.0%}, at {_place(worst)}"
            sentences.append(f"Colocated wins {by_load}; the split is furthest behind, {behind}.")
        return sentences


def _family(system: object) -> str:
    return str(system).partition(" ")[0]


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs, by seed, of the system with the highest mean; the first where two are level."""
    best = rows.groupby("system", sort=False)["goodput"].mean().idxmax()
    return rows[rows["system"] == best].sort_values("seed")


def _ratio(split: float, colocated: float) -> float:
    """NaN where neither serves anybody."""
    if colocated == 0:
        return inf if split > 0 else nan
    return split / colocated


def _winner(difference: Interval, colocated: str) -> str:
    if difference.low > 0:
        return SPLIT
    return _family(colocated) if difference.high < 0 else "undecided"


def _place(row: "pd.Series[Any]") -> str:
    return f"prompts of {row['prompt']}, outputs of {row['output']}, load {row['load']:g}"


def _places(rows: pd.DataFrame) -> str:
    return "; ".join(f"{one['prompt']}/{one['output']} at load {one['load']:g}" for one in rows.to_dict("records"))


def _most(rows: pd.DataFrame) -> str:
    return "at " + _place(rows.iloc[int(rows["ratio"].argmax())])


def _cell(panel: Axes, x: int, y: int, row: dict[str, object]) -> None:
    ratio, winner = float(str(row["ratio"])), str(row["winner"])
    is_open = winner == "undecided"
    margin = abs(log(ratio)) / log(FULL_AT) if ratio > 0 else 1.0
    strength = 0.25 + 0.75 * min(margin, 1.0)
    colour = (0.95, 0.95, 0.95) if is_open else tuple(1 + strength * (part - 1) for part in to_rgb(COLOURS[winner]))
    panel.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, edgecolor="#8a8a8a", linewidth=0.5))
    is_dark = np.dot(colour, (0.3, 0.59, 0.11)) < 0.5
    ink = "#ffffff" if is_dark else INK
    letter = "=" if is_open else FAMILIES[winner]
    split = str(row["split"]).partition(" ")[2] if winner == SPLIT else ""
    panel.text(x, y + 0.13, f"{letter} {split}".strip(), ha="center", va="center", size=9, weight="bold", color=ink)
    panel.text(x, y - 0.22, "" if isnan(ratio) else f"x{ratio:.2f}", ha="center", va="center", size=7.5, color=ink)
