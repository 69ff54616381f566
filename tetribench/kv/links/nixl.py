"""Direct-NIC: NVIDIA's NIXL, which picks the transport (RDMA, CUDA IPC, shared memory, TCP) through UCX."""

import asyncio
import importlib.util
from functools import partial
from typing import Any

import msgspec

from tetribench.core.clock import Clock
from tetribench.engine.base import KVPool
from tetribench.engine.spans import Spans
from tetribench.kv.links.base import DEFAULT_TIMEOUT_S, Link, Operation, check_operation, check_timeout, describe
from tetribench.kv.links.nixl_agent import Agent, Reachable
from tetribench.kv.links.real import RealLink, SocketLink
from tetribench.kv.links.speed import AS_FAST_AS_THE_MEDIUM, LinkSpeed
from tetribench.kv.links.view import check_targets
from tetribench.kv.links.wire import Connection, Session

_POLL_S = 1e-4
"""A transfer is asked this often whether it has ended."""


class Nixl:
    """Link option `nixl`: `operation=write` is posted by the sender, `read` by the receiver; both are one-sided."""

    def __init__(
        self,
        *,
        speed: LinkSpeed = AS_FAST_AS_THE_MEDIUM,
        operation: Operation = Operation.write,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        check_operation("nixl", operation, (Operation.write, Operation.read))
        check_timeout(timeout_s)
        self.speed = speed
        self.operation = operation
        self.timeout_s = timeout_s

    @property
    def name(self) -> str:
        return describe("nixl", self.operation, self.speed)

    def check(self, *, in_parts: bool = False) -> None:
        if importlib.util.find_spec("nixl_cu13") is None:
            raise ValueError("kv/link=nixl: needs the package nixl-cu13 (pip install 'tetribench[nixl]')")
        if in_parts:
            raise ValueError(
                "kv/link=nixl: reaches memory in one piece, and with engine.tensor_parallel above 1 the KV lies with "
                "several ranks; must be memory, shared_memory or tcp"
            )

    def build(self, pool: KVPool, clock: Clock) -> Link:
        kind = NixlWriteLink if self.operation is Operation.write else NixlReadLink
        return kind(pool, clock, self.speed, self.timeout_s)


class _Remote:
    """A peer's pool; its agent is met with the first transfer."""

    def __init__(self, reachable: Reachable) -> None:
        self.reachable = reachable
        self.name: str | None = None


class NixlWriteLink(RealLink[_Remote]):
    """Writes into peers' pools; they take no part."""

    def __init__(self, pool: KVPool, clock: Clock, speed: LinkSpeed, timeout_s: float) -> None:
        super().__init__(pool, clock, speed, timeout_s)
        self._agent = Agent(pool)

    def handle(self) -> bytes:
        return msgspec.msgpack.encode(self._agent.reachable)

    def _reach(self, handle: bytes) -> _Remote:
        return _Remote(msgspec.msgpack.decode(handle, type=Reachable))

    async def _carry(self, peer: _Remote, pieces: Spans) -> None:
        await _transfer(self, self._agent, "WRITE", peer, pieces)

    def _leave(self, peer: _Remote) -> None:
        _forget(self, self._agent, peer)

    def close(self) -> None:
        super().close()
        self._agent.close()


class _Read(msgspec.Struct, frozen=True):
    """Sender to receiver: read these spans, whose source is my pool."""

    source: Reachable
    spans: bytes


class NixlReadLink(SocketLink):
    """Asks the peer to read out of this pool."""

    def __init__(self, pool: KVPool, clock: Clock, speed: LinkSpeed, timeout_s: float) -> None:
        super().__init__(pool, clock, speed, timeout_s)
        self.agent = Agent(pool)

    async def _carry(self, peer: Connection, pieces: Spans) -> None:
        await peer.call(msgspec.msgpack.encode(_Read(self.agent.reachable, pieces.to_bytes())))

    def _new_session(self) -> Session:
        return _Reader(self)

    def close(self) -> None:
        super().close()
        self.agent.close()


class _Reader:
    """Reads for one sender, whose agent is known while it is connected."""

    def __init__(self, link: NixlReadLink) -> None:
        self._link = link
        self._remote: _Remote | None = None

    def places(self, head: bytes) -> list[memoryview]:
        return []

    async def finish(self, head: bytes) -> None:
        request = msgspec.msgpack.decode(head, type=_Read)
        link = self._link
        named = Spans.from_bytes(request.spans)
        check_targets(named, link.pool.num_bytes)
        if self._remote is None:
            self._remote = _Remote(request.source)
        await _transfer(link, link.agent, "READ", self._remote, named.turned())

    def close(self) -> None:
        if self._remote is not None:
            _forget(self._link, self._link.agent, self._remote)


async def _transfer(link: RealLink[Any], agent: Agent, verb: str, peer: _Remote, pieces: Spans) -> None:
    """`pieces` go from or to offset `source` here, to or from offset `target` there. Raises ConnectionError."""
    if peer.name is None:
        peer.name = await link.in_thread(partial(agent.meet, peer.reachable))
    post = partial(agent.post, verb, peer.name, peer.reachable.region, pieces)
    transfer = await link.in_thread(post)
    try:
        while await link.in_thread(partial(agent.is_under_way, transfer)):
            await asyncio.sleep(_POLL_S)
    finally:
        link.in_thread_later(partial(agent.release, transfer))


def _forget(link: RealLink[Any], agent: Agent, peer: _Remote) -> None:
    if peer.name is not None:
        link.in_thread_later(partial(agent.leave, peer.name))
