"""The event log on disk: one JSON object a line."""

import logging
from operator import attrgetter
from pathlib import Path

import msgspec

from tetribench.core.events import Event

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Event)
_log = logging.getLogger(__name__)


def encode_event(event: Event) -> bytes:
    """One line with its newline; equal events give equal bytes.

    Raises TypeError for details that are not plain, a numpy scalar among them.
    """
    return _encoder.encode(event) + b"\n"


def read_events(path: Path) -> list[Event]:
    """All events by time, in the file's order where times are equal.

    A run that was killed may have cut its last line; that line is dropped, with a warning in the program's log.
    Raises ValueError, with file and line, for any other line that is no event.
    """
    lines = path.read_bytes().splitlines()
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(_decoder.decode(line))
        except ValueError as error:  # both of msgspec's errors and broken UTF-8 are one
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not an event ({error})") from error
            _log.warning("%s: the last line is cut off and was dropped", path)
    events.sort(key=attrgetter("time_s"))
    return events
