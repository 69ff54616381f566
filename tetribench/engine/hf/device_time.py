"""How long a GPU is at work: the kernels and copies of some iterations by its own clock, as the profiler has them."""

from collections.abc import Awaitable, Callable, Iterable

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


async def busy_seconds(run: Callable[[], Awaitable[None]]) -> float:
    """Seconds in which at least one kernel or copy ran while `run` did."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        await run()
        torch.cuda.synchronize()
    spans = [event.time_range for event in profiled.events() or () if event.device_type is DeviceType.CUDA]
    return covered((span.start, span.end) for span in spans) * 1e-6


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (start, end)."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, until), 0.0)
        until = max(until, end)
    return total
