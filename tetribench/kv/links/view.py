"""A pool's memory as bytes that sockets can read and write."""

import ctypes

from tetribench.engine.base import KVPool
from tetribench.engine.spans import Spans, within


def view_of(pool: KVPool) -> memoryview:
    """Writable, without a copy; whoever holds it keeps the pool alive beside it. Host memory in one piece only."""
    region = pool.region
    assert region is not None and region.cuda_device is None
    return memoryview((ctypes.c_ubyte * region.num_bytes).from_address(region.address)).cast("B")


def check_targets(named: Spans, num_bytes: int) -> None:
    """Raises ValueError unless all of them end within `num_bytes`: what a peer names may be anything."""
    if within(named.rows[:, 1], named.rows[:, 2], num_bytes):
        return
    for _, start, size in named:
        if start < 0 or size < 1 or start + size > num_bytes:
            raise ValueError(f"bytes {start} to {start + size} are not in its pool of {num_bytes}")
