import logging
from pathlib import Path

import numpy as np
import pytest

from tetribench.core.events import Event, EventKind
from tetribench.metrics import log
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.log import encode_event, read_columns, read_events


def write(path: Path, events: list[Event], tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(encode_event(event) for event in events) + tail)
    return path


def test_an_event_is_one_line_with_its_keys_in_order() -> None:
    event = Event(1.5, EventKind.FINISHED, "client", (7,), {"num_output_tokens": 3})
    line = b'{"time_s":1.5,"kind":"finished","source":"client","requests":[7],"details":{"num_output_tokens":3}}\n'
    assert encode_event(event) == line


def test_equal_events_give_equal_bytes() -> None:
    one = Event(0.1, EventKind.ITERATION, "p0", (), {"b": 1, "a": 2})
    other = Event(0.1, EventKind.ITERATION, "p0", (), {"a": 2, "b": 1})
    assert one == other and encode_event(one) == encode_event(other)


def test_details_must_be_plain() -> None:
    with pytest.raises(TypeError, match=r"numpy\.int64"):
        encode_event(Event(0.0, EventKind.FINISHED, "client", (1,), {"num_output_tokens": np.int64(3)}))


def test_what_was_written_is_read_in_the_order_of_time(tmp_path: Path, disaggregated: list[Event]) -> None:
    backwards = disaggregated[::-1]
    events = read_events(write(tmp_path / "events.jsonl", backwards))
    assert events == sorted(backwards, key=lambda event: event.time_s)
    assert [event.source for event in events[-2:]] == ["d0", "p0"], "equal times keep the order of the file"


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [])
    assert read_events(path) == [] and list(read_columns(path)) == []


def test_columns_are_those_of_the_same_events(tmp_path: Path, disaggregated: list[Event]) -> None:
    path = write(tmp_path / "events.jsonl", disaggregated[::-1])
    assert list(read_columns(path)) == list(EventsByKind(read_events(path)))


@pytest.mark.parametrize("num_bytes", [1, 100, 1000])
def test_pieces_of_the_file_may_end_anywhere(
    tmp_path: Path, disaggregated: list[Event], monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    monkeypatch.setattr(log, "_READ_BYTES", num_bytes)
    path = write(tmp_path / "events.jsonl", disaggregated, b"{")
    assert read_events(path) == sorted(disaggregated, key=lambda event: event.time_s)
    broken = write(tmp_path / "broken.jsonl", disaggregated, b"{\n\n")
    with pytest.raises(ValueError, match=rf"broken\.jsonl, line {len(disaggregated) + 1}: not an event"):
        read_events(broken)


def test_an_empty_line_is_no_event(tmp_path: Path, disaggregated: list[Event]) -> None:
    with pytest.raises(ValueError, match=r"events\.jsonl, line 4: not an event"):
        read_events(write(tmp_path / "events.jsonl", disaggregated[:3], b"\n" + encode_event(disaggregated[3])))


@pytest.mark.parametrize("num_bytes", [1, 30, -2])
def test_a_line_that_was_cut_off_is_dropped_and_said(
    tmp_path: Path, disaggregated: list[Event], caplog: pytest.LogCaptureFixture, num_bytes: int
) -> None:
    tail = encode_event(disaggregated[-1])[:num_bytes]
    path = write(tmp_path / "events.jsonl", disaggregated[:3], tail)
    with caplog.at_level(logging.WARNING):
        assert len(read_events(path)) == 3
    assert "events.jsonl: the last line is cut off" in caplog.text


def test_a_last_line_without_its_newline_is_whole(tmp_path: Path, disaggregated: list[Event]) -> None:
    tail = encode_event(disaggregated[3])[:-1]
    assert len(read_events(write(tmp_path / "events.jsonl", disaggregated[:3], tail))) == 4


@pytest.mark.parametrize(
    "broken", [b"{", b"", b'{"time_s":1,"kind":"vanished","source":"client"}', b'{"time_s":1,"source":"\xff"}']
)
def test_a_broken_line_before_the_end_is_an_error(tmp_path: Path, disaggregated: list[Event], broken: bytes) -> None:
    tail = broken + b"\n" + encode_event(disaggregated[-1])
    with pytest.raises(ValueError, match=r"events\.jsonl, line 4: not an event"):
        read_events(write(tmp_path / "events.jsonl", disaggregated[:3], tail))
