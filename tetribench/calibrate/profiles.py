"""The published profiles: which constants are known, which are fitted, and on which points."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tetribench.calibrate import section3
from tetribench.calibrate.fit import Free, Residual, fit, residuals
from tetribench.calibrate.steps import Point


@dataclass(frozen=True, slots=True)
class Profile:
    """`known` are from data sheets, `free` from `points`, which read what they need from a folder of measurements."""

    known: dict[str, Any]
    free: dict[str, Free]
    points: Callable[[Path], list[Point]]


PROFILES = {
    "v100_tp2": Profile(
        known={
            "name": "v100_tp2",
            "source": "TetriInfer (arXiv 2401.11181) figures 2 to 5, V100 data sheet",
            "num_devices": 2,
            "constants_of": 2,
            "memory_bytes": 68.7e9,
            "bytes_per_s": 1.8e12,
            "copy_bytes_per_s": 150e9,
            "host_bytes_per_s": 31.5e9,
        },
        free={
            "overhead_s": Free(0.012, 0.001, 0.05),
            "kv_bytes_per_s": Free(1e12, 1e11, 1.8e12),
            "flops_per_s": Free(1e14, 2e13, 2.5e14),
            "roofline_power": Free(2.0, 1.0, 8.0),
            "saturation_tokens": Free(300.0, 1.0, 1500.0),
            "per_prompt_s": Free(6e-4, 0.0, 6e-3),
            "per_sequence_s": Free(4e-4, 0.0, 3e-3),
        },
        points=lambda data: section3.points(),
    ),
}


def refit(name: str, data: Path) -> tuple[dict[str, Any], list[Residual]]:
    """Constants and residuals of the profile `name`. Raises ValueError where the measurements are not in `data`."""
    profile = PROFILES[name]
    points = profile.points(data)
    constants = fit(points, profile.known, profile.free)
    return constants, residuals(points, constants)
