"""A server that computes nothing: its tokens are due at known moments, and it says itself when each was there.

What the client measures beyond that is the harness's own: sending, messages, the control plane, delivery.
"""

from math import floor

from tetribench.control.route import LeastRequests
from tetribench.core.clock import Clock
from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Message, Submit, TokenOutput
from tetribench.core.roles import Role
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.base import Batch, EngineFactory, EngineInfo, KVPool, OnLayer, PrefillChunk, forever
from tetribench.engine.foreseen import Foreseen
from tetribench.engine.predictor import NothingToPredict
from tetribench.engine.sharing import Sharing
from tetribench.instance.scheduler import DecodesNothing, Outbox, PredictsNothing
from tetribench.kv.links import Memory
from tetribench.kv.transfer import Moved
from tetribench.systems.base import Plan

STEP_S = 0.01
"""From one token of a response to the next: as fast as a GPU decodes a batch of a small model."""

REPORT_PERIOD_S = 0.1
"""The paper's (section 3.2): the client shares its core with the control plane, which takes loads in meanwhile."""

_NO_KV = EngineInfo(
    num_blocks=1,
    block_size=1,
    max_context_tokens=1,
    block_bytes=1,
    device="none",
    dtype="none",
    num_parameters=0,
    num_devices=0,
    attention="none",
    copy_bytes_per_s=1.0,
)


class NullEngine:
    """An iteration, whatever it holds, ends at the next multiple of `step_s` on the run's clock."""

    info = _NO_KV
    pool: KVPool | None = None

    def __init__(self, clock: Clock, step_s: float) -> None:
        self._clock = clock
        self._step_s = step_s
        self._num_steps = 0

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        """The absolute moment keeps steps from drifting; counting them keeps one that woke early from ending twice."""
        self._num_steps = max(self._num_steps, floor(self._clock.now() / self._step_s)) + 1
        await self._clock.sleep_until(self._num_steps * self._step_s)
        chunks = [chunk.sequence for chunk in batch.prefill]
        return dict.fromkeys([sequence.request.id for sequence in (*chunks, *batch.decode)], 0)

    def foresee(self, batch: Batch, num_steady: object) -> Foreseen | None:
        """Each step is waited for."""
        return None

    async def watch(self) -> None:
        """It depends on nothing."""
        await forever()

    def close(self) -> None:
        """Nothing is held."""


class NullEngineFactory:
    """Light and picklable, like every engine's."""

    block_size = _NO_KV.block_size
    is_noisy = False
    has_parts = False

    def __init__(self, step_s: float = STEP_S) -> None:
        self.step_s = step_s

    runs_on_a_core = True

    def sized(self, num_devices: int, num_sharing: int = 1) -> "NullEngineFactory":
        return self

    def shared(self, num_instances: int, sharing: Sharing, first_share: float = 0.5) -> "NullEngineFactory":
        return self

    def in_part(self, part: int) -> "NullEngineFactory":
        return self

    def in_slot(self, slot: str) -> "NullEngineFactory":
        return self

    def num_blocks(self) -> int:
        return _NO_KV.num_blocks

    def with_host_memory(self) -> "NullEngineFactory":
        return self

    def build(self, clock: Clock, core: int | None) -> NullEngine:
        return NullEngine(clock, self.step_s)


class NullScheduler(PredictsNothing, DecodesNothing):
    """Takes everything at once: a prompt's prefill starts when it is received, and its first token comes with the end
    of the next whole step; then one token a step. No KV is held."""

    num_used_blocks = 0

    def __init__(self, name: str) -> None:
        self.outbox = Outbox(name)
        self._prompts: list[tuple[float, Sequence]] = []
        """With when they were received, which the next batch tells, as other schedulers tell of a start."""
        self._running: list[Sequence] = []

    def receive(self, message: Message, now_s: float) -> None:
        assert isinstance(message, Submit), f"a null instance got {message}"
        request = message.request
        self._prompts.append((now_s, Sequence(request, LengthRange(0, request.max_output_tokens + 1))))

    def next_batch(self, now_s: float) -> Batch | None:
        prompts, self._prompts = self._prompts, []
        for received_s, one in prompts:
            self.outbox.event(received_s, EventKind.PREFILL_STARTED, one.request.id)
        chunks = [PrefillChunk(one, 0, one.request.num_prompt_tokens) for _, one in prompts]
        return Batch(prefill=chunks, decode=list(self._running)) if chunks or self._running else None

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        for chunk in batch.prefill:
            self.outbox.event(now_s, EventKind.PREFILL_DONE, chunk.sequence.request.id)
        ran = [*(chunk.sequence for chunk in batch.prefill), *batch.decode]
        self._running = []
        for one in ran:
            is_last = one.append(tokens[one.request.id], frozenset())
            output = TokenOutput(one.request.id, one.attempt, len(one.output_ids) - 1, one.output_ids[-1], is_last)
            self.outbox.outputs.append(output)
            if not is_last:
                self._running.append(one)

    def moved(self, moved: Moved) -> None:
        raise AssertionError("a null instance pushes nothing")

    def load(self, now_s: float) -> InstanceLoad:
        return InstanceLoad(time_s=now_s, num_total_tokens=1, num_free_tokens=1, num_running=len(self._running))

    @property
    def may_have_batch(self) -> bool:
        return not self.is_drained

    lacks_memory = False

    @property
    def is_drained(self) -> bool:
        return not (self._prompts or self._running)

    def check(self) -> None:
        assert self.is_drained, "an idle null instance forgot a request"


class NullPolicies:
    """There is nothing to choose."""

    def build(self, name: str, info: EngineInfo) -> NullScheduler:
        return NullScheduler(name)


class NullServer:
    """As a system: `num_instances` instances that share the requests."""

    def __init__(self, *, num_instances: int) -> None:
        self.num_instances = num_instances

    def plan(self, engine: EngineFactory) -> Plan:
        return Plan(
            num_instances={Role.colocated: self.num_instances},
            schedulers={Role.colocated: NullPolicies()},
            engine=engine,
            predictor=NothingToPredict(),
            link=Memory(),
            router=LeastRequests(),
            report_period_s=REPORT_PERIOD_S,
            broadcast_period_s=REPORT_PERIOD_S,
        )
