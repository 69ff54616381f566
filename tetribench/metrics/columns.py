"""Events as columns: a log of millions of events is held as arrays of numbers, not as objects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from tetribench.core.events import Event, EventKind

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BATCH = 512
"""Events that are looked at together: no more than a core's own cache holds."""

_MIN_LAID_OUT = 128
"""Events of a kind that are laid out together, or each would cost as much as many."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A detail that is a list of such values, or, if `width` is above 1, of lists of so many; none if it is missing."""

    of: type
    width: int = 1


FLOAT, INT, TEXT, KEPT = np.float64, np.int64, np.str_, np.object_

COLUMNS: dict[EventKind, dict[str, type | Listed]] = {
    EventKind.ARRIVED: {"num_prompt_tokens": INT, "max_output_tokens": INT, "label": TEXT, "sla_class": TEXT},
    EventKind.SENT: {"num_prompt_ids": FLOAT},
    EventKind.ROUTED: {},
    EventKind.PREDICTED: {"low": FLOAT, "high": FLOAT, "duration_s": FLOAT},
    EventKind.PREFILL_STARTED: {},
    EventKind.PREFILL_DONE: {},
    EventKind.DISPATCHED: {"to": TEXT, "low": INT, "high": INT, "num_fitting": FLOAT, "candidates": KEPT},
    EventKind.RESERVED: {},
    EventKind.TRANSFER_STARTED: {},
    EventKind.TRANSFER_DONE: {"num_bytes": INT, "busy_s": FLOAT},
    EventKind.ADMITTED: {},
    EventKind.FIRST_TOKEN: {},
    EventKind.TOKEN: {},
    EventKind.TOKENS: {"times_s": Listed(FLOAT)},
    EventKind.FINISHED: {"num_output_tokens": INT},
    EventKind.FAILED: {"reason": TEXT},
    EventKind.ITERATION: {
        "started_s": FLOAT,
        "num_prefill_tokens": INT,
        "num_decode_tokens": INT,
        "num_used_blocks": INT,
        "num_swapped_bytes": INT,
        "chunks": Listed(INT, width=2),
    },
    EventKind.ITERATIONS: {
        "started_s": FLOAT,
        "ends_s": Listed(FLOAT),
        "num_decode_tokens": INT,
        "num_used_blocks": Listed(INT),
    },
    EventKind.TRANSFER: {"started_s": FLOAT, "num_bytes": INT, "to": TEXT},
}
"""Of the kinds that come by the million, the details that are measured. A number that may be missing is a FLOAT, and
then NaN; a text, or what is KEPT as it is, is None. Events of the other kinds are few and stay as they are."""


@dataclass(frozen=True, slots=True)
class Lists:
    """A list for each event: the values of all of them one after the other, and how many belong to each."""

    values: Array
    sizes: Ints

    @classmethod
    def joined(cls, parts: Iterable["Lists"]) -> "Lists":
        each = list(parts)
        return cls(np.concatenate([one.values for one in each]), np.concatenate([one.sizes for one in each]))

    @property
    def starts(self) -> Ints:
        """Where each list begins."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def events(self) -> Ints:
        """Of each value, the event that it belongs to, by its number."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def taken(self, order: Ints) -> "Lists":
        """The lists of these events, in this order."""
        sizes, starts = self.sizes[order], self.starts[order]
        places = np.ones(sizes.sum(), np.int64)  # steps from value to value; their sums are where these are
        is_filled = sizes > 0
        sizes_filled, starts = sizes[is_filled], starts[is_filled]
        jumps = np.diff(starts, prepend=0)
        jumps[1:] -= sizes_filled[:-1] - 1
        places[np.cumsum(sizes_filled) - sizes_filled] = jumps
        return Lists(self.values[np.cumsum(places, out=places)], sizes)

    def part(self, first: int, last: int) -> "Lists":
        """The lists from `first` to before `last`."""
        ends = np.cumsum(self.sizes)
        start, end = (int(ends[number - 1]) if number else 0 for number in (first, min(last, len(ends))))
        return Lists(self.values[start:end], self.sizes[first:last])

    def tolist(self) -> list[list[Any]]:
        ends = np.cumsum(self.sizes).tolist()
        return [self.values[start:end].tolist() for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, slots=True)
class Columns:
    """Events of one kind; everything has a row for each."""

    time_s: Floats
    source: Array
    requests: Lists
    details: dict[str, Array]
    lists: dict[str, Lists]

    def taken(self, order: Ints) -> "Columns":
        """These events, in this order."""
        return Columns(
            self.time_s[order],
            self.source[order],
            self.requests.taken(order),
            {name: column[order] for name, column in self.details.items()},
            {name: column.taken(order) for name, column in self.lists.items()},
        )

    def part(self, first: int, last: int) -> "Columns":
        """The events from `first` to before `last`."""
        return Columns(
            self.time_s[first:last],
            self.source[first:last],
            self.requests.part(first, last),
            {name: column[first:last] for name, column in self.details.items()},
            {name: column.part(first, last) for name, column in self.lists.items()},
        )

    def owners(self, lists: Lists) -> Ints:
        """Of each value in one of the `lists`: where in `requests` the one at its place in the event is."""
        assert (lists.sizes <= self.requests.sizes).all(), "an event has more of them than requests"
        offsets = np.repeat(self.requests.starts - lists.starts, lists.sizes)
        return offsets + np.arange(len(lists.values))


