"""What the iterations of a recorded run computed, request by request, and what the cost model says of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from tetribench.core.events import Event, EventKind
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.core.sequence import Sequence as TokenSequence
from tetribench.engine.base import Batch, PrefillChunk


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
