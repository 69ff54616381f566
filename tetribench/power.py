"""Reads the energy counters of NVIDIA GPUs beside a run, where there are any and `tetribench[power]` is installed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

    The driver counts (NVML, since Volta): what a device draws between two readings is not missed.
    """
    nvml = _nvml()
    devices = {} if nvml is None else _devices(nvml)
    if not devices:
        yield
        return
    has_ended = threading.Event()
    with path.open("wb") as file:

        def read() -> None:
            joules = {uuid: nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3 for uuid, device in devices.items()}
            file.write(msgspec.json.encode(Reading(clock.now(), joules)) + b"\n")

        def read_on() -> None:
            while not has_ended.wait(PERIOD_S):
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
            nvml.nvmlShutdown()


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
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    found = {}
    for handle in handles:
        try:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError:
            continue  # too old a device
        found[nvml.nvmlDeviceGetUUID(handle)] = handle
    return found
