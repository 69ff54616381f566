"""What the devices of a run drew, from counters of energy that were read beside it."""

from dataclasses import dataclass
from math import nan
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt


class Reading(msgspec.Struct, frozen=True):
    """A line of energy.jsonl: what each device, by its UUID, has drawn since some moment before the run."""

    time_s: float
    joules: dict[str, float]


@dataclass(frozen=True, slots=True)
class EnergyCounters:
    """Readings in the order in which they were taken, on the run's clock; every device was read every time."""

    time_s: npt.NDArray[np.float64]
    joules: dict[str, npt.NDArray[np.float64]]

    def between(self, from_s: float, to_s: float, devices: set[str]) -> float:
        """Joules that these devices drew, linear between readings; NaN where not all were read from end to end."""
        is_covered = len(self.time_s) > 0 and self.time_s[0] <= from_s <= to_s <= self.time_s[-1]
        if not is_covered or not devices or not devices <= self.joules.keys():
            return nan
        drawn = [np.interp([from_s, to_s], self.time_s, self.joules[device]) for device in devices]
        return float(sum(after - before for before, after in drawn))


def read_energy(path: Path) -> EnergyCounters | None:
    """None where nothing was measured. A last line that was cut off is left out."""
    if not path.is_file():
        return None
    lines = path.read_bytes().splitlines(keepends=True)
    readings = [msgspec.json.decode(line, type=Reading) for line in lines if line.endswith(b"\n")]
    devices = readings[0].joules if readings else {}
    return EnergyCounters(
        np.array([reading.time_s for reading in readings]),
        {device: np.array([reading.joules[device] for reading in readings]) for device in devices},
    )
