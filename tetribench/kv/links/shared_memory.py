"""Indirect: a bounce through host memory that both instances map, for pools that cannot be mapped by each other."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import msgspec

from tetribench.core.clock import Clock
from tetribench.core.units import ceil_div
from tetribench.engine.base import KVPool
from tetribench.engine.spans import Spans, loads, packed
from tetribench.kv.links.base import DEFAULT_TIMEOUT_S, Link, Operation, check_operation, check_timeout, describe
from tetribench.kv.links.real import SocketLink
from tetribench.kv.links.segment import SEGMENT_BYTES, Segment, Staging
from tetribench.kv.links.speed import AS_FAST_AS_THE_MEDIUM, LinkSpeed
from tetribench.kv.links.turns import Emptying, Filling
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
    """Sender to receiver: copy these spans out of my segment, part by part from part `first`, as they are filled."""

    segment: bytes
    turns: bytes
    first: int
    spans: bytes


NUM_PARTS = 4
"""Of a segment. While the receiver empties one, the sender fills the next."""


class SharedMemoryLink(SocketLink):
    """Every sender has one segment for all its peers, filled for one move at a time, part by part and round again."""

    def __init__(
        self, pool: KVPool, clock: Clock, speed: LinkSpeed, timeout_s: float, num_bytes: int = SEGMENT_BYTES
    ) -> None:
        super().__init__(pool, clock, speed, timeout_s)
        self._num_bytes = num_bytes
        self._ring = _Ring(pool, num_bytes)
        self._one_at_a_time = asyncio.Lock()
        self._is_closed = False

    async def _carry(self, peer: Connection, pieces: Spans) -> None:
        async with self._one_at_a_time:
            ring = self._ring
            request, fill = ring.begin(pieces)
            empty = asyncio.ensure_future(peer.call(request))
            try:
                await asyncio.gather(empty, self.in_thread(fill))
            except BaseException:
                empty.cancel()
                self._abandon(ring)
                raise

    def _abandon(self, ring: "_Ring") -> None:
        """Nobody knows any more which of its parts are free."""
        ring.give_up()
        if not self._is_closed:
            self._ring = _Ring(self.pool, self._num_bytes)
            self.in_thread_later(ring.close)

    def _new_session(self) -> Session:
        return _Emptier(self.pool)

    def close(self) -> None:
        self._is_closed = True
        self._ring.give_up()
        super().close()
        self._ring.close()


class _Ring:
    """A segment in equal parts, with turns at them."""

    def __init__(self, pool: KVPool, num_bytes: int) -> None:
        self._pool = pool
        self._staging = Staging(pool, num_bytes)
        self._turns = Filling(NUM_PARTS)
        self._handles = (self._staging.handle(), self._turns.handle())
        self._num_filled = 0

    def begin(self, pieces: Spans) -> tuple[bytes, Callable[[], None]]:
        """What the receiver is told of a move, and what fills the parts meanwhile; that raises ConnectionError when
        they do not become free."""
        num_bytes, first = self._staging.view.nbytes, self._num_filled % NUM_PARTS
        self._num_filled += ceil_div(pieces.num_bytes, num_bytes // NUM_PARTS)
        request = _Filled(*self._handles, first, pieces.to_bytes())
        return msgspec.msgpack.encode(request), partial(self._fill, in_parts(pieces, num_bytes, first))

    def _fill(self, parts: Iterator[tuple[int, Spans]]) -> None:
        for start, load in parts:
            into, _ = packed(load)
            into.rows[:, 1] += start
            self._turns.take()
            self._pool.gather(self._staging.view, into)
            self._turns.hand_on()

    def give_up(self) -> None:
        """Nobody empties any more."""
        self._turns.give_up()

    def close(self) -> None:
        """Once nobody fills."""
        self._turns.close()
        self._staging.close()


def in_parts(pieces: Spans, num_bytes: int, first: int) -> Iterator[tuple[int, Spans]]:
    """What goes through each part of a segment of `num_bytes`, from part `first` on and round again, and where the part
    begins."""
    part_bytes = num_bytes // NUM_PARTS
    for number, load in zip(count(first), loads(pieces, part_bytes)):
        yield number % NUM_PARTS * part_bytes, load


class _Emptier:
    """Empties one sender's segment, which stays mapped while it is connected, on a thread of its own: a sender that is
    late keeps nobody else waiting."""

    def __init__(self, pool: KVPool) -> None:
        self._pool = pool
        self._handles: tuple[bytes, bytes] | None = None
        self._segment: Segment | None = None
        self._turns: Emptying | None = None
        self._is_closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kv-link-emptier")

    def places(self, head: bytes) -> list[memoryview]:
        return []

    async def finish(self, head: bytes) -> None:
        request = msgspec.msgpack.decode(head, type=_Filled)
        named = Spans.from_bytes(request.spans)
        check_targets(named, self._pool.num_bytes)
        empty = partial(self._empty, request, named)
        await asyncio.get_running_loop().run_in_executor(self._thread, empty)

    def _empty(self, request: _Filled, named: Spans) -> None:
        segment, turns = self._attached(request)
        if self._is_closed:
            turns.give_up()
        for start, load in in_parts(named, segment.view.nbytes, request.first):
            _, out = packed(load)
            out.rows[:, 0] += start
            turns.take()
            self._pool.scatter(segment.view, out)
            turns.hand_on()

    def _attached(self, request: _Filled) -> tuple[Segment, Emptying]:
        if self._segment is None or self._turns is None or self._handles != (request.segment, request.turns):
            self._let_go()
            self._segment, self._turns = Segment.attach(request.segment), Emptying(request.turns)
            self._handles = (request.segment, request.turns)
        return self._segment, self._turns

    def _let_go(self) -> None:
        if self._turns is not None:
            self._turns.close()
        self._segment = self._turns = None

    def close(self) -> None:
        """What is being emptied ends after its part."""
        self._is_closed = True
        if self._turns is not None:
            self._turns.give_up()
        self._thread.submit(self._let_go)
        self._thread.shutdown(wait=True)
