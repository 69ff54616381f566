"""The time that a device is at work: spans that overlap count once."""

from hypothesis import given
from hypothesis import strategies as st

from tetribench.engine.hf.device_time import covered


def test_spans_that_overlap_count_once() -> None:
    assert covered([(5.0, 7.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.6)]) == 5.0
    assert covered([]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=20))
def test_it_is_the_number_of_moments_with_work(spans: list[tuple[int, int]]) -> None:
    busy = {moment for start, length in spans for moment in range(start, start + length)}
    assert covered((start, start + length) for start, length in spans) == len(busy)
