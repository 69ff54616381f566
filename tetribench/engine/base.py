"""What the loop hands to an engine and what it gets back."""

import asyncio
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tetribench.core.clock import Clock
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.foreseen import Foreseen
from tetribench.engine.sharing import Sharing

if TYPE_CHECKING:
    from tetribench.engine.spans import Spans


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Compute positions `[start, start + num_tokens)` of `sequence`, whose blocks cover them.

    If that reaches the sequence's last known token, the chunk yields the next one.
    """

    sequence: Sequence
    start: int
    num_tokens: int

    @property
    def yields_token(self) -> bool:
        return self.start + self.num_tokens == self.sequence.num_tokens


BlockPair = tuple[int, int]
"""A block of the device and a block of host memory."""


@dataclass(slots=True)
class Batch:
    """One iteration: one forward pass over prefill chunks and one token for each decoding sequence.

    `num_padding_tokens` rows are computed for nothing (a zero-padded chunk, paper section 3.3.3). `by_layer` asks the
    engine to tell of each layer.
    Before the pass blocks are copied: first those of `swap_out` to host memory, then those of `swap_in` back. A batch
    of swaps alone has no pass. The engine reads the sequences and changes none of them.
    """

    prefill: list[PrefillChunk] = field(default_factory=list)
    decode: list[Sequence] = field(default_factory=list)
    num_padding_tokens: int = 0
    swap_out: list[BlockPair] = field(default_factory=list)
    swap_in: list[BlockPair] = field(default_factory=list)
    by_layer: bool = False

    @property
    def num_prefill_tokens(self) -> int:
        return sum([chunk.num_tokens for chunk in self.prefill])

    @property
    def num_rows(self) -> int:
        """Of the forward pass; 0 where there is none."""
        return len(self.decode) + self.num_prefill_tokens + self.num_padding_tokens

    @property
    def num_swapped_blocks(self) -> int:
        return len(self.swap_out) + len(self.swap_in)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Facts read back from a running engine; schedulers rely on the first four, reports print them all."""

    num_blocks: int
    num_host_blocks: int = 0
    """Blocks of host memory for what is swapped out."""
    block_size: int
    stop_token_ids: tuple[int, ...] = ()
    max_context_tokens: int
    block_bytes: int
    num_layers: int = 1
    """A block holds its layers one after the other, all of one size."""
    device: str
    device_uuid: str | None = None
    """Of an NVIDIA device, by which its energy is read."""
    dtype: str
    num_parameters: int
    num_devices: int = 1
    num_sharing: int = 1
    """Instances that have these devices together."""
    num_multiprocessors: int | None = None
    """Of its GPU, those that it computes on, where others have the rest."""
    attention: str
    attention_passed_over: dict[str, str] = field(default_factory=dict)
    """Faster ones that do not run here, and why."""
    linear: str | None = None
    """What computes linear layers, where there is a choice."""
    has_compiled_layers: bool = False
    """Decoder layers went through `torch.compile`."""
    kv_copies_passed_over: str | None = None
    """Why KV is copied by a call of torch for each piece and not by one call of C for all."""
    graph_sequences: int = 0
    """Decodes of at most so many sequences are replayed as a recorded pass."""
    graph_chunk_tokens: int = 0
    """Passes over just so many rows of prompts are replayed so."""
    copy_bytes_per_s: float | None = None
    """Speed of a KV copy, where it is a number and not something that happens (a cost model)."""
    copy_latency_s: float = 0.0
    """What a KV copy takes beside that, likewise."""
    fitted: dict[str, int] = field(default_factory=dict)
    """The largest `prefill_tokens`, `sequences` and `context_tokens` that a cost model's constants were fitted on."""
    versions: dict[str, str] = field(default_factory=dict)
    predictor: str = "nothing to predict"
    """What predicts response lengths beside this engine, and where it runs."""
    predicts_in_parallel: bool = False
    """Prompts are prefilled while their response lengths are predicted."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def part_of(self, layer: int) -> "Part":
        """Where in a block a layer's keys and values are."""
        num_bytes = self.block_bytes // self.num_layers
        return Part(layer * num_bytes, num_bytes)


class Part(NamedTuple):
    """The same `num_bytes` from `offset` of every block."""

    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Region:
    """Where the blocks of a pool lie, one after the other, as `num_bytes` from `address`."""

    address: int
    num_bytes: int
    cuda_device: int | None
    """None for host memory."""


