from tetribench.core.events import CLIENT, Event, EventKind, EventLog


def test_the_log_keeps_the_order_of_recording_and_hands_each_event_on_at_once() -> None:
    seen: list[Event] = []
    log = EventLog(sink=seen.append)
    late = Event(2.0, EventKind.TOKEN, CLIENT, (1, 2))
    early = Event(1.0, EventKind.ARRIVED, CLIENT, (1,), {"label": "LPLD"})
    log.record(late)
    assert seen == [late]
    log.extend([early, late])
    assert seen == log.events == [late, early, late]


def test_a_log_needs_no_sink() -> None:
    log = EventLog()
    log.record(Event(0.0, EventKind.SENT, CLIENT))
    assert len(log.events) == 1
