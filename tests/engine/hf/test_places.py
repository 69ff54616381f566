"""Results that are needed at one time never lie in one place."""

from collections.abc import Sequence as SequenceOf
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tetribench.engine.hf.places import Lifetime, place


@st.composite
def passes(draw: st.DrawFn) -> list[Lifetime]:
    results, operator = [], 0
    for _ in range(draw(st.integers(0, 12))):
        operator += draw(st.integers(0, 2))  # an operator may have several results
        results.append(Lifetime(draw(st.integers(0, 300)), operator, operator + draw(st.integers(0, 6))))
    return results


@given(passes())
def test_what_is_needed_at_one_time_lies_apart(results: SequenceOf[Lifetime]) -> None:
    offsets, num_bytes = place(results)
    placed = list(zip(offsets, results, strict=True))
    assert all(offset % 64 == 0 and offset + one.num_bytes <= num_bytes for offset, one in placed)
    for (of_one, one), (of_other, other) in combinations(placed, 2):
        if one.first <= other.last and other.first <= one.last:
            assert of_one + one.num_bytes <= of_other or of_other + other.num_bytes <= of_one


def test_what_follows_one_another_takes_the_place_in_front() -> None:
    chain = [Lifetime(64 * size, number, number + 1) for number, size in enumerate((2, 1, 2, 1, 3))]
    assert place(chain) == ([0, 128, 0, 128, 192], 384)
