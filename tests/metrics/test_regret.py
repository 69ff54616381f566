"""Regrets by hand, and what holds of all of them."""

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.metrics.regret import Regret, regret

OUTCOMES = {"a": 5.0, "b": 2.0, "c": 4.0, "d": 9.0}


def test_a_choice_that_was_not_the_best() -> None:
    assert regret("a", ("a", "c"), OUTCOMES) == Regret(best=3.0, chance=0.0, other=1.0)


def test_the_best_choice_has_no_regret_and_is_better_than_the_rest() -> None:
    assert regret("b", ("a", "b", "d"), OUTCOMES) == Regret(best=0.0, chance=-3.0, other=-3.0)


def test_without_another_candidate() -> None:
    found = regret("d", ("d",), OUTCOMES)
    assert (found.best, found.chance) == (7.0, 4.0) and isnan(found.other)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6))
def test_chance_has_no_regret_to_chance_and_the_best_never_less_than_none(values: list[int]) -> None:
    outcomes = {str(place): float(value) for place, value in enumerate(values)}
    found = [regret(name, outcomes, outcomes) for name in outcomes]
    assert sum(one.chance for one in found) == pytest.approx(0.0, abs=1e-9)
    assert all(one.best >= max(one.chance, one.other, 0.0) - 1e-9 for one in found)
    assert min(one.best for one in found) == 0.0
