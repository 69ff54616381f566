"""A run's numbers as data frames, for a tracker and for CSV files; values in base units, NaN where undefined."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tetribench.metrics.compare import OVERALL, SystemResult
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


def curve_frame(results: Sequence[SystemResult], column: str) -> pd.DataFrame:
    """By system in how many `seconds` which `share` of all its requests was there, in steps of a hundredth."""
    frames = []
    for result in results:
        values = np.sort(result.requests[column].dropna().to_numpy())
        shares = np.arange(1, len(values) + 1) / max(len(result.requests), 1)
        places = np.unique(np.linspace(0, len(values) - 1, 101).round().astype(int)) if len(values) else np.arange(0)
        frames.append(pd.DataFrame({"system": result.system, "seconds": values[places], "share": shares[places]}))
    return pd.concat(frames, ignore_index=True)


def class_frame(results: Sequence[SystemResult]) -> pd.DataFrame:
    """A row for each metric, class (`overall` first) and system; a column for each of `STATISTICS`."""
    rows = [
        {"metric": metric.column, "class": label, "system": result.system}
        | {statistic: metrics[metric.column][statistic] for statistic in STATISTICS}
        for metric in ALL_METRICS
        for label in class_names(results)
        for result in results
        if (metrics := result.summary["metrics"].get(label)) is not None
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(STATISTICS, "float64"))


def resource_frame(results: Sequence[SystemResult]) -> pd.DataFrame:
    """A row for each resource metric; a column for each system."""
    rows = [
        {"metric": metric.name, "unit": metric.unit}
        | {result.system: result.summary["resources"][metric.name] for result in results}
        for metric in SYSTEM_METRICS
    ]
    return pd.DataFrame(rows).astype({result.system: "float64" for result in results})


def ledger_frame(results: Sequence[SystemResult]) -> pd.DataFrame:
    """A row for each system and instance; its provisioned seconds, and those of each account."""
    frames = [result.ledger.reset_index().assign(system=result.system) for result in results]
    table = pd.concat(frames, ignore_index=True)
    return table[["system", *(name for name in table.columns if name != "system")]]


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


def class_names(results: Sequence[SystemResult]) -> list[str]:
    """`overall`, then the classes if there are several."""
    names = {name for result in results for name in result.summary["metrics"]}
    return [OVERALL, *sorted(names - {OVERALL})]
