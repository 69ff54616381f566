"""One system's result as a whole, and several systems side by side against a baseline."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from math import isfinite, nan
from operator import getitem
from typing import Any

import pandas as pd

from tetribench.core.events import Event
from tetribench.metrics.changes import change_table
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.latency import ITL, METRICS, Better, add_metrics, itl_values, summarise
from tetribench.metrics.resources import PerfPerDollar, Tables, attainment, perf_per_dollar, resource_metrics
from tetribench.metrics.slo import Slo
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

SCHEMA_VERSION = 1
"""Of metrics.json; grows when a reader of an older one would misread it."""

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
    accounting: Accounting
    summary: Summary
    """Plain values, ready for JSON: `accounting`; `metrics` by class (`overall`, then each label if there are several)
    and column; `resources` by name; `slo` by SLA class. None where a value is undefined."""
    slo: Slo

    @property
    def itl_s(self) -> "pd.Series[float]":
        """Pooled over requests. There are as many as tokens, so they are made when they are asked for."""
        return itl_values(self.requests, self.token_times)


def measure(system: str, events: Iterable[Event], slo: Slo) -> SystemResult:
    """All tables and statistics of one system's run."""
    log = EventsByKind.of(events)
    times = token_times(log)
    requests = add_metrics(request_table(log), times)
    iterations, transfers, changes = iteration_table(log), transfer_table(log), change_table(log)
    tables = Tables(requests, instance_table(log, iterations, transfers), iterations, transfers, changes, slo)
    del events, log  # they take more memory than all that follows
    accounting = account(requests)
    summary = {
        "accounting": asdict(accounting),
        "metrics": _metrics_by_class(requests, times),
        "resources": {name: _plain(value) for name, value in resource_metrics(tables).items()},
        "slo": attainment(requests, slo),
    }
    return SystemResult(
        system, requests, times, tables.instances, iterations, transfers, changes, accounting, summary, slo
    )


def _metrics_by_class(requests: pd.DataFrame, times: TokenTimes) -> Summary:
    metrics = {OVERALL: _summaries(requests, times)}
    labels = sorted(requests["label"].unique())
    if len(labels) > 1:
        for label in labels:
            metrics[label] = _summaries(requests[requests["label"] == label], times)
    return metrics


def _summaries(requests: pd.DataFrame, times: TokenTimes) -> Summary:
    summaries = {metric.column: summarise(requests[metric.column]) for metric in METRICS}
    return summaries | {ITL.column: summarise(itl_values(requests, times))}


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Headline:
    """One row of the comparison: a value of a system's summary, which may depend on the baseline's."""

    name: str
    title: str
    unit: str
    better: Better
    value: Callable[[Summary, Summary], float | None]


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
    Headline("mean_ttft_s", "Mean TTFT", "s", _LOWER, _at("metrics", OVERALL, "ttft_s", "mean")),
    Headline("p95_ttft_s", "p95 TTFT", "s", _LOWER, _at("metrics", OVERALL, "ttft_s", "p95")),
    Headline("mean_tpot_s", "Mean TPOT", "s", _LOWER, _at("metrics", OVERALL, "tpot_s", "mean")),
    Headline("mean_jct_s", "Mean JCT", "s", _LOWER, _mean_jct),
    Headline("p95_jct_s", "p95 JCT", "s", _LOWER, _at("metrics", OVERALL, "jct_s", "p95")),
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


def comparison(results: Sequence[SystemResult], baseline: str) -> pd.DataFrame:
    """A row for each headline by name; a column for each system, and `<system>/<baseline>` for each of the others.

    NaN where a value, or a ratio to it, is undefined. Raises ValueError when no system is the baseline.
    """
    summaries = {result.system: result.summary for result in results}
    assert len(summaries) == len(results), "two systems have one name"
    if baseline not in summaries:
        raise ValueError(f"baseline={baseline}: must be one of the systems measured: {', '.join(summaries)}")
    index = pd.Index([headline.name for headline in HEADLINES], dtype="object", name="metric")
    columns = {
        system: [headline.value(summary, summaries[baseline]) for headline in HEADLINES]
        for system, summary in summaries.items()
    }
    table = pd.DataFrame(columns, index=index, dtype="float64")
    divisor = table[baseline].where(table[baseline] != 0)
    for system in summaries:
        if system != baseline:
            table[f"{system}/{baseline}"] = table[system] / divisor
    return table


def metrics_document(results: Sequence[SystemResult], baseline: str) -> dict[str, Any]:
    """The content of metrics.json: plain values, None where undefined."""
    by_name = comparison(results, baseline).to_dict("index")
    systems = [result.system for result in results]
    rows = []
    for headline in HEADLINES:
        row = {column: _plain(value) for column, value in by_name[headline.name].items()}
        rows.append(
            {
                "metric": headline.name,
                "title": headline.title,
                "unit": headline.unit,
                "better": headline.better.value,
                "values": {system: row[system] for system in systems},
                "ratios": {system: row[f"{system}/{baseline}"] for system in systems if system != baseline},
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "baseline": baseline,
        "systems": {result.system: result.summary for result in results},
        "comparison": rows,
    }
