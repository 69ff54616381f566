"""Bounds of clocks from the messages that crossed, with clocks that are set wrong on purpose."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import request, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tetribench.core.events import Event
from tetribench.metrics.clocks import are_bounded, clock_bounds
from tetribench.metrics.timeline import request_table


def table(events: list[Event], ahead_s: dict[str, float] | None = None) -> pd.DataFrame:
    """The request table, where the clocks of some instances are ahead."""
    wrong = ahead_s or {}
    return request_table([replace(event, time_s=event.time_s + wrong.get(event.source, 0.0)) for event in events])


@pytest.fixture(scope="module")
def split_events() -> list[Event]:
    return Bench(tetri(), CheckingFactory()).run([request(id, 40, 4, 0.05 * id) for id in range(4)]).log.events


def test_one_clock_is_bounded_by_the_quickest_messages(disaggregated: list[Event]) -> None:
    """Request 1 is routed at 1.03, begun at 1.10, done at 1.40 and delivered at 1.45; dispatched at 1.30, reserved at
    1.35, and its transfer starts at 1.36. Request 2 is slower on every way."""
    bounds = clock_bounds(request_table(disaggregated))
    assert bounds == {
        "p0": {"ahead_s": pytest.approx(0.07), "behind_s": pytest.approx(0.05)},
        "d0": {"ahead_s": pytest.approx(0.05), "behind_s": pytest.approx(0.01)},
    }
    assert are_bounded(bounds)


@given(st.sampled_from(["prefill-0", "decode-0"]), st.floats(0.5, 100.0), st.sampled_from([-1, 1]))
def test_a_clock_that_is_wrong_by_more_than_a_message_takes_is_found(name: str, wrong_s: float, sign: int) -> None:
    events = Bench(tetri(), CheckingFactory()).run([request(0, 40, 4)]).log.events
    assert are_bounded(clock_bounds(table(events)))
    bounds = clock_bounds(table(events, {name: sign * wrong_s}))
    assert not are_bounded(bounds)
    way = "ahead_s" if sign < 0 else "behind_s"
    assert bounds[name][way] < 0


def test_bounds_hold_the_truth(split_events: list[Event]) -> None:
    """A clock may be set wrong by less than both bounds; then they move with it and still hold."""
    right = clock_bounds(table(split_events))["prefill-0"]
    wrong_s = min(right.values()) / 2
    moved = clock_bounds(table(split_events, {"prefill-0": wrong_s}))["prefill-0"]
    assert moved["ahead_s"] == pytest.approx(right["ahead_s"] + wrong_s)
    assert moved["behind_s"] == pytest.approx(right["behind_s"] - wrong_s)


def test_a_colocated_instance_has_the_clients_bounds_only() -> None:
    events = Bench(vllm_like(2), CheckingFactory()).run([request(id, 40, 4) for id in range(4)]).log.events
    bounds = clock_bounds(table(events))
    assert bounds.keys() == {"colocated-0", "colocated-1"} and are_bounded(bounds)


def test_an_instance_that_never_answered_is_not_bounded(disaggregated: list[Event]) -> None:
    requests = request_table(disaggregated).assign(first_token_s=float("nan"))
    bounds = clock_bounds(requests)
    assert bounds["p0"]["behind_s"] is None and not are_bounded(bounds)


def test_what_was_begun_again_tells_nothing(disaggregated: list[Event]) -> None:
    assert clock_bounds(request_table(disaggregated).assign(num_retries=1)) == {}
