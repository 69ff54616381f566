"""Direct: a copy from pool to pool, for instances that can map each other's memory (one process, memfd, CUDA IPC)."""

import os
from contextlib import suppress
from functools import partial

import msgspec

from tetribench.core.clock import Clock
from tetribench.engine.base import KVPool
from tetribench.engine.spans import Spans
from tetribench.kv.links.base import DEFAULT_TIMEOUT_S, Link, Operation, check_operation, check_timeout, describe
from tetribench.kv.links.process import PeerProcess
from tetribench.kv.links.real import RealLink, SocketLink
from tetribench.kv.links.speed import AS_FAST_AS_THE_MEDIUM, LinkSpeed
from tetribench.kv.links.view import check_targets
from tetribench.kv.links.wire import Connection, Session


class Memory:
    """Link option `memory`: `operation=write` copies at the sender, `read` at the receiver."""

    def __init__(
        self,
        *,
        speed: LinkSpeed = AS_FAST_AS_THE_MEDIUM,
        operation: Operation = Operation.write,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        check_operation("memory", operation, (Operation.write, Operation.read))
        check_timeout(timeout_s)
        self.speed = speed
        self.operation = operation
        self.timeout_s = timeout_s

    @property
    def name(self) -> str:
        return describe("memory", self.operation, self.speed)

    def check(self, *, in_parts: bool = False) -> None:
        """Every machine has it."""

    def build(self, pool: KVPool, clock: Clock) -> Link:
        kind = MemoryWriteLink if self.operation is Operation.write else MemoryReadLink
        return kind(pool, clock, self.speed, self.timeout_s)


class _Handle(msgspec.Struct, frozen=True):
    pid: int
    pool: bytes


class _Mapped:
    """A peer's pool. It could still be written when its owner has died, so the owner's process is watched beside it."""

    def __init__(self, handle: bytes, pool: KVPool) -> None:
        peer = msgspec.msgpack.decode(handle, type=_Handle)
        self.process = PeerProcess(peer.pid)
        self.pool = pool.attach(peer.pool)


class MemoryWriteLink(RealLink[_Mapped]):
    """Maps the pools of all peers, and copies into them."""

    def handle(self) -> bytes:
        return msgspec.msgpack.encode(_Handle(os.getpid(), self.pool.handle()))

    def connect(self, handles: dict[str, bytes]) -> None:
        """Maps at once, so that no transfer pays for it."""
        super().connect(handles)
        for name in handles:
            with suppress(OSError):  # gone already: the first move to it says so
                self._known(name)

    def _reach(self, handle: bytes) -> _Mapped:
        return _Mapped(handle, self.pool)

    async def _carry(self, peer: _Mapped, pieces: Spans) -> None:
        peer.process.check()
        await self.in_thread(partial(self.pool.copy_to, peer.pool, pieces))
        peer.process.check()

    def _leave(self, peer: _Mapped) -> None:
        peer.process.close()


class _Read(msgspec.Struct, frozen=True):
    """Sender to receiver: copy these spans out of my pool."""

    pool: bytes
    spans: bytes


class MemoryReadLink(SocketLink):
    """Asks the peer to map this pool and to copy out of it."""

    async def _carry(self, peer: Connection, pieces: Spans) -> None:
        await peer.call(msgspec.msgpack.encode(_Read(self.pool.handle(), pieces.to_bytes())))

    def _new_session(self) -> Session:
        return _Reader(self)


class _Reader:
    """Reads for one sender, whose pool stays mapped while it is connected."""

    def __init__(self, link: MemoryReadLink) -> None:
        self._link = link
        self._mapped: KVPool | None = None

    def places(self, head: bytes) -> list[memoryview]:
        return []

    async def finish(self, head: bytes) -> None:
        request = msgspec.msgpack.decode(head, type=_Read)
        named = Spans.from_bytes(request.spans)
        check_targets(named, self._link.pool.num_bytes)
        if self._mapped is None:
            self._mapped = self._link.pool.attach(request.pool)
        await self._link.in_thread(partial(self._mapped.copy_to, self._link.pool, named))

    def close(self) -> None:
        self._mapped = None
