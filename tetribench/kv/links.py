"""The third seam: how KV blocks get from one instance's pool to another's.

A link is one-sided: the prefill instance writes into blocks that the decode instance has reserved. The real link
copies through whatever both pools share (one process, shared memory or CUDA IPC of one host); the virtual one sleeps.
The paper emulates its links by waiting bytes / bandwidth (section 4): so does `LinkSpeed`, on top of a real copy.
"""

import asyncio
from collections.abc import Sequence as SequenceOf
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from tetribench.core.clock import Clock
from tetribench.engine.base import Engine, KVPool


class LinkSpeed:
    """A link by its numbers: a message of n bytes takes `latency_s + n / bandwidth_bytes_per_s`.

    Without a bandwidth the link is as fast as the machine copies. In real time the copy really happens and the rest of
    the link's time is waited out; in virtual time the machine's own copy speed comes from the hardware profile.
    """

    def __init__(self, *, bandwidth_bytes_per_s: float | None = None, latency_s: float = 0.0) -> None:
        if bandwidth_bytes_per_s is not None and bandwidth_bytes_per_s <= 0:
            raise ValueError(f"kv.link.bandwidth_bytes_per_s={bandwidth_bytes_per_s}: must be positive, or null")
        if latency_s < 0:
            raise ValueError(f"kv.link.latency_s={latency_s}: must not be negative")
        self.bandwidth_bytes_per_s = bandwidth_bytes_per_s
        self.latency_s = latency_s

    def seconds(self, num_bytes: int) -> float:
        """Time on the wire; without a bandwidth, the latency alone."""
        if self.bandwidth_bytes_per_s is None:
            return self.latency_s
        return self.latency_s + num_bytes / self.bandwidth_bytes_per_s


class LinkFailed(Exception):
    """A peer could not be reached, or went away; the message says which and why."""


class Link(Protocol):
    def connect(self, pool_handles: dict[str, bytes]) -> None:
        """Learn how to reach the pools of the named peers, beside those that are known."""

    def disconnect(self, name: str) -> None:
        """Forget the peer `name`, which is gone."""

    async def write(self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int]) -> int:
        """Put blocks into the peer's pool; number of bytes written, all of them in place on return.

        Raises LinkFailed when they cannot be.
        """

    def close(self) -> None:
        """Give back threads and mappings."""


class VirtualLink:
    """Sleeps for the time that the link would take."""

    def __init__(self, speed: LinkSpeed, clock: Clock, block_bytes: int, copy_bytes_per_s: float) -> None:
        self._speed = speed
        self._clock = clock
        self._block_bytes = block_bytes
        self._copy_bytes_per_s = copy_bytes_per_s

    def connect(self, pool_handles: dict[str, bytes]) -> None:
        """Nothing to map: there are no bytes."""

    def disconnect(self, name: str) -> None:
        """Nothing was mapped."""

    async def write(self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int]) -> int:
        num_bytes = len(source_ids) * self._block_bytes
        await self._clock.sleep(max(num_bytes / self._copy_bytes_per_s, self._speed.seconds(num_bytes)))
        return num_bytes

    def close(self) -> None:
        """Nothing is held."""


class CopyLink:
    """Copies for real, on a thread of its own so that the instance goes on computing; then waits out a slower link."""

    def __init__(self, speed: LinkSpeed, clock: Clock, pool: KVPool) -> None:
        self._speed = speed
        self._clock = clock
        self._pool = pool
        self._peers: dict[str, KVPool] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kv-link")

    def connect(self, pool_handles: dict[str, bytes]) -> None:
        self._peers |= {name: self._pool.attach(handle) for name, handle in pool_handles.items()}

    def disconnect(self, name: str) -> None:
        self._peers.pop(name, None)

    async def write(self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int]) -> int:
        if to not in self._peers:
            raise LinkFailed(f"{to} is gone")
        started_s = self._clock.now()
        num_bytes = len(source_ids) * self._pool.block_bytes
        copy = partial(self._pool.copy_to, self._peers[to], source_ids, target_ids)
        await asyncio.get_running_loop().run_in_executor(self._thread, copy)
        left_s = started_s + self._speed.seconds(num_bytes) - self._clock.now()
        if left_s > 0:
            await self._clock.sleep(left_s)
        return num_bytes

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._peers.clear()


def link_for(engine: Engine, speed: LinkSpeed, clock: Clock) -> Link:
    """The link that fits the engine: one that copies where there are bytes, else one that sleeps."""
    if engine.pool is not None:
        return CopyLink(speed, clock, engine.pool)
    assert engine.info.copy_bytes_per_s is not None
    return VirtualLink(speed, clock, engine.info.block_bytes, engine.info.copy_bytes_per_s)
