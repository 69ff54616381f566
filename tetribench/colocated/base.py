"""What the schedulers of a colocated instance have in common: the queue, the memory, preemption, a prompt's end."""

from abc import ABC, abstractmethod
from collections import deque

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Drain, Lost, Message, Submit
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.decode.running import RunningBatch
from tetribench.engine.base import Batch, EngineInfo
from tetribench.instance.scheduler import Outbox, PredictsNothing
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Moved


class ColocatedPolicies:
    """Bounds of an iteration: at most `max_num_seqs` running sequences and `max_num_batched_tokens` tokens.

    A share `watermark` of the blocks is kept free when a prompt is begun, so that it does not at once preempt somebody.
    """

    def __init__(self, *, max_num_seqs: int, max_num_batched_tokens: int, watermark: float) -> None:
        if max_num_seqs < 1:
            raise ValueError(f"scheduler.max_num_seqs={max_num_seqs}: must be at least 1")
        if max_num_batched_tokens < 1:
            raise ValueError(f"scheduler.max_num_batched_tokens={max_num_batched_tokens}: must be at least 1")
        if not 0.0 <= watermark < 1.0:
            raise ValueError(f"scheduler.watermark={watermark}: must be at least 0 and below 1")
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.watermark = watermark


class ColocatedScheduler(PredictsNothing, ABC):
    """First come, first served; the running batch also holds the prompts that are begun and not yet done.

    A prompt gets the blocks for all of its tokens when it is begun. When memory runs out the member that came last is
    preempted and recomputed: prompt and response so far become its prompt, ahead of all that wait.
    """

    def __init__(self, name: str, policies: ColocatedPolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._num_kept_blocks = int(policies.watermark * info.num_blocks)
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._waiting: deque[Sequence] = deque()
        self._preempted: deque[Sequence] = deque()
        self._running = RunningBatch(self._kv)

    @property
    def may_have_batch(self) -> bool:
        return not self.is_drained

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    @property
    def lacks_memory(self) -> bool:
        """Where nothing runs all memory is free, and any request fits."""
        return False

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Submit(request, attempt, output_ids):
                no_prediction = LengthRange(0, request.max_output_tokens + 1)
                self._waiting.append(Sequence(request, no_prediction, output_ids=list(output_ids), attempt=attempt))
            case Lost() | Drain():
                pass  # it holds nothing for others; control sends nothing more before it drains
            case _:
                raise AssertionError(f"a colocated instance got {message}")

    @abstractmethod
    def next_batch(self, now_s: float) -> Batch | None:
        """As in `Scheduler`."""

    @property
    def _first_in_line(self) -> Sequence | None:
        """The sequence that is begun next, if a seat and memory are free for it; nobody overtakes it."""
        queue = self._preempted or self._waiting
        if not queue or len(self._running) >= self._policies.max_num_seqs:
            return None
        sequence = queue[0]
        num_left = self._kv.num_free - self._kv.blocks_for(sequence.num_tokens)
        num_needed = self._num_kept_blocks if self._running.members else 0
        return sequence if num_left >= num_needed else None

    def _begin(self, sequence: Sequence, now_s: float) -> None:
        """Give the first in line its seat and its memory."""
        if self._preempted:
            self._preempted.popleft()
        else:
            self._waiting.popleft()
            self.outbox.event(now_s, EventKind.PREFILL_STARTED, sequence.request.id)
        self._kv.extend(sequence, sequence.num_tokens)
        self._running.members.append(sequence)

    def _make_room(self, now_s: float) -> list[Sequence]:
        """Room for the next token of every member; returns those that lost their memory for it."""
        victims = self._running.grow()
        for victim in victims:
            details = {"how": "recompute", "num_tokens": victim.num_tokens, "num_bytes": 0}
            self.outbox.event(now_s, EventKind.PREEMPTED, victim.request.id, **details)
            self._preempted.appendleft(victim)
        return victims

    def num_steady_iterations(self) -> int:
        """Who may not be begun now may not be while seats and free memory only become fewer."""
        return 1 if self._first_in_line is not None else self._running.num_steady_iterations()

    def advance(self, num_iterations: int) -> list[int]:
        return self._running.advance(num_iterations)

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        done = [chunk.sequence for chunk in batch.prefill if chunk.sequence.request.id in tokens]
        for chunk in batch.prefill:
            chunk.sequence.num_computed += chunk.num_tokens
        for sequence in done:
            if not sequence.output_ids:
                self.outbox.event(now_s, EventKind.PREFILL_DONE, sequence.request.id)
        ran = {*batch.decode, *(chunk.sequence for chunk in batch.prefill)}
        outputs = self._running.take(ran, tokens, self._stop_token_ids)
        ended = {output.request_id for output in outputs if output.is_last}
        for sequence in done:
            if sequence.request.id not in ended:
                self.outbox.event(now_s, EventKind.ADMITTED, sequence.request.id)
        self.outbox.outputs += outputs

    def moved(self, moved: Moved) -> None:
        raise AssertionError("a colocated instance pushes nothing")

    def load(self, now_s: float) -> InstanceLoad:
        waiting = [*self._preempted, *self._waiting]
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens,
            num_queued_tokens=sum(sequence.num_tokens for sequence in waiting),
            num_waiting=len(waiting),
            num_running=len(self._running),
        )

    @property
    def is_drained(self) -> bool:
        return not (self._waiting or self._preempted or self._running.members)

    def check(self) -> None:
        assert self.is_drained, "an idle colocated instance forgot a request"
        self._kv.check([])
