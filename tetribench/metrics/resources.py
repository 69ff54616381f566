"""What a system cost and delivered over a workload: one table of metrics over its four tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from tetribench.metrics.changes import role_at_work
from tetribench.metrics.latency import Better
from tetribench.metrics.slo import Bounds, Slo
from tetribench.metrics.timeline import is_finished, of_instance


@dataclass(frozen=True, slots=True)
class Tables:
    """A system's run; `requests` with its metrics added."""

    requests: pd.DataFrame
    instances: pd.DataFrame
    iterations: pd.DataFrame
    transfers: pd.DataFrame
    changes: pd.DataFrame
    slo: Slo

    @property
    def finished(self) -> pd.DataFrame:
        return self.requests[is_finished(self.requests)]

    @property
    def first_arrival_s(self) -> float:
        return float(self.requests["arrived_s"].min())

    @property
    def last_finish_s(self) -> float:
        return float(self.finished["finished_s"].max())

    @property
    def makespan_s(self) -> float:
        return self.last_finish_s - self.first_arrival_s

    @property
    def iteration_s(self) -> "pd.Series[float]":
        return self.iterations["ended_s"] - self.iterations["started_s"]


@dataclass(frozen=True, slots=True)
class ResourceMetric:
    """One number of a system; `name` is its key, unit included. NaN where it is undefined.

    `is_inside` says that only the instances themselves can tell it: NaN where one of them is opaque.
    """

    name: str
    title: str
    unit: str
    better: Better
    formula: str
    value: Callable[[Tables], float]
    is_inside: bool = False


def ratio(numerator: float, denominator: float) -> float:
    """NaN where the denominator is nothing."""
    return numerator / denominator if denominator > 0 else float("nan")


def _resource_time(tables: Tables) -> float:
    last_work_s = tables.instances["last_work_s"].dropna()
    return float((last_work_s - tables.first_arrival_s).clip(lower=0.0).sum(skipna=False))


def device_seconds(tables: Tables) -> float:
    """An instance whose start or stop is not known counts as there from the first or to the last."""
    first_s, last_s = tables.first_arrival_s, tables.last_finish_s
    from_s = tables.instances["started_s"].fillna(first_s).clip(lower=first_s)
    to_s = tables.instances["stopped_s"].fillna(last_s).clip(upper=last_s)
    return float((tables.instances["num_devices"] * (to_s - from_s).clip(lower=0.0)).sum(skipna=False))


def _utilisation(tables: Tables) -> float:
    """Work before the first arrival or after the last finish is outside of the span that it is compared with."""
    ended_s = tables.iterations["ended_s"].clip(upper=tables.last_finish_s)
    started_s = tables.iterations["started_s"].clip(lower=tables.first_arrival_s)
    busy_s = float((ended_s - started_s).clip(lower=0.0).sum())
    return ratio(busy_s, len(tables.instances) * tables.makespan_s)


def _num_output_tokens(tables: Tables) -> float:
    return float(tables.finished["num_output_tokens"].sum())


def _num_total_tokens(tables: Tables) -> float:
    return _num_output_tokens(tables) + float(tables.finished["num_prompt_tokens"].sum())


def num_attained(requests: pd.DataFrame, slo: Slo) -> int:
    """How many requests finished and met every bound of their SLA class."""
    return sum(_num_within(own, slo.bounds_of(str(name))) for name, own in requests.groupby("sla_class"))


def _num_within(requests: pd.DataFrame, bounds: Bounds) -> int:
    good = is_finished(requests)
    if bounds.ttft_s is not None:
        good &= requests["ttft_s"] <= bounds.ttft_s
    if bounds.tpot_s is not None:
        good &= ~(requests["tpot_s"] > bounds.tpot_s)
    return int(good.sum())


def attainment(requests: pd.DataFrame, slo: Slo) -> dict[str, dict[str, float]]:
    """By SLA class, how many requests were submitted, how many of them attained their SLO, and the share."""
    found = {}
    for name, own in requests.groupby("sla_class"):
        submitted, attained = len(own), num_attained(own, slo)
        found[str(name)] = {
            "num_submitted": submitted,
            "num_attained": attained,
            "attained_share": attained / submitted,
        }
    return found


def _goodput(tables: Tables) -> float:
    return ratio(num_attained(tables.requests, tables.slo), tables.makespan_s)


