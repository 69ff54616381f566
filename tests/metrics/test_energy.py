from math import isnan
from pathlib import Path

import numpy as np
import pytest

from tetribench.metrics.energy import EnergyCounters, read_energy

COUNTERS = EnergyCounters(
    np.array([0.0, 2.0, 4.0]), {"a": np.array([10.0, 30.0, 40.0]), "b": np.array([0.0, 1.0, 2.0])}
)


def test_what_was_drawn_is_linear_between_readings() -> None:
    assert COUNTERS.between(0.0, 4.0, {"a"}) == 30.0
    assert COUNTERS.between(1.0, 3.0, {"a"}) == pytest.approx(35.0 - 20.0)
    assert COUNTERS.between(1.0, 3.0, {"a", "b"}) == pytest.approx(16.0)


@pytest.mark.parametrize(
    ("from_s", "to_s", "devices"),
    [(-0.1, 4.0, {"a"}), (0.0, 4.1, {"a"}), (0.0, 4.0, {"a", "c"}), (0.0, 4.0, set()), (float("nan"), 4.0, {"a"})],
)
def test_what_was_not_read_from_end_to_end_is_not_known(from_s: float, to_s: float, devices: set[str]) -> None:
    assert isnan(COUNTERS.between(from_s, to_s, devices))


def test_the_file_of_a_run_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "energy.jsonl"
    path.write_bytes(b'{"time_s":0.5,"joules":{"a":1.0}}\n{"time_s":1.5,"joules":{"a":3.0}}\n{"time_s":2.')
    found = read_energy(path)
    assert found is not None and found.time_s.tolist() == [0.5, 1.5] and found.joules["a"].tolist() == [1.0, 3.0]


def test_an_empty_file_knows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "energy.jsonl"
    path.touch()
    found = read_energy(path)
    assert found is not None and isnan(found.between(0.0, 1.0, {"a"}))
    assert read_energy(tmp_path / "missing.jsonl") is None
