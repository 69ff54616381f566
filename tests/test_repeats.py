from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.repeats import Repeats, orders


def test_a_repeat_reads_the_same_from_both_ends_and_the_next_begins_at_the_other() -> None:
    for seed in range(20):
        first, second = islice(orders(["a", "b"], seed, is_twice=True), 2)
        assert {tuple(first), tuple(second)} == {("a", "b", "b", "a"), ("b", "a", "a", "b")}
    assert len({tuple(next(orders(["a", "b"], seed, is_twice=True))) for seed in range(20)}) == 2


@given(st.integers(2, 5), st.integers(0, 99), st.integers(1, 12))
def test_of_two_systems_none_is_first_more_often(num_systems: int, seed: int, num_repeats: int) -> None:
    names = [str(number) for number in range(num_systems)]
    found = list(islice(orders(names, seed, is_twice=False), num_repeats))
    assert all(sorted(order) == names for order in found)
    if num_systems == 2:
        firsts = [order[0] for order in found]
        assert abs(firsts.count("0") - firsts.count("1")) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, r"^repeats=0: must be at least 1$"),
        ({"num": 1, "interval_width": 0.1, "max_num": 9}, r"^repeats=1: must be at least 2 with until.interval_width"),
        ({"num": 3, "interval_width": 0.0, "max_num": 9}, r"^until.interval_width=0.0: must be positive, or null$"),
        ({"num": 3, "interval_width": 0.1, "budget_s": -1.0}, r"^until.budget_s=-1.0: must be positive, or null$"),
        (
            {"num": 3, "interval_width": 0.1, "max_num": 2},
            r"^until.max_repeats=2: must be at least repeats=3, or null$",
        ),
        ({"num": 3, "max_num": 9}, r"^until.interval_width=null: must be given together with until.max_repeats or"),
        (
            {"num": 3, "interval_width": 0.1},
            r"^until.interval_width=0.1: must be given together with until.max_repeats",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Repeats(**arguments)


def found(width: float | None) -> Callable[[], float | None]:
    return lambda: width


def never() -> float | None:
    raise AssertionError("nothing depends on the width of an interval")


def test_repeats_go_on_until_the_interval_is_narrow() -> None:
    repeats = Repeats(2, max_num=5, interval_width=0.1, budget_s=100.0)
    assert repeats.asks_for_more(1, never, 10.0)
    assert repeats.asks_for_more(2, found(0.3), 20.0) and repeats.asks_for_more(2, found(None), 20.0)
    assert not repeats.asks_for_more(2, found(0.1), 20.0)
    assert not repeats.asks_for_more(5, found(0.3), 50.0)
    assert not repeats.asks_for_more(4, found(0.3), 90.0), "the fifth would end after 112 s"
    assert Repeats(2, interval_width=0.1, max_num=2000).asks_for_more(1000, found(0.3), 1e9)


def test_without_a_width_nothing_is_looked_at() -> None:
    assert Repeats(3).asks_for_more(2, never, 0.0) and not Repeats(3).asks_for_more(3, never, 0.0)
