from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.request import Request
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.generate import generate
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Tokenizer


@dataclass
class Given:
    """A workload that draws what it was given."""

    lengths: list[tuple[int, int]]

    def draw(self, seed: int, tokenizer: Tokenizer | None) -> RequestSet:
        requests = [
            Request(
                id=index,
                arrival_s=0.0,
                num_prompt_tokens=num_prompt,
                max_output_tokens=num_output,
                prompt_ids=tuple(range(num_prompt)),
            )
            for index, (num_prompt, num_output) in enumerate(self.lengths)
        ]
        return RequestSet(name="given", requests=requests, num_cut=5)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((60, 40), (60, 40)),
        ((60, 41), (60, 40)),
        ((99, 50), (99, 1)),
        ((100, 50), (99, 1)),
        ((500, 1), (99, 1)),
    ],
)
def test_a_prompt_leaves_room_for_a_token_and_the_output_takes_the_rest(
    lengths: tuple[int, int], expected: tuple[int, int]
) -> None:
    generated = generate(Given([lengths]), 0, 100)
    request = generated.requests[0]
    assert (request.num_prompt_tokens, request.max_output_tokens) == expected
    assert request.prompt_ids == tuple(range(expected[0]))
    assert generated.num_cut == 5 + (lengths != expected)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=20),
    max_context_tokens=st.integers(2, 400),
)
def test_everything_fits_and_only_what_did_not_is_cut(lengths: list[tuple[int, int]], max_context_tokens: int) -> None:
    workload = Given(lengths)
    before, after = workload.draw(0, None).requests, generate(workload, 0, max_context_tokens).requests
    for was, request in zip(before, after, strict=True):
        assert 1 <= request.num_prompt_tokens <= was.num_prompt_tokens
        assert 1 <= request.max_output_tokens <= was.max_output_tokens
        assert request.num_tokens == min(was.num_tokens, max_context_tokens) or request.max_output_tokens == 1
        assert request == was or was.num_tokens > max_context_tokens


def test_requests_keep_the_label_they_were_drawn_for(mixed: ClassWorkload) -> None:
    cut = generate(mixed, 0, 256)
    assert [request.label for request in cut.requests] == [request.label for request in mixed.draw(0).requests]
    assert cut.num_cut > 0
    assert generate(mixed, 0, 100_000) == replace(mixed.draw(0), num_cut=0)


def test_a_context_holds_at_least_two_tokens(mixed: ClassWorkload) -> None:
    assert all(request.num_tokens == 2 for request in generate(mixed, 0, 2).requests)
    with pytest.raises(ValueError, match=r"^model\.max_context_tokens=1: must be at least 2"):
        generate(mixed, 0, 1)
