"""What the tests of the scheduling code share: builders, an engine that keeps track of every KV slot, whole systems.

Nothing here models a scheduler: the engine only checks what it is asked to compute, and yields tokens that say which
request and position they belong to.
"""

import asyncio
import math
import os
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from collections.abc import Sequence as SequenceOf
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from tetribench.colocated.mixed import MixedPolicies
from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.flip import NoFlip
from tetribench.control.route import LeastQueuedTokens, LeastRequests
from tetribench.core.clock import Clock, VirtualClock, WallClock, run_virtual
from tetribench.core.events import CLIENT, Event, EventKind, EventLog
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import ceil_div
from tetribench.decode.admit import Greedy
from tetribench.decode.scheduler import DecodePolicies
from tetribench.drive.loadgen import Client, Loop, OpenLoop
from tetribench.engine.base import Batch, Engine, EngineInfo, KVPool, OnLayer, Part, Region, Span, forever
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.sharing import Sharing
from tetribench.engine.spans import spans
from tetribench.instance.inline import InlineLauncher
from tetribench.kv.links import Link, LinkFailed, LinkSpeed, Medium, Memory
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.prefill.order import FCFS
from tetribench.prefill.predict import Oracle
from tetribench.prefill.scheduler import PrefillPolicies
from tetribench.systems.base import System
from tetribench.systems.sarathi_like import SarathiLike
from tetribench.systems.stack import Stack
from tetribench.systems.tetri import Tetri
from tetribench.systems.vllm_like import VllmLike

STOP_TOKEN = 999_999_999


# --- builders ---------------------------------------------------------------------------------------------------------


def request(id: int = 0, prompt: int = 10, output: int = 5, arrival_s: float = 0.0, **others: Any) -> Request:
    return Request(id=id, arrival_s=arrival_s, num_prompt_tokens=prompt, max_output_tokens=output, **others)


def sequence(
    id: int = 0, prompt: int = 10, *, low: int = 0, high: int = 200, produced: int = 0, num_blocks: int = 0
) -> Sequence:
    """A sequence with `produced` tokens of its response and `num_blocks` blocks, whose ids mean nothing."""
    made = Sequence(request(id, prompt, 10_000), LengthRange(low, high), block_ids=list(range(num_blocks)))
    made.output_ids = [0] * produced
    made.num_computed = prompt + produced - 1 if produced else 0
    return made


def load(num_free_tokens: int = 1000, *, time_s: float = 0.0, num_heavy: int = 0, num_light: int = 0) -> InstanceLoad:
    return InstanceLoad(
        time_s=time_s,
        num_total_tokens=1000,
        num_free_tokens=num_free_tokens,
        num_heavy=num_heavy,
        num_light=num_light,
    )


def info(
    num_blocks: int = 1000,
    block_size: int = 16,
    stop_token_ids: tuple[int, ...] = (),
    num_host_blocks: int = 0,
    num_layers: int = 1,
) -> EngineInfo:
    return EngineInfo(
        num_blocks=num_blocks,
        num_host_blocks=num_host_blocks,
        block_size=block_size,
        stop_token_ids=stop_token_ids,
        max_context_tokens=10**6,
        block_bytes=100 * block_size,
        num_layers=num_layers,
        device="none",
        dtype="none",
        num_parameters=1,
        attention="none",
        copy_bytes_per_s=1e6,
    )


DECODE_OPTIONS = ("admit", "max_num_seqs", "watermark", "preemption", "recompute_chunk_size")


