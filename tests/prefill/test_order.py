from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request
from tetribench.core.messages import Submit
from tetribench.prefill.order import FCFS, LJF, SJF, Order

PROMPTS = [50, 20, 90, 20, 70]


def drained(order: Order, prompts: list[int]) -> list[list[Submit]]:
    raw, groups = deque(Submit(request(id, prompt)) for id, prompt in enumerate(prompts)), []
    while raw:
        groups.append(order.next_group(raw))
    return groups


@pytest.mark.parametrize(
    ("order", "expected"), [(FCFS, [0, 1, 2, 3, 4]), (SJF, [1, 3, 0, 4, 2]), (LJF, [2, 4, 0, 1, 3])]
)
def test_orders_and_their_ties(order: type[Order], expected: list[int]) -> None:
    (group,) = drained(order(), PROMPTS)
    assert [one.request.id for one in group] == expected


def test_twenty_waiting_with_a_window_of_ten_make_two_sorted_groups() -> None:
    prompts = [20 - id for id in range(20)]
    groups = drained(SJF(window=10), prompts)
    assert [[one.num_tokens for one in group] for group in groups] == [[*range(11, 21)], [*range(1, 11)]]


def test_the_window_is_the_evaluations_by_default() -> None:
    assert [len(group) for group in drained(SJF(), [1] * 40)] == [16, 16, 8]


@pytest.mark.parametrize("order", [FCFS, SJF, LJF])
def test_a_window_of_nobody_is_refused(order: type[FCFS]) -> None:
    with pytest.raises(ValueError, match=r"prefill.order.window=0: must be at least 1"):
        order(window=0)


@given(st.sampled_from([FCFS, SJF, LJF]), st.lists(st.integers(1, 9), max_size=30), st.integers(1, 12))
def test_nobody_is_lost_and_nobody_overtakes_a_window(order: type[FCFS], prompts: list[int], window: int) -> None:
    groups = drained(order(window=window), prompts)
    for index, group in enumerate(groups):
        assert (
            sorted(one.request.id for one in group) == list(range(len(prompts)))[index * window : (index + 1) * window]
        )
