"""What the iterations of a recorded run computed, request by request, and what the cost model says of them."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from operator import attrgetter

from tetribench.core.events import Event, EventKind
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.core.sequence import Sequence as TokenSequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.cost_engine import IDLE_AFTER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBatch:
    """One iteration of `instance`. `chunks` are (request, first position, tokens), `decodes` (request, tokens that it
    reads); `yields` are the requests that get a token, in the order of the batch."""

    instance: str
    started_s: float
    ended_s: float
    chunks: tuple[tuple[int, int, int], ...]
    decodes: tuple[tuple[int, int], ...]
    yields: tuple[int, ...]
    num_padding_tokens: int
    num_swapped_bytes: int

    @property
    def requests(self) -> list[int]:
        return [request for request, *_ in (*self.chunks, *self.decodes)]

    @property
    def seconds(self) -> float:
        return self.ended_s - self.started_s

    def batch(self) -> Batch:
        """The same sizes for a cost model."""
        return Batch(
            prefill=[PrefillChunk(_sequence(id, start + size, 0), start, size) for id, start, size in self.chunks],
            decode=[_sequence(id, 1, num_tokens - 1) for id, num_tokens in self.decodes],
            num_padding_tokens=self.num_padding_tokens,
        )


def _sequence(id: int, num_prompt_tokens: int, num_output_tokens: int) -> TokenSequence:
    request = Request(id=id, arrival_s=0.0, num_prompt_tokens=num_prompt_tokens, max_output_tokens=10**9)
    return TokenSequence(request, LengthRange(0, 1), output_ids=[0] * num_output_tokens)


def recorded_batches(events: Iterable[Event]) -> list[RecordedBatch]:
    """All iterations by start. A request's tokens are counted along the way: what a decode reads is not on record.

    Raises ValueError for a record whose iterations do not say what they computed.
    """
    events = sorted(events, key=attrgetter("time_s"))
    num_tokens = Counter[int]()
    for event in events:
        if event.kind is EventKind.ARRIVED:
            num_tokens[event.requests[0]] = event.details["num_prompt_tokens"]
    found = []
    for event in events:
        if event.kind is not EventKind.ITERATION:
            continue
        details = event.details
        num_decodes = details["num_decode_tokens"]
        chunks = _chunks(event)
        if len(chunks) + num_decodes != len(event.requests):
            raise ValueError(f"{event.source}: an iteration does not say what it computed; record the run again")
        decodes = tuple((id, num_tokens[id]) for id in event.requests[len(chunks) :])
        last_chunks = tuple(id for id, start, size in chunks if start + size == num_tokens[id])
        yields = (*last_chunks, *(id for id, _ in decodes))
        num_tokens.update(yields)
        found.append(
            RecordedBatch(
                instance=event.source,
                started_s=details["started_s"],
                ended_s=event.time_s,
                chunks=chunks,
                decodes=decodes,
                yields=yields,
                num_padding_tokens=details.get("num_padding_tokens", 0),
                num_swapped_bytes=details["num_swapped_bytes"],
            )
        )
    return sorted(found, key=attrgetter("started_s"))


def _chunks(event: Event) -> tuple[tuple[int, int, int], ...]:
    sizes = event.details.get("chunks", [])
    return tuple((id, start, size) for id, (start, size) in zip(event.requests, sizes, strict=False))


def by_instance(batches: Iterable[RecordedBatch]) -> dict[str, list[RecordedBatch]]:
    """In the order that they have."""
    found: defaultdict[str, list[RecordedBatch]] = defaultdict(list)
    for batch in batches:
        found[batch.instance].append(batch)
    return dict(found)


def are_woken(batches: Sequence[RecordedBatch]) -> list[bool]:
    """Of each iteration, whether its instance had been idle before it."""
    ended_s: dict[str, float] = {}
    found = []
    for batch in batches:
        found.append(batch.started_s - ended_s.get(batch.instance, -inf) > IDLE_AFTER_S)
        ended_s[batch.instance] = batch.ended_s
    return found


def beside_seconds(batches: Sequence[RecordedBatch]) -> list[float]:
    """Of each iteration, how long at least one other instance computed too."""
    instances = by_instance(batches)
    others = {
        name: _BusyTime([one for other, own in instances.items() if other != name for one in own]) for name in instances
    }
    return [others[batch.instance].within(batch.started_s, batch.ended_s) for batch in batches]


class _BusyTime:
    """The time that any of some iterations takes, as spans that do not overlap."""

    def __init__(self, batches: Sequence[RecordedBatch]) -> None:
        self._starts_s: list[float] = []
        self._ends_s: list[float] = []
        for batch in sorted(batches, key=lambda one: one.started_s):
            if self._ends_s and batch.started_s <= self._ends_s[-1]:
                self._ends_s[-1] = max(self._ends_s[-1], batch.ended_s)
            else:
                self._starts_s.append(batch.started_s)
                self._ends_s.append(batch.ended_s)
        spans_s = [end_s - start_s for start_s, end_s in zip(self._starts_s, self._ends_s, strict=True)]
        self._before_s = list(accumulate(spans_s, initial=0.0))

    def within(self, start_s: float, end_s: float) -> float:
        return self._until(end_s) - self._until(start_s)

    def _until(self, time_s: float) -> float:
        num = bisect_right(self._starts_s, time_s)
        return self._before_s[num] - max(self._ends_s[num - 1] - time_s, 0.0) if num else 0.0