def tetri(**changes: Any) -> Tetri:
    """The system with plain policies; `changes` are arguments of any of its three parts."""
    prefill: dict[str, Any] = {
        "order": FCFS(),
        "chunk": Chunker(chunk_size=32),
        "predict": Oracle(),
        "dispatch": PowerOfTwo(),
    }
    decode: dict[str, Any] = {"admit": Greedy()}
    rest: dict[str, Any] = {
        "route": LeastQueuedTokens(),
        "link": LinkSpeed(bandwidth_bytes_per_s=1e6, latency_s=1e-4),
        "flip": NoFlip(),
    }
    for name, value in changes.items():
        part = prefill if name in (*prefill, "granularity", "seed", "predict_mode") else rest
        part = decode if name in DECODE_OPTIONS else part
        part[name] = value
    rest["link"] = Memory(speed=rest["link"])  # what is varied in virtual time is the link's speed
    return Tetri(prefill=PrefillPolicies(**prefill), decode=DecodePolicies(**decode), **rest)


def vllm_like(num_instances: int = 1, **scheduler: Any) -> VllmLike:
    return VllmLike(scheduler=PrefillFirstPolicies(**scheduler), route=LeastRequests(), num_instances=num_instances)


def sarathi_like(num_instances: int = 1, **scheduler: Any) -> SarathiLike:
    return SarathiLike(scheduler=MixedPolicies(**scheduler), route=LeastRequests(), num_instances=num_instances)


# --- an engine that checks --------------------------------------------------------------------------------------------


def token(request_id: int, position: int) -> int:
    """Token `position` of a response; no two are the same."""
    return request_id * 10_000 + position


Slots = list[list[tuple[int, int] | None]]


