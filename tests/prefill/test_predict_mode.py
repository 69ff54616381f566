from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request
from tetribench.prefill.predict_mode import Parallel, Sequential


def test_modes_say_when_predictions_run() -> None:
    assert Parallel().is_parallel and not Sequential().is_parallel


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 5), st.integers(1, 15))
def test_groups_keep_the_order_and_long_prompts_are_alone(lengths: list[int], batch_size: int, limit: int) -> None:
    mode = Parallel(batch_size=batch_size, padding_limit_tokens=limit)
    waiting = deque(request(id, prompt) for id, prompt in enumerate(lengths))
    groups = []
    while group := mode.next_group(waiting):
        groups.append(group)
        assert len(group) <= batch_size
        assert len(group) == 1 or max(one.num_prompt_tokens for one in group) <= limit
    assert [one.id for group in groups for one in group] == list(range(len(lengths)))
    for left, right in pairwise(groups):
        is_long = max(one.num_prompt_tokens for one in left + right[:1]) > limit
        assert len(left) == batch_size or is_long, "a group that could have been larger"


@pytest.mark.parametrize("option", ["batch_size", "padding_limit_tokens"])
def test_numbers_below_one_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"prefill.predict_mode.{option}=0: must be at least 1"):
        Sequential(**{option: 0})  # type: ignore[arg-type]
