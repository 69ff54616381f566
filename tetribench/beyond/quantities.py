"""What several of these experiments measure in a run."""

import pandas as pd

from tetribench.metrics.compare import OVERALL, SystemResult
from tetribench.metrics.resources import num_attained
from tetribench.report.finding import Quantity


def mean_of(column: str) -> Quantity:
    """The mean over all finished requests."""
    return lambda result: float(result.summary["metrics"][OVERALL][column]["mean"])


def resource(name: str) -> Quantity:
    return lambda result: float(result.summary["resources"][name])


def steady(requests: pd.DataFrame) -> pd.DataFrame:
    """The middle half of the arrivals: where those before and after last as long as a request stays, all of its life
    is spent under the full load, neither while the system fills nor while it drains."""
    num_cut = len(requests) // 4
    return requests.sort_values("arrived_s", kind="stable").iloc[num_cut : len(requests) - num_cut]


def steady_attainment(result: SystemResult) -> float:
    """Share of the steady requests that finished and kept their bounds; those that were lost count against it."""
    requests = steady(result.requests)
    return num_attained(requests, result.slo) / len(requests)


def steady_quantile(column: str, quantile: float) -> Quantity:
    """Of the steady requests that have a value."""
    return lambda result: float(steady(result.requests)[column].quantile(quantile))


def tail_of(column: str, percent: int) -> Quantity:
    """A percentile over all finished requests, whatever their number."""
    return lambda result: float(result.requests[column].quantile(percent / 100))
