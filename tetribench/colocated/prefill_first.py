"""vLLM's scheduler as the paper compared against it (early 2024): whole prompts first, then one token for everyone."""

from collections import deque

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Drain, Lost, Message, Submit, TokenOutput
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.decode.running import RunningBatch
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk
from tetribench.instance.scheduler import Outbox
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Moved


class PrefillFirstPolicies:
    """At most `max_num_seqs` running sequences (vLLM's default is 256; the paper ran it with 16).

    The prompts of one iteration have together at most `max_num_batched_tokens`. A share `watermark` of the blocks is
    kept free when a prompt is admitted, so that it does not at once preempt somebody.
    """

    def __init__(self, *, max_num_seqs: int = 256, max_num_batched_tokens: int = 2048, watermark: float = 0.01) -> None:
        if max_num_seqs < 1:
            raise ValueError(f"system.vllm_like.scheduler.max_num_seqs={max_num_seqs}: must be at least 1")
        if max_num_batched_tokens < 1:
            raise ValueError(
                f"system.vllm_like.scheduler.max_num_batched_tokens={max_num_batched_tokens}: must be at least 1"
            )
        if not 0.0 <= watermark < 1.0:
            raise ValueError(f"system.vllm_like.scheduler.watermark={watermark}: must be at least 0 and below 1")
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.watermark = watermark

    def build(self, name: str, info: EngineInfo) -> "PrefillFirstScheduler":
        return PrefillFirstScheduler(name, self, info)


class PrefillFirstScheduler:
    """An iteration holds whole prompts or decodes, never both; prompts go first, in order of arrival.

    When memory runs out the sequence admitted last is preempted and recomputed: prompt and response so far become its
    prompt, ahead of all that wait.
    """

    def __init__(self, name: str, policies: PrefillFirstPolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._num_kept_blocks = int(policies.watermark * info.num_blocks)
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._waiting: deque[Sequence] = deque()
        self._running = RunningBatch(self._kv)
        self._admitted: list[Sequence] = []

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Submit(request, attempt, output_ids):
                no_prediction = LengthRange(0, request.max_output_tokens + 1)
                sequence = Sequence(request, no_prediction, output_ids=list(output_ids), attempt=attempt)
                self._waiting.append(sequence)
            case Lost() | Drain():
                pass  # it holds nothing for others; control sends nothing more before it drains
            case _:
                raise AssertionError(f"a colocated instance got {message}")

    def next_batch(self, now_s: float) -> Batch | None:
        self._admit(now_s)
        if self._admitted:
            return Batch(prefill=[PrefillChunk(sequence, 0, sequence.num_tokens) for sequence in self._admitted])
        for victim in self._running.grow():
            self.outbox.event(now_s, EventKind.PREEMPTED, victim.request.id, num_tokens=victim.num_tokens)
            self._waiting.appendleft(victim)
        return Batch(decode=list(self._running.members)) if self._running.members else None

    def _admit(self, now_s: float) -> None:
        """Move prompts from the queue into the coming iteration while seats, its token budget and memory last."""
        budget = self._policies.max_num_batched_tokens
        while self._waiting and len(self._running) + len(self._admitted) < self._policies.max_num_seqs:
            sequence = self._waiting[0]
            is_alone = not self._running.members and not self._admitted
            if sequence.num_tokens > budget and self._admitted:
                return  # a prompt longer than the whole budget runs by itself
            if not self._kv.can_hold(sequence, sequence.num_tokens):
                return
            num_left = self._kv.num_free - self._kv.blocks_for(sequence.num_tokens)
            if num_left < self._num_kept_blocks and not is_alone:
                return
            self._waiting.popleft()
            self._kv.extend(sequence, sequence.num_tokens)
            self._admitted.append(sequence)
            budget -= sequence.num_tokens
            if not sequence.output_ids:
                self.outbox.event(now_s, EventKind.PREFILL_STARTED, sequence.request.id)

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        if batch.decode:
            self.outbox.outputs += self._running.take(batch.decode, tokens, self._stop_token_ids)
            return
        for sequence in self._admitted:
            self._join(sequence, tokens[sequence.request.id], now_s)
        self._admitted = []

    def _join(self, sequence: Sequence, token_id: int, now_s: float) -> None:
        request_id = sequence.request.id
        sequence.num_computed = sequence.num_tokens
        if not sequence.output_ids:
            self.outbox.event(now_s, EventKind.PREFILL_DONE, request_id)
        is_last = sequence.append(token_id, self._stop_token_ids)
        self.outbox.outputs.append(
            TokenOutput(request_id, sequence.attempt, len(sequence.output_ids) - 1, token_id, is_last)
        )
        if is_last:
            self._kv.release(sequence)
        else:
            self._running.members.append(sequence)
            self.outbox.event(now_s, EventKind.ADMITTED, request_id)

    def moved(self, moved: Moved) -> None:
        raise AssertionError("a colocated instance pushes nothing")

    def load(self, now_s: float) -> InstanceLoad:
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens,
            num_queued_tokens=sum(sequence.num_tokens for sequence in self._waiting),
            num_waiting=len(self._waiting),
            num_running=len(self._running),
        )

    @property
    def is_drained(self) -> bool:
        return not (self._waiting or self._admitted or self._running.members)

    def check(self) -> None:
        assert self.is_drained, "an idle colocated instance forgot a request"
        self._kv.check([])
