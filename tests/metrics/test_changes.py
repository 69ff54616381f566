from typing import Any

import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.metrics.changes import COLUMNS, change_table, role_at_work


def event(time_s: float, kind: EventKind, source: str = "decode-0", **details: Any) -> Event:
    return Event(time_s, kind, source, (), details)


STARTED: dict[str, Any] = {"role": "decode", "to": "prefill", "reason": "idle", "load_age_s": 0.1}
FLIPPED: dict[str, Any] = {"role": "decode", "to": "prefill", "started_s": 2.0, "drain_s": 0.75, "overhead_s": 0.25}


def test_a_flip_has_the_reason_of_its_decision_and_both_parts_of_its_duration() -> None:
    events = [event(3.0, EventKind.FLIPPED, **FLIPPED), event(2.0, EventKind.FLIP_STARTED, **STARTED)]
    (row,) = change_table(events).to_dict("records")
    assert row == {
        "time_s": 3.0,
        "instance": "decode-0",
        "what": "flip",
        "role": "decode",
        "to": "prefill",
        "reason": "idle",
        "drain_s": 0.75,
        "overhead_s": 0.25,
    }


def test_whoever_became_nothing_has_left() -> None:
    left = FLIPPED | {"to": None}
    (row,) = change_table([event(3.0, EventKind.FLIPPED, **left)]).to_dict("records")
    assert (row["what"], row["to"]) == ("left", None)


def test_losses_refusals_and_late_comers_by_time() -> None:
    events = [
        event(4.0, EventKind.INSTANCE_READY, "decode-1", role="decode"),
        event(3.0, EventKind.FLIP_REFUSED, reason="it is the last decode instance"),
        event(2.0, EventKind.INSTANCE_LOST, reason="killed\n  a log line", num_restarted=3),
        event(0.5, EventKind.INSTANCE_READY, role="decode"),
        Event(1.0, EventKind.ARRIVED, "client", (0,), {"num_prompt_tokens": 1, "max_output_tokens": 1}),
    ]
    table = change_table(events)
    assert list(table["what"]) == ["lost", "refused", "joined"]
    assert list(table["reason"]) == ["killed", "it is the last decode instance", None]
    assert table["drain_s"].isna().all() and table["to"][2] == "decode"


def test_nothing_happened() -> None:
    table = change_table([])
    assert list(table.columns) == list(COLUMNS) and len(table) == 0 and table["drain_s"].dtype == "float64"


def test_work_counts_for_the_role_at_the_time() -> None:
    iterations = pd.DataFrame({"instance": ["decode-0", "decode-0", "decode-1"], "ended_s": [2.5, 3.5, 3.5]})
    instances = pd.DataFrame({"role": ["decode", "decode"]}, index=["decode-0", "decode-1"])
    changes = change_table([event(3.0, EventKind.FLIPPED, **FLIPPED)])
    assert list(role_at_work(iterations, instances, changes)) == ["decode", "prefill", "decode"]
