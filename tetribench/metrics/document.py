"""The content of metrics.json: plain values, None where undefined."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from tetribench.metrics.compare import Summary, SystemResult
from tetribench.metrics.paired import Compared, ServingValues
from tetribench.metrics.rule import Rule

SCHEMA_VERSION = 2
"""Grows when a reader of an older one would misread it."""


def metrics_document(
    results: Sequence[SystemResult],
    rows: Sequence[Compared],
    servings: Sequence[ServingValues],
    *,
    pooled: dict[str, Summary],
    baseline: str,
    rule: Rule,
    num_repeats: int,
) -> dict[str, Any]:
    """`results` are one serving of each system, whose summaries stand under `systems`; `pooled` are by system all of
    its servings as one. The comparison is over all servings.

    In a row of the comparison `values` and `ratios` are by system; so are `tests`, which say how sure a ratio is.
    `servings` has the values of each serving by itself, so that others can do these statistics again.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "baseline": baseline,
        "num_repeats": num_repeats,
        "verdict": asdict(rule),
        "systems": {result.system: result.summary for result in results},
        "pooled": pooled,
        "comparison": [_row(row, [result.system for result in results]) for row in rows],
        "servings": [_serving(one) for one in servings],
    }


def _serving(one: ServingValues) -> dict[str, Any]:
    return one._asdict() | {"values": {name: _plain(value) for name, value in one.values.items()}}


def _row(row: Compared, systems: Sequence[str]) -> dict[str, Any]:
    ratios = {system: asdict(row.ratios[system]) for system in systems if system in row.ratios}
    return {
        "metric": row.headline.name,
        "title": row.headline.title,
        "unit": row.headline.unit,
        "better": row.headline.better.value,
        "values": {system: _plain(row.values[system]) for system in systems},
        "ratios": {system: _plain(ratio.pop("value")) for system, ratio in ratios.items()},
        "tests": {
            system: {name: _plain(value) if isinstance(value, float) else str(value) for name, value in ratio.items()}
            | {"is_inside_band": row.ratios[system].is_inside_band}
            for system, ratio in ratios.items()
        },
    }


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if isfinite(value) else None
