"""What is compared, as one table: a row for each number of each run, a column for each of its predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf
from typing import Any

import numpy as np

from tetribench.calibrate.batches import RecordedBatch, are_woken, beside_seconds
from tetribench.calibrate.watch import MachineState
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware
from tetribench.metrics.compare import OVERALL, Summary

MEASURED, STEPS, OVERHEADS, VIRTUAL = "measured", "steps", "overheads", "virtual"
SOURCES = (MEASURED, STEPS, OVERHEADS, VIRTUAL)
"""The recorded run; it again with predicted step times; and also with predicted times between the steps; virtual time.

From each to the next one thing is replaced: the times of iterations, everything outside of them, the decisions.
"""

MACHINE = "machine"
"""The class of rows about a run as a whole, whose values stand under `measured`."""

OUTSIDE = "share_outside_calibration"

STATISTICS = ("mean", "median", "p90", "p95")
RESOURCES = ("makespan_s", "resource_time_s")
METRICS = ("ttft_s", "ttft_engine_s", "tpot_s", "itl_s", "jct_s")
STAGES = (
    "send_delay_s",
    "route_s",
    "prefill_queue_s",
    "prefill_s",
    "transfer_exposed_s",
    "transfer_s",
    "decode_queue_s",
    "decode_s",
)

Row = dict[str, Any]
Key = tuple[str, str, str]
"""Class, metric, statistic."""


def value_rows(summaries: Mapping[str, Summary]) -> list[Row]:
    """Of everything that is defined in all of a run's summaries, by source."""
    values = {source: _values(summary) for source, summary in summaries.items()}
    return [
        {
            **dict(zip(("class", "metric", "statistic"), key, strict=True)),
            **{name: own[key] for name, own in values.items()},
        }
        for key in values[MEASURED]
        if all(key in own for own in values.values())
    ]


def _values(summary: Summary) -> dict[Key, float]:
    found = {
        (group, metric, statistic): metrics[metric][statistic]
        for group, metrics in summary["metrics"].items()
        for metric in (*METRICS, *STAGES)
        for statistic in STATISTICS
    }
    found |= {(OVERALL, name, "total"): summary["resources"][name] for name in RESOURCES}
    return {key: value for key, value in found.items() if value is not None}


def machine_rows(state: MachineState, num_attempts: int, calibrated: Sequence[MachineState]) -> list[Row]:
    """What is known of the machine, under the name of the fact: in the run, and in the calibration at its quietest."""
    facts = {**asdict(state), "num_attempts": num_attempts}
    if calibrated:
        facts["calibration_probe_median_s"] = min(one.probe_median_s for one in calibrated)
        facts["calibration_probe_p90_s"] = min(one.probe_p90_s for one in calibrated)
    return [_fact(name, "value", value) for name, value in facts.items() if value is not None]


def step_rows(batches: Sequence[RecordedBatch], predicted_s: Sequence[float], hardware: Hardware) -> list[Row]:
    """How well the cost model foretells each recorded iteration by itself, prompts and decodes apart."""
    measured, predicted = np.array([batch.seconds for batch in batches]), np.array(predicted_s)
    is_prompt, found = np.array([bool(batch.chunks) for batch in batches]), []
    for kind, chosen in {"prefill": is_prompt, "decode": ~is_prompt}.items():
        if chosen.any():
            errors = predicted[chosen] / measured[chosen] - 1
            total = float(predicted[chosen].sum() / measured[chosen].sum() - 1)
            found.append(_fact(f"{kind}_iterations", "count", int(chosen.sum())))
            found.append(_fact(f"{kind}_step_error", "total", total))
            found.append(_fact(f"{kind}_step_error", "median", float(np.median(errors))))
            found.append(_fact(f"{kind}_step_error_size", "median", float(np.median(np.abs(errors)))))
    outside = share_outside(batches, hardware)
    return found if outside is None else [*found, _fact(OUTSIDE, "value", outside)]


def _fact(metric: str, statistic: str, value: float) -> Row:
    return {"class": MACHINE, "metric": metric, "statistic": statistic, MEASURED: value}


def predicted_seconds(batches: Sequence[RecordedBatch], cost: CostModel, hardware: Hardware) -> list[float]:
    """Of each iteration as it was, with what was swapped before it, an instance that was idle and others beside it;
    without what passes until the next one."""
    beside_share = 1.0 - 1.0 / (hardware.beside_slowdown or 1.0)
    return [
        batch.num_swapped_bytes / hardware.host_bytes_per_s
        + (cost.seconds(batch.batch()) - hardware.per_iteration_s if batch.chunks or batch.decodes else 0.0)
        + beside_s * beside_share
        + is_woken * hardware.wake_s
        for batch, beside_s, is_woken in zip(batches, beside_seconds(batches), are_woken(batches), strict=True)
    ]


def share_outside(batches: Sequence[RecordedBatch], hardware: Hardware) -> float | None:
    """The share of iterations larger than any that the profile was fitted on; None where it does not say."""
    if not hardware.fitted:
        return None
    prefill, sequences, context = (
        hardware.fitted.get(size, inf) for size in ("prefill_tokens", "sequences", "context_tokens")
    )
    outside = [
        sum(size for _, _, size in batch.chunks) > prefill
        or len(batch.decodes) > sequences
        or any(num_tokens > context for _, num_tokens in batch.decodes)
        for batch in batches
    ]
    return sum(outside) / len(outside)
