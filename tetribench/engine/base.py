"""What the loop hands to an engine and what it gets back."""

from collections.abc import Sequence as SequenceOf
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from tetribench.core.clock import Clock
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence


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


@dataclass(slots=True)
class Batch:
    """One iteration: one forward pass over prefill chunks and one token for each decoding sequence.

    `num_padding_tokens` rows are computed for nothing (a zero-padded chunk, paper section 3.3.3).
    The engine reads the sequences and changes none of them.
    """

    prefill: list[PrefillChunk] = field(default_factory=list)
    decode: list[Sequence] = field(default_factory=list)
    num_padding_tokens: int = 0

    @property
    def num_prefill_tokens(self) -> int:
        return sum(chunk.num_tokens for chunk in self.prefill)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Facts read back from a running engine; schedulers rely on the first three, reports print them all."""

    num_blocks: int
    block_size: int
    stop_token_ids: tuple[int, ...] = ()
    max_context_tokens: int
    block_bytes: int
    device: str
    dtype: str
    num_parameters: int
    num_devices: int = 1
    attention: str
    copy_bytes_per_s: float | None = None
    """Speed of a KV copy, where it is a number and not something that happens (a cost model)."""
    versions: dict[str, str] = field(default_factory=dict)
    predictor: str = "nothing to predict"
    """What predicts response lengths beside this engine, and where it runs."""
    predicts_in_parallel: bool = False
    """Prompts are prefilled while their response lengths are predicted."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class KVPool(Protocol):
    """An engine's KV memory, as the links see it: blocks that can be written from another instance."""

    block_bytes: int

    def handle(self) -> bytes:
        """What a peer in another process of this machine needs to map this pool."""

    def attach(self, handle: bytes) -> "KVPool":
        """Map a peer's pool."""

    def copy_to(self, peer: "KVPool", source_ids: SequenceOf[int], target_ids: SequenceOf[int]) -> None:
        """Copy blocks `source_ids` of this pool to `target_ids` of the peer's; returns when the bytes are there."""


class Engine(Protocol):
    info: EngineInfo
    pool: KVPool | None
    """None where there are no bytes to move (a cost model)."""

    async def run(self, batch: Batch) -> dict[int, int]:
        """Execute one iteration; the next token id of every request that yields one, by request id."""

    def close(self) -> None:
        """Give back threads and memory."""


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

    def sized(self, num_instances: int) -> "EngineFactory":
        """This engine with its sizes settled for `num_instances` of them on this machine.

        Raises ValueError, naming the option, for what cannot work; nothing has been started by then.
        """

    def num_blocks(self) -> int:
        """KV blocks that each engine will have; known once it is sized."""

    def build(self, clock: Clock, core: int | None) -> Engine:
        """Make the engine in this process; `core` is the device index or, on CPU, of no effect."""
