from tetribench.core.events import CLIENT, Event, EventKind, EventLog


def test_the_log_hands_each_event_on_at_once_and_keeps_none() -> None:
    seen: list[Event] = []
    log = EventLog(sink=seen.extend)
    late = Event(2.0, EventKind.TOKEN, CLIENT, (1, 2))
    early = Event(1.0, EventKind.ARRIVED, CLIENT, (1,), {"label": "LPLD"})
    log.record(late)
    assert seen == [late]
    log.extend([early, late])
    assert seen == [late, early, late] and log.events == []


def test_without_a_sink_the_log_keeps_the_order_of_recording() -> None:
    log = EventLog()
    later, earlier = Event(1.0, EventKind.SENT, CLIENT), Event(0.0, EventKind.SENT, CLIENT)
    log.record(later)
    log.extend([earlier])
    assert log.events == [later, earlier]
