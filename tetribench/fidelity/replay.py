"""A recorded run with its decisions kept and its times replaced: whether a difference is one of times or of decisions.

The decisions are which iterations each instance ran, in which order and of what; they stay as recorded. An iteration
begins when the one before it on its instance has ended and its requests are there, and then `wait`s as said by its
`Pace`; it takes `seconds`. With the recorded pace this gives back the recorded run to the microsecond, so whatever
another pace changes is due to what was replaced in it, and to nothing else.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tetribench.calibrate.batches import RecordedBatch
from tetribench.core.events import Event, EventKind


@dataclass(frozen=True, slots=True)
class Pace:
    """What a replay puts in the place of the recorded times, each in the order of the batches where it is a list.

    `waits_s` is from when an iteration could have begun until it did; `handover_s` by request from the end of its
    prefill until its next instance may decode it; `delivery_s` by request from the end of each iteration that yields a
    token of it until the client has that token; `inbox_s` by request from when it was routed until it is there.
    """

    seconds: Sequence[float]
    waits_s: Sequence[float]
    handover_s: Mapping[int, float]
    delivery_s: Mapping[int, Sequence[float]]
    inbox_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """A recorded run as the replay wants it."""

    events: list[Event]
    batches: list[RecordedBatch]
    routed_s: dict[int, float]
    admitted_s: dict[int, float]
    prefilled_s: dict[int, float]
    delivered_s: dict[int, list[float]]

    @classmethod
    def of(cls, events: Iterable[Event], batches: Sequence[RecordedBatch]) -> "Record":
        events = sorted(events, key=lambda event: event.time_s)
        first: dict[EventKind, dict[int, float]] = defaultdict(dict)
        delivered_s: dict[int, list[float]] = defaultdict(list)
        for event in events:
            for id in event.requests:
                first[event.kind].setdefault(id, event.time_s)
                if event.kind in (EventKind.FIRST_TOKEN, EventKind.TOKEN):
                    delivered_s[id].append(event.time_s)
        kinds = (EventKind.ROUTED, EventKind.ADMITTED, EventKind.PREFILL_DONE)
        routed_s, admitted_s, prefilled_s = (first[kind] for kind in kinds)
        return cls(events, list(batches), routed_s, admitted_s, prefilled_s, dict(delivered_s))

    def pace(self) -> Pace:
        """As it was."""
        seconds = [batch.seconds for batch in self.batches]
        handover_s = {
            id: max(self.admitted_s[id] - done_s, 0.0)
            for id, done_s in self.prefilled_s.items()
            if id in self.admitted_s
        }
        times = _Times(self, Pace(seconds, [0.0] * len(seconds), handover_s, {}, 0.0))
        waits_s = []
        for index, batch in enumerate(self.batches):
            waits_s.append(batch.started_s - times.earliest(batch))
            times.run(index, batch.started_s)
        ended_s = times.yielded_s
        delivery_s = {
            id: [time_s - end_s for time_s, end_s in zip(times_s, ended_s[id], strict=True)]
            for id, times_s in self.delivered_s.items()
        }
        return Pace(seconds, waits_s, handover_s, delivery_s, 0.0)


class _Times:
    """How far a replay has come."""

    def __init__(self, record: Record, pace: Pace) -> None:
        self._record = record
        self._pace = pace
        self._free_s: dict[str, float] = {}
        self._holders: dict[int, str] = {}
        self.started_s: list[float] = []
        self.ended_s: list[float] = []
        self.first_s: dict[int, float] = {}
        """Start of each request's first iteration."""
        self.prefilled_s: dict[int, float] = {}
        self.joined_s: dict[int, float] = {}
        """When a request could be decoded by another instance than the one that prefilled it."""
        self.yielded_s: dict[int, list[float]] = defaultdict(list)

    def free_s(self, instance: str) -> float:
        """When the last iteration of an instance has ended."""
        return self._free_s.get(instance, 0.0)

    def earliest(self, batch: RecordedBatch) -> float:
        """When everything that the iteration needs is there."""
        ready_s = [self.free_s(batch.instance)]
        for id in batch.requests:
            holder = self._holders.get(id)
            if holder is None:
                ready_s.append(self._record.routed_s[id] + self._pace.inbox_s)
            elif holder != batch.instance:
                self.joined_s[id] = self.prefilled_s[id] + self._pace.handover_s[id]
                ready_s.append(self.joined_s[id])
        return max(ready_s)

    def run(self, index: int, started_s: float) -> None:
        batch, ended_s = self._record.batches[index], started_s + self._pace.seconds[index]
        self.started_s.append(started_s)
        self.ended_s.append(ended_s)
        self._free_s[batch.instance] = ended_s
        for id in batch.requests:
            self._holders[id] = batch.instance
            self.first_s.setdefault(id, started_s)
        for id in batch.yields:
            self.prefilled_s.setdefault(id, ended_s)
            self.yielded_s[id].append(ended_s)


