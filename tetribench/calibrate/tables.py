"""Residuals as a table in a file, small enough to be read and kept beside the constants."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tetribench.calibrate.fit import Residual

COLUMNS = ("group", "series", "x", "measured_ms", "predicted_ms", "error", "fitted")


def write_residuals(found: Sequence[Residual], path: Path) -> None:
    """One line for each point; `error` is a fraction of what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in found:
            point = one.point
            milliseconds = [f"{shown:.4g}" for shown in one.shown_ms]
            fitted = "yes" if point.is_fitted else "no"
            writer.writerow([point.group, point.series, f"{point.x:g}", *milliseconds, f"{one.error:.3f}", fitted])


def summary(found: Sequence[Residual]) -> list[str]:
    """A line for each group: how many points, and their median and largest error."""
    groups: dict[tuple[str, bool], list[float]] = {}
    for one in found:
        groups.setdefault((one.point.group, one.point.is_fitted), []).append(abs(one.error))
    return [
        f"{group}{'' if is_fitted else ' (not fitted)'}: {len(errors)} points, "
        f"median error {median(errors):.1%}, largest {max(errors):.1%}"
        for (group, is_fitted), errors in groups.items()
    ]
