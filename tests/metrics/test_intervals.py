import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.metrics.intervals import mean_interval, ratio_interval

positive = st.floats(0.1, 100.0)


def test_the_interval_of_a_mean_by_hand() -> None:
    """t(0.975, 3) = 3.1824; the standard deviation of 1, 2, 3, 4 is 1.2910."""
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval == pytest.approx((2.5, 2.5 - 3.18245 * 1.290994 / 2, 2.5 + 3.18245 * 1.290994 / 2), rel=1e-5)


def test_one_sample_has_no_bounds() -> None:
    value, low, high = mean_interval([3.0])
    assert value == 3.0
    assert math.isnan(low)
    assert math.isnan(high)
    with pytest.raises(ValueError, match="at least one sample"):
        mean_interval([])


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8))
def test_a_ratio_and_its_inverse_agree(pairs: list[tuple[float, float]]) -> None:
    above, below = zip(*pairs, strict=True)
    forth, back = ratio_interval(above, below), ratio_interval(below, above)
    assert forth.low <= forth.value * (1 + 1e-9)
    assert forth == pytest.approx((1 / back.value, 1 / back.high, 1 / back.low), rel=1e-6)


def test_a_ratio_of_what_is_not_positive_is_undefined() -> None:
    assert math.isnan(ratio_interval([0.0, 1.0], [1.0, 1.0]).value)
    with pytest.raises(ValueError, match="zip"):
        ratio_interval([1.0], [1.0, 2.0])
