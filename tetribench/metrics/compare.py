"""One system's result as a whole, and several systems side by side against a baseline."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import reduce
from math import isfinite, nan
from operator import getitem
from typing import Any

import pandas as pd

from tetribench.core.events import Event
from tetribench.metrics.attribution import attribute
from tetribench.metrics.audit import Asked, audit
from tetribench.metrics.changes import change_table
from tetribench.metrics.clocks import clock_bounds
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.cost import Expenses, class_costs, cost_metrics
from tetribench.metrics.decisions import decision_summary, decision_table
from tetribench.metrics.energy import EnergyCounters
from tetribench.metrics.latency import ITL, METRICS, Better, add_metrics, itl_values, summarise
from tetribench.metrics.ledger import ledger_summary, ledger_table
from tetribench.metrics.price import Price
from tetribench.metrics.resources import PerfPerDollar, Tables, attainment, perf_per_dollar, resource_metrics
from tetribench.metrics.slo import Slo
from tetribench.metrics.steady import steady_state
from tetribench.metrics.timeline import (
    Accounting,
    TokenTimes,
    account,
    instance_table,
    iteration_table,
    request_table,
    token_times,
    transfer_table,
)

Summary = dict[str, Any]
OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class SystemResult:
    """Everything measured of one system. `requests` has a column for each metric."""

    system: str
    requests: pd.DataFrame
    token_times: TokenTimes
    instances: pd.DataFrame
    iterations: pd.DataFrame
    transfers: pd.DataFrame
    changes: pd.DataFrame
    ledger: pd.DataFrame
    accounting: Accounting
    summary: Summary
    """Plain values, ready for JSON: `accounting`; `metrics` by class (`overall`, then each label if there are several)
    and column; `resources` by name; `slo` by SLA class; `ledger` by instance and account; `cost` by class; `decisions`
    of the dispatchers by name; `steady_state`, its window and values by name. None where a value is undefined. Where
    more was known than the events: `audit`, `clocks` and `machine`."""
    slo: Slo

    @property
    def itl_s(self) -> "pd.Series[float]":
        """Pooled over requests. There are as many as tokens, so they are made when they are asked for."""
        return itl_values(self.requests, self.token_times)

    def lean(self) -> "SystemResult":
        """The same without what takes most memory and only a picture of this serving would need."""
        return replace(self, iterations=self.iterations.iloc[:0], transfers=self.transfers.iloc[:0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known of a serving beside its events: what was asked, and what the machine did meanwhile."""

    asked: Asked
    machine: dict[str, Any]


NO_PRICE = Price()


def measure(
    system: str,
    events: Iterable[Event],
    slo: Slo,
    price: Price = NO_PRICE,
    energy: EnergyCounters | None = None,
    beside: Beside | None = None,
) -> SystemResult:
    """All tables and statistics of one system's run; `energy` is what was read meanwhile. With what is known `beside`
    it, also what validity is judged by."""
    log = EventsByKind.of(events)
    times = token_times(log)
    requests = add_metrics(request_table(log), times)
    iterations, transfers, changes = iteration_table(log), transfer_table(log), change_table(log)
    instances = instance_table(log, iterations, transfers)
    ledger = ledger_table(log, iterations, transfers, instances)
    paid = attribute(log, requests.index, instances["num_devices"])
    requests = requests.join(paid.shares)
    tables = Tables(requests, instances, iterations, transfers, changes, slo)
    checked = {} if beside is None else _checked(log, requests, times, beside)
    decisions = decision_summary(decision_table(log))
    del events, log  # they take more memory than all that follows
    accounting, members = account(requests), _members(requests)
    expenses = Expenses(tables, ledger, price, energy)
    numbers = resource_metrics(tables) | cost_metrics(expenses)
    summary = {
        "accounting": asdict(accounting),
        "metrics": {name: _summaries(requests.loc[own], times) for name, own in members.items()},
        "resources": {name: _plain(value) for name, value in numbers.items()},
        "slo": attainment(requests, slo),
        "ledger": ledger_summary(ledger, paid.unattributed_s),
        "cost": {
            name: {key: _plain(value) for key, value in each.items()}
            for name, each in class_costs(expenses, members).items()
        },
        "decisions": decisions,
        "steady_state": steady_state(requests, times),
        **checked,
    }
    return SystemResult(
        system, requests, times, instances, iterations, transfers, changes, ledger, accounting, summary, slo
    )


