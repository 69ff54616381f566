"""A run's numbers as data frames, for a tracker and for CSV files; values in base units, NaN where undefined."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tetribench.metrics.compare import OVERALL, Summary
from tetribench.metrics.cost import SYSTEM_METRICS
from tetribench.metrics.latency import ITL, METRICS, PERCENTILES, Metric
from tetribench.metrics.paired import Served
from tetribench.report.runs import Run

STATISTICS = ("count", "mean", "median", *(f"p{percent}" for percent in PERCENTILES))

ALL_METRICS = (*METRICS, ITL)


def metric_of(column: str) -> Metric:
    return next(metric for metric in ALL_METRICS if metric.column == column)


def comparison_frame(run: Run) -> pd.DataFrame:
    """A row for each headline metric; a column for each system, each ratio to the baseline, and that one's interval."""
    rows = []
    for row in run.compared:
        ratios = {f"{system}/{run.baseline}": ratio for system, ratio in row.ratios.items()}
        bounds = {f"{name} {end}": getattr(ratio, end) for name, ratio in ratios.items() for end in ("low", "high")}
        found = {name: ratio.value for name, ratio in ratios.items()}
        rows.append({"metric": row.headline.name, **row.values, **found, **bounds})
    return pd.DataFrame(rows)


def ratio_frame(run: Run) -> pd.DataFrame:
    """A row for each headline metric and system with a ratio to the baseline, both named in `metric`."""
    rows = [
        {"metric": f"{row.headline.title}, {system}", "ratio": ratio.value}
        for row in run.compared
        for system, ratio in row.ratios.items()
    ]
    return pd.DataFrame(rows, columns=["metric", "ratio"]).dropna()


def curve_frame(requests: Mapping[str, Sequence[pd.DataFrame]], column: str) -> pd.DataFrame:
    """By system in how many `seconds` which `share` of all its requests was there, in steps of a hundredth.

    `requests` are the request tables of its servings.
    """
    frames = []
    for system, tables in requests.items():
        values = np.sort(np.concatenate([table[column].dropna() for table in tables]))
        shares = np.arange(1, len(values) + 1) / max(sum(map(len, tables)), 1)
        places = np.unique(np.linspace(0, len(values) - 1, 101).round().astype(int)) if len(values) else np.arange(0)
        frames.append(pd.DataFrame({"system": system, "seconds": values[places], "share": shares[places]}))
    return pd.concat(frames, ignore_index=True)


def class_frame(pooled: Mapping[str, Summary]) -> pd.DataFrame:
    """A row for each metric, class (`overall` first) and system; a column for each of `STATISTICS`, and the bounds of
    the mean's interval."""
    columns = (*STATISTICS, "low", "high")
    rows = [
        {"metric": metric.column, "class": label, "system": system}
        | {column: metrics[metric.column][column] for column in columns}
        for metric in ALL_METRICS
        for label in class_names(pooled)
        for system, summary in pooled.items()
        if (metrics := summary["metrics"].get(label)) is not None
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(columns, "float64"))


def resource_frame(pooled: Mapping[str, Summary]) -> pd.DataFrame:
    """A row for each resource metric; a column for each system, the mean of its servings."""
    rows = [
        {"metric": metric.name, "unit": metric.unit}
        | {system: summary["resources"][metric.name]["mean"] for system, summary in pooled.items()}
        for metric in SYSTEM_METRICS
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(pooled, "float64"))


def ledger_frame(pooled: Mapping[str, Summary]) -> pd.DataFrame:
    """A row for each system and instance; its provisioned seconds, and those of each account, summed over servings."""
    rows = [
        {"system": system, "instance": instance, **row}
        for system, summary in pooled.items()
        for instance, row in summary["ledger"]["instances"].items()
    ]
    return pd.DataFrame(rows)


def request_frame(served: Sequence[Served]) -> pd.DataFrame:
    """A row for each serving and request: its whole life, its metrics, and when each token came (`token_times_s`)."""
    frames = []
    for repeat, slot, result in served:
        frame = result.requests.reset_index()
        frame.insert(0, "slot", slot)
        frame.insert(0, "repeat", repeat)
        frame.insert(0, "system", result.system)
        times = [result.token_times.get(request, np.empty(0)) for request in frame["request"]]
        frame["token_times_s"] = pd.Series(times, dtype="object")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def class_names(pooled: Mapping[str, Summary]) -> list[str]:
    """`overall`, then the classes if there are several."""
    names = {name for summary in pooled.values() for name in summary["metrics"]}
    return [OVERALL, *sorted(names - {OVERALL})]
