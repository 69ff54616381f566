"""The prefill instance's scheduler: order, chunk, predict, dispatch, hand over (paper section 3.3)."""

from collections import deque

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Arrived, Granted, LoadBroadcast, Message, Released, Reserve, Submit, TokenOutput
from tetribench.core.request import Request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk
from tetribench.instance.scheduler import Outbox
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Granularity, Handover, Moved
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import Dispatcher
from tetribench.prefill.order import Order
from tetribench.prefill.predict import Predictor
from tetribench.prefill.view import LoadView


class PrefillPolicies:
    """What a prefill instance is made of; builds its scheduler once the engine's memory is known."""

    def __init__(
        self,
        *,
        order: Order,
        chunk: Chunker,
        predict: Predictor,
        dispatch: Dispatcher,
        granularity: Granularity = Granularity.chunk,
        seed: int = 0,
    ) -> None:
        self.order = order
        self.chunk = chunk
        self.predict = predict
        self.dispatch = dispatch
        self.granularity = granularity
        self.seed = seed

    def build(self, name: str, info: EngineInfo) -> "PrefillScheduler":
        return PrefillScheduler(name, self, info)


class PrefillScheduler:
    """A prompt's way: raw queue, scheduled queue, chunks.

    After its first chunk a decode instance is chosen and asked for room; after its last its first token goes to the
    client, and its KV, at once or chunk by chunk, to that instance.

    It keeps a prompt's blocks until the last of them has arrived: when the decode side is full, KV piles up here, this
    instance runs out of blocks and stops taking prompts. That is the back-pressure; nothing is dropped.
    """

    def __init__(self, name: str, policies: PrefillPolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._num_layers = info.num_layers
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._rng = generator(policies.seed, "prefill", name)
        self._raw: deque[Request] = deque()
        self._scheduled: deque[Sequence] = deque()
        self._view = LoadView()
        self._handovers: dict[int, Handover] = {}
        self._computing: dict[int, int] = {}
        """Up to which position the running batch computes each prompt in it."""

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Submit(request):
                self._raw.append(request)
            case LoadBroadcast(loads):
                self._view.update(loads)
            case Granted(request_id, block_ids):
                handover = self._handovers.get(request_id)
                if handover is not None:  # else the response ended with its first token; `Released` is on its way
                    handover.target_ids = block_ids
                    self._push(handover)
                    self._push_layers(handover)
            case _:
                raise AssertionError(f"a prefill instance got {message}")

    def next_batch(self, now_s: float) -> Batch | None:
        num_waiting_tokens = sum(sequence.num_uncomputed for sequence in self._scheduled)
        while self._raw and num_waiting_tokens < self._policies.chunk.chunk_size:
            group = self._policies.order.next_group(self._raw)
            self._scheduled.extend(Sequence(request, self._predict(request)) for request in group)
            num_waiting_tokens += sum(request.num_prompt_tokens for request in group)
        batch = self._policies.chunk.cut(self._scheduled, self._kv)
        if batch is not None:
            batch.by_layer = self._policies.granularity is Granularity.layer
            for chunk in batch.prefill:
                if chunk.start == 0:
                    self.outbox.event(now_s, EventKind.PREFILL_STARTED, chunk.sequence.request.id)
                self._computing[chunk.sequence.request.id] = chunk.start + chunk.num_tokens
                handover = self._handovers.get(chunk.sequence.request.id)
                if handover is not None:
                    self._push_layers(handover)
        return batch

    def _predict(self, request: Request) -> LengthRange:
        rng = generator(self._policies.seed, "predict", request.id)
        return self._policies.predict.predict(request, rng)

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        self._computing.clear()
        for chunk in batch.prefill:
            chunk.sequence.num_computed += chunk.num_tokens
            if chunk.start == 0:
                self._dispatch(chunk.sequence, now_s)
            if chunk.sequence.request.id in tokens:
                self._finish_prompt(chunk, tokens[chunk.sequence.request.id], now_s)
            handover = self._handovers.get(chunk.sequence.request.id)
            if handover is not None:
                self._push(handover)
                self._finish_handover(handover, now_s)

    def _dispatch(self, sequence: Sequence, now_s: float) -> None:
        request, predicted = sequence.request, sequence.predicted
        if request.max_output_tokens == 1:
            return  # its first token, which this instance makes, is all of it
        choice = self._policies.dispatch.choose(request, predicted, self._view.loads, self._rng)
        self.outbox.event(
            now_s,
            EventKind.DISPATCHED,
            request.id,
            to=choice.to,
            candidates=list(choice.candidates),
            low=predicted.low,
            high=predicted.high,
            load_age_s=now_s - self._view.loads[choice.to].time_s,
        )
        self._view.note_dispatch(choice.to, request, predicted)
        self._handovers[request.id] = Handover(sequence, choice.to, self._policies.granularity, self._kv.block_size)
        self.outbox.send(choice.to, Reserve(request, predicted, self.outbox.name))

    def _finish_prompt(self, chunk: PrefillChunk, token_id: int, now_s: float) -> None:
        sequence, request_id = chunk.sequence, chunk.sequence.request.id
        self.outbox.event(now_s, EventKind.PREFILL_DONE, request_id)
        is_last = sequence.append(token_id, self._stop_token_ids)
        self.outbox.outputs.append(TokenOutput(request_id, token_id, is_last))
        if not is_last:
            return
        handover = self._handovers.get(request_id)
        if handover is None:
            self._kv.release(sequence)
        else:
            handover.is_cancelled = True
            self._release_cancelled(handover)

    def _release_cancelled(self, handover: Handover) -> None:
        """Give up both sides' blocks of a response that ended with its first token, once no copy touches them."""
        if handover.num_in_flight:
            return
        request_id = handover.sequence.request.id
        self.outbox.send(handover.to, Released(request_id))
        del self._handovers[request_id]
        self._kv.release(handover.sequence)

    def _push(self, handover: Handover) -> None:
        push = handover.next_push()
        if push is not None:
            self.outbox.pushes.append(push)

    def _push_layers(self, handover: Handover) -> None:
        """Of the blocks that the running batch, or the one about to run, completes."""
        num_computed = self._computing.get(handover.sequence.request.id)
        if num_computed is not None:
            self.outbox.pushes += handover.pushes_of_layers(num_computed, self._num_layers)

    def moved(self, moved: Moved) -> None:
        push = moved.push
        handover = self._handovers[push.request_id]
        if handover.num_moved_bytes == 0:
            self.outbox.event(moved.started_s, EventKind.TRANSFER_STARTED, push.request_id)
        handover.moved(moved)
        if handover.is_cancelled:
            self._release_cancelled(handover)
        else:
            self._finish_handover(handover, moved.ended_s)

    def _finish_handover(self, handover: Handover, now_s: float) -> None:
        """Once all of its KV has arrived and its last chunk has ended, whichever comes later."""
        if not handover.has_arrived or not handover.is_prefilled:
            return
        sequence, request_id = handover.sequence, handover.sequence.request.id
        details = {"num_bytes": handover.num_moved_bytes, "busy_s": handover.busy_s}
        self.outbox.event(now_s, EventKind.TRANSFER_DONE, request_id, **details)
        self.outbox.send(handover.to, Arrived(request_id, sequence.output_ids[0]))
        del self._handovers[request_id]
        self._kv.release(sequence)

    def load(self, now_s: float) -> InstanceLoad:
        num_queued_tokens = sum(request.num_prompt_tokens for request in self._raw)
        num_queued_tokens += sum(sequence.num_uncomputed for sequence in self._scheduled)
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens,
            num_queued_tokens=num_queued_tokens,
            num_waiting=len(self._raw) + len(self._scheduled),
            num_running=len(self._handovers),
        )

    def check(self) -> None:
        assert not self._raw and not self._scheduled and not self._handovers, (
            "an idle prefill instance forgot a request"
        )
        self._kv.check([])
