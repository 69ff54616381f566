"""Indirect: sockets, for instances on different machines. On the CPU the bytes go straight from pool to pool."""

import asyncio
import socket
from functools import partial

import msgspec

from tetribench.core.clock import Clock
from tetribench.engine.base import KVPool
from tetribench.engine.spans import Spans, loads, packed
from tetribench.kv.links.base import DEFAULT_TIMEOUT_S, Link, Operation, check_operation, check_timeout, describe
from tetribench.kv.links.real import LOOPBACK, SocketLink
from tetribench.kv.links.segment import SEGMENT_BYTES, Staging
from tetribench.kv.links.speed import AS_FAST_AS_THE_MEDIUM, LinkSpeed
from tetribench.kv.links.view import check_targets, view_of
from tetribench.kv.links.wire import Connection, Session


class Tcp:
    """Link option `tcp`. `host` is the address of this machine that instances listen on and that peers connect to."""

    def __init__(
        self,
        *,
        speed: LinkSpeed = AS_FAST_AS_THE_MEDIUM,
        operation: Operation = Operation.send,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        host: str = LOOPBACK,
    ) -> None:
        check_operation("tcp", operation, (Operation.send,))
        check_timeout(timeout_s)
        self.speed = speed
        self.operation = operation
        self.timeout_s = timeout_s
        self.host = host

    @property
    def name(self) -> str:
        return describe("tcp", self.operation, self.speed)

    def check(self, *, in_parts: bool = False) -> None:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
                trial.bind((self.host, 0))
        except OSError as error:
            raise ValueError(f"kv.link.host={self.host}: must be an address of this machine ({error})") from error

    def build(self, pool: KVPool, clock: Clock) -> Link:
        bounces = pool.region is None or pool.region.cuda_device is not None
        return TcpLink(pool, clock, self.speed, self.timeout_s, self.host, SEGMENT_BYTES if bounces else None)


class TcpLink(SocketLink):
    """Sockets reach host memory only. With `bounce_bytes` the bytes go by way of a buffer of that size at both ends:
    for pools on an accelerator, whose copies need pinned host memory, and for pools in parts."""

    def __init__(
        self,
        pool: KVPool,
        clock: Clock,
        speed: LinkSpeed,
        timeout_s: float,
        host: str = LOOPBACK,
        bounce_bytes: int | None = None,
    ) -> None:
        super().__init__(pool, clock, speed, timeout_s, host)
        self._bounce_bytes = bounce_bytes
        self._staging = None if bounce_bytes is None else Staging(pool, bounce_bytes)
        self._one_at_a_time = asyncio.Lock()

    async def _carry(self, peer: Connection, pieces: Spans) -> None:
        if self._staging is None:
            await _send(peer, view_of(self.pool), pieces)
            return
        async with self._one_at_a_time:
            for load in loads(pieces, self._staging.view.nbytes):
                into, out = packed(load)
                await self.in_thread(partial(self.pool.gather, self._staging.view, into))
                await _send(peer, self._staging.view, out)

    def _new_session(self) -> Session:
        return _Direct(self.pool) if self._bounce_bytes is None else _Bounced(self, self._bounce_bytes)

    def close(self) -> None:
        super().close()
        if self._staging is not None:
            self._staging.close()


class _Message(msgspec.Struct, frozen=True):
    """Which bytes of the payload go where in the receiver's pool; they follow in this order."""

    spans: bytes


async def _send(peer: Connection, memory: memoryview, pieces: Spans) -> None:
    _, out = packed(pieces)
    head = msgspec.msgpack.encode(_Message(out.to_bytes()))
    await peer.call(head, [memory[start : start + size] for start, _, size in pieces])


def _out_of_payload(head: bytes, pool: KVPool) -> Spans:
    out = Spans.from_bytes(msgspec.msgpack.decode(head, type=_Message).spans)
    check_targets(out, pool.num_bytes)
    return out


class _Direct:
    """Receives into the pool."""

    def __init__(self, pool: KVPool) -> None:
        self._pool = pool
        self._memory = view_of(pool)

    def places(self, head: bytes) -> list[memoryview]:
        return [self._memory[to : to + size] for _, to, size in _out_of_payload(head, self._pool)]

    async def finish(self, head: bytes) -> None:
        """The bytes are where they belong."""

    def close(self) -> None:
        """Nothing is held."""


class _Bounced:
    """Receives into a buffer, and copies into the pool from there."""

    def __init__(self, link: TcpLink, num_bytes: int) -> None:
        self._link = link
        self._staging = Staging(link.pool, num_bytes)

    def places(self, head: bytes) -> list[memoryview]:
        out = _out_of_payload(head, self._link.pool)
        size = self._staging.view.nbytes
        if out.num_bytes > size or not out.lie_within(size, self._link.pool.num_bytes):
            raise ValueError(f"a payload does not fit into the buffer of {size} bytes")
        return [self._staging.view[: out.num_bytes]]

    async def finish(self, head: bytes) -> None:
        out = _out_of_payload(head, self._link.pool)
        await self._link.in_thread(partial(self._link.pool.scatter, self._staging.view, out))

    def close(self) -> None:
        self._staging.close()
