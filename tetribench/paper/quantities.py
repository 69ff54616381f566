"""What is taken from each run of an experiment."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tetribench.metrics.compare import OVERALL, SystemResult
from tetribench.metrics.timeline import is_finished
from tetribench.report.finding import Quantity


def mean_of(column: str) -> Quantity:
    """The mean of a latency over the requests."""
    return lambda result: _number(result.summary["metrics"][OVERALL][column]["mean"])


def quantile_of(column: str, share: float) -> Quantity:
    """A quantile of a latency over the requests that finished."""

    def quantity(result: SystemResult) -> float:
        values = result.requests.loc[is_finished(result.requests), column].dropna()
        return float(np.quantile(values, share)) if len(values) else float("nan")

    return quantity


def resource(name: str) -> Quantity:
    """One of the resource metrics."""
    return lambda result: _number(result.summary["resources"][name])


def prefill_iterations(result: SystemResult) -> pd.DataFrame:
    """The iterations that computed prompts and nothing else."""
    iterations = result.iterations
    return iterations[(iterations["num_prefill_tokens"] > 0) & (iterations["num_decode_tokens"] == 0)]


def predictions(result: SystemResult) -> pd.DataFrame:
    """A row for each iteration of the length predictor: `started_s` and `ended_s`."""
    requests = result.requests.dropna(subset=["predicted_s"])
    each = pd.DataFrame(
        {"started_s": requests["predicted_s"] - requests["predicting_s"], "ended_s": requests["predicted_s"]}
    )
    return each[requests["predicting_s"] > 0].drop_duplicates()


def overlaps(spans: pd.DataFrame, others: pd.DataFrame) -> "pd.Series[bool]":
    """Which of `spans` share time with one of `others`, both with `started_s` and `ended_s`."""
    start, end = (others[column].to_numpy(dtype=float) for column in ("started_s", "ended_s"))
    each = zip(*(spans[column].to_numpy(dtype=float) for column in ("started_s", "ended_s")), strict=True)
    shared: Iterable[bool] = (
        bool(((start < ended_s - 1e-9) & (end > started_s + 1e-9)).any()) for started_s, ended_s in each
    )
    return pd.Series(list(shared), index=spans.index, dtype=bool)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
