"""All servings of a system as one: samples are pooled, seconds and counts summed, values of whole servings averaged.

No percentile is averaged. A mean of samples has a 95 % interval over repeats: servings of one repeat had the same
requests and count as one. What is of a whole serving (a makespan, a rate) has its mean and its range over servings.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.metrics.compare import OVERALL, Summary
from tetribench.metrics.intervals import clustered_interval
from tetribench.metrics.latency import ITL, METRICS, itl_values, summarise
from tetribench.metrics.ledger import ledger_summary
from tetribench.metrics.paired import Served
from tetribench.metrics.price import Price
from tetribench.metrics.steady import VALUES
from tetribench.metrics.timeline import is_finished


def pool(served: Sequence[Served], price: Price) -> Summary:
    """Plain values of all servings of one system, ready for JSON; None where one is undefined.

    As a serving's summary, but with `num_servings`, and with these differences. `metrics` also have `low` and `high`,
    the interval of the mean, and `lowest_mean` and `highest_mean` of single servings. `resources` have by name `mean`,
    `lowest` and `highest`. `steady_state` has `num_servings` that have one, and of these alone the same values
    `inside` of it and of the `whole` serving.
    """
    summaries = [one.result.summary for one in served]
    counts = pd.DataFrame([summary["accounting"] for summary in summaries]).sum()
    metrics = {label: _metrics(served, label) for label in _labels(served)}
    ledgers = pd.concat([one.result.ledger for one in served]).groupby(level=0, sort=False)
    seconds = [name for name in served[0].result.ledger.columns if name not in ("role", "num_devices")]
    ledger = ledgers[["role", "num_devices"]].first().join(ledgers[seconds].sum())
    return {
        "num_servings": len(served),
        "accounting": {str(name): int(number) for name, number in counts.items()},
        "metrics": metrics,
        "resources": _resources(summaries),
        "slo": _attainment(summaries),
        "ledger": ledger_summary(ledger, sum(summary["ledger"]["unattributed_s"] for summary in summaries)),
        "cost": {label: _costs(summaries, label, metrics[label]["jct_s"]["count"], price) for label in metrics},
        "decisions": _decisions(summaries),
        "steady_state": _steady_state(served),
    }


def _labels(served: Sequence[Served]) -> list[str]:
    """`overall`, then each class if there are several."""
    labels = sorted({str(label) for one in served for label in one.result.requests["label"].unique()})
    return [OVERALL, *(labels if len(labels) > 1 else ())]


def _metrics(served: Sequence[Served], label: str) -> Summary:
    tables = [one.result.requests for one in served]
    if label != OVERALL:
        tables = [table[table["label"] == label] for table in tables]
    samples = {metric.column: [table[metric.column] for table in tables] for metric in METRICS}
    samples[ITL.column] = [itl_values(table, one.result.token_times) for table, one in zip(tables, served, strict=True)]
    repeats = [one.repeat for one in served]
    return {column: _distribution(each, repeats) for column, each in samples.items()}


def _distribution(samples: Sequence["pd.Series[float]"], repeats: Sequence[int]) -> Summary:
    known = [each.dropna().to_numpy(np.float64) for each in samples]
    means = [float(each.mean()) for each in known if each.size]
    by_repeat: dict[int, list[npt.NDArray[Any]]] = {}
    for repeat, each in zip(repeats, known, strict=True):
        by_repeat.setdefault(repeat, []).append(each)
    interval = clustered_interval([np.concatenate(each) for each in by_repeat.values()])
    return summarise(np.concatenate(known)) | {
        "low": _plain(interval.low),
        "high": _plain(interval.high),
        "lowest_mean": min(means, default=None),
        "highest_mean": max(means, default=None),
    }


def _resources(summaries: Sequence[Summary]) -> Summary:
    """Busy time of a role that a serving has not got is 0; what is undefined in one serving is so in all."""
    found = {}
    for name in dict.fromkeys(name for summary in summaries for name in summary["resources"]):
        values = [summary["resources"].get(name, 0.0) for summary in summaries]
        is_known = None not in values
        found[name] = {
            "mean": fmean(values) if is_known else None,
            "lowest": min(values) if is_known else None,
            "highest": max(values) if is_known else None,
        }
    return found


def _attainment(summaries: Sequence[Summary]) -> Summary:
    found = {}
    for name in sorted({name for summary in summaries for name in summary["slo"]}):
        own = [summary["slo"][name] for summary in summaries if name in summary["slo"]]
        submitted, attained = (sum(each[key] for each in own) for key in ("num_submitted", "num_attained"))
        found[name] = {"num_submitted": submitted, "num_attained": attained, "attained_share": attained / submitted}
    return found


def _costs(summaries: Sequence[Summary], label: str, num_finished: int, price: Price) -> Summary:
    own = [summary["cost"].get(label) for summary in summaries]
    busy_s, used_s = (
        _sum(each[name] for each in own if each is not None) for name in ("busy_device_seconds", "device_seconds")
    )
    per_request_s = None if used_s is None or not num_finished else used_s / num_finished
    return {
        "busy_device_seconds": busy_s,
        "device_seconds": used_s,
        "device_seconds_per_request": per_request_s,
        "cost_per_request_usd": None if per_request_s is None else _plain(price.of(per_request_s)),
    }


def _decisions(summaries: Sequence[Summary]) -> Summary:
    """Shares and ages are means over decisions, not over servings."""
    own = [summary["decisions"] for summary in summaries if summary["decisions"]["num_decisions"]]
    num_decisions = sum(each["num_decisions"] for each in own)
    found: Summary = {"num_decisions": num_decisions}
    for name in ("single_share", "tied_share", "busier_share", "none_fitting_share", "mean_age_s"):
        total = _sum(None if each[name] is None else each[name] * each["num_decisions"] for each in own)
        found[name] = None if total is None or not own else total / num_decisions
    return found | {"max_age_s": max((each["max_age_s"] for each in own), default=None)}


def _steady_state(served: Sequence[Served]) -> Summary:
    states = [one.result.summary["steady_state"] for one in served]
    steady = [number for number, state in enumerate(states) if state["why_not"] is None]
    if not steady:
        return {"num_servings": 0, "inside": dict.fromkeys(VALUES), "whole": dict.fromkeys(VALUES)}
    tables = [served[number].result.requests for number in steady]
    windows = [(states[number]["from_s"], states[number]["to_s"]) for number in steady]
    inside = [
        table[table["arrived_s"].between(*window) & is_finished(table)]
        for table, window in zip(tables, windows, strict=True)
    ]
    resources = [served[number].result.summary["resources"] for number in steady]
    return {
        "num_servings": len(steady),
        "inside": _values(inside, [states[number] for number in steady]),
        "whole": _values(tables, resources),
    }


def _values(tables: Sequence[pd.DataFrame], rates: Sequence[dict[str, Any]]) -> Summary:
    """The values of a steady state: latencies of all requests in `tables`, and the means of `rates`."""
    ttft, tpot, jct = (
        summarise(pd.concat([table[column] for table in tables])) for column in ("ttft_s", "tpot_s", "jct_s")
    )
    means = [fmean(rate[name] for rate in rates) for name in VALUES[-2:]]
    return dict(zip(VALUES, (ttft["mean"], ttft["p95"], tpot["mean"], jct["mean"], jct["p95"], *means), strict=True))


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one of them is unknown."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if isfinite(value) else None
