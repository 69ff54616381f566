"""The decode instance's scheduler: make room, receive, decode continuously (paper section 3.4)."""

from collections import deque
from dataclasses import dataclass

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Arrived, Granted, Message, Released, Reserve, TokenOutput
from tetribench.core.sequence import Sequence
from tetribench.decode.admit import Admission, KVView
from tetribench.decode.running import RunningBatch
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk
from tetribench.instance.scheduler import Outbox, PredictsNothing
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Moved


class DecodePolicies:
    """What a decode instance is made of; builds its scheduler once the engine's memory is known.

    `max_num_seqs` bounds the sequences that hold memory. A preempted sequence is recomputed in chunks of at most
    `recompute_chunk_size` tokens.
    """

    def __init__(self, *, admit: Admission, max_num_seqs: int = 256, recompute_chunk_size: int = 512) -> None:
        if max_num_seqs < 1:
            raise ValueError(f"system.tetri.decode.max_num_seqs={max_num_seqs}: must be at least 1")
        if recompute_chunk_size < 1:
            raise ValueError(f"system.tetri.decode.recompute_chunk_size={recompute_chunk_size}: must be at least 1")
        self.admit = admit
        self.max_num_seqs = max_num_seqs
        self.recompute_chunk_size = recompute_chunk_size

    def build(self, name: str, info: EngineInfo) -> "DecodeScheduler":
        return DecodeScheduler(name, self, info)


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request that waits for memory, and the instance that waits with it."""

    sequence: Sequence
    reply_to: str


class DecodeScheduler(PredictsNothing):
    """Requests ask for memory (`Reserve`), get it (`Granted`), arrive with their KV (`Arrived`), and decode.

    The admission policy decides at the first of these steps, before any byte moves: a request that it holds back waits
    with its KV on the prefill side. The paper decides once the KV has arrived, but does not say where it would lie
    until then; here nothing lies in this instance's memory that does not run. First come, first served; a preempted
    request comes before all that ask, and while it is recomputed the decodes wait.
    """

    def __init__(self, name: str, policies: DecodePolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._asking: deque[_Asking] = deque()
        self._receiving: dict[int, Sequence] = {}
        self._preempted: deque[Sequence] = deque()
        self._recomputing: Sequence | None = None
        self._running = RunningBatch(self._kv)

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Reserve(request, predicted, reply_to):
                self._asking.append(_Asking(Sequence(request, predicted), reply_to))
            case Arrived(request_id, first_token_id):
                sequence = self._receiving.pop(request_id)
                sequence.num_computed = sequence.num_tokens
                sequence.append(first_token_id, frozenset())
                self._running.members.append(sequence)
                self.outbox.event(now_s, EventKind.ADMITTED, request_id)
            case Released(request_id):
                self._release(request_id)
            case _:
                raise AssertionError(f"a decode instance got {message}")
        self._grant(now_s)

    def _release(self, request_id: int) -> None:
        if request_id in self._receiving:
            self._kv.release(self._receiving.pop(request_id))
        else:
            self._asking = deque(asking for asking in self._asking if asking.sequence.request.id != request_id)

    def _grant(self, now_s: float) -> None:
        while self._asking and not self._preempted:
            asking = self._asking[0]
            sequence = asking.sequence
            if not self._fits(sequence):
                return
            self._asking.popleft()
            self._kv.extend(sequence, sequence.num_tokens)
            self._receiving[sequence.request.id] = sequence
            self.outbox.event(now_s, EventKind.RESERVED, sequence.request.id, num_blocks=len(sequence.block_ids))
            self.outbox.send(asking.reply_to, Granted(sequence.request.id, list(sequence.block_ids)))

    def _holders(self) -> list[Sequence]:
        """Every sequence that holds memory here."""
        recomputing = [self._recomputing] if self._recomputing is not None else []
        return [*self._running.members, *self._receiving.values(), *recomputing]

    def _fits(self, sequence: Sequence) -> bool:
        holders = self._holders()
        if len(holders) >= self._policies.max_num_seqs or not self._kv.can_hold(sequence, sequence.num_tokens):
            return False
        view = KVView(self._kv.block_size, self._kv.num_free_tokens)
        return not holders or self._policies.admit.admits(sequence, holders, view)

    def next_batch(self, now_s: float) -> Batch | None:
        if self._recomputing is None and self._preempted and self._fits(self._preempted[0]):
            self._recomputing = self._preempted.popleft()
            self._kv.extend(self._recomputing, self._recomputing.num_tokens)
        if self._recomputing is not None:
            sequence = self._recomputing
            num_tokens = min(sequence.num_uncomputed, self._policies.recompute_chunk_size)
            return Batch(prefill=[PrefillChunk(sequence, sequence.num_computed, num_tokens)])
        for victim in self._running.grow():
            self.outbox.event(now_s, EventKind.PREEMPTED, victim.request.id, num_tokens=victim.num_tokens)
            self._preempted.appendleft(victim)
        if not self._running.members:
            return None
        return Batch(decode=list(self._running.members))

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        if batch.prefill:
            self._recomputed(batch.prefill[0], tokens, now_s)
        else:
            self.outbox.outputs += self._running.take(tokens, self._stop_token_ids)
        self._grant(now_s)

    def _recomputed(self, chunk: PrefillChunk, tokens: dict[int, int], now_s: float) -> None:
        sequence = chunk.sequence
        sequence.num_computed += chunk.num_tokens
        if sequence.num_uncomputed:
            return
        self._recomputing = None
        token_id = tokens[sequence.request.id]
        is_last = sequence.append(token_id, self._stop_token_ids)
        self.outbox.outputs.append(TokenOutput(sequence.request.id, token_id, is_last))
        if is_last:
            self._kv.release(sequence)
        else:
            self._running.members.append(sequence)
            self.outbox.event(now_s, EventKind.ADMITTED, sequence.request.id)

    def moved(self, moved: Moved) -> None:
        raise AssertionError("a decode instance pushes nothing")

    def load(self, now_s: float) -> InstanceLoad:
        waiting = [asking.sequence for asking in self._asking] + list(self._preempted)
        accepted = waiting + self._holders()
        num_heavy = sum(sequence.predicted.is_heavy for sequence in accepted)
        num_promised_tokens = sum(sequence.num_tokens for sequence in waiting)
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens - num_promised_tokens,
            num_waiting=len(waiting),
            num_running=len(self._running),
            num_heavy=num_heavy,
            num_light=len(accepted) - num_heavy,
        )

    def check(self) -> None:
        assert not self._asking and not self._preempted, "an idle decode instance forgot a request"
        assert not self._holders(), "an idle decode instance still holds memory"
        self._kv.check([])
