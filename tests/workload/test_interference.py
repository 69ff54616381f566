"""Victims are the same whatever is beside them; aggressors cover all of their time."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.request import Request
from tetribench.workload.arrivals import AtOnce, Constant, Poisson
from tetribench.workload.interference import AGGRESSOR, LONGEST_TOKENS, InterferenceWorkload, RequestClass

classes = st.sampled_from(RequestClass)


def workload(**changes: Any) -> InterferenceWorkload:
    options: dict[str, Any] = {
        "arrivals": Poisson(),
        "victim_rate": 2.0,
        "num_victims": 3,
        "lead_s": 5.0,
        "tail_s": 4.0,
    }
    return InterferenceWorkload(name="x", **options | changes)


def victims(requests: list[Request]) -> list[tuple[Any, ...]]:
    return [
        (one.label, one.arrival_s, one.num_prompt_tokens, one.max_output_tokens)
        for one in requests
        if one.label != AGGRESSOR
    ]


def test_victims_come_one_by_one_three_of_each_class_with_the_papers_lengths() -> None:
    requests = workload().draw(0).requests
    assert [one.arrival_s for one in requests] == [5.0 + index / 2 for index in range(12)]
    assert Counter(one.label for one in requests) == {one.victim: 3 for one in RequestClass}
    for request in requests:
        assert request.num_prompt_tokens == (512 if " HP" in request.label else 18)
        is_heavy = request.label.endswith("HD")
        assert 512 < request.max_output_tokens <= 640 if is_heavy else 20 <= request.max_output_tokens <= 100
        assert request.num_tokens <= LONGEST_TOKENS


@given(st.integers(0, 1000), classes, st.floats(0.5, 20.0))
def test_victims_are_the_same_with_and_without_aggressors(seed: int, aggressor: RequestClass, rate: float) -> None:
    alone = workload().draw(seed).requests
    beside = workload(aggressor=aggressor, aggressor_rate=rate).draw(seed).requests
    assert victims(beside) == victims(alone) and len(victims(alone)) == 12
    assert [one.id for one in beside] == list(range(len(beside)))
    assert [one.arrival_s for one in beside] == sorted(one.arrival_s for one in beside)


@given(st.integers(0, 100), classes)
def test_aggressors_come_before_and_after_the_victims(seed: int, aggressor: RequestClass) -> None:
    drawn = workload(aggressor=aggressor, aggressor_rate=20.0).draw(seed).requests
    others = [one for one in drawn if one.label == AGGRESSOR]
    first_s, last_s = 5.0, 5.0 + 11 / 2
    assert others[0].arrival_s < first_s and last_s < others[-1].arrival_s <= last_s + 4.0
    assert {one.num_prompt_tokens for one in others} == {aggressor.prompt_tokens}
    shortest, longest = aggressor.output_tokens
    assert all(shortest <= one.max_output_tokens <= longest for one in others)


def test_their_number_follows_the_rate() -> None:
    steady = workload(arrivals=Constant(), aggressor=RequestClass.HPLD, aggressor_rate=10.0).draw(0).requests
    times = [one.arrival_s for one in steady if one.label == AGGRESSOR]
    assert times == pytest.approx([index / 10 for index in range(146)])  # up to 10.5 + 4 s


def test_lengths_can_be_scaled() -> None:
    requests = workload(length_scale=0.1).draw(0).requests
    assert {one.num_prompt_tokens for one in requests} == {2, 51}
    assert max(one.max_output_tokens for one in requests) <= 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"victim_rate": 0.0}, r"workload\.victim_rate=0\.0: must be above 0"),
        ({"num_victims": 0}, r"workload\.num_victims=0: must be at least 1"),
        ({"aggressor": RequestClass.LPLD}, r"workload\.aggressor_rate=None: must be given with workload\.aggressor"),
        ({"aggressor_rate": 1.0}, r"workload\.aggressor_rate=1\.0: .* and not without"),
        ({"aggressor": RequestClass.LPLD, "aggressor_rate": -1.0}, r"workload\.aggressor_rate=-1\.0: must be above 0"),
        ({"arrivals": AtOnce()}, r"arrivals=at_once: .* must be constant, poisson or gamma"),
        ({"lead_s": -1.0}, r"workload\.lead_s=-1\.0: must not be negative"),
        ({"tail_s": -1.0}, r"workload\.tail_s=-1\.0: must not be negative"),
        ({"length_scale": 0.0}, r"workload\.length_scale=0\.0: must be above 0"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workload(**changes)
