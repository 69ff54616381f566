from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange
from tetribench.prefill.predict import NoisyOracle, NoPrediction, Oracle, Predictor

RNG = generator(0)


@pytest.mark.parametrize(
    ("output", "expected"), [(1, (0, 200)), (199, (0, 200)), (200, (200, 400)), (1000, (1000, 1200))]
)
def test_the_oracle_names_the_right_bucket(output: int, expected: tuple[int, int]) -> None:
    assert Oracle().predict(request(output=output), RNG) == LengthRange(*expected)


@given(st.integers(1, 5000), st.integers(1, 500))
def test_an_oracles_bucket_holds_the_length(output: int, granularity: int) -> None:
    predicted = Oracle(granularity=granularity).predict(request(output=output), RNG)
    assert predicted.low <= output < predicted.high
    assert predicted.low % granularity == 0 and predicted.high - predicted.low == granularity


@pytest.mark.parametrize("predictor", [Oracle(), NoisyOracle(accuracy=1.0), NoisyOracle(accuracy=0.0)])
def test_of_a_natural_stop_nobody_knows_more_than_the_maximum(predictor: Predictor) -> None:
    assert predictor.predict(request(output=700, natural_stop=True), RNG) == LengthRange(0, 701)


def test_no_prediction_does_not_look_at_the_request() -> None:
    assert NoPrediction(limit_tokens=300).predict(request(output=1), RNG) == LengthRange(0, 300)
    assert NoPrediction().predict(request(output=7), RNG) == LengthRange(0, 2048)


def lows(predictor: Predictor, output: int, num_draws: int = 4000) -> Counter[int]:
    rng = generator(1)
    return Counter(predictor.predict(request(output=output), rng).low for _ in range(num_draws))


def test_the_noisy_oracle_is_right_as_often_as_it_says_and_errs_to_both_neighbours() -> None:
    found = lows(NoisyOracle(), 450)
    assert set(found) == {200, 400, 600}
    assert found[400] / 4000 == pytest.approx(0.749, abs=0.02)
    assert found[200] / found[600] == pytest.approx(1.0, abs=0.15)


def test_the_first_bucket_has_only_an_upper_neighbour() -> None:
    found = lows(NoisyOracle(), 10)
    assert set(found) == {0, 200}
    assert found[0] / 4000 == pytest.approx(0.749, abs=0.02)


@pytest.mark.parametrize(("accuracy", "expected"), [(0.0, {200, 600}), (1.0, {400})])
def test_the_ends_of_accuracy(accuracy: float, expected: set[int]) -> None:
    assert set(lows(NoisyOracle(accuracy=accuracy), 450, 200)) == expected


@pytest.mark.parametrize("accuracy", [-0.1, 1.1])
def test_an_accuracy_that_is_no_share_is_refused(accuracy: float) -> None:
    with pytest.raises(ValueError, match=r"prefill.predict.accuracy=.*must be between 0 and 1"):
        NoisyOracle(accuracy=accuracy)


def test_buckets_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prefill.predict.granularity=0: must be at least 1"):
        Oracle(granularity=0)
    with pytest.raises(ValueError, match=r"prefill.predict.limit_tokens=0: must be at least 1"):
        NoPrediction(limit_tokens=0)
