import numpy as np
import pytest

from tests.engine.test_cost_model import round_numbers, small
from tetribench.core.seeds import generator
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.noise import Noise


def test_factors_have_mean_one_and_stay_what_they_were() -> None:
    noise = Noise(0.1, 0.0, generator(0, "a"))
    late = noise.factor(19_999)
    found = np.array([noise.factor(iteration) for iteration in range(20_000)])
    assert found[-1] == late
    assert found.mean() == pytest.approx(1.0, abs=0.005)
    assert np.log(found).std() == pytest.approx(0.1, rel=0.05)


def test_an_engine_keeps_its_own_factor() -> None:
    firsts = [Noise(0.0, 0.05, generator(seed, "a")) for seed in range(2000)]
    assert all(noise.factor(0) == noise.factor(7) for noise in firsts)
    found = np.array([noise.factor(0) for noise in firsts])
    assert found.mean() == pytest.approx(1.0, abs=0.01) and np.log(found).std() == pytest.approx(0.05, rel=0.1)
    assert Noise(0.0, 0.0, generator(0)).factor(3) == 1.0


@pytest.mark.parametrize("option", ["step_noise", "run_noise"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_noise_out_of_range_is_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"engine\.{option}={value}: must be between 0 and 1"):
        CostModelFactory(model=small(), hardware=round_numbers(), **{option: value})  # type: ignore[arg-type]
