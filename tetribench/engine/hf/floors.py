"""How fast the device copies and multiplies: what no engine on it can beat."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from tetribench.core.units import GIB, MIB
from tetribench.engine.hf.schema import Device, HFEngine

_NUM_SAMPLES = 15
_CUDA_COPIED_BYTES = 1 * GIB
_CPU_COPIED_BYTES = 64 * MIB
"""Far more than caches hold."""

_CUDA_MATRIX_ROWS = 8192
_CPU_MATRIX_ROWS = 512


@dataclass(frozen=True, slots=True)
class Floors:
    """`memory_bytes_per_s` counts what a copy reads and what it writes."""

    memory_bytes_per_s: float
    flops_per_s: float


def measure_floors(engine: HFEngine) -> Floors:
    """On the engine's device, in its type: one large copy, and one product of large square matrices; medians.

    On the CPU of one thread, as instances have.
    """
    is_cuda = engine.resolved_device() is Device.cuda
    device, dtype = torch.device("cuda" if is_cuda else "cpu"), getattr(torch, engine.resolved_dtype().value)
    if not is_cuda:
        torch.set_num_threads(1)
    num_bytes = _CUDA_COPIED_BYTES if is_cuda else _CPU_COPIED_BYTES
    num_rows = _CUDA_MATRIX_ROWS if is_cuda else _CPU_MATRIX_ROWS
    floors = Floors(
        memory_bytes_per_s=2 * num_bytes / _copy_seconds(num_bytes, device),
        flops_per_s=2 * num_rows**3 / _multiply_seconds(num_rows, device, dtype),
    )
    if is_cuda:
        torch.cuda.empty_cache()  # the engine that is measured next has a process of its own
    return floors


def _copy_seconds(num_bytes: int, device: torch.device) -> float:
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return _seconds(lambda: target.copy_(source), device)


def _multiply_seconds(num_rows: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = torch.randn((2, num_rows, num_rows), dtype=dtype, device=device)
    return _seconds(lambda: left @ right, device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        started_s = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started_s

    once()
    return median(once() for _ in range(_NUM_SAMPLES))
