"""The profile of this machine: a grid of steps and a rehearsal, measured, and the constants fitted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from tetribench.calibrate.fit import Free, Residual, fit, residuals
from tetribench.calibrate.rehearsal import Rehearsal
from tetribench.calibrate.rehearsed import gaps_between, messages_s, points_of
from tetribench.calibrate.steps import Point, Step
from tetribench.calibrate.timer import Measured, Timing
from tetribench.core.units import GIB
from tetribench.engine.model import Model, ModelShape

MEMORY_SHARE = 0.9
"""`engine.memory_share` by default: what weights and KV may take of the memory that the profile names."""

BYTES_BY_DTYPE = {"float32": 4, "float16": 2, "bfloat16": 2}

ENGINE_FREE = {
    "overhead_s": Free(2e-3, 1e-6, 10.0),
    "kv_bytes_per_s": Free(1e10, 1e7, 1e14),
    "flops_per_s": Free(1e11, 1e8, 1e16),
    "attention_flops_per_s": Free(1e11, 1e8, 1e16),
    "roofline_power": Free(1.5, 1.0, 8.0),
    "saturation_tokens": Free(50.0, 1e-3, 5e3),
    "per_prompt_s": Free(1e-4, 0.0, 10.0),
    "per_sequence_s": Free(3e-5, 0.0, 10.0),
    "batching_s": Free(3e-4, 0.0, 10.0),
}
"""On the grid. The bandwidth of the weights is known (that of a copy): one model cannot part them from the overhead."""

AGAIN = ("overhead_s", "kv_bytes_per_s", "flops_per_s", "attention_flops_per_s", "saturation_tokens", "per_prompt_s",
         "per_sequence_s", "batching_s")  # fmt: skip
"""On the rehearsal, from what the grid said."""
WAKE_FREE = Free(1e-3, 0.0, 1.0)
BESIDE_FREE = Free(1.1, 1.0, 4.0)


@dataclass(frozen=True, slots=True)
class LocalFit:
    """`engine` are the constants of the engine by itself, `constants` those of the engine in a run."""

    engine: dict[str, Any]
    constants: dict[str, Any]
    residuals: list[Residual]

    def errors(self, group: str) -> list[float]:
        return [abs(one.error) for one in self.residuals if one.point.group == group]


def fit_local(
    model: Model,
    steps: Sequence[Step],
    timings: Sequence[Timing],
    measured: Measured,
    rehearsals: Sequence[Rehearsal],
) -> LocalFit:
    """In two stages: the engine's rates on the grid, where copies of it work at once; then, setting out from there, on
    iterations of the rehearsal, which knows for each how long another instance worked beside it.

    Where only one instance was rehearsed, nothing is known of others beside it.
    """
    shape = model.shape()
    in_grid = [_point(shape, step, timing.seconds) for step, timing in zip(steps, timings, strict=True)]
    alone = fit(in_grid, _known(model, steps, measured), ENGINE_FREE)
    constants, in_runs = fit_rehearsed(model, alone, rehearsals)
    return LocalFit(alone, constants, [*residuals(in_grid, alone), *in_runs])


def fit_rehearsed(
    model: Model, alone: dict[str, Any], rehearsals: Sequence[Rehearsal]
) -> tuple[dict[str, Any], list[Residual]]:
    """Constants of the engine in a run, from those that it has `alone`; and how far they are from the rehearsals."""
    points = [point for one in rehearsals for point in points_of(one, model.shape())]
    free = {name: replace(ENGINE_FREE[name], start=alone[name], stays=True) for name in AGAIN if alone[name] > 0}
    free["wake_s"] = WAKE_FREE
    if any(point.beside_s for point in points):
        free["beside_slowdown"] = BESIDE_FREE
    there = fit(points, {name: value for name, value in alone.items() if name not in free}, free)
    per_iteration_s, per_sequence_s = gaps_between(rehearsals)
    between = {
        "per_iteration_s": _digits(per_iteration_s),
        "per_sequence_s": _digits(there["per_sequence_s"] + per_sequence_s),
        "message_s": _digits(median(messages_s(rehearsals))),
    }
    return {**there, **between}, residuals(points, there)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _known(model: Model, steps: Sequence[Step], measured: Measured) -> dict[str, Any]:
    """The constants that are read off, not fitted."""
    facts, bytes_per_value = measured.facts, BYTES_BY_DTYPE[measured.facts["dtype"]]
    kv_bytes = facts["num_blocks"] * facts["block_bytes"]
    weight_bytes = model.shape().num_parameters * bytes_per_value
    return {
        "name": f"local {facts['device']}",
        "source": f"measured here with {model.name}",
        "memory_bytes": float(f"{(weight_bytes + kv_bytes) / MEMORY_SHARE * 1.001:.5g}"),
        "kv_memory_gib": kv_bytes / GIB,
        "bytes_per_s": float(f"{measured.copy_bytes_per_s:.4g}"),
        "copy_bytes_per_s": float(f"{measured.copy_bytes_per_s:.4g}"),
        "copy_latency_s": float(f"{measured.copy_latency_s:.4g}"),
        "host_bytes_per_s": float(f"{measured.host_bytes_per_s:.4g}"),
        "bytes_per_value": bytes_per_value,
        "fitted_prefill_tokens": max(sum(size for _, size in step.chunks) for step in steps),
        "fitted_sequences": max(len(step.contexts) for step in steps),
        "fitted_context_tokens": max(max(step.contexts, default=0) for step in steps),
    }


def _point(model: ModelShape, step: Step, seconds: float) -> Point:
    return Point(
        group="engine", series=series_of(step), x=float(size_of(step)), model=model, step=step, measured_s=seconds
    )


def series_of(step: Step) -> str:
    """What is the same in the steps of a line of the residual plot."""
    if not step.contexts:
        start, size = step.chunks[0]
        return f"chunk after {start}" if len(step.chunks) == 1 else f"prompts of {size}"
    shortest, longest = min(step.contexts), max(step.contexts)
    decodes = f"decodes of {longest}" if shortest == longest else f"decodes of {shortest} to {longest}"
    return decodes if not step.chunks else f"chunk of {step.chunks[0][1]}, {decodes}"


def size_of(step: Step) -> int:
    """What differs in them: the decodes, the prompts, or the tokens of the one chunk."""
    if step.contexts:
        return len(step.contexts)
    return len(step.chunks) if len(step.chunks) > 1 else step.chunks[0][1]