def _checked(log: EventsByKind, requests: pd.DataFrame, times: TokenTimes, beside: Beside) -> Summary:
    return {
        "audit": audit(log, requests, times, beside.asked),
        "clocks": clock_bounds(requests),
        "machine": beside.machine,
    }


def _members(requests: pd.DataFrame) -> dict[str, "pd.Index[int]"]:
    """By class its requests: `overall` all, then each label's if there are several."""
    labels = sorted(requests["label"].unique())
    by_label = {label: requests.index[requests["label"] == label] for label in labels if len(labels) > 1}
    return {OVERALL: requests.index, **by_label}


def _summaries(requests: pd.DataFrame, times: TokenTimes) -> Summary:
    summaries = {metric.column: summarise(requests[metric.column]) for metric in METRICS}
    return summaries | {ITL.column: summarise(itl_values(requests, times))}


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Headline:
    """One row of the comparison: a value of a system's summary, which may depend on the baseline's.

    `of` is the column of the request table that it is the mean of, or a percentile (95), where it is one of these.
    """

    name: str
    title: str
    unit: str
    better: Better
    value: Callable[[Summary, Summary], float | None]
    of: tuple[str, int | None] | None = None

    @property
    def has_ratio(self) -> bool:
        """Counts of requests are compared by eye: most often they are equal or nothing."""
        return self.unit != "requests"


def _at(*path: str) -> Callable[[Summary, Summary], float | None]:
    """The value under `path`, whatever the baseline."""

    def value(summary: Summary, baseline: Summary) -> float | None:
        found: Any = reduce(getitem, path, summary)
        return None if found is None else float(found)

    return value


def _perf_per_dollar(summary: Summary, baseline: Summary) -> PerfPerDollar:
    values = [value(one, one) for one in (summary, baseline) for value in (_mean_jct, _resource_time)]
    return perf_per_dollar(*(nan if value is None else value for value in values))


_mean_jct = _at("metrics", OVERALL, "jct_s", "mean")
_resource_time = _at("resources", "resource_time_s")
_LOWER, _HIGHER = Better.LOWER, Better.HIGHER

HEADLINE_PERCENT = 95
"""The tail that a run of twenty requests can show; p99 needs a hundred and stands in the tables by class."""

HEADLINES = (
    Headline("mean_ttft_s", "Mean TTFT", "s", _LOWER, _at("metrics", OVERALL, "ttft_s", "mean"), ("ttft_s", None)),
    Headline("p95_ttft_s", "p95 TTFT", "s", _LOWER, _at("metrics", OVERALL, "ttft_s", "p95"), ("ttft_s", 95)),
    Headline("mean_tpot_s", "Mean TPOT", "s", _LOWER, _at("metrics", OVERALL, "tpot_s", "mean"), ("tpot_s", None)),
    Headline("mean_jct_s", "Mean JCT", "s", _LOWER, _mean_jct, ("jct_s", None)),
    Headline("p95_jct_s", "p95 JCT", "s", _LOWER, _at("metrics", OVERALL, "jct_s", "p95"), ("jct_s", 95)),
    Headline("makespan_s", "Makespan", "s", _LOWER, _at("resources", "makespan_s")),
    Headline(
        "output_throughput_tokens_per_s",
        "Output throughput",
        "tokens/s",
        _HIGHER,
        _at("resources", "output_throughput_tokens_per_s"),
    ),
    Headline("resource_time_s", "Resource usage time", "s", _LOWER, _resource_time),
    Headline("device_seconds", "Device-seconds", "device-s", _LOWER, _at("resources", "device_seconds")),
    Headline("perf_per_dollar_paper", "perf/$ (paper)", "ratio", _HIGHER, lambda *both: _perf_per_dollar(*both).paper),
    Headline("perf_per_dollar_usual", "perf/$ (usual)", "ratio", _HIGHER, lambda *both: _perf_per_dollar(*both).usual),
    Headline("num_finished", "Finished", "requests", _HIGHER, _at("accounting", "finished")),
    Headline("num_failed", "Failed", "requests", _LOWER, _at("accounting", "failed")),
)
