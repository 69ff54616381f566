"""What a request experienced: one table of per-request metrics, each a difference of edges of its life.

Every metric is about finished requests and undefined (NaN) for the others, so all of them describe the same population;
how many others there are says `timeline.account`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.units import ceil_div
from tetribench.metrics.timeline import TokenTimes, is_finished

Values = Callable[[pd.DataFrame, TokenTimes], "pd.Series[float]"]

PERCENTILES = (90, 95, 99)


class Better(StrEnum):
    """Which way a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Metric:
    """One duration of a request: its column is `<name>_<unit>`; `formula` is over the edges of `core.events`.

    `values` takes a request table and the token times, and returns one value a request, indexed by request.
    """

    name: str
    title: str
    unit: str
    better: Better
    formula: str
    values: Values

    @property
    def column(self) -> str:
        return f"{self.name}_{self.unit}"


def _difference(name: str, title: str, start: str, end: str) -> Metric:
    """The duration between two edges, named without their unit."""

    def values(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
        return requests[f"{end}_s"] - requests[f"{start}_s"]

    return Metric(name, title, "s", Better.LOWER, f"{end} - {start}", values)


def _tpot(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
    num_gaps = times.sizes - 1
    tpot_s = (times.last_s - times.first_s) / np.where(num_gaps > 0, num_gaps, np.nan)
    return pd.Series(tpot_s, times.ids).reindex(requests.index)


def _normalised(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
    num_tokens = requests["num_output_tokens"]
    return (requests["finished_s"] - requests["arrived_s"]) / num_tokens.where(num_tokens > 0)


def _decode_started(requests: pd.DataFrame) -> "pd.Series[float]":
    """A colocated instance admits before the prefill, a decode instance after the handover."""
    return requests[["admitted_s", "prefill_done_s"]].max(axis="columns", skipna=False)


def _exposed(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
    return _decode_started(requests) - requests["prefill_done_s"]


def _decode(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
    return requests["finished_s"] - _decode_started(requests)


def _gaps(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
    is_gap = np.repeat(np.isin(times.ids, requests.index), times.sizes)
    is_gap[np.cumsum(times.sizes) - 1] = False  # from the last token of a request to the first of the next
    return pd.Series(np.diff(times.times_s, append=0.0)[is_gap])


_TPOT = "(last token - first token) / (number of tokens - 1); undefined for one token"
_DECODE_STARTED = "max(admitted, prefill_done)"

METRICS = (
    _difference("ttft", "TTFT (time to first token)", "arrived", "first_token"),
    _difference("ttft_engine", "TTFT at the engine (the paper's)", "arrived", "prefill_done"),
    Metric("tpot", "TPOT (time per output token)", "s", Better.LOWER, _TPOT, _tpot),
    _difference("jct", "JCT (job completion time)", "arrived", "finished"),
    Metric(
        "normalised_latency",
        "Normalised latency, per output token",
        "s",
        Better.LOWER,
        "(finished - arrived) / number of output tokens",
        _normalised,
    ),
    _difference("send_delay", "Send delay", "arrived", "sent"),
    _difference("route", "Routing", "sent", "routed"),
    _difference("predict", "Length prediction, waiting for it included", "routed", "predicted"),
    _difference("prefill_queue", "Prefill queue", "routed", "prefill_started"),
    _difference("prefill", "Prefill", "prefill_started", "prefill_done"),
    _difference("reserve_wait", "Wait for decode memory", "dispatched", "reserved"),
    _difference("transfer", "KV transfer", "transfer_started", "transfer_done"),
    Metric(
        "transfer_exposed",
        "Handover exposed on the critical path",
        "s",
        Better.LOWER,
        f"{_DECODE_STARTED} - prefill_done",
        _exposed,
    ),
    _difference("decode_queue", "Decode queue", "transfer_done", "admitted"),
    Metric("decode", "Decode", "s", Better.LOWER, f"finished - {_DECODE_STARTED}", _decode),
)
"""Every per-request metric. `admitted` is the first admission."""

ITL = Metric(
    "itl", "ITL (inter-token latency)", "s", Better.LOWER, "token[i + 1] - token[i], pooled over requests", _gaps
)
"""The one distribution over tokens instead of requests: one value for each gap, request after request."""

CRITICAL_PATH = ("send_delay", "route", "prefill_queue", "prefill", "transfer_exposed", "decode")
"""Names of the stages that follow one another without a gap; they sum to the JCT of a request that has them all."""


def add_metrics(requests: pd.DataFrame, times: TokenTimes) -> pd.DataFrame:
    """The request table with one more column for each metric."""
    finished = is_finished(requests)
    return requests.assign(**{metric.column: metric.values(requests, times).where(finished) for metric in METRICS})


def itl_values(requests: pd.DataFrame, times: TokenTimes) -> "pd.Series[float]":
    """Gaps between consecutive tokens of every finished request, pooled."""
    return ITL.values(requests[is_finished(requests)], times)


def num_samples_needed(percent: int) -> int:
    """Fewest samples of which one lies beyond the percentile: ceil(1 / (1 - p)), so 10, 20, 100 for p90, p95, p99.

    In whole percents, since 1 / (1 - 0.9) is a little more than 10 in floating point.
    """
    return ceil_div(100, 100 - percent)


def summarise(values: "Sequence[float] | npt.NDArray[np.float64] | pd.Series[float]") -> dict[str, Any]:
    """Mean, median, p90, p95, p99, min, max and count, NaN left out.

    Percentiles interpolate linearly between samples. One with fewer samples than `num_samples_needed` is None, and so
    is everything but the count when there are no samples.
    """
    samples = np.asarray(values, dtype=np.float64)
    samples = samples[~np.isnan(samples)]
    if samples.size == 0:
        return dict.fromkeys(("mean", "median", *(f"p{percent}" for percent in PERCENTILES), "min", "max")) | {
            "count": 0
        }
    summary: dict[str, Any] = {"mean": float(samples.mean())}  # first: what follows changes their order
    summary["median"] = float(np.median(samples, overwrite_input=True))
    percentiles = np.percentile(samples, PERCENTILES, overwrite_input=True)
    for percent, value in zip(PERCENTILES, percentiles, strict=True):
        summary[f"p{percent}"] = float(value) if samples.size >= num_samples_needed(percent) else None
    return summary | {"min": float(samples.min()), "max": float(samples.max()), "count": samples.size}
