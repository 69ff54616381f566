"""Reads the energy counters of NVIDIA GPUs beside a run, where there are any and `tetribench[power]` is installed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from tetribench.core.clock import Clock
from tetribench.metrics.energy import Reading

PERIOD_S = 0.2
"""Between readings, from which what was drawn up to a moment in between is interpolated."""


@contextmanager
def energy_read(path: Path, clock: Clock) -> Iterator[None]:
    """Write a `Reading` to `path` every period, and one at either end. Writes nothing where there is nothing to read.

    The driver counts (NVML, since Volta): what a device draws between two readings is not missed. An error of the
    driver ends the readings, and never the run: what was not read to the end is not measured.
    """
    nvml = _nvml()
    if nvml is None:
        yield
        return
    try:
        devices = _devices(nvml)
        if devices:
            with _reading(nvml, devices, path, clock):
                yield
        else:
            yield
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


@contextmanager
def _reading(nvml: Any, devices: dict[str, Any], path: Path, clock: Clock) -> Iterator[None]:
    has_ended, is_broken = threading.Event(), False
    with _removed_if(lambda: is_broken, path), path.open("wb") as file:

        def read() -> None:
            nonlocal is_broken
            try:
                joules = {uuid: nvml.nvmlDeviceGetTotalEnergyConsumption(one) / 1e3 for uuid, one in devices.items()}
            except nvml.NVMLError:
                is_broken = True
            else:
                file.write(msgspec.json.encode(Reading(clock.now(), joules)) + b"\n")

        def read_on() -> None:
            while not has_ended.wait(PERIOD_S) and not is_broken:
                read()

        reader = threading.Thread(target=read_on, name="energy", daemon=True)
        read()
        reader.start()
        try:
            yield
        finally:
            has_ended.set()
            reader.join()
            read()


@contextmanager
def _removed_if(is_useless: Callable[[], bool], path: Path) -> Iterator[None]:
    """However this is left."""
    try:
        yield
    finally:
        if is_useless():
            path.unlink()


def _nvml() -> Any:
    """The driver's library; None where there is no driver or no binding to it."""
    if find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _devices(nvml: Any) -> dict[str, Any]:
    """By UUID the handles of the GPUs that count their energy."""
    found = {}
    with suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            with suppress(nvml.NVMLError):  # too old a device
                nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                found[nvml.nvmlDeviceGetUUID(handle)] = handle
    return found