def replay(record: Record, pace: Pace) -> list[Event]:
    """The events of the run at another pace: everything that metrics read, each moved by as much as what caused it."""
    times = _Times(record, pace)
    for index, batch in enumerate(record.batches):
        times.run(index, times.earliest(batch) + pace.waits_s[index])
    return [*_iterations(record, times), *_deliveries(record, times, pace), *_edges(record, times)]


def _iterations(record: Record, times: _Times) -> list[Event]:
    recorded = [event for event in record.events if event.kind is EventKind.ITERATION]
    recorded.sort(key=lambda event: event.details["started_s"])
    return [
        replace(event, time_s=ended_s, details={**event.details, "started_s": started_s})
        for event, started_s, ended_s in zip(recorded, times.started_s, times.ended_s, strict=True)
    ]


def _deliveries(record: Record, times: _Times, pace: Pace) -> list[Event]:
    """One event for each token, and one for the end of each response."""
    finished = {event.requests[0]: event for event in record.events if event.kind is EventKind.FINISHED}
    made = []
    for id, ends_s in times.yielded_s.items():
        times_s = [end_s + delay_s for end_s, delay_s in zip(ends_s, pace.delivery_s[id], strict=True)]
        source = finished[id].source
        kinds = [EventKind.FIRST_TOKEN, *[EventKind.TOKEN] * (len(times_s) - 1)]
        made += [Event(time_s, kind, source, (id,)) for time_s, kind in zip(times_s, kinds, strict=True)]
        made.append(replace(finished[id], time_s=times_s[-1]))
    return made


_DELIVERED = {EventKind.ITERATION, EventKind.FIRST_TOKEN, EventKind.TOKEN, EventKind.FINISHED}
_BEFORE = {EventKind.ARRIVED, EventKind.SENT, EventKind.ROUTED, EventKind.PREDICTED}
_BY_PREFILL = {
    EventKind.PREFILL_DONE,
    EventKind.DISPATCHED,
    EventKind.RESERVED,
    EventKind.TRANSFER_STARTED,
    EventKind.TRANSFER_DONE,
    EventKind.TRANSFER,
}


def _edges(record: Record, times: _Times) -> list[Event]:
    """The other edges of a request's life, and what is not about requests, which stays."""
    recorded_first_s: dict[int, float] = {}
    for batch in record.batches:
        for id in batch.requests:
            recorded_first_s.setdefault(id, batch.started_s)
    made = []
    for event in record.events:
        if event.kind in _DELIVERED:
            continue
        if event.kind is EventKind.INSTANCE_STOPPED:  # not before its last iteration
            made.append(replace(event, time_s=max(event.time_s, times.free_s(event.source))))
            continue
        shift_s = 0.0
        if event.requests and event.kind not in _BEFORE:
            (id,) = event.requests
            if event.kind in _BY_PREFILL:
                shift_s = times.prefilled_s[id] - record.prefilled_s[id]
            elif event.kind is EventKind.ADMITTED and id in times.joined_s:
                shift_s = times.joined_s[id] - record.admitted_s[id]
            else:
                shift_s = times.first_s[id] - recorded_first_s[id]
        details = event.details
        if event.kind is EventKind.TRANSFER:
            details = {**details, "started_s": details["started_s"] + shift_s}
        made.append(replace(event, time_s=event.time_s + shift_s, details=details))
    return made