def _attained_share(tables: Tables) -> float:
    return ratio(num_attained(tables.requests, tables.slo), len(tables.requests))


def _kv_share(tables: Tables) -> "pd.Series[float]":
    return tables.iterations["num_used_blocks"] / of_instance(tables.iterations, tables.instances["num_blocks"])


def _kv_mean(tables: Tables) -> float:
    share, weight = _kv_share(tables), tables.iteration_s
    return ratio(float((share * weight).sum()), float(weight[share.notna()].sum()))


def _num_changes(tables: Tables, what: str) -> float:
    return float((tables.changes["what"] == what).sum())


def _transfer_bytes(tables: Tables) -> float:
    return float(tables.transfers["num_bytes"].sum())


def _prediction_accuracy(tables: Tables) -> float:
    predicted = tables.finished.dropna(subset=["predicted_low"])
    low, high = predicted["predicted_low"], predicted["predicted_high"]
    is_right = predicted["num_output_tokens"].ge(low) & predicted["num_output_tokens"].lt(high)
    return ratio(float(is_right.sum()), len(predicted))


def _bandwidth(tables: Tables) -> float:
    moving_s = tables.transfers["ended_s"] - tables.transfers["started_s"]
    return ratio(_transfer_bytes(tables), float(moving_s.sum()))


_HIGHER, _LOWER = Better.HIGHER, Better.LOWER

RESOURCE_METRICS = (
    ResourceMetric(
        "makespan_s", "Makespan", "s", _LOWER, "last finished - first arrived", lambda tables: tables.makespan_s
    ),
    ResourceMetric(
        "resource_time_s",
        "Resource usage time (the paper's)",
        "s",
        _LOWER,
        "sum over instances of (its last work - first arrived); an instance counts once whatever its devices",
        _resource_time,
        is_inside=True,
    ),
    ResourceMetric(
        "device_seconds",
        "Device-seconds",
        "device-s",
        _LOWER,
        "sum over instances of devices x time provisioned within the makespan",
        device_seconds,
    ),
    ResourceMetric(
        "busy_s",
        "Busy time",
        "s",
        _LOWER,
        "sum over iterations of (ended - started)",
        lambda tables: float(tables.iteration_s.sum()),
        is_inside=True,
    ),
    ResourceMetric(
        "utilisation",
        "Utilisation",
        "share",
        _HIGHER,
        "busy time inside the makespan / (number of instances x makespan)",
        _utilisation,
        is_inside=True,
    ),
    ResourceMetric(
        "request_throughput_per_s",
        "Request throughput",
        "requests/s",
        _HIGHER,
        "finished requests / makespan",
        lambda tables: ratio(len(tables.finished), tables.makespan_s),
    ),
    ResourceMetric(
        "output_throughput_tokens_per_s",
        "Output throughput",
        "tokens/s",
        _HIGHER,
        "output tokens of finished requests / makespan",
        lambda tables: ratio(_num_output_tokens(tables), tables.makespan_s),
    ),
    ResourceMetric(
        "output_throughput_per_device_tokens_per_s",
        "Output throughput per device",
        "tokens/s",
        _HIGHER,
        "output tokens of finished requests / device-seconds",
        lambda tables: ratio(_num_output_tokens(tables), device_seconds(tables)),
    ),
    ResourceMetric(
        "total_throughput_tokens_per_s",
        "Total throughput",
        "tokens/s",
        _HIGHER,
        "prompt and output tokens of finished requests / makespan",
        lambda tables: ratio(_num_total_tokens(tables), tables.makespan_s),
    ),
    ResourceMetric(
        "goodput_per_s",
        "Goodput",
        "requests/s",
        _HIGHER,
        "finished requests with TTFT and TPOT within the SLO of their SLA class / makespan",
        _goodput,
    ),
    ResourceMetric(
        "slo_attained_share",
        "SLO attainment",
        "share",
        _HIGHER,
        "finished requests with TTFT and TPOT within the SLO of their SLA class / submitted requests",
        _attained_share,
    ),
    ResourceMetric(
        "kv_occupancy_mean",
        "Mean KV occupancy",
        "share",
        _LOWER,
        "mean over iterations, weighted by their time, of used blocks / blocks of the instance",
        _kv_mean,
        is_inside=True,
    ),
    ResourceMetric(
        "kv_occupancy_max",
        "Peak KV occupancy",
        "share",
        _LOWER,
        "max over iterations of used blocks / blocks of the instance",
        lambda tables: float(_kv_share(tables).max()),
        is_inside=True,
    ),
    ResourceMetric(
        "num_preemptions",
        "Preemptions",
        "preemptions",
        _LOWER,
        "number of preempted events",
        lambda tables: float(tables.requests["num_preemptions"].sum()),
        is_inside=True,
    ),
    ResourceMetric(
        "num_retries",
        "Retries after a loss",
        "retries",
        _LOWER,
        "number of retried events",
        lambda tables: float(tables.requests["num_retries"].sum()),
    ),
    ResourceMetric(
        "num_lost_instances",
        "Lost instances",
        "instances",
        _LOWER,
        "number of instance_lost events",
        lambda tables: _num_changes(tables, "lost"),
    ),
    ResourceMetric(
        "num_flips", "Flips", "flips", _LOWER, "number of flipped events", lambda tables: _num_changes(tables, "flip")
    ),
    ResourceMetric(
        "num_swaps",
        "Preemptions by swapping",
        "preemptions",
        _LOWER,
        "number of preempted events whose KV went to host memory",
        lambda tables: float(tables.requests["num_swaps"].sum()),
        is_inside=True,
    ),
    ResourceMetric(
        "num_recomputations",
        "Preemptions by recomputing",
        "preemptions",
        _LOWER,
        "number of preempted events whose KV was dropped",
        lambda tables: float((tables.requests["num_preemptions"] - tables.requests["num_swaps"]).sum()),
        is_inside=True,
    ),
    ResourceMetric(
        "num_recomputed_tokens",
        "Recomputed tokens",
        "tokens",
        _LOWER,
        "sum of tokens over preempted events whose KV was dropped",
        lambda tables: float(tables.requests["num_recomputed_tokens"].sum()),
        is_inside=True,
    ),
    ResourceMetric(
        "swapped_bytes",
        "KV bytes swapped, out and in",
        "bytes",
        _LOWER,
        "sum over iterations of bytes swapped out and in",
        lambda tables: float(tables.iterations["num_swapped_bytes"].sum()),
        is_inside=True,
    ),
    ResourceMetric(
        "prediction_accuracy",
        "Right length predictions",
        "share",
        _HIGHER,
        "finished requests whose response has at least low and fewer than high tokens / finished requests predicted",
        _prediction_accuracy,
        is_inside=True,
    ),
    ResourceMetric(
        "transfer_bytes",
        "KV bytes sent",
        "bytes",
        _LOWER,
        "sum of bytes over transfers",
        _transfer_bytes,
        is_inside=True,
    ),
    ResourceMetric(
        "transfer_bandwidth_bytes_per_s",
        "Effective KV bandwidth",
        "bytes/s",
        _HIGHER,
        "sum of bytes over transfers / sum over transfers of (ended - started)",
        _bandwidth,
        is_inside=True,
    ),
)