class KVPool(Protocol):
    """An engine's KV memory, as the links see it: bytes, block after block, that can be moved between instances.

    What is copied is there on return. None of the copies waits for the engine's computation.
    """

    block_bytes: int

    @property
    def num_bytes(self) -> int:
        """All blocks that can be handed out."""

    @property
    def region(self) -> Region | None:
        """Where these are; None where they lie in parts, on several devices."""

    def handle(self) -> bytes:
        """What a peer in another process of this machine needs to map this pool."""

    def attach(self, handle: bytes) -> "KVPool":
        """Map a peer's pool. Raises OSError when its owner is gone."""

    def copy_to(self, peer: "KVPool", spans: "Spans") -> None:
        """Copy from this pool to a mapped one."""

    def gather(self, buffer: memoryview, spans: "Spans") -> None:
        """Copy from this pool into host memory."""

    def scatter(self, buffer: memoryview, spans: "Spans") -> None:
        """Copy from host memory into this pool."""

    def pin(self, buffer: memoryview) -> Callable[[], None]:
        """Lock host memory for faster copies, where the pool is on an accelerator; call the result to undo it."""


OnLayer = Callable[[int], None]
"""Called, on the event loop, with each layer that an iteration has computed."""


class Engine(Protocol):
    info: EngineInfo
    pool: KVPool | None
    """None where there are no bytes to move (a cost model)."""

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        """Execute one iteration; the next token id of every request that yields one, by request id.

        An engine that knows when a layer's keys and values are in their blocks tells `on_layer`, in the order of the
        layers and before it returns; what it has not told of is there on return.
        """

    def foresee(self, batch: Batch, num_steady: Callable[[], int]) -> Foreseen | None:
        """When the next iterations of these decodes alone will end, as many as `num_steady()` at most.

        None where only time will tell; the iteration is then to be run.
        """
        return None

    async def watch(self) -> None:
        """Raises when something has ended that the engine cannot do without, busy or idle; else waits for ever."""
        await forever()

    def close(self) -> None:
        """Give back threads and memory."""


async def forever() -> None:
    """Never returns."""
    await asyncio.Event().wait()


class LengthPredictor(Protocol):
    """What runs beside the engine of a prefill instance and predicts response lengths (paper section 3.3.2)."""

    description: str
    is_parallel: bool
    """It may run during an iteration; else the two take turns."""

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        """The range that each request's response length is expected in, by request id."""

    def close(self) -> None:
        """Give back processes, threads and memory."""


def with_predictor(info: EngineInfo, predictor: LengthPredictor) -> EngineInfo:
    """The facts of an engine and of what predicts beside it."""
    return replace(info, predictor=predictor.description, predicts_in_parallel=predictor.is_parallel)


class PredictorFactory(Protocol):
    """A light, picklable description of a length predictor; heavy imports happen in `build`."""

    def check(self, requests: SequenceOf[Request]) -> None:
        """Raises ValueError for requests that it could not predict; nothing has been started by then."""

    def build(self, engine: Engine, clock: Clock, spare_core: int | None) -> LengthPredictor:
        """Make it, beside `engine`. `spare_core` is a core that the engine does not need, where there is one."""


class EngineFactory(Protocol):
    """A light, picklable description of an engine; heavy imports happen in `build`."""

    block_size: int

    def sized(self, num_devices: int, num_sharing: int = 1) -> "EngineFactory":
        """This engine with its sizes settled for instances on `num_devices` devices of this machine, at most
        `num_sharing` on each.

        Raises ValueError, naming the option, for what cannot work; nothing has been started by then.
        """

    def num_blocks(self) -> int:
        """KV blocks that each engine will have; known once it is sized."""

    @property
    def is_noisy(self) -> bool:
        """Whether the same work takes it another time when it is done again."""

    @property
    def has_parts(self) -> bool:
        """Whether an engine's KV memory lies in parts, with several ranks that compute together."""

    def in_slot(self, slot: str) -> "EngineFactory":
        """This engine for one of several servings of the same requests, whose noise is its own."""

    def with_host_memory(self) -> "EngineFactory":
        """This engine with the host memory that swapping needs; an engine that is not asked takes none.

        Raises ValueError, naming the option, where that memory is nothing or more than there is.
        """

    @property
    def runs_on_a_core(self) -> bool:
        """Its device is a core, which is all that an instance has of the machine; else it has cores beside it."""

    def shared(self, num_instances: int, sharing: Sharing, first_share: float = 0.5) -> "EngineFactory":
        """This engine as one of `num_instances` on one device, each with its part of what one alone would have for KV.

        Where `sharing` divides what computes, the first has `first_share` of it. Raises ValueError where a device
        cannot be shared so.
        """

    def in_part(self, part: int) -> "EngineFactory":
        """This shared engine as the `part`-th of those on its device, counted from 0."""

    def build(self, clock: Clock, device: int | None) -> Engine:
        """Make the engine in this process; `device` counts those of a system and, on CPU, is of no effect."""
