"""The part of a serving in which neither filling up nor running empty is measured.

How many requests are in the system rises while it warms up and falls after the last arrival. The window begins when the
number first reaches its later median, the one over the second half of the arrivals, and ends with the last arrival.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.metrics.latency import num_samples_needed, summarise
from tetribench.metrics.timeline import TokenTimes, is_finished

MIN_REQUESTS = num_samples_needed(95)
"""That arrive in a window and finish: as many as its highest percentile needs."""
MIN_RESIDENCES = 2.5
"""Length of a window in mean JCTs: a shorter one has not forgotten how it began."""
Floats = npt.NDArray[np.float64]

VALUES = (
    "mean_ttft_s",
    "p95_ttft_s",
    "mean_tpot_s",
    "mean_jct_s",
    "p95_jct_s",
    "request_throughput_per_s",
    "output_throughput_tokens_per_s",
)
"""What is known of a window, called as it is of a whole run."""


def steady_state(requests: pd.DataFrame, times: TokenTimes) -> dict[str, Any]:
    """`from_s`, `to_s`, the number of requests that arrived between them and finished, and the `VALUES` of the window.

    Latencies are of those requests; rates are of what was finished and delivered between `from_s` and `to_s`. Where
    there is no steady state, `why_not` says why, and everything else is None.
    """
    nothing: dict[str, Any] = dict.fromkeys(("from_s", "to_s", "num_requests", *VALUES))
    if requests["arrived_s"].nunique() < 2:
        return {"why_not": "all requests arrive at one moment", **nothing}
    from_s, to_s = _Level(requests).window()
    inside = requests[requests["arrived_s"].between(from_s, to_s) & is_finished(requests)]
    why_not = _why_not(inside, from_s, to_s, first_s=float(requests["arrived_s"].min()))
    if why_not:
        return {"why_not": why_not, **nothing}
    found = {"why_not": None, "from_s": from_s, "to_s": to_s, "num_requests": len(inside)}
    return found | _values(requests, inside, times, from_s, to_s)


def _why_not(inside: pd.DataFrame, from_s: float, to_s: float, first_s: float) -> str | None:
    """A number that piles up steadily first reaches its later median after three quarters of the arrivals."""
    length_s, arriving_s = to_s - from_s, to_s - first_s
    if length_s < arriving_s / 2:
        return (
            f"the number of requests in the system reaches its later median only {from_s - first_s:.3g} s after the "
            f"first of {arriving_s:.3g} s of arrivals, so that it still rises when half of them are over"
        )
    if len(inside) < MIN_REQUESTS:
        return f"{len(inside)} requests arrive between warm-up and drain and finish, and {MIN_REQUESTS} are needed"
    residence_s = float(inside["jct_s"].mean())
    if length_s < MIN_RESIDENCES * residence_s:
        needed = f"{MIN_RESIDENCES:g} mean JCTs of {residence_s:.3g} s"
        return f"between warm-up and drain are {length_s:.3g} s, less than {needed}"
    return None


def _values(
    requests: pd.DataFrame, inside: pd.DataFrame, times: TokenTimes, from_s: float, to_s: float
) -> dict[str, float | None]:
    ttft, tpot, jct = (summarise(inside[column]) for column in ("ttft_s", "tpot_s", "jct_s"))
    num_finished = int(requests["finished_s"].between(from_s, to_s).sum())
    num_tokens = int(((times.times_s >= from_s) & (times.times_s <= to_s)).sum())
    found = (ttft["mean"], ttft["p95"], tpot["mean"], jct["mean"], jct["p95"])
    return dict(zip(VALUES, (*found, num_finished / (to_s - from_s), num_tokens / (to_s - from_s)), strict=True))


class _Level:
    """How many requests are in the system: from each of `times_s` on so many as `nums` says."""

    def __init__(self, requests: pd.DataFrame) -> None:
        arrived_s, ended_s = requests["arrived_s"], requests["finished_s"].fillna(requests["failed_s"]).dropna()
        steps = pd.concat([pd.Series(1, arrived_s), pd.Series(-1, ended_s)]).groupby(level=0).sum()
        self.times_s: Floats = np.asarray(steps.index, np.float64)
        self.nums: Floats = np.asarray(steps.cumsum(), np.float64)
        self.first_s, self.last_s = float(arrived_s.min()), float(arrived_s.max())

    def window(self) -> tuple[float, float]:
        """From the first moment with the later median to the last arrival."""
        median = self._median((self.first_s + self.last_s) / 2, self.last_s)
        return float(self.times_s[self.nums >= median][0]), self.last_s

    def _median(self, from_s: float, to_s: float) -> float:
        """Over time."""
        order = np.argsort(self.nums)
        edges_s = np.clip(np.r_[self.times_s, np.inf], from_s, to_s)
        passed_s = np.cumsum(np.diff(edges_s)[order])
        return float(self.nums[order][np.searchsorted(passed_s, passed_s[-1] / 2)])
