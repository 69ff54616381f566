"""Decisions from events: what the table says by hand, and what a run's decisions have in common."""

import json
from collections.abc import Callable
from math import isnan
from typing import Any

import pytest

from tetribench.core.events import Event
from tetribench.metrics.compare import measure
from tetribench.metrics.decisions import Decision, decision_summary, decision_table
from tetribench.metrics.slo import Slo

Make = Callable[..., Event]

NOTHING = {
    "num_decisions": 0,
    "single_share": None,
    "tied_share": None,
    "busier_share": None,
    "none_fitting_share": None,
    "mean_age_s": None,
    "max_age_s": None,
}


@pytest.fixture
def dispatched(event: Make) -> Make:
    """`dispatched(time_s, request, to, candidates)`; a light decode, unless `low` and `high` say otherwise."""

    def make(time_s: float, request: int, to: str, candidates: dict[str, list[float]], **details: Any) -> Event:
        details = {"low": 0, "high": 200, **details}
        return event(time_s, "dispatched", "p0", request, to=to, candidates=candidates, **details)

    return make


def test_a_decision_by_hand(dispatched: Make) -> None:
    """A heavy decode joins: d0 would have 3 of 4 heavy, d1 1 of 1, d2 2 of 4."""
    candidates = {"d0": [500, 2, 1, 0.1], "d1": [900, 0, 0, 0.2], "d2": [700, 1, 2, 0.6]}
    events = [dispatched(2.0, 7, "d0", candidates, low=200, high=400, num_fitting=3)]
    (row,) = decision_table(events).to_dict("records")
    expected = Decision(
        time_s=2.0,
        request=7,
        instance="p0",
        to="d0",
        candidates="d0 d1 d2",
        num_candidates=3,
        num_fitting=3,
        predicted_low=200,
        predicted_high=400,
        age_s=(0.1 + 0.2 + 0.6) / 3,
        num_free_tokens=500,
        num_decodes=3,
        heavy_share=0.75,
        other_free_tokens=900,
        other_num_decodes=0,
        other_heavy_share=0.5,
        is_tied=False,
    )
    assert row == expected._asdict()


def test_decisions_are_in_order_of_time_and_a_request_may_have_several(dispatched: Make) -> None:
    load: list[float] = [10, 0, 0, 0.0]
    events = [dispatched(time_s, request, "d0", {"d0": load}) for time_s, request in ((3.0, 1), (1.0, 2), (2.0, 1))]
    assert list(decision_table(events)["request"]) == [2, 1, 1]


def test_where_there_was_nothing_else(dispatched: Make) -> None:
    (row,) = decision_table([dispatched(0.0, 0, "d0", {"d0": [1, 0, 0, 0.0]})]).to_dict("records")
    assert not row["is_tied"]
    assert all(
        isnan(row[name]) for name in ("num_fitting", "other_free_tokens", "other_num_decodes", "other_heavy_share")
    )


def test_the_summary_of_four_decisions(dispatched: Make) -> None:
    """One without an alternative, one with nobody who fits, a tie in interference, one whose policy did not look."""
    events = [
        dispatched(0.0, 0, "a", {"a": [90, 0, 0, 0.1]}, num_fitting=1),
        dispatched(0.1, 1, "b", {"a": [5, 1, 0, 0.2], "b": [9, 0, 1, 0.4]}, num_fitting=0),
        dispatched(0.2, 2, "a", {"a": [70, 1, 1, 0.3], "b": [60, 1, 1, 0.3]}, num_fitting=2),
        dispatched(0.3, 3, "a", {"a": [70, 1, 3, 0.6], "b": [60, 2, 1, 0.6]}),
    ]
    assert decision_summary(decision_table(events)) == {
        "num_decisions": 4,
        "single_share": 0.25,
        "tied_share": 0.25,
        "busier_share": 0.25,
        "none_fitting_share": pytest.approx(1 / 3),
        "mean_age_s": pytest.approx((0.1 + 0.3 + 0.3 + 0.6) / 4),
        "max_age_s": 0.6,
    }


def test_without_decisions() -> None:
    assert decision_summary(decision_table([])) == NOTHING


def test_the_result_of_a_system_has_them(disaggregated: list[Event], colocated: list[Event]) -> None:
    split, other = (measure("x", events, Slo()).summary["decisions"] for events in (disaggregated, colocated))
    assert split == {
        **NOTHING,
        "num_decisions": 1,
        "single_share": 1.0,
        "tied_share": 0.0,
        "busier_share": 0.0,
        **dict.fromkeys(("mean_age_s", "max_age_s"), 0.3),
    }
    assert other == NOTHING
    assert json.loads(json.dumps(split, allow_nan=False)) == split
