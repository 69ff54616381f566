"""The event log on disk: one JSON object a line."""

import logging
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO

import msgspec

from tetribench.core.events import Event

NUM_BUFFERED = 64
"""Events that a run that is killed may lose, beside what the file's own buffer holds."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Event)
_log = logging.getLogger(__name__)
_NO_DETAILS: dict[str, Any] = {}


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
    events = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                event = _decoder.decode(line)
            except ValueError as error:  # both of msgspec's errors and broken UTF-8 are one
                if next(lines, None) is not None:
                    raise ValueError(f"{path}, line {number}: not an event ({error})") from error
                _log.warning("%s: the last line is cut off and was dropped", path)
                break
            event.source = intern(event.source)  # a long log has millions of the same few names
            event.details = event.details or _NO_DETAILS
            events.append(event)
    events.sort(key=attrgetter("time_s"))
    return events
