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
from tetribench.prefill.predict import Learned, Predictor
from tetribench.prefill.predict_mode import Parallel, PredictMode
from tetribench.prefill.predictor import PrefillPredictor
from tetribench.prefill.view import LoadView

PARALLEL = Parallel()
"""The paper's choice."""


class PrefillPolicies:
    """What a prefill instance is made of; builds its scheduler once the engine's memory is known."""

    def __init__(
        self,
        *,
        order: Order,
        chunk: Chunker,
        predict: Predictor | Learned,
        dispatch: Dispatcher,
        predict_mode: PredictMode = PARALLEL,
        granularity: Granularity = Granularity.chunk,
        seed: int = 0,
    ) -> None:
        self.order = order
        self.chunk = chunk
        self.predict = predict
        self.dispatch = dispatch
        self.predict_mode = predict_mode
        self.granularity = granularity
        self.seed = seed

    def predictor(self) -> PrefillPredictor:
        """What predicts for the scheduler."""
        return PrefillPredictor(self.predict, self.predict_mode, self.seed)

    def build(self, name: str, info: EngineInfo) -> "PrefillScheduler":
        return PrefillScheduler(name, self, info)


class PrefillScheduler:
    """A prompt's way: raw queue, scheduled queue, chunks.

    Its response length is predicted before the raw queue, or beside all this (see `Parallel`). After its first chunk,
    and once its prediction is there, a decode instance is chosen and asked for room; after its last its first token
    goes to the client, and its KV, at once or chunk by chunk, to that instance.

    It keeps a prompt's blocks until the last of them has arrived: when the decode side is full, KV piles up here, this
    instance runs out of blocks and stops taking prompts. That is the back-pressure; nothing is dropped.
    """

    def __init__(self, name: str, policies: PrefillPolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._rng = generator(policies.seed, "prefill", name)
        self._predicts_in_parallel = info.predicts_in_parallel
        self._unpredicted: deque[Request] = deque()
        """Not yet handed to the length predictor."""
        self._predictions: dict[int, LengthRange | None] = {}
        """Of all requests that are not dispatched yet; None while a prediction is not there."""
        self._held: dict[int, Request] = {}
        """Kept out of the raw queue until they are predicted."""
        self._undispatched: dict[int, Sequence] = {}
        """Their first chunk was prefilled before their prediction was there."""
        self._raw: deque[Request] = deque()
        self._scheduled: deque[Sequence] = deque()
        self._view = LoadView()
        self._handovers: dict[int, Handover] = {}

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Submit(request):
                self._unpredicted.append(request)
                self._predictions[request.id] = None
                if self._predicts_in_parallel:
                    self._raw.append(request)
                else:
                    self._held[request.id] = request
            case LoadBroadcast(loads):
                self._view.update(loads)
            case Granted(request_id, block_ids):
                handover = self._handovers.get(request_id)
                if handover is not None:  # else the response ended with its first token; `Released` is on its way
                    handover.target_ids = block_ids
                    self._push(handover)
            case _:
                raise AssertionError(f"a prefill instance got {message}")

    def next_prediction(self) -> list[Request]:
        while self._unpredicted and self._unpredicted[0].id not in self._predictions:
            self._unpredicted.popleft()  # its response has ended with its first token
        return self._policies.predict_mode.next_group(self._unpredicted)

    def predicted(self, ranges: dict[int, LengthRange], started_s: float, now_s: float) -> None:
        for request_id, found in ranges.items():
            details = {"low": found.low, "high": found.high, "duration_s": now_s - started_s}
            self.outbox.event(now_s, EventKind.PREDICTED, request_id, **details)
            if request_id in self._held:
                self._raw.append(self._held.pop(request_id))
            if request_id in self._predictions:
                self._predictions[request_id] = found
            if request_id in self._undispatched:
                self._dispatch(self._undispatched.pop(request_id), now_s)

    def next_batch(self, now_s: float) -> Batch | None:
        num_waiting_tokens = sum(sequence.num_uncomputed for sequence in self._scheduled)
        while self._raw and num_waiting_tokens < self._policies.chunk.chunk_size:
            group = self._policies.order.next_group(self._raw)
            self._scheduled.extend(Sequence(request, _anything(request)) for request in group)
            num_waiting_tokens += sum(request.num_prompt_tokens for request in group)
        batch = self._policies.chunk.cut(self._scheduled, self._kv)
        if batch is not None:
            for chunk in batch.prefill:
                if chunk.start == 0:
                    self.outbox.event(now_s, EventKind.PREFILL_STARTED, chunk.sequence.request.id)
        return batch

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        for chunk in batch.prefill:
            chunk.sequence.num_computed += chunk.num_tokens
            if chunk.start == 0:
                self._dispatch(chunk.sequence, now_s)
            if chunk.sequence.request.id in tokens:
                self._finish_prompt(chunk, tokens[chunk.sequence.request.id], now_s)
            handover = self._handovers.get(chunk.sequence.request.id)
            if handover is not None:
                self._push(handover)

    def _dispatch(self, sequence: Sequence, now_s: float) -> None:
        request, predicted = sequence.request, self._predictions[sequence.request.id]
        if request.max_output_tokens == 1:
            del self._predictions[request.id]
            return  # its first token, which this instance makes, is all of it
        if predicted is None:
            self._undispatched[request.id] = sequence
            return
        del self._predictions[request.id]
        sequence.predicted = predicted
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
            self._predictions.pop(request_id, None)
            self._undispatched.pop(request_id, None)
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

    def moved(self, moved: Moved) -> None:
        push = moved.push
        handover = self._handovers[push.request_id]
        if handover.num_moved_bytes == 0:
            self.outbox.event(moved.started_s, EventKind.TRANSFER_STARTED, push.request_id)
        handover.moved(moved)
        if handover.is_cancelled:
            self._release_cancelled(handover)
        elif push.is_last:
            self._finish_handover(handover, moved.ended_s)

    def _finish_handover(self, handover: Handover, now_s: float) -> None:
        sequence, request_id = handover.sequence, handover.sequence.request.id
        details = {"num_bytes": handover.num_moved_bytes, "busy_s": handover.busy_s}
        self.outbox.event(now_s, EventKind.TRANSFER_DONE, request_id, **details)
        self.outbox.send(handover.to, Arrived(request_id, sequence.output_ids[0]))
        del self._handovers[request_id]
        self._kv.release(sequence)

    def load(self, now_s: float) -> InstanceLoad:
        num_queued_tokens = sum(request.num_prompt_tokens for request in (*self._held.values(), *self._raw))
        num_queued_tokens += sum(sequence.num_uncomputed for sequence in self._scheduled)
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens,
            num_queued_tokens=num_queued_tokens,
            num_waiting=len(self._held) + len(self._raw) + len(self._scheduled),
            num_running=len(self._handovers),
        )

    def check(self) -> None:
        queues = (self._raw, self._scheduled, self._handovers, self._held, self._predictions, self._undispatched)
        assert not any(queues), "an idle prefill instance forgot a request"
        self._kv.check([])


def _anything(request: Request) -> LengthRange:
    """What is known of a response before its prediction."""
    return LengthRange(0, request.max_output_tokens + 1)
