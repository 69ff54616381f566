import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.workload.arrivals import (
    ArrivalProcess,
    Arrivals,
    AtOnce,
    Constant,
    Gamma,
    Poisson,
    asked_process,
    check_rate,
)
from tetribench.workload.lognormal import LognormalWorkload
from tetribench.workload.seeds import generator

RANDOM = [Poisson(), Gamma(burstiness=0.5), Gamma(burstiness=3.0)]


def times(arrivals: Arrivals, num_requests: int, rate: float | None = 4.0, seed: int = 0) -> list[float]:
    return arrivals.times(num_requests, rate, generator(seed, "test"))


def test_at_once_is_time_zero() -> None:
    assert times(AtOnce(), 3, rate=None) == [0.0, 0.0, 0.0]


def test_constant_starts_at_zero_with_equal_gaps() -> None:
    assert times(Constant(), 4) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("arrivals", "cv"), [(Poisson(), 1.0), (Gamma(burstiness=0.5), 0.5), (Gamma(burstiness=3.0), 3.0)]
)
def test_gaps_have_the_asked_rate_and_coefficient_of_variation(arrivals: Arrivals, cv: float) -> None:
    gaps = np.diff([0.0, *times(arrivals, 100_000)])
    # Four standard errors of the mean gap; that of the CV is wider for a skewed distribution.
    assert np.mean(gaps) == pytest.approx(0.25, rel=4 * cv / 100_000**0.5)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(cv, rel=0.03)


def test_counts_of_a_poisson_process_are_as_spread_as_their_mean() -> None:
    counts = np.bincount(np.asarray(times(Poisson(), 100_000)).astype(int))[:-1]
    assert np.var(counts) / np.mean(counts) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("arrivals", RANDOM)
@given(seed=st.integers(0, 2**32), num=st.integers(1, 60), more=st.integers(0, 60))
def test_times_ascend_and_more_requests_begin_alike(arrivals: Arrivals, seed: int, num: int, more: int) -> None:
    long = times(arrivals, num + more, seed=seed)
    assert all(earlier <= later for earlier, later in itertools.pairwise([0.0, *long]))
    assert times(arrivals, num, seed=seed) == long[:num]


@pytest.mark.parametrize("arrivals", RANDOM)
def test_another_rate_draws_the_same_pattern(arrivals: Arrivals) -> None:
    assert times(arrivals, 50, rate=8.0) == pytest.approx([time / 2 for time in times(arrivals, 50, rate=4.0)])


@pytest.mark.parametrize("burstiness", [0.0, -1.0, float("nan"), float("inf")])
def test_burstiness_must_be_positive(burstiness: float) -> None:
    with pytest.raises(ValueError, match=r"^workload\.arrivals\.burstiness=.*: must be above 0 and finite$"):
        Gamma(burstiness=burstiness)


@pytest.mark.parametrize("arrivals", [Constant(), Poisson(), Gamma()])
def test_a_process_with_a_rate_needs_one(arrivals: Arrivals) -> None:
    check_rate(arrivals, 2.0)
    message = rf"^workload\.request_rate: a rate in requests/s is needed by arrivals {arrivals.name}$"
    with pytest.raises(ValueError, match=message):
        check_rate(arrivals, None)
    with pytest.raises(ValueError, match=r"^workload\.request_rate=0: must be above 0 and finite$"):
        check_rate(arrivals, 0)


def test_a_rate_that_would_be_ignored_is_refused() -> None:
    check_rate(AtOnce(), None)
    with pytest.raises(ValueError, match=r"^workload\.request_rate=4\.0: arrivals at_once has no rate; choose "):
        check_rate(AtOnce(), 4.0)


@pytest.mark.parametrize(("arrivals", "cv"), [(Constant(), 0.0), (Poisson(), 1.0), (Gamma(burstiness=3.0), 3.0)])
def test_a_workload_says_what_its_arrivals_are_drawn_from(arrivals: Arrivals, cv: float) -> None:
    assert asked_process(LognormalWorkload(name="x", arrivals=arrivals, request_rate=4.0)) == ArrivalProcess(4.0, cv)


def test_where_there_are_no_gaps_there_is_no_process() -> None:
    assert asked_process(LognormalWorkload(name="x", arrivals=AtOnce())) is None
    assert asked_process(object()) is None
