"""The figure of the ledger: what every instance was provisioned for, second by second."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from tetribench.metrics.compare import Summary
from tetribench.metrics.ledger import ACCOUNTS, Account
from tetribench.report.figure_instances import named_rows, ordered
from tetribench.report.quantities import three_digits
from tetribench.report.style import (
    ROLES,
    WIDTH_IN,
    Look,
    Margins,
    label,
    legend,
    legend_room,
    new_figure,
    room_for,
    shorten,
)

LOOKS = {
    "prefill": ROLES["prefill"],
    "decode": ROLES["decode"],
    "predictor": Look("#009E73", hatch="...."),
    "transfer": Look(ROLES["transfer"].colour, hatch="\\\\\\\\"),
    "start_up": Look("#8a8a8a", hatch="////"),
    "shut_down": Look("#b4b4b4", hatch="\\\\\\\\"),
    "flip": Look("#D55E00", hatch="xxxx"),
    "lost": Look("#000000"),
    "memory": Look("#F0E442", hatch="----"),
    "untold": Look("#CC79A7", hatch="...."),
    "work": ROLES["idle"],
}
"""By account; each has a colour or a hatch that no other has."""

_ROW_IN = (0.2, 0.4)
"""Height of an instance's row in inches, crowded and roomy; rows shrink to keep the figure near `_HEIGHT_IN`."""

_HEIGHT_IN = 9.0

_MIN_SHARE = 0.05
"""A part of less than this of the longest bar has no room for its share in it."""


def ledger_bars(pooled: Mapping[str, Summary], subtitle: str) -> Figure:
    """A bar for each instance of each system, as long as it was provisioned, split into accounts; summed over the
    servings of the system."""
    ledgers = {system: _ledger(summary["ledger"]["instances"]) for system, summary in pooled.items()}
    height = sum(len(ledger) + 1 for ledger in ledgers.values())
    longest_s = max(float(ledger["provisioned_s"].max()) for ledger in ledgers.values()) or 1.0
    used = [account for account in ACCOUNTS if any((ledger[account.column] > 0).any() for ledger in ledgers.values())]
    titles = [account.title for account in used]
    names = [str(name) for ledger in ledgers.values() for name in ledger.index]
    margins = Margins(left=room_for(names), right=0.85, top=0.82 + legend_room(titles))
    row_in = min(max(_HEIGHT_IN / height, _ROW_IN[0]), _ROW_IN[1])
    title = "Where the time of every instance went"
    figure, [[axes]] = new_figure(title, subtitle, row_in * height, margins=margins)
    place, ticks = 0.0, list[float]()
    for system, ledger in ledgers.items():
        at = blended_transform_factory(figure.transFigure, axes.transData)
        axes.text(0.12 / WIDTH_IN, place + 0.55, shorten(system, 60), transform=at, weight="bold", va="center")
        for name in ledger.index:
            place += 1.0
            _bar(axes, place + 0.4, ledger.loc[name], used, longest_s)
            ticks.append(place + 0.4)
        place += 1.0
    axes.set_xlim(0, longest_s)
    named_rows(axes, height, 0.0, ticks, names)
    summed = ", all servings" if any(summary["num_servings"] > 1 for summary in pooled.values()) else ""
    label(axes, x=f"seconds from the start of an instance to its stop{summed}")
    legend(figure, [_patch(account) for account in used])
    return figure


def _ledger(instances: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each instance, as they stand below each other."""
    order = ordered({name: row["role"] for name, row in instances.items()})
    return pd.DataFrame([instances[name] for name in order], index=order)


def _bar(axes: Axes, place: float, row: "pd.Series[float]", used: Sequence[Account], longest_s: float) -> None:
    left_s = 0.0
    for account in used:
        seconds, look = float(row[account.column]), LOOKS[account.name]
        if seconds <= 0:
            continue
        axes.barh(place, seconds, 0.74, left_s, color=look.colour, edgecolor="white", hatch=look.hatch, linewidth=0.6)
        if seconds >= _MIN_SHARE * longest_s:
            share = f"{seconds / row['provisioned_s']:.0%}"
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0}
            axes.text(left_s + seconds / 2, place, share, ha="center", va="center", fontsize=8, bbox=box)
        left_s += seconds
    axes.text(left_s, place, f"  {three_digits(left_s)} s", va="center", fontsize=8.5)


def _patch(account: Account) -> Patch:
    look = LOOKS[account.name]
    return Patch(facecolor=look.colour, edgecolor="white", hatch=look.hatch, label=account.title)
