"""The prefill instance's scheduler: order, chunk, predict, dispatch, hand over (paper section 3.3)."""

from collections import deque

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import (
    Close,
    Closed,
    Drain,
    Granted,
    LoadBroadcast,
    Lost,
    Message,
    Submit,
    TokenOutput,
)
from tetribench.core.request import Request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk
from tetribench.instance.scheduler import DecodesNothing, Outbox
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Granularity, Moved
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import Dispatcher
from tetribench.prefill.handovers import Handovers
from tetribench.prefill.order import Order
from tetribench.prefill.predict import Learned, Predictor
from tetribench.prefill.predict_mode import Parallel, PredictMode
from tetribench.prefill.predictions import Predictions
from tetribench.prefill.predictor import PrefillPredictor

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


class PrefillScheduler(DecodesNothing):
    """A prompt's way: raw queue, scheduled queue, chunks.

    Its response length is predicted before the raw queue, or beside all this (`Predictions`). After its first chunk,
    and once its prediction is there, a decode instance is chosen and asked for room; after its last its first token
    goes to the client, and its KV, at once or chunk by chunk, to that instance (`Handovers`).

    It keeps a prompt's blocks until the last of them has arrived: when the decode side is full, KV piles up here, this
    instance runs out of blocks and stops taking prompts. That is the back-pressure; nothing is dropped.
    """

    def __init__(self, name: str, policies: PrefillPolicies, info: EngineInfo) -> None:
        self.outbox = Outbox(name)
        self._policies = policies
        self._kv = BlockAllocator(num_blocks=info.num_blocks, block_size=info.block_size)
        self._stop_token_ids = frozenset(info.stop_token_ids)
        self._predictions = Predictions(policies.predict_mode, info.predicts_in_parallel)
        self._raw: deque[Submit] = deque()
        self._scheduled: deque[Sequence] = deque()
        self._computing: list[Sequence] = []
        self._lacks_memory = False
        """As the last `next_batch` found it."""
        self._handovers = Handovers(
            outbox=self.outbox,
            kv=self._kv,
            num_layers=info.num_layers,
            dispatcher=policies.dispatch,
            granularity=policies.granularity,
            rng=generator(policies.seed, "prefill", name),
        )

    @property
    def may_have_batch(self) -> bool:
        return bool(self._raw or self._scheduled)

    @property
    def num_used_blocks(self) -> int:
        return self._kv.num_used

    @property
    def lacks_memory(self) -> bool:
        return self._lacks_memory

    def receive(self, message: Message, now_s: float) -> None:
        match message:
            case Submit():
                if self._predictions.submit(message):
                    self._raw.append(message)
            case LoadBroadcast():
                self._handovers.update_loads(message.loads, now_s)
            case Granted(ticket, block_ids):
                self._handovers.granted(ticket, block_ids)
            case Lost(instance):
                self._handovers.lose(instance, now_s)
            case Close(decode):
                self._handovers.close(decode)
                self.outbox.send(decode, Closed(self.outbox.name))
            case Drain():
                self._handovers.drain()
            case _:
                raise AssertionError(f"a prefill instance got {message}")

    def next_prediction(self) -> list[Request]:
        return self._predictions.next_group()

    def predicted(self, ranges: dict[int, LengthRange], started_s: float, now_s: float) -> None:
        for request_id, found in ranges.items():
            details = {"low": found.low, "high": found.high, "duration_s": now_s - started_s}
            self.outbox.event(now_s, EventKind.PREDICTED, request_id, **details)
            released, waiting = self._predictions.learn(request_id, found)
            if released is not None:
                self._raw.append(released)
            if waiting is not None:
                sequence, num_kv_tokens = waiting
                self._predictions.take(sequence, num_kv_tokens)
                self._handovers.dispatch(sequence, num_kv_tokens, now_s)

    def next_batch(self, now_s: float) -> Batch | None:
        num_waiting_tokens = 0
        for sequence in self._scheduled:  # a long queue need not be walked to its end
            num_waiting_tokens += sequence.num_uncomputed
            if num_waiting_tokens >= self._policies.chunk.chunk_size:
                break
        while self._raw and num_waiting_tokens < self._policies.chunk.chunk_size:
            group = self._policies.order.next_group(self._raw)
            self._scheduled.extend(_sequence(submitted) for submitted in group)
            num_waiting_tokens += sum([submitted.num_tokens for submitted in group])
        batch = self._policies.chunk.cut(self._scheduled, self._kv)
        self._lacks_memory = batch is None and bool(self._scheduled)
        if batch is not None:
            self._computing = [chunk.sequence for chunk in batch.prefill]
            batch.by_layer = self._policies.granularity is Granularity.layer
            for chunk in batch.prefill:
                if chunk.start == 0:
                    self.outbox.event(now_s, EventKind.PREFILL_STARTED, chunk.sequence.request.id)
                self._handovers.compute(chunk.sequence, chunk.start + chunk.num_tokens)
        return batch

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        self._computing = []
        self._handovers.computed()
        for chunk in batch.prefill:
            sequence = chunk.sequence
            sequence.num_computed += chunk.num_tokens
            if chunk.start == 0:
                self._dispatch(sequence, now_s)
            if sequence.request.id in tokens:
                self._finish_prompt(chunk, tokens[sequence.request.id], now_s)
            self._handovers.push(sequence, now_s)

    def _dispatch(self, sequence: Sequence, now_s: float) -> None:
        """After its first chunk, when its next token is not yet known."""
        if len(sequence.output_ids) + 1 >= sequence.request.max_output_tokens:
            self._predictions.forget(sequence.request.id)  # the token that this instance makes is the last
        elif self._predictions.take(sequence, sequence.num_tokens):
            self._handovers.dispatch(sequence, sequence.num_tokens, now_s)

    def _finish_prompt(self, chunk: PrefillChunk, token_id: int, now_s: float) -> None:
        sequence, request_id = chunk.sequence, chunk.sequence.request.id
        self.outbox.event(now_s, EventKind.PREFILL_DONE, request_id)
        is_last = sequence.append(token_id, self._stop_token_ids)
        index = len(sequence.output_ids) - 1
        self.outbox.outputs.append(TokenOutput(request_id, sequence.attempt, index, token_id, is_last))
        if is_last:
            self._predictions.forget(request_id)
            self._handovers.cancel(sequence)

    def moved(self, moved: Moved) -> None:
        self._handovers.moved(moved)

    def load(self, now_s: float) -> InstanceLoad:
        waiting = [*self._predictions.held, *self._raw]
        num_queued_tokens = sum([submitted.num_tokens for submitted in waiting])
        num_queued_tokens += sum([sequence.num_uncomputed for sequence in self._scheduled])
        return InstanceLoad(
            time_s=now_s,
            num_total_tokens=self._kv.num_total_tokens,
            num_free_tokens=self._kv.num_free_tokens,
            num_queued_tokens=num_queued_tokens,
            num_waiting=len(waiting) + len(self._scheduled),
            num_running=len(self._handovers),
        )

    @property
    def _holds_anything(self) -> bool:
        return bool(self._predictions or self._raw or self._scheduled or self._computing or self._handovers)

    @property
    def is_drained(self) -> bool:
        return not self._holds_anything and not self._predictions.is_predicting

    def check(self) -> None:
        assert not self._holds_anything, "an idle prefill instance forgot a request"
        self._kv.check([])


def _sequence(submitted: Submit) -> Sequence:
    """With a range that any response is in: its prediction comes before its dispatch."""
    request = submitted.request
    anything = LengthRange(0, request.max_output_tokens + 1)
    return Sequence(request, anything, output_ids=list(submitted.output_ids), attempt=submitted.attempt)
