"""What figures over the period of load reports and broadcasts have in common."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

PERIODS = "period of reports and of broadcasts (ms)"
"""The label of the axis."""


class OverPeriods:
    """Axes `dispatcher` and `period_ms`. Dispatchers of `blind` look at no load, so that one period, the first, stands
    for all."""

    def __init__(self, blind: list[str]) -> None:
        self.blind = blind
        self._first_period: str | None = None

    def admits(self, labels: Mapping[str, str]) -> bool:
        """A blind dispatcher runs with the first period that it is asked about."""
        if labels["dispatcher"] not in self.blind:
            return True
        self._first_period = self._first_period or labels["period_ms"]
        return labels["period_ms"] == self._first_period

    def shown(self, rows: pd.DataFrame, dispatcher: str, period: str) -> list[float]:
        """The periods at which the values that a dispatcher had with one of them are drawn."""
        return list(dict.fromkeys(rows["period_ms"].astype(float))) if dispatcher in self.blind else [float(period)]


def period_axis(panel: Axes, table: pd.DataFrame) -> None:
    """A tick for each period of the table."""
    periods = sorted(set(table["period_ms"]))
    panel.set_xscale("log")
    panel.set_xticks(periods, [f"{period:g}" for period in periods])
    panel.set_xticks([], minor=True)