def resource_metrics(tables: Tables) -> dict[str, float]:
    """Every resource metric by name, and `busy_<role>_instances_s`, busy time by the role at the time."""
    is_opaque = bool(tables.instances["is_opaque"].any())
    metrics = {
        metric.name: np.nan if is_opaque and metric.is_inside else metric.value(tables) for metric in RESOURCE_METRICS
    }
    roles = role_at_work(tables.iterations, tables.instances, tables.changes)
    for role, busy_s in tables.iteration_s.groupby(roles).sum().items():
        metrics[f"busy_{role}_instances_s"] = float(busy_s)
    return metrics


class PerfPerDollar(NamedTuple):
    """Performance per dollar against a baseline; above 1 is better than it."""

    paper: float
    """Reproduces the five values that the paper prints without a definition."""
    usual: float


def perf_per_dollar(
    mean_jct_s: float, resource_time_s: float, baseline_mean_jct_s: float, baseline_resource_time_s: float
) -> PerfPerDollar:
    """Both readings of the term; NaN where a value is missing or zero."""
    if not all(value > 0 for value in (mean_jct_s, resource_time_s, baseline_mean_jct_s, baseline_resource_time_s)):
        return PerfPerDollar(np.nan, np.nan)
    cost = resource_time_s / baseline_resource_time_s
    jct_fall = 1 - mean_jct_s / baseline_mean_jct_s
    return PerfPerDollar((1 + jct_fall) / cost, baseline_mean_jct_s / mean_jct_s / cost)
