import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.engine.hf.green.split import GRANULARITY, first_part

NUM_MULTIPROCESSORS = st.integers(2 * GRANULARITY, 400)


def test_an_h200_is_divided_as_its_driver_would() -> None:
    assert first_part(132, 0.75) == 96
    assert first_part(132, 0.5) == 64


@given(NUM_MULTIPROCESSORS, st.floats(0.0, 1.0, exclude_min=True, exclude_max=True))
def test_both_have_multiprocessors_and_the_first_no_more_than_its_share(number: int, share: float) -> None:
    try:
        num_first = first_part(number, share)
    except ValueError as refused:
        assert "\n" not in str(refused)
        within = number * share
        assert within < GRANULARITY or number - within // GRANULARITY * GRANULARITY < GRANULARITY + 1e-6
        return
    assert num_first % GRANULARITY == 0 and GRANULARITY <= num_first <= number - GRANULARITY
    assert num_first <= number * share + 1e-6 < num_first + GRANULARITY + 1e-5


@given(NUM_MULTIPROCESSORS, st.data())
def test_every_legal_number_has_a_share(number: int, data: st.DataObject) -> None:
    num_first = data.draw(st.sampled_from(range(GRANULARITY, number - GRANULARITY + 1, GRANULARITY)))
    assert first_part(number, num_first / number) == num_first


@given(NUM_MULTIPROCESSORS, st.sampled_from([1e-6, 1.0]))
def test_the_range_that_a_refusal_names_is_the_legal_one(number: int, share: float) -> None:
    with pytest.raises(ValueError, match=r"^system\.tetri\.prefill_share=.*must be at least") as refused:
        first_part(number, share)
    found = re.search(r"at least ([0-9.]+) and below ([0-9.]+)$", str(refused.value))
    assert found is not None
    least, beyond = map(float, found.groups())
    first_part(number, least + 1e-3)
    first_part(number, beyond - 1e-3)
    for outside in (least - 1e-3, beyond + 1e-3):
        with pytest.raises(ValueError, match="prefill_share"):
            first_part(number, outside)


def test_a_gpu_too_small_for_two_is_never_divided() -> None:
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ValueError, match="of 15 multiprocessors"):
            first_part(15, share)
