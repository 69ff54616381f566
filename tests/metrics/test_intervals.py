import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.metrics.intervals import clustered_interval, mean_interval, ratio_interval, repeated_interval

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


@given(st.lists(st.lists(positive, min_size=3, max_size=3), min_size=2, max_size=8))
def test_clusters_of_one_size_count_as_their_means(clusters: list[list[float]]) -> None:
    found = clustered_interval([np.array(each) for each in clusters])
    known = mean_interval([float(np.mean(each)) for each in clusters])
    assert found == pytest.approx(known, rel=1e-6, abs=1e-6)


def test_one_cluster_has_no_bounds_and_none_no_mean() -> None:
    value, low, high = clustered_interval([np.array([1.0, 2.0]), np.array([])])
    assert value == 1.5 and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, clustered_interval([np.array([])])))


def test_intervals_of_clusters_of_unequal_sizes_cover() -> None:
    """Clusters that differ from each other far more than what is in them: samples alone would seem to be sure."""
    draw, num_hits = np.random.default_rng(3), 0
    for _ in range(1000):
        clusters = [draw.normal(draw.normal(10.0, 1.0), 0.3, draw.integers(15, 26)) for _ in range(5)]
        found = clustered_interval(clusters)
        num_hits += found.low <= 10.0 <= found.high
    assert 930 <= num_hits <= 980


def test_what_was_measured_twice_in_a_repeat_counts_once() -> None:
    assert repeated_interval([(0, 1.0), (1, 5.0), (0, 3.0)]) == pytest.approx(mean_interval([2.0, 5.0]))
    assert math.isnan(repeated_interval([(0, 1.0), (1, math.nan)]).low)
