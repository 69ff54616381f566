"""An engine that keeps track of every KV slot. It models no scheduler: it only checks what it is asked to compute, and
yields tokens that say which request and position they belong to."""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from copy import copy

from tests.support.builders import info
from tetribench.core.clock import Clock
from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch, Engine, EngineInfo, KVPool, OnLayer, Region, forever
from tetribench.engine.sharing import Sharing
from tetribench.engine.spans import Spans

STOP_TOKEN = 999_999_999


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

    def copy_to(self, peer: KVPool, spans: Spans) -> None:
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

    def gather(self, buffer: memoryview, spans: Spans) -> None:
        raise AssertionError("there are no bytes")

    def scatter(self, buffer: memoryview, spans: Spans) -> None:
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

    def shared(self, num_instances: int, sharing: Sharing, first_share: float = 0.5) -> "CheckingFactory":
        part = copy(self)
        part._num_blocks //= num_instances
        return part

    def in_part(self, part: int) -> "CheckingFactory":
        return self

    def build(self, clock: Clock, device: int | None) -> Engine:
        engine = CheckingEngine(self, clock, len(self.engines))
        self.engines.append(engine)
        return engine

    async def before_iteration(self, index: int, num_iterations: int) -> None:
        """Engine `index` begins an iteration, its first when `num_iterations` is 1."""

    def token(self, request_id: int, position: int) -> int:
        return STOP_TOKEN if self._stops.get(request_id) == position else token(request_id, position)
