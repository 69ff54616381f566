"""A pool's memory as bytes that sockets can read and write."""

import ctypes
from collections.abc import Iterable

from tetribench.engine.base import KVPool


def view_of(pool: KVPool) -> memoryview:
    """Writable, without a copy; whoever holds it keeps the pool alive beside it. Host memory in one piece only."""
    region = pool.region
    assert region is not None and region.cuda_device is None
    return memoryview((ctypes.c_ubyte * region.num_bytes).from_address(region.address)).cast("B")


def check_places(places: Iterable[tuple[int, int]], num_bytes: int) -> None:
    """Raises ValueError unless every `(start, size)` lies within `num_bytes`: what a peer names may be anything."""
    for start, size in places:
        if start < 0 or size < 1 or start + size > num_bytes:
            raise ValueError(f"bytes {start} to {start + size} are not in its pool of {num_bytes}")
