"""What the links that really move bytes have in common."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import msgspec

from tetribench.core.clock import Clock
from tetribench.engine.base import KVPool, Part
from tetribench.engine.spans import Spans, spans
from tetribench.kv.links.base import LinkFailed
from tetribench.kv.links.speed import LinkSpeed
from tetribench.kv.links.wire import Address, Connection, Listener, Session

LOOPBACK = "127.0.0.1"

Peer = TypeVar("Peer")
Result = TypeVar("Result")


class RealLink(ABC, Generic[Peer]):
    """Keeps the peers, turns blocks into spans of bytes, bounds the time, waits out an emulated speed.

    A peer is reached when it is first needed. After a failure it is left, and reached afresh for the next move; other
    peers are not touched.
    """

    def __init__(self, pool: KVPool, clock: Clock, speed: LinkSpeed, timeout_s: float) -> None:
        self.pool = pool
        self._clock = clock
        self._speed = speed
        self._timeout_s = timeout_s
        self._handles: dict[str, bytes] = {}
        self._peers: dict[str, Peer] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kv-link")

    async def open(self) -> None:
        """Nothing to do where the receiver takes no part."""

    @abstractmethod
    def handle(self) -> bytes: ...

    @abstractmethod
    def _reach(self, handle: bytes) -> Peer:
        """What `_carry` needs of a peer; connecting may wait until then. Raises OSError when the peer is gone."""

    @abstractmethod
    async def _carry(self, peer: Peer, pieces: Spans) -> None:
        """Move the bytes; they are in place on return. Raises OSError when that fails."""

    @abstractmethod
    def _leave(self, peer: Peer) -> None:
        """Give back what reaching the peer took."""

    def connect(self, handles: dict[str, bytes]) -> None:
        for name, handle in handles.items():
            if self._handles.get(name) != handle:
                self.disconnect(name)
                self._handles[name] = handle

    def disconnect(self, name: str) -> None:
        self._handles.pop(name, None)
        self._drop(name)

    def _drop(self, name: str) -> None:
        if name in self._peers:
            self._leave(self._peers.pop(name))

    def _known(self, name: str) -> Peer:
        if name not in self._handles:
            raise ConnectionError("no such peer")
        if name not in self._peers:
            self._peers[name] = self._reach(self._handles[name])
        return self._peers[name]

    async def move(
        self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int], part: Part | None = None
    ) -> int:
        started_s = self._clock.now()
        pieces = spans(source_ids, target_ids, self.pool.block_bytes, part)
        num_bytes = pieces.num_bytes
        peer: Peer | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                peer = self._known(to)
                await self._carry(peer, pieces)
            if self._peers.get(to) is not peer:
                raise ConnectionError("forgotten meanwhile")
        except (OSError, EOFError) as error:
            if peer is not None and self._peers.get(to) is peer:
                self._drop(to)
            reason = f"no end after {self._timeout_s:g} s" if type(error) is TimeoutError else str(error)
            raise LinkFailed(f"{to}: {reason or type(error).__name__}") from error
        left_s = started_s + self._speed.seconds(num_bytes) - self._clock.now()
        if left_s > 0:
            await self._clock.sleep(left_s)
        return num_bytes

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Beside the event loop and the computation; one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def in_thread_later(self, work: Callable[[], None]) -> None:
        """After what the thread has begun; nobody waits for it."""
        self._thread.submit(work)

    def close(self) -> None:
        for name in list(self._handles):
            self.disconnect(name)
        self._thread.shutdown(wait=True)


class SocketLink(RealLink[Connection]):
    """A link whose receiver takes part: it listens, and does what the sender's requests say."""

    def __init__(self, pool: KVPool, clock: Clock, speed: LinkSpeed, timeout_s: float, host: str = LOOPBACK) -> None:
        super().__init__(pool, clock, speed, timeout_s)
        self._listener = Listener(host, self._new_session)

    @abstractmethod
    def _new_session(self) -> Session:
        """The receiver's side of one sender's connection."""

    async def open(self) -> None:
        await self._listener.open()

    def handle(self) -> bytes:
        return msgspec.msgpack.encode(self._listener.address)

    def _reach(self, handle: bytes) -> Connection:
        return Connection(msgspec.msgpack.decode(handle, type=Address))

    def _leave(self, peer: Connection) -> None:
        peer.close()

    def close(self) -> None:
        self._listener.close()
        super().close()
