"""The published profiles: which constants are known, which are fitted, and on which points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tetribench.calibrate import section3
from tetribench.calibrate.bench_runs import run_points
from tetribench.calibrate.distserve import formula_points
from tetribench.calibrate.fit import Free, Residual, fit, residuals
from tetribench.calibrate.kernels import all_reduce_bytes_per_s, decode_ratio, prefill_points

Fitted = tuple[dict[str, Any], list[Residual]]
"""Constants of a profile, and what they are off by at every point."""

MIB = 2**20

FITTED_RANGE = {"fitted_prefill_tokens": 8192, "fitted_sequences": 64, "fitted_context_tokens": 3072}
"""Of the public measurements: the largest prompt of the kernels; the largest batch and mean context of the runs."""


def v100_tp2(data: Path) -> Fitted:
    """The paper's own hardware, from the paper's own points; bandwidths are the data sheet's."""
    known = {
        "name": "v100_tp2",
        "source": "TetriInfer (arXiv 2401.11181) figures 2 to 5, V100 data sheet",
        "num_devices": section3.NUM_DEVICES,
        "constants_of": section3.NUM_DEVICES,
        "memory_bytes": 68.7e9,
        "bytes_per_s": 1.8e12,
        "copy_bytes_per_s": 150e9,
        "host_bytes_per_s": 31.5e9,
        "fitted_prefill_tokens": 1646,
        "fitted_sequences": 512,
        "fitted_context_tokens": section3.HEAVY_CONTEXT,
    }
    free = {
        "overhead_s": Free(0.012, 0.001, 0.05),
        "kv_bytes_per_s": Free(1e12, 1e11, 1.8e12),
        "flops_per_s": Free(1e14, 2e13, 2.5e14),
        "roofline_power": Free(2.0, 1.0, 8.0),
        "saturation_tokens": Free(300.0, 1.0, 1500.0),
        "per_prompt_s": Free(6e-4, 0.0, 6e-3),
        "per_sequence_s": Free(4e-4, 0.0, 3e-3),
    }
    points = section3.points()
    constants = fit(points, known, free)
    return constants, residuals(points, constants)


def a100_80g(data: Path) -> Fitted:
    """Fitted on the runs of the 40 GB device; then with the bandwidth of the 80 GB one, by the data sheets.

    DistServe's formulas, of the 80 GB device, are beside it.
    """
    known = {
        "name": "a100_80g",
        "source": "LLM-Inference-Bench (vLLM), aiconfigurator kernels, A100 data sheet",
        "memory_bytes": float(81920 * MIB),
        "copy_bytes_per_s": 300e9,
        "host_bytes_per_s": 31.5e9,
        "all_reduce_bytes_per_s": _rounded(all_reduce_bytes_per_s(data, "a100")),
        **FITTED_RANGE,
    }
    smaller_memory_bytes, smaller_bytes_per_s, bytes_per_s = 40960.0 * MIB, 1.555e12, 2.039e12
    points = [*prefill_points(data, "a100"), *run_points(data, "a100", smaller_memory_bytes)]
    smaller = fit(points, known, _free(bytes_per_s=smaller_bytes_per_s, flops_per_s=312e12))
    constants = _faster(smaller, dict.fromkeys(("bytes_per_s", "kv_bytes_per_s"), bytes_per_s / smaller_bytes_per_s))
    return constants, [*residuals(points, smaller), *residuals(formula_points(data), constants)]


def h100(data: Path) -> Fitted:
    """Fitted on the runs of 1, 2 and 4 devices, and on prefill kernels."""
    known = {
        "name": "h100",
        "source": "LLM-Inference-Bench (vLLM), aiconfigurator kernels, H100 SXM data sheet",
        "memory_bytes": float(81559 * MIB),
        "copy_bytes_per_s": 450e9,
        "host_bytes_per_s": 63e9,
        "all_reduce_bytes_per_s": _rounded(all_reduce_bytes_per_s(data, "h100")),
        **FITTED_RANGE,
    }
    points = [*prefill_points(data, "h100"), *run_points(data, "h100", float(81559 * MIB))]
    constants = fit(points, known, _free(bytes_per_s=3.35e12, flops_per_s=989e12))
    return constants, residuals(points, constants)


def h200(data: Path) -> Fitted:
    """The H100's engine with this device's kernels: bandwidths by their ratio, rates fitted on prefill.

    Runs of GH200 (96 GB), whose memory is slower, are beside it.
    """
    known = _faster(h100(data)[0], decode_ratio(data, "h200", "h100")) | {
        "name": "h200",
        "source": "H100's profile, aiconfigurator kernels, H200 SXM data sheet",
        "memory_bytes": float(143771 * MIB),
        "all_reduce_bytes_per_s": _rounded(all_reduce_bytes_per_s(data, "h200")),
    }
    every = _free(bytes_per_s=4.8e12, flops_per_s=989e12)
    rates = {name: every[name] for name in ("flops_per_s", "attention_flops_per_s")}
    points = prefill_points(data, "h200")
    constants = fit(points, {name: value for name, value in known.items() if name not in rates}, rates)
    beside = run_points(data, "gh200", 96e9, is_fitted=False)
    return constants, residuals([*points, *beside], constants)


def _free(*, bytes_per_s: float, flops_per_s: float) -> dict[str, Free]:
    """What is fitted on runs and kernels, no faster than the data sheet's bandwidth and rate."""
    return {
        "overhead_s": Free(2e-3, 1e-6, 0.1),
        "bytes_per_s": Free(0.8 * bytes_per_s, 0.4 * bytes_per_s, bytes_per_s),
        "kv_bytes_per_s": Free(0.6 * bytes_per_s, 0.05 * bytes_per_s, bytes_per_s),
        "flops_per_s": Free(0.6 * flops_per_s, 0.1 * flops_per_s, flops_per_s),
        "attention_flops_per_s": Free(0.2 * flops_per_s, 0.01 * flops_per_s, flops_per_s),
        "roofline_power": Free(2.0, 1.0, 8.0),
        "per_sequence_s": Free(5e-5, 0.0, 0.01),
        "all_reduce_s": Free(1e-5, 0.0, 1e-3),
    }


def _faster(constants: dict[str, Any], factors: dict[str, float]) -> dict[str, Any]:
    return {**constants, **{name: _rounded(constants[name] * factor) for name, factor in factors.items()}}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


PROFILES: dict[str, Callable[[Path], Fitted]] = {
    "v100_tp2": v100_tp2,
    "a100_80g": a100_80g,
    "h100": h100,
    "h200": h200,
}
"""Each reads what it needs from a folder of measurements. Raises ValueError where that is not there."""
