import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request, sequence
from tetribench.core.sequence import Estimate, LengthRange, Sequence

STOPS = frozenset({7})


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (5, 5), (6, 5)])
def test_a_range_without_a_length_in_it_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=r"0 <= low < high"):
        LengthRange(low, high)


@pytest.mark.parametrize(("point", "expected"), [(Estimate.low, 200), (Estimate.mean, 300), (Estimate.high, 399)])
def test_points_of_a_range(point: Estimate, expected: int) -> None:
    assert LengthRange(200, 400).estimate(point) == expected


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_every_estimate_is_a_length_inside_the_range(low: int, width: int) -> None:
    predicted = LengthRange(low, low + width)
    assert all(low <= predicted.estimate(point) < low + width for point in Estimate)


@pytest.mark.parametrize(
    ("low", "high", "is_heavy"), [(0, 200, False), (0, 257, False), (0, 258, True), (200, 400, True)]
)
def test_heavy_is_judged_by_the_middle(low: int, high: int, is_heavy: bool) -> None:
    assert LengthRange(low, high).is_heavy is is_heavy


def test_tokens_across_the_boundary_between_prompt_and_response() -> None:
    made = Sequence(request(prompt=4, output=9, prompt_ids=(10, 11, 12, 13)), LengthRange(0, 9))
    made.output_ids = [20, 21, 22]
    assert made.token_ids(0, 4) == [10, 11, 12, 13]
    assert made.token_ids(2, 6) == [12, 13, 20, 21]
    assert made.token_ids(3, 4) == [13]
    assert made.token_ids(4, 5) == [20]
    assert made.token_ids(6, 7) == [22]


@given(st.integers(1, 20), st.integers(0, 20), st.data())
def test_tokens_are_a_slice_of_prompt_and_response(num_prompt: int, num_output: int, data: st.DataObject) -> None:
    made = Sequence(request(prompt=num_prompt, prompt_ids=tuple(range(num_prompt))), LengthRange(0, 9))
    made.output_ids = list(range(100, 100 + num_output))
    start = data.draw(st.integers(0, made.num_tokens))
    stop = data.draw(st.integers(start, made.num_tokens))
    assert made.token_ids(start, stop) == [*range(num_prompt), *made.output_ids][start:stop]


def test_known_and_computed_tokens() -> None:
    made = sequence(prompt=10, produced=3)
    made.num_computed = 12
    assert (made.num_tokens, made.num_uncomputed) == (13, 1)


def test_a_response_ends_at_its_maximum_and_not_at_a_stop_token_unless_it_may() -> None:
    forced = Sequence(request(output=3), LengthRange(0, 9))
    assert [forced.append(token_id, STOPS) for token_id in (1, 7, 2)] == [False, False, True]
    assert forced.output_ids == [1, 7, 2]


def test_a_natural_stop_ends_a_response_early_and_its_maximum_ends_it_anyway() -> None:
    natural = Sequence(request(output=3, natural_stop=True), LengthRange(0, 9))
    assert [natural.append(token_id, STOPS) for token_id in (1, 7)] == [False, True]
    patient = Sequence(request(output=2, natural_stop=True), LengthRange(0, 9))
    assert [patient.append(token_id, STOPS) for token_id in (1, 2)] == [False, True]
