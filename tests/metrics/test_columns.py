import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.events import Event, EventKind
from tetribench.metrics import columns
from tetribench.metrics.columns import COLUMNS, EventsByKind, Lists

Make = Callable[..., Event]


def lists(*each: list[int]) -> Lists:
    return Lists(np.array([value for one in each for value in one], np.int64), np.array(list(map(len, each)), np.int64))


def measured(event: Event) -> Event:
    """With the details that are measured of its kind."""
    names = COLUMNS.get(event.kind, event.details)
    details = {name: value for name, value in event.details.items() if name in names}
    return Event(event.time_s, event.kind, event.source, event.requests, details)


@pytest.mark.parametrize("min_laid_out", [1, 3, 1000])
def test_columns_hold_what_the_events_say(
    disaggregated: list[Event], colocated: list[Event], monkeypatch: pytest.MonkeyPatch, min_laid_out: int
) -> None:
    monkeypatch.setattr(columns, "_MIN_LAID_OUT", min_laid_out)
    for log in (disaggregated, colocated):
        mixed = random.Random(1).sample(log, len(log))
        by_kind = EventsByKind.of_batches([mixed[:5], [], mixed[5:]])
        for kind in EventKind:
            found = [event for event in mixed if event.kind is kind]
            assert by_kind[kind] == [measured(event) for event in sorted(found, key=lambda event: event.time_s)]
        assert len(list(by_kind)) == len(log)
        assert EventsByKind.of(by_kind) is by_kind


def test_equal_times_keep_the_order_in_which_they_came(event: Make) -> None:
    log = [event(time_s, "sent", "client", id) for id, time_s in enumerate([2.0, 1.0, 2.0, 1.0])]
    assert EventsByKind(log).columns(EventKind.SENT).requests.values.tolist() == [1, 3, 0, 2]


def test_what_is_missing_is_nan_or_none(event: Make) -> None:
    by_kind = EventsByKind([event(0.0, "predicted", "p0", 1), event(0.0, "failed", "client", 1)])
    assert np.isnan(by_kind.columns(EventKind.PREDICTED).details["low"]).all()
    assert by_kind.columns(EventKind.FAILED).details["reason"].tolist() == [None]
    with pytest.raises(KeyError, match="num_output_tokens"):
        EventsByKind([event(0.0, "finished", "client", 1)])


def test_a_text_is_kept_once(event: Make) -> None:
    names = ["".join(["decode", "-0"]) for _ in range(2)]
    assert names[0] is not names[1]
    first, second = EventsByKind([event(0.0, "admitted", name, 1) for name in names]).columns(EventKind.ADMITTED).source
    assert first is second


def test_lists_of_runs(event: Make) -> None:
    runs = [
        event(3.0, "iterations", "d0", started_s=2.0, ends_s=[2.5, 3.0], num_used_blocks=[7, 8], num_decode_tokens=1),
        event(1.0, "iterations", "d0", started_s=0.0, ends_s=[1.0], num_used_blocks=[6], num_decode_tokens=4),
    ]
    found = EventsByKind(runs).columns(EventKind.ITERATIONS)
    assert found.lists["ends_s"].tolist() == [[1.0], [2.5, 3.0]]
    assert found.lists["num_used_blocks"].values.tolist() == [6, 7, 8]
    assert found.lists["ends_s"].events.tolist() == [0, 1, 1] and found.lists["ends_s"].starts.tolist() == [0, 1]


@given(st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=6), st.data())
def test_lists_taken_in_any_order_are_those_lists(each: list[list[int]], data: st.DataObject) -> None:
    numbers = st.lists(st.integers(0, len(each) - 1), max_size=9) if each else st.just([])
    order: list[int] = data.draw(numbers)
    taken = lists(*each).taken(np.array(order, np.int64))
    assert taken.tolist() == [each[number] for number in order]
    assert Lists.joined([lists(*each), taken]).tolist() == each + taken.tolist()
