"""Indirect: a bounce through host memory that both instances map, for pools that cannot be mapped by each other."""

import asyncio
from collections.abc import Awaitable, Iterator
from functools import partial

import msgspec

from tetribench.core.clock import Clock
from tetribench.engine.base import KVPool
from tetribench.engine.spans import Spans, loads, packed
from tetribench.kv.links.base import DEFAULT_TIMEOUT_S, Link, Operation, check_operation, check_timeout, describe
from tetribench.kv.links.real import SocketLink
from tetribench.kv.links.segment import SEGMENT_BYTES, Segment, Staging
from tetribench.kv.links.speed import AS_FAST_AS_THE_MEDIUM, LinkSpeed
from tetribench.kv.links.view import check_targets
from tetribench.kv.links.wire import Connection, Session


class SharedMemory:
    """Link option `shared_memory`: the sender copies into a segment of host memory, the receiver out of it."""

    def __init__(
        self,
        *,
        speed: LinkSpeed = AS_FAST_AS_THE_MEDIUM,
        operation: Operation = Operation.send,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        check_operation("shared_memory", operation, (Operation.send,))
        check_timeout(timeout_s)
        self.speed = speed
        self.operation = operation
        self.timeout_s = timeout_s

    @property
    def name(self) -> str:
        return describe("shared_memory", self.operation, self.speed)

    def check(self, *, in_parts: bool = False) -> None:
        """Every machine has it."""

    def build(self, pool: KVPool, clock: Clock) -> Link:
        return SharedMemoryLink(pool, clock, self.speed, self.timeout_s)


class _Filled(msgspec.Struct, frozen=True):
    """Sender to receiver: copy these spans out of my segment."""

    segment: bytes
    spans: bytes


_NUM_PARTS = 4
"""Of a segment. While the receiver empties one, the sender fills the next."""


class SharedMemoryLink(SocketLink):
    """Every sender has one segment for all its peers, filled for one move at a time, part by part and round again."""

    def __init__(
        self, pool: KVPool, clock: Clock, speed: LinkSpeed, timeout_s: float, num_bytes: int = SEGMENT_BYTES
    ) -> None:
        super().__init__(pool, clock, speed, timeout_s)
        self._staging = Staging(pool, num_bytes)
        self._one_at_a_time = asyncio.Lock()

    async def _carry(self, peer: Connection, pieces: Spans) -> None:
        async with self._one_at_a_time:
            await peer.calls(self._parts(pieces), _NUM_PARTS - 1)

    def _parts(self, pieces: Spans) -> Iterator[Awaitable[bytes]]:
        """What the receiver is told of each."""
        part_bytes = self._staging.view.nbytes // _NUM_PARTS
        for number, load in enumerate(loads(pieces, part_bytes)):
            yield self._fill(load, number % _NUM_PARTS * part_bytes)

    async def _fill(self, load: Spans, start: int) -> bytes:
        """The part of the segment from `start`."""
        into, out = packed(load)
        into.rows[:, 1] += start
        out.rows[:, 0] += start
        await self.in_thread(partial(self.pool.gather, self._staging.view, into))
        return msgspec.msgpack.encode(_Filled(self._staging.handle(), out.to_bytes()))

    def _new_session(self) -> Session:
        return _Emptier(self)

    def close(self) -> None:
        super().close()
        self._staging.close()


class _Emptier:
    """Empties one sender's segment, which stays mapped while it is connected."""

    def __init__(self, link: SharedMemoryLink) -> None:
        self._link = link
        self._segment: Segment | None = None

    def places(self, head: bytes) -> list[memoryview]:
        return []

    async def finish(self, head: bytes) -> None:
        request = msgspec.msgpack.decode(head, type=_Filled)
        pool = self._link.pool
        named = Spans.from_bytes(request.spans)
        check_targets(named, pool.num_bytes)
        if self._segment is None:
            self._segment = Segment.attach(request.segment)
        await self._link.in_thread(partial(pool.scatter, self._segment.view, named))

    def close(self) -> None:
        self._segment = None
