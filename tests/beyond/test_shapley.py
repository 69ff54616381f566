"""Shapley values under precedence, by hand and against a walk through every order."""

from fractions import Fraction
from itertools import permutations
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetribench.beyond.shapley import Causes, Precedence, shapley

NAMES = "abcde"


def orders(precedence: Precedence) -> list[tuple[str, ...]]:
    """Every order that is possible, one by one."""
    return [
        order
        for order in permutations(precedence.causes)
        if all(precedence.admits(order[:size]) for size in range(len(order) + 1))
    ]


@st.composite
def precedences(draw: st.DrawFn) -> Precedence:
    """Each cause after some of those named before it, so that an order exists."""
    num_causes = draw(st.integers(1, len(NAMES)))
    after = {NAMES[index]: draw(st.sets(st.sampled_from(NAMES[:index]))) for index in range(1, num_causes)}
    return Precedence(NAMES[:num_causes], after)


@st.composite
def games(draw: st.DrawFn) -> tuple[Precedence, dict[Causes, float]]:
    precedence = draw(precedences())
    return precedence, {on: draw(st.floats(-10, 10)) for on in precedence.sets}


def test_two_causes_share_what_only_both_bring() -> None:
    worth = {frozenset[str](): 0.0, frozenset("a"): 1.0, frozenset("b"): 2.0, frozenset("ab"): 7.0}
    shares = shapley(Precedence("ab", {}), worth)
    assert shares["a"] == (3.0, 1.0, 5.0)
    assert shares["b"] == (4.0, 2.0, 6.0)


def test_a_chain_has_one_order() -> None:
    precedence = Precedence("abc", {"b": "a", "c": "b"})
    assert precedence.sets == [frozenset(""), frozenset("a"), frozenset("ab"), frozenset("abc")]
    worth = dict(zip(precedence.sets, (1.0, 3.0, 2.0, 6.0), strict=True))
    assert {cause: share.mean for cause, share in shapley(precedence, worth).items()} == {"a": 2.0, "b": -1.0, "c": 4.0}


def test_the_weights_of_three_with_one_condition() -> None:
    """b after a; the orders are abc, acb and cab."""
    weights = Precedence("abc", {"b": "a"}).weights()
    assert weights[frozenset(), "a"] == Fraction(2, 3)
    assert weights[frozenset("c"), "a"] == weights[frozenset(), "c"] == Fraction(1, 3)
    assert weights[frozenset("ac"), "b"] == Fraction(2, 3)


@settings(deadline=None)
@given(games())
def test_the_shares_add_up_to_the_whole_change(game: tuple[Precedence, dict[Causes, float]]) -> None:
    precedence, worth = game
    total = sum(share.mean for share in shapley(precedence, worth).values())
    assert isclose(total, worth[frozenset(precedence.causes)] - worth[frozenset()], abs_tol=1e-9)


@settings(deadline=None)
@given(games())
def test_a_share_is_the_mean_over_every_order(game: tuple[Precedence, dict[Causes, float]]) -> None:
    precedence, worth = game
    shares = shapley(precedence, worth)
    every_order = orders(precedence)
    for cause, share in shares.items():
        before = [frozenset(order[: order.index(cause)]) for order in every_order]
        changes = [worth[on | {cause}] - worth[on] for on in before]
        assert isclose(share.mean, sum(changes) / len(every_order), abs_tol=1e-9)
        assert (share.least, share.most) == (min(changes), max(changes))


@given(precedences())
def test_every_cause_is_switched_on_once(precedence: Precedence) -> None:
    for cause in precedence.causes:
        assert sum(weight for (_, switched), weight in precedence.weights().items() if switched == cause) == 1


@given(games(), st.sampled_from(NAMES))
def test_what_changes_nothing_gets_nothing(game: tuple[Precedence, dict[Causes, float]], idle: str) -> None:
    precedence, worth = game
    without = {on: worth[on - {idle}] for on in precedence.sets if precedence.admits(on - {idle})}
    if idle in precedence.causes and len(without) == len(precedence.sets):
        assert shapley(precedence, without)[idle] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("causes", "after", "message"),
    [
        ("aa", {}, "each may be named once"),
        ("a", {"a": "b"}, "b: must be one of the causes: a"),
        ("a", {"b": "a"}, "b: must be one of the causes: a"),
        ("ab", {"a": "b", "b": "a"}, "two of them wait for each other"),
    ],
)
def test_what_cannot_be_ordered_is_refused(causes: str, after: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Precedence(causes, after)
