"""The reader of energy counters, on a fake of the driver's library."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tetribench.core.clock import WallClock
from tetribench.metrics.energy import read_energy
from tetribench.power import energy_read


class NVMLError(Exception):
    pass


class FakeNvml(ModuleType):
    """Two devices that count, 1000 mJ more at every reading, and one too old to."""

    NVMLError = NVMLError

    def __init__(self, *, has_driver: bool = True) -> None:
        super().__init__("pynvml")
        self.__spec__ = ModuleSpec("pynvml", None)  # what `find_spec` asks a loaded module for
        self.num_open = 0
        self._has_driver = has_driver
        self._millijoules = [5000, 7000]

    def nvmlInit(self) -> None:
        if not self._has_driver:
            raise NVMLError("driver not loaded")
        self.num_open += 1

    def nvmlShutdown(self) -> None:
        self.num_open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 2:
            raise NVMLError("not supported")
        self._millijoules[handle] += 1000
        return self._millijoules[handle]


def install(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)


@pytest.mark.alone
def test_counters_are_read_from_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvml, clock, path = FakeNvml(), WallClock(), tmp_path / "energy.jsonl"
    install(monkeypatch, nvml)
    monkeypatch.setattr("tetribench.power.PERIOD_S", 0.001)
    with energy_read(path, clock):
        began_s = clock.now()
        while path.stat().st_size == 0 and clock.now() < began_s + 5.0:
            pass  # until something has been read beside this
        ended_s = clock.now()
    found = read_energy(path)
    assert found is not None and nvml.num_open == 0
    assert found.time_s[0] <= began_s <= ended_s <= found.time_s[-1]
    assert set(found.joules) == {"GPU-0", "GPU-1"}
    drawn_j = found.joules["GPU-0"] - found.joules["GPU-0"][0]
    assert drawn_j.tolist() == [float(number) for number in range(len(drawn_j))], "one joule with every reading"
    assert found.between(float(found.time_s[0]), float(found.time_s[-1]), {"GPU-0"}) == drawn_j[-1]


def test_a_run_that_fails_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvml = FakeNvml()
    install(monkeypatch, nvml)
    with pytest.raises(RuntimeError, match="it broke"), energy_read(tmp_path / "energy.jsonl", WallClock()):
        raise RuntimeError("it broke")
    found = read_energy(tmp_path / "energy.jsonl")
    assert found is not None and len(found.time_s) == 2 and nvml.num_open == 0


@pytest.mark.parametrize("module", [None, FakeNvml(has_driver=False)], ids=["no binding", "no driver"])
def test_where_nothing_counts_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: Any) -> None:
    install(monkeypatch, module)
    if module is None:
        monkeypatch.setattr("tetribench.power.find_spec", lambda name: None)
    with energy_read(tmp_path / "energy.jsonl", WallClock()):
        pass
    assert read_energy(tmp_path / "energy.jsonl") is None


def test_an_error_of_the_driver_leaves_nothing_measured_and_the_run_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvml, path = FakeNvml(), tmp_path / "energy.jsonl"
    install(monkeypatch, nvml)

    def lost(handle: int) -> int:
        raise NVMLError("GPU is lost")

    with pytest.raises(ZeroDivisionError), energy_read(path, WallClock()):
        monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", lost)
        _ = 1 // 0
    assert not path.exists() and nvml.num_open == 0