class TaggedPool:
    """KV memory that remembers which request and position each slot of each layer holds, so that a lost or shared block
    is seen. Blocks are made of pieces, one for each layer."""

    def __init__(self, sizes: EngineInfo, registry: list["TaggedPool"]) -> None:
        self.block_size = sizes.block_size
        self.block_bytes = sizes.block_bytes
        self.num_layers = sizes.num_layers
        self.slots = self._empty(sizes.num_blocks)
        self.host_slots = self._empty(sizes.num_host_blocks)
        self._registry = registry
        registry.append(self)

    def _empty(self, num_blocks: int) -> list[list[tuple[int, int] | None]]:
        """Layers one after the other within a block."""
        return [[None] * self.block_size for _ in range(num_blocks * self.num_layers)]

    def swap(self, batch: Batch) -> None:
        """Out before in; what is left behind is wiped, so that only the copy can be what is read later."""
        for device_block, host_block in batch.swap_out:
            self._move(self.slots, device_block, self.host_slots, host_block)
        for device_block, host_block in batch.swap_in:
            self._move(self.host_slots, host_block, self.slots, device_block)

    def _move(self, source: Slots, start: int, target: Slots, to: int) -> None:
        for layer in range(self.num_layers):
            target[to * self.num_layers + layer] = source[start * self.num_layers + layer]
            source[start * self.num_layers + layer] = [None] * self.block_size

    def write(self, request_id: int, block_ids: SequenceOf[int], start: int, stop: int, layer: int = 0) -> None:
        for position in range(start, stop):
            block_id = block_ids[position // self.block_size]
            self.slots[block_id * self.num_layers + layer][position % self.block_size] = (request_id, position)

    def assert_holds(self, request_id: int, block_ids: SequenceOf[int], num_tokens: int) -> None:
        for position in range(num_tokens):
            first = block_ids[position // self.block_size] * self.num_layers
            for piece in range(first, first + self.num_layers):
                found = self.slots[piece][position % self.block_size]
                assert found == (request_id, position), f"the slot of {(request_id, position)} holds {found}"

    def contents(self, offsets: Iterable[tuple[int, int]]) -> list[list[tuple[int, int] | None]]:
        """Of the pieces at `(offset, number of bytes)`."""
        size = self.block_bytes // self.num_layers
        return [list(self.slots[at // size]) for start, length in offsets for at in range(start, start + length, size)]

    def handle(self) -> bytes:
        return str(self._registry.index(self)).encode()

    def attach(self, handle: bytes) -> "TaggedPool":
        return self._registry[int(handle)]

    def copy_to(self, peer: KVPool, spans: Iterable[Span]) -> None:
        assert isinstance(peer, TaggedPool)
        size = self.block_bytes // self.num_layers
        for source, target, num_bytes in spans:
            for offset in range(0, num_bytes, size):
                peer.slots[(target + offset) // size] = list(self.slots[(source + offset) // size])

    @property
    def num_bytes(self) -> int:
        raise AssertionError("there are no bytes")

    @property
    def region(self) -> Region:
        raise AssertionError("there are no bytes")

    def gather(self, buffer: memoryview, spans: Iterable[Span]) -> None:
        raise AssertionError("there are no bytes")

    def scatter(self, buffer: memoryview, spans: Iterable[Span]) -> None:
        raise AssertionError("there are no bytes")

    def pin(self, buffer: memoryview) -> Callable[[], None]:
        raise AssertionError("there are no bytes")


class CheckingEngine:
    """Sleeps like a small device, checks every batch against the KV slots, and yields `token(id, position)`.

    A layer's slots are written when it ends, in the blocks that the sequences had when the iteration began.
    """

    def __init__(self, factory: "CheckingFactory", clock: Clock, index: int) -> None:
        sizes = factory.num_blocks(), factory.block_size, (STOP_TOKEN,), factory.num_host_blocks, factory.num_layers
        self.info = info(*sizes)
        self.tagged = TaggedPool(self.info, factory.pools)
        self.pool: KVPool | None = self.tagged
        self.batches: list[list[tuple[int, int, int]]] = []
        """Of every iteration: (request, first position, number of tokens)."""
        self.is_closed = False
        self._index = index
        self._factory = factory
        self._clock = clock

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        spans = [(chunk.sequence, chunk.start, chunk.num_tokens) for chunk in batch.prefill]
        spans += [(one, one.num_tokens - 1, 1) for one in batch.decode]
        self.batches.append([(one.request.id, start, num_tokens) for one, start, num_tokens in spans])
        assert spans or batch.swap_out, "an empty batch"
        assert len({one.request.id for one, _, _ in spans}) == len(spans), "a doubled batch"
        self.tagged.swap(batch)
        work = [(one, self._checked(one, start, num_tokens), start + num_tokens) for one, start, num_tokens in spans]
        await self._factory.before_iteration(self._index, len(self.batches))
        num_tokens = batch.num_prefill_tokens + batch.num_padding_tokens
        seconds = 0.001 + 0.0001 * num_tokens + 0.0002 * len(batch.decode) + 0.0001 * batch.num_swapped_blocks
        for layer in range(self.info.num_layers):
            await self._clock.sleep(seconds / self.info.num_layers)
            for one, block_ids, stop in work:
                self.tagged.write(one.request.id, block_ids, one.num_computed, stop, layer)
            if on_layer is not None:
                on_layer(layer)
        tokens = {}
        for one, block_ids, stop in work:
            assert one.block_ids == block_ids, "a sequence's blocks changed under the engine"
            if stop == one.num_tokens:
                tokens[one.request.id] = self._factory.token(one.request.id, len(one.output_ids))
        return tokens

    def foresee(self, batch: Batch, num_steady: Callable[[], int]) -> None:
        """Every iteration is checked."""

    async def watch(self) -> None:
        """It depends on nothing."""
        await forever()

    def _checked(self, one: Sequence, start: int, num_tokens: int) -> list[int]:
        assert start == one.num_computed and num_tokens >= 1 and start + num_tokens <= one.num_tokens
        assert len(one.block_ids) == ceil_div(one.num_tokens, self.info.block_size)
        self.tagged.assert_holds(one.request.id, one.block_ids, start)
        return list(one.block_ids)

    def close(self) -> None:
        self.is_closed = True


class CheckingFactory:
    """Engines of `num_blocks` blocks, and `host_blocks` where the system swaps.

    `stops` says at which position, from 0, a response meets its stop token.
    """

    def __init__(
        self,
        num_blocks: int = 1000,
        block_size: int = 16,
        stops: dict[int, int] | None = None,
        host_blocks: int = 50,
        num_layers: int = 1,
    ) -> None:
        self.block_size = block_size
        self.num_layers = num_layers
        self.num_host_blocks = 0
        self.host_blocks = host_blocks
        self.engines: list[CheckingEngine] = []
        self.pools: list[TaggedPool] = []
        self._num_blocks = num_blocks
        self._stops = stops or {}

    is_noisy = True
    runs_on_a_core = True
    has_parts = False

    def in_slot(self, slot: str) -> "CheckingFactory":
        return self

    def sized(self, num_devices: int, num_sharing: int = 1) -> "CheckingFactory":
        return self

    def num_blocks(self) -> int:
        return self._num_blocks

    def with_host_memory(self) -> "CheckingFactory":
        """The engines, pools and tokens are those of this factory."""
        swapping = copy(self)
        swapping.num_host_blocks = self.host_blocks
        return swapping

    def shared(self, num_instances: int, sharing: Sharing) -> "CheckingFactory":
        part = copy(self)
        part._num_blocks //= num_instances
        return part

    def build(self, clock: Clock, device: int | None) -> Engine:
        engine = CheckingEngine(self, clock, len(self.engines))
        self.engines.append(engine)
        return engine

    async def before_iteration(self, index: int, num_iterations: int) -> None:
        """Engine `index` begins an iteration, its first when `num_iterations` is 1."""

    def token(self, request_id: int, position: int) -> int:
        return STOP_TOKEN if self._stops.get(request_id) == position else token(request_id, position)


class BesideCores(CostModelFactory):
    """Has cores beside its device, as on a GPU."""

    runs_on_a_core = False


class TroubleFactory(CheckingFactory):
    """Engine `index` does `trouble` instead of its iteration `at`."""

    def __init__(
        self, trouble: Callable[[], Coroutine[Any, Any, None]], *, index: int = 0, at: int = 1, **sizes: Any
    ) -> None:
        super().__init__(**sizes)
        self._trouble, self._index, self._at = trouble, index, at

    async def before_iteration(self, index: int, num_iterations: int) -> None:
        if (index, num_iterations) == (self._index, self._at):
            await self._trouble()


async def raises() -> None:
    raise RuntimeError("the device fell off the bus")


async def never_returns() -> None:
    await asyncio.get_running_loop().create_future()


class CheckingLink:
    """Sleeps for the link's time, then copies the slots; nobody may change either end meanwhile."""

    def __init__(self, engine: Engine, speed: LinkSpeed, clock: Clock) -> None:
        assert isinstance(engine.pool, TaggedPool)
        self._pool, self._speed, self._clock = engine.pool, speed, clock
        self._peers: dict[str, TaggedPool] = {}

    async def open(self) -> None:
        """There is nothing to reach."""

    def handle(self) -> bytes:
        return self._pool.handle()

    def connect(self, handles: dict[str, bytes]) -> None:
        self._peers |= {name: self._pool.attach(handle) for name, handle in handles.items()}

    def disconnect(self, name: str) -> None:
        self._peers.pop(name, None)

    async def move(
        self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int], part: Part | None = None
    ) -> int:
        if to not in self._peers:
            raise LinkFailed(f"{to} is gone")
        peer, pieces = self._peers[to], spans(source_ids, target_ids, self._pool.block_bytes, part)
        sources = [(piece.source, piece.num_bytes) for piece in pieces]
        targets = [(piece.target, piece.num_bytes) for piece in pieces]
        before = self._pool.contents(sources), peer.contents(targets)
        num_bytes = sum(piece.num_bytes for piece in pieces)
        await self._clock.sleep(self._speed.seconds(num_bytes))
        assert (self._pool.contents(sources), peer.contents(targets)) == before, "a block changed under its copy"
        self._pool.copy_to(peer, pieces)
        return num_bytes

    def close(self) -> None:
        """Nothing is held."""


# --- a whole system ---------------------------------------------------------------------------------------------------


class BoundedClock(VirtualClock):
    """Virtual time that ends in an error at `limit_s`, so that what waits forever fails instead of spinning."""

    def __init__(self, limit_s: float = 10_000.0) -> None:
        super().__init__()
        self._limit_s = limit_s

    def jump(self) -> None:
        if self.now() > self._limit_s:
            limit_s, self._limit_s = self._limit_s, math.inf  # the clean-up after the error needs to go on
            raise RuntimeError(f"still running after {limit_s} virtual seconds")
        super().jump()


class Bench:
    """One run of a system in this process, with all that it leaves behind: in virtual time with links that check, or on
    a wall clock with the links that really copy."""

    def __init__(
        self,
        system: System,
        factory: CheckingFactory,
        *,
        clock: VirtualClock | WallClock | None = None,
        stall_timeout_s: float = 1000.0,
    ) -> None:
        self.clock = clock or BoundedClock()
        self.log = EventLog()
        self.client = Client(clock=self.clock, log=self.log, stall_timeout_s=stall_timeout_s)
        self.launcher = InlineLauncher(self.clock)
        self.factory = factory
        self.system = system
        self.swallowed: list[str] = []
        """Errors in callbacks, which asyncio would only have logged."""

    def run(self, requests: SequenceOf[Request], loop: Loop | None = None) -> "Bench":
        """Serve `requests` to the end, then check every invariant that holds of a run that went well."""
        self.run_only(requests, loop)
        return self.assert_well(requests)

    def assert_well(self, requests: SequenceOf[Request]) -> "Bench":
        """Every invariant that holds of a run that went well."""
        assert not self.swallowed
        self.launcher.check()
        assert all(engine.is_closed for engine in self.factory.engines)
        assert_served(self.log.events, requests)
        for one in requests:
            ended = self.client.outputs[one.id]
            assert ended == [self.factory.token(one.id, position) for position in range(len(ended))]
        return self

    def run_only(self, requests: SequenceOf[Request], loop: Loop | None = None) -> None:
        main = self._main(requests, loop or OpenLoop())
        if isinstance(self.clock, VirtualClock):
            with mock.patch("tetribench.instance.inline.link_for", self._link):
                run_virtual(self.clock, main)
        else:
            asyncio.run(asyncio.wait_for(main, 5.0))

    def _link(self, engine: Engine, medium: Medium, clock: Clock) -> Link:
        return CheckingLink(engine, medium.speed, clock)

    async def _main(self, requests: SequenceOf[Request], loop: Loop) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.swallowed.append(repr(context)))
        stack = Stack(self.system.plan(self.factory), self.launcher, self.clock, self.log)
        try:
            await stack.start(self.client.deliver, self.client.fail)
            await self.client.run(requests, loop, stack)
        finally:
            await stack.stop()

    def times(self, kind: EventKind) -> dict[int, list[float]]:
        """When each request had an event of this kind."""
        return times(self.log.events, kind)


def times(events: SequenceOf[Event], kind: EventKind) -> dict[int, list[float]]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for event in events:
        if event.kind is kind:
            for request_id in event.requests:
                found[request_id].append(event.time_s)
    return found


HANDED_OVER = [
    EventKind.ARRIVED,
    EventKind.SENT,
    EventKind.ROUTED,
    EventKind.PREFILL_STARTED,
    EventKind.DISPATCHED,
    EventKind.RESERVED,
    EventKind.TRANSFER_STARTED,
    EventKind.TRANSFER_DONE,
    EventKind.ADMITTED,
    EventKind.FINISHED,
]
NOT_HANDED_OVER = [
    EventKind.ARRIVED,
    EventKind.SENT,
    EventKind.ROUTED,
    EventKind.PREFILL_STARTED,
    EventKind.PREFILL_DONE,
    EventKind.FIRST_TOKEN,
    EventKind.FINISHED,
]
ONCE = set(HANDED_OVER + NOT_HANDED_OVER) - {EventKind.ADMITTED}
"""Edges that a life has at most once; a preempted request is admitted again."""
CLIENTS = {EventKind.ARRIVED, EventKind.SENT, EventKind.FIRST_TOKEN, EventKind.FINISHED}
"""Edges that every life has once, whatever happened to the instances."""


def assert_served(events: SequenceOf[Event], requests: SequenceOf[Request]) -> None:
    """Every request lived exactly one life, with its edges in the documented order and the right number of tokens."""
    lives: defaultdict[int, list[Event]] = defaultdict(list)
    for event in events:
        for request_id in event.requests:
            lives[request_id].append(event)
    assert lives.keys() == {one.id for one in requests}
    for one in requests:
        _assert_life(one, lives[one.id])


def _assert_life(one: Request, life: list[Event]) -> None:
    """Of a life that began again only what the client saw is in order: its attempts overlap in the event log."""
    first: dict[EventKind, float] = {}
    was_retried = any(event.kind is EventKind.RETRIED for event in life)
    for event in life:
        is_second = event.kind in (CLIENTS if was_retried else ONCE) and event.kind in first
        assert not is_second, f"request {one.id} has two {event.kind}"
        first.setdefault(event.kind, event.time_s)
    assert EventKind.FAILED not in first
    _assert_deliveries(one, life)
    if was_retried:
        _assert_order(first, [EventKind.ARRIVED, EventKind.SENT, EventKind.FIRST_TOKEN, EventKind.FINISHED])
        return
    was_handed_over = EventKind.TRANSFER_DONE in first
    _assert_order(first, HANDED_OVER if was_handed_over else NOT_HANDED_OVER)
    _assert_order(first, [EventKind.PREFILL_STARTED, EventKind.PREFILL_DONE, EventKind.FIRST_TOKEN, EventKind.FINISHED])
    if was_handed_over:
        _assert_order(first, [EventKind.PREFILL_DONE, EventKind.TRANSFER_DONE])
        _assert_order(first, [EventKind.ROUTED, EventKind.PREDICTED, EventKind.DISPATCHED])
    seats = [event.kind for event in life if event.kind in (EventKind.ADMITTED, EventKind.PREEMPTED)]
    for before, after in pairwise(seats):
        assert (before, after) != (EventKind.ADMITTED, EventKind.ADMITTED), "admitted twice"
        assert before is not after or not was_handed_over, "preempted twice without running"
    assert not seats or seats[0] is EventKind.ADMITTED or not was_handed_over


def _assert_deliveries(one: Request, life: list[Event]) -> None:
    deliveries = [event for event in life if event.kind in (EventKind.FIRST_TOKEN, EventKind.TOKEN)]
    assert all(event.source == CLIENT for event in deliveries)
    assert deliveries[0].kind is EventKind.FIRST_TOKEN
    finished = (
        life[-1] if life[-1].kind is EventKind.FINISHED else next(e for e in life if e.kind is EventKind.FINISHED)
    )
    assert finished.details == {"num_output_tokens": len(deliveries)}
    assert len(deliveries) == one.max_output_tokens or (one.natural_stop and len(deliveries) < one.max_output_tokens)


def _assert_order(first: dict[EventKind, float], edges: list[EventKind]) -> None:
    assert set(edges) <= first.keys(), f"missing: {set(edges) - first.keys()}"
    ordered = [first[edge] for edge in edges]
    assert ordered == sorted(ordered), dict(zip(edges, ordered, strict=True))


def environment(hash_seed: int) -> dict[str, str]:
    """For a fresh interpreter that imports this checkout, and that takes itself for nobody's worker."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    return {**inherited, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parent.parent)}
