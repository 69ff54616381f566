import subprocess
import sys
from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from tests.support.interpreter import environment
from tetribench.core.seeds import generator
from tetribench.core.units import GIB, ceil_div


def test_a_generator_depends_on_its_seed_and_its_names() -> None:
    made = [generator(0, "a"), generator(0, "a", 1), generator(0, "b"), generator(1, "a")]
    numbers = [one.random() for one in made]
    assert len(set(numbers)) == 4
    assert generator(0, "a", 1).random() == numbers[1]


def test_a_generator_is_the_same_in_every_process() -> None:
    code = "from tetribench.core.seeds import generator; print(generator(3, 'predict', 4).random())"
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment(hash_seed=5), capture_output=True, text=True, check=True
    )
    assert float(other.stdout) == generator(3, "predict", 4).random()


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**20))
def test_ceil_div_is_exact(numerator: int, denominator: int) -> None:
    assert ceil_div(numerator, denominator) == ceil(Fraction(numerator, denominator))


def test_gib() -> None:
    assert GIB == 2**30
