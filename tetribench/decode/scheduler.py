"""The decode instance's scheduler: make room, receive, decode continuously (paper section 3.4)."""

from collections import deque
from dataclasses import dataclass

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import (
    Arrived,
    Close,
    Closed,
    Drain,
    Granted,
    LoadBroadcast,
    Lost,
    Message,
    Orphaned,
    Released,
    Reserve,
    TokenOutput,
)
from tetribench.core.sequence import Sequence
from tetribench.decode.admit import ANY_NUMBER, Admission, KVView
from tetribench.decode.preempt import PreemptedQueue, Preemption
from tetribench.decode.running import RunningBatch
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk
from tetribench.instance.post import CONTROL
from tetribench.instance.scheduler import Outbox, PredictsNothing
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Moved


class DecodePolicies:
    """What a decode instance is made of; builds its scheduler once the engine's memory is known.

    `max_num_seqs` bounds the sequences that hold memory. A share `watermark` of the blocks is kept free when a request
    is admitted beside others, as the colocated baseline does. `preemption` says how a preempted sequence gets its KV
    back; where it is recomputed, in chunks of at most `recompute_chunk_size` tokens.
    """

    def __init__(
        self,
        *,
        admit: Admission,
        max_num_seqs: int = 256,
        watermark: float = 0.01,
        preemption: Preemption = Preemption.recompute,
        recompute_chunk_size: int = 512,
    ) -> None:
        if max_num_seqs < 1:
            raise ValueError(f"system.tetri.decode.max_num_seqs={max_num_seqs}: must be at least 1")
        if recompute_chunk_size < 1:
            raise ValueError(f"system.tetri.decode.recompute_chunk_size={recompute_chunk_size}: must be at least 1")
        if not 0.0 <= watermark < 1.0:
            raise ValueError(f"system.tetri.decode.watermark={watermark}: must be at least 0 and below 1")
        self.admit = admit
        self.max_num_seqs = max_num_seqs
        self.watermark = watermark
        self.preemption = preemption
        self.recompute_chunk_size = recompute_chunk_size

    def build(self, name: str, info: EngineInfo) -> "DecodeScheduler":
        return DecodeScheduler(name, self, info)


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request that waits for memory, and the instance and ticket that wait with it."""

    sequence: Sequence
    sender: str
    ticket: int


class DecodeScheduler(PredictsNothing):
    """Requests ask for memory (`Reserve`), get it (`Granted`), arrive with their KV (`Arrived`), and decode.

    The admission policy decides at the first of these steps, before any byte moves: a request that it holds back waits
    with its KV on the prefill side. The paper decides once the KV has arrived, but does not say where it would lie
    until then; here nothing lies in this instance's memory that does not run. First come, first served; a preempted
    request comes before all that ask, once the others have grown. While it is recomputed the decodes wait; one that was
    swapped decodes with them in the iteration that begins with its copy.

    When a prefill instance is lost, what was to come from it never will: it is dropped and reported to control. What is
    to be dropped while an iteration computes it keeps its memory until that iteration ends.
    """

    def __init__(self, name: str, policies: DecodePolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._asking: deque[_Asking] = deque()
        self._receiving: dict[tuple[str, int], Sequence] = {}
        """By sender and ticket."""
        self._num_kept_blocks = int(policies.watermark * info.num_blocks)
        self._preempted = PreemptedQueue(policies.preemption, self._kv, info)
        self._recomputing: Sequence | None = None
        self._running = RunningBatch(self._kv, self._preempted.evict)
        self._computing: set[Sequence] = set()
        self._dropped: list[Sequence] = []
        self._is_draining = False
        self._awaited: set[str] = set()
        self._closed: set[str] = set()
        self._heavy: set[Sequence] = set()
        """Of all that this instance has or that wait for it, those with a long response ahead."""

    @property
    def may_have_batch(self) -> bool:
        return bool(self._running.members or self._preempted or self._recomputing)

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    @property
    def lacks_memory(self) -> bool:
        return bool(self._asking or self._preempted)

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Reserve():
                self._ask(message)
            case Arrived(sender, ticket, token_id):
                self._join(sender, ticket, token_id, now_s)
            case Released(sender, ticket):
                self._release(sender, ticket)
            case Lost(instance, restarted):
                self._lose(instance, restarted)
            case Closed(sender):
                self._closed.add(sender)
                self._awaited.discard(sender)
            case Drain(_, senders):
                self._is_draining = True
                self._awaited = set(senders) - self._closed
            case Close(decode):  # to the prefill instance that it was; nothing of that is left
                self.outbox.send(decode, Closed(self.outbox.name))
            case LoadBroadcast() | Granted():
                pass  # likewise; of what is granted now, `Released` is on its way already
            case _:
                raise AssertionError(f"a decode instance got {message}")
        self._grant(now_s)

    def _ask(self, reserve: Reserve) -> None:
        if reserve.attempt > 1:  # most often there is no earlier one to look for
            self._drop_attempts_before({reserve.request.id: reserve.attempt})
        known_ids = list(reserve.output_ids)
        sequence = Sequence(reserve.request, reserve.predicted, output_ids=known_ids, attempt=reserve.attempt)
        if sequence.predicted.is_heavy:
            self._heavy.add(sequence)
        self._asking.append(_Asking(sequence, reserve.sender, reserve.ticket))

    def _join(self, sender: str, ticket: int, token_id: int, now_s: float) -> None:
        sequence = self._receiving.pop((sender, ticket), None)
        if sequence is None:
            return  # its request has begun again elsewhere meanwhile
        sequence.num_computed = sequence.num_tokens
        sequence.append(token_id, frozenset())
        self._running.members.append(sequence)
        self.outbox.event(now_s, EventKind.ADMITTED, sequence.request.id)

    def _release(self, sender: str, ticket: int) -> None:
        released = [one.sequence for one in self._asking if (one.sender, one.ticket) == (sender, ticket)]
        sequence = self._receiving.get((sender, ticket))
        self._drop(released if sequence is None else [sequence])

    def _lose(self, instance: str, restarted: dict[int, int]) -> None:
        orphans = [one.sequence for one in self._asking if one.sender == instance]
        orphans += [sequence for (sender, _), sequence in self._receiving.items() if sender == instance]
        self._awaited.discard(instance)
        self._drop(orphans)
        self._drop_attempts_before(restarted)
        if orphans:
            attempts = {sequence.request.id: sequence.attempt for sequence in orphans}
            self.outbox.send(CONTROL, Orphaned(self.outbox.name, attempts))

    def _drop_attempts_before(self, attempts: dict[int, int]) -> None:
        held = [one.sequence for one in self._asking] + list(self._preempted) + self._holders()
        self._drop([one for one in held if one.attempt < attempts.get(one.request.id, 0)])

    def _drop(self, sequences: list[Sequence]) -> None:
        """Forget `sequences`; those that are being computed give back their memory when that ends."""
        if not sequences:
            return
        dropped = set(sequences)
        self._heavy -= dropped
        self._asking = deque(one for one in self._asking if one.sequence not in dropped)
        self._receiving = {key: one for key, one in self._receiving.items() if one not in dropped}
        self._preempted.forget(dropped)
        self._running.members = [one for one in self._running.members if one not in dropped]
        if self._recomputing in dropped:
            self._recomputing = None
        for sequence in sequences:
            if sequence in self._computing:
                self._dropped.append(sequence)
            else:
                self._kv.release(sequence)

    def _grant(self, now_s: float) -> None:
        while self._asking and not self._preempted:
            asking = self._asking[0]
            sequence = asking.sequence
            if not self._fits(sequence):
                return
            self._asking.popleft()
            self._kv.extend(sequence, sequence.num_tokens)
            self._receiving[asking.sender, asking.ticket] = sequence
            self.outbox.event(now_s, EventKind.RESERVED, sequence.request.id, num_blocks=len(sequence.block_ids))
            self.outbox.send(asking.sender, Granted(asking.ticket, list(sequence.block_ids)))

    def _holders(self) -> list[Sequence]:
        """Every sequence that holds memory here."""
        recomputing = [self._recomputing] if self._recomputing is not None else []
        return [*self._running.members, *self._receiving.values(), *recomputing]

    @property
    def _num_holders(self) -> int:
        return len(self._running) + len(self._receiving) + (self._recomputing is not None)

    def _has_room(self, sequence: Sequence) -> bool:
        """A seat and memory for its present tokens."""
        num_holders = self._num_holders
        num_left = self._kv.num_free - self._kv.blocks_for(sequence.num_tokens)
        return num_holders < self._policies.max_num_seqs and num_left >= (self._num_kept_blocks if num_holders else 0)

    def _fits(self, sequence: Sequence) -> bool:
        if not self._has_room(sequence):
            return False
        holders = self._holders()
        if not holders:
            return True
        view = KVView(self._kv.block_size, self._kv.num_free_tokens)
        return self._policies.admit.admits(sequence, holders, view)

    def next_batch(self, now_s: float) -> Batch | None:
        if self._recomputing is None:
            for victim in self._running.grow():
                self.outbox.event(now_s, EventKind.PREEMPTED, victim.request.id, **self._preempted.details(victim))
            self._resume(now_s)
        swap_out, swap_in = self._preempted.take_swaps()
        if self._recomputing is not None:
            sequence = self._recomputing
            self._computing = {sequence, *self._running.members}  # those that were swapped are copied in meanwhile
            num_tokens = min(sequence.num_uncomputed, self._policies.recompute_chunk_size)
            chunk = PrefillChunk(sequence, sequence.num_computed, num_tokens)
            return Batch(prefill=[chunk], swap_out=swap_out, swap_in=swap_in)
        if not self._running.members and not swap_out:
            return None
        self._computing = set(self._running.members)
        return Batch(decode=list(self._running.members), swap_out=swap_out, swap_in=swap_in)

    def _resume(self, now_s: float) -> None:
        """Bring preempted sequences back while they fit; one that must be recomputed holds up those behind it."""
        while self._recomputing is None and self._preempted and self._fits(self._preempted.first):
            sequence = self._preempted.bring_back()
            if sequence.num_computed:
                self._running.members.append(sequence)
                self.outbox.event(now_s, EventKind.ADMITTED, sequence.request.id)
            else:
                self._recomputing = sequence

    def num_steady_iterations(self) -> int:
        if self._dropped or len(self._running) != len(self._computing):
            return 1
        num_iterations = self._running.num_steady_iterations()
        if self._preempted:
            return min(num_iterations, self._num_refusals(self._preempted.first))
        return min(num_iterations, self._num_refusals(self._asking[0].sequence)) if self._asking else num_iterations

    def _num_refusals(self, sequence: Sequence) -> int:
        """For how many iterations, with the one in flight, `sequence` goes on not to fit; at least 1.

        Seats and free memory only become fewer while nobody ends.
        """
        if not self._has_room(sequence):
            return ANY_NUMBER
        view = KVView(self._kv.block_size, self._kv.num_free_tokens)
        receiving = list(self._receiving.values())
        return self._policies.admit.num_refusals(sequence, self._running.members, receiving, view)

    def advance(self, num_iterations: int) -> list[int]:
        return self._running.advance(num_iterations)

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        computed, self._computing = self._computing, set()
        for sequence in self._dropped:
            self._kv.release(sequence)
        if batch.prefill:
            if batch.prefill[0].sequence not in self._dropped:
                self._recomputed(batch.prefill[0], tokens, now_s)
        else:
            outputs = self._running.take(computed, tokens, self._stop_token_ids)
            self.outbox.outputs += outputs
            ended = {output.request_id for output in outputs if output.is_last}
            if ended:
                self._heavy -= {one for one in computed if one.request.id in ended}
        self._dropped = []
        self._grant(now_s)

    def _recomputed(self, chunk: PrefillChunk, tokens: dict[int, int], now_s: float) -> None:
        sequence = chunk.sequence
        sequence.num_computed += chunk.num_tokens
        if sequence.num_uncomputed:
            return
        self._recomputing = None
        token_id = tokens[sequence.request.id]
        is_last = sequence.append(token_id, self._stop_token_ids)
        index = len(sequence.output_ids) - 1
        self.outbox.outputs.append(TokenOutput(sequence.request.id, sequence.attempt, index, token_id, is_last))
        if is_last:
            self._kv.release(sequence)
            self._heavy.discard(sequence)
        else:
            self._running.members.append(sequence)
            self.outbox.event(now_s, EventKind.ADMITTED, sequence.request.id)

    def moved(self, moved: Moved) -> None:
        raise AssertionError("a decode instance pushes nothing")

    def load(self, now_s: float) -> InstanceLoad:
        waiting = [*[asking.sequence for asking in self._asking], *self._preempted]
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens - sum([sequence.num_tokens for sequence in waiting]),
            num_waiting=len(waiting),
            num_running=len(self._running),
            num_heavy=len(self._heavy),
            num_light=len(waiting) + self._num_holders - len(self._heavy),
        )

    @property
    def is_drained(self) -> bool:
        return self._is_draining and not self._awaited and not self._holds_anything

    @property
    def _holds_anything(self) -> bool:
        return bool(self._asking or self._preempted or self._dropped or self._holders())

    def check(self) -> None:
        assert not self._holds_anything and not self._heavy, "an idle decode instance forgot a request"
        self._preempted.check()
        self._kv.check([])
