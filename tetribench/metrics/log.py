"""The event log on disk: one JSON object a line."""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import msgspec

from tetribench.core.events import Event
from tetribench.metrics.columns import EventsByKind

NUM_BUFFERED = 64
"""Events that a run that is killed may lose, beside what the file's own buffer holds."""

_READ_BYTES = 1 << 16
"""Some hundreds of events, which a core's own cache holds while they are looked at."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Event)
_log = logging.getLogger(__name__)


def encode_event(event: Event) -> bytes:
    """One line with its newline; equal events give equal bytes.

    Raises TypeError for details that are not plain, a numpy scalar among them.
    """
    return _encoder.encode(event) + b"\n"


class EventWriter:
    """Writes events to `file`, some at a time because that is faster; `flush` writes the rest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._events: list[Event] = []

    def write(self, events: Iterable[Event]) -> None:
        self._events += events
        if len(self._events) >= NUM_BUFFERED:
            self.flush()

    def flush(self) -> None:
        events, self._events = self._events, []
        self._file.write(_encoder.encode_lines(events))


def read_events(path: Path) -> list[Event]:
    """All events by time, in the file's order where times are equal.

    A run that was killed may have cut its last line; that line is dropped, with a warning in the program's log.
    Raises ValueError, with file and line, for any other line that is no event.
    """
    return sorted(chain.from_iterable(_read(path)), key=attrgetter("time_s"))


def read_columns(path: Path) -> EventsByKind:
    """The same, for measuring: they take a tenth of the memory."""
    return EventsByKind.of_batches(_read(path))


def _read(path: Path) -> Iterator[list[Event]]:
    """Some events at a time, in the file's order."""
    num_lines, rest = 0, b""
    with path.open("rb") as file:
        while read := file.read(_READ_BYTES):
            lines, newline, rest = (rest + read).rpartition(b"\n")
            if newline:
                events = _decoded(path, lines, num_lines, is_end=not rest and not file.peek(1))
                num_lines += len(events)
                yield events
    if rest:
        yield _decoded(path, rest, num_lines, is_end=True)


def _decoded(path: Path, lines: bytes, num_before: int, *, is_end: bool) -> list[Event]:
    """The events of some lines, of which the last has no newline; `num_before` others come before them in the file."""
    try:
        events = _decoder.decode_lines(lines)
        if len(events) == lines.count(b"\n") + 1:  # it skips empty lines
            return events
    except ValueError:  # both of msgspec's errors and broken UTF-8 are one
        pass
    events, each = [], lines.split(b"\n")
    for number, line in enumerate(each, start=1):
        try:
            events.append(_decoder.decode(line))
        except ValueError as error:
            if number < len(each) or not is_end:
                raise ValueError(f"{path}, line {num_before + number}: not an event ({error})") from error
            _log.warning("%s: the last line is cut off and was dropped", path)
    return events