def _columns(events: list[Event], names: dict[str, type | Listed], texts: dict[str | None, str | None]) -> Columns:
    """`texts` are those seen so far: each is kept once."""
    all_details = [event.details for event in events]
    details, lists = dict[str, Array](), dict[str, Lists]()
    for name, kind in names.items():
        if isinstance(kind, Listed):
            lists[name] = _lists([each.get(name, ()) for each in all_details], kind)
        elif kind is KEPT:
            details[name] = np.array([each.get(name) for each in all_details], KEPT)
        elif kind is TEXT:
            details[name] = _texts([each.get(name) for each in all_details], texts)
        elif kind is FLOAT:
            details[name] = np.array([each.get(name) for each in all_details], FLOAT)
        else:
            details[name] = np.array([each[name] for each in all_details], INT)
    return Columns(
        np.array([event.time_s for event in events], FLOAT),
        _texts([event.source for event in events], texts),
        _lists([event.requests for event in events], Listed(INT)),
        details,
        lists,
    )


def _lists(lists: list[Any], kind: Listed) -> Lists:
    sizes = np.fromiter(map(len, lists), INT, len(lists))
    values = chain.from_iterable(lists)
    if kind.width == 1:
        return Lists(np.fromiter(values, kind.of, sizes.sum()), sizes)
    found: Array = np.fromiter(chain.from_iterable(values), kind.of, sizes.sum() * kind.width)
    return Lists(found.reshape(-1, kind.width), sizes)


def _texts(found: list[str | None], texts: dict[str | None, str | None]) -> Array:
    return np.array([texts.setdefault(text, text) for text in found], np.object_)


def _joined(parts: list[Columns]) -> Columns:
    """All events of the parts by time, in the order of the parts where times are equal."""
    first = parts[0]
    whole = Columns(
        np.concatenate([part.time_s for part in parts]),
        np.concatenate([part.source for part in parts]),
        Lists.joined([part.requests for part in parts]),
        {name: np.concatenate([part.details[name] for part in parts]) for name in first.details},
        {name: Lists.joined([part.lists[name] for part in parts]) for name in first.lists},
    )
    if (np.diff(whole.time_s) >= 0.0).all():
        return whole
    return whole.taken(np.argsort(whole.time_s, kind="stable"))


class EventsByKind:
    """Events by kind, and each kind by time. All tables are made from one of these, or make one for themselves."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._take(_batches(events))

    @classmethod
    def of(cls, events: Iterable[Event]) -> "EventsByKind":
        return events if isinstance(events, cls) else cls(events)

    @classmethod
    def of_batches(cls, batches: Iterable[list[Event]]) -> "EventsByKind":
        """Of events that come some at a time, so that few are in memory; some hundreds at a time are fastest."""
        found = cls.__new__(cls)
        found._take(batches)
        return found

    def _take(self, batches: Iterable[list[Event]]) -> None:
        texts: dict[str | None, str | None] = {}
        by_kind: dict[EventKind, list[Event]] = {kind: [] for kind in EventKind}
        parts: dict[EventKind, list[Columns]] = {kind: [] for kind in COLUMNS}

        def lay_out(kind: EventKind) -> None:
            parts[kind].append(_columns(by_kind[kind], COLUMNS[kind], texts))
            by_kind[kind] = []

        for batch in batches:
            for event in batch:
                by_kind[event.kind].append(event)
            for kind in COLUMNS:
                if len(by_kind[kind]) >= _MIN_LAID_OUT:
                    lay_out(kind)
        for kind in COLUMNS:
            lay_out(kind)
        self._columns = {kind: _joined(parts.pop(kind)) for kind in COLUMNS}
        self._events = {
            kind: sorted(events, key=attrgetter("time_s")) for kind, events in by_kind.items() if kind not in COLUMNS
        }

    @property
    def last_s(self) -> float:
        """When the last event of all was, 0 where there is none."""
        laid_out = [float(found.time_s[-1]) for found in self._columns.values() if len(found.time_s)]
        return max(laid_out + [events[-1].time_s for events in self._events.values() if events], default=0.0)

    def columns(self, kind: EventKind) -> Columns:
        """Of a kind in `COLUMNS`."""
        return self._columns[kind]

    def __getitem__(self, kind: EventKind) -> list[Event]:
        """As objects; those of a kind in `COLUMNS` are made anew, with the details that are there."""
        if kind not in COLUMNS:
            return self._events[kind]
        found = self._columns[kind]
        details = {name: column.tolist() for name, column in (found.details | found.lists).items()}
        rows = zip(found.time_s.tolist(), found.source, found.requests.tolist(), strict=True)
        return [
            Event(time_s, kind, source, tuple(requests), _known({name: each[row] for name, each in details.items()}))
            for row, (time_s, source, requests) in enumerate(rows)
        ]

    def __iter__(self) -> Iterator[Event]:
        return chain.from_iterable(self[kind] for kind in EventKind)


def _known(details: dict[str, Any]) -> dict[str, Any]:
    """Without what the event did not have: None, NaN and an empty list stand for it."""
    return {name: value for name, value in details.items() if value == value and value not in (None, [])}


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    coming = iter(events)
    while batch := list(islice(coming, _BATCH)):
        yield batch
