import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.request import Request
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.prompts import random_prompts
from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator

REQUEST = Request(id=0, arrival_s=0.5, num_prompt_tokens=3, max_output_tokens=2, label="LPLD")


def fingerprint(request: Request, *, prompts: bool = True) -> str:
    return RequestSet(name="x", requests=[request]).fingerprint(prompts=prompts)


def test_the_fingerprint_is_the_documented_hash() -> None:
    # printf '[0.5,3,2,false,"LPLD"]\n' | sha256sum
    assert fingerprint(REQUEST) == "2b16e3b1c8d85488346c809bdd59e67996423ae8e5e047c2644d3f4d8828eab3"
    # printf '[0.5,3,2,false,"LPLD",[7,8,9]]\n' | sha256sum
    assert (
        fingerprint(replace(REQUEST, prompt_ids=(7, 8, 9)))
        == "90824f5842f0e05fca74b2c540b6213264d39086451c6a0cf5697e472c2dc24c"
    )
    assert fingerprint(replace(REQUEST, prompt_ids=(7, 8, 9)), prompts=False) == fingerprint(REQUEST)
    # printf '[0.5,3,2,false,"LPLD","batch",[7,8,9]]\n' | sha256sum
    batch = replace(REQUEST, sla_class="batch", prompt_ids=(7, 8, 9))
    assert fingerprint(batch) == "cb66be9f66952db79bd009b993cf12655a4c2f3573b5d2447430a9875742f3cc"
    assert fingerprint(replace(REQUEST, sla_class="default")) == fingerprint(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"arrival_s": 0.25},
        {"num_prompt_tokens": 4},
        {"max_output_tokens": 3},
        {"natural_stop": True},
        {"label": "HPHD"},
        {"sla_class": "batch"},
        {"prompt_ids": (1, 2, 3)},
    ],
)
def test_the_fingerprint_covers_every_part(change: dict[str, object]) -> None:
    assert fingerprint(replace(REQUEST, **change)) != fingerprint(REQUEST)  # type: ignore[arg-type]


def test_whole_seconds_hash_alike_as_int_and_float() -> None:
    assert fingerprint(replace(REQUEST, arrival_s=0)) == fingerprint(replace(REQUEST, arrival_s=0.0))


@given(
    lengths=st.lists(st.integers(1, 40), max_size=60),
    vocab_size=st.integers(6, 200),
    seed=st.integers(0, 2**32),
)
def test_random_prompts_begin_differently(lengths: list[int], vocab_size: int, seed: int) -> None:
    prompts = random_prompts(lengths, vocab_size, generator(seed, "test"))
    assert [len(prompt) for prompt in prompts] == lengths
    assert all(4 <= token < vocab_size for prompt in prompts for token in prompt)
    num_first = next(count for count in itertools.count(1) if (vocab_size - 4) ** count >= len(lengths))
    starts = [prompt[:num_first] for prompt in prompts if len(prompt) >= num_first]
    assert len(set(starts)) == len(starts)


def test_more_prompts_than_ids_begin_with_different_pairs() -> None:
    prompts = random_prompts([5] * 300, 24, generator(0, "test"))
    assert len({prompt[:2] for prompt in prompts}) == 300


def test_prompts_of_another_seed_or_another_workload_differ(mixed: ClassWorkload) -> None:
    filled = mixed.draw(0).with_prompts(2048, seed=0)
    assert filled == mixed.draw(0).with_prompts(2048, seed=0)
    assert filled.fingerprint(prompts=False) == mixed.draw(0).fingerprint()
    others = [mixed.draw(0).with_prompts(2048, seed=1), mixed.draw(1).with_prompts(2048, seed=0)]
    firsts = {request.prompt_ids[:4] for request in filled.requests if request.num_prompt_tokens >= 4}
    for other in others:
        assert firsts.isdisjoint(request.prompt_ids[:4] for request in other.requests)


def test_prompts_that_are_there_stay() -> None:
    own = replace(REQUEST, prompt_ids=(7, 8, 9))
    request_set = RequestSet(name="x", requests=[own, replace(REQUEST, id=1)], texts={0: "hello"}, num_skipped=3)
    filled = request_set.with_prompts(100, seed=0)
    assert filled.requests[0] is own
    assert len(filled.requests[1].prompt_ids) == 3
    assert (filled.texts, filled.num_skipped) == ({0: "hello"}, 3)
    assert filled.with_prompts(100, seed=5) == filled


def test_a_vocabulary_needs_ordinary_ids() -> None:
    assert RequestSet(name="x", requests=[REQUEST]).with_prompts(6, seed=0).requests[0].prompt_ids
    with pytest.raises(ValueError, match=r"^model\.vocab_size=5: must be at least 6"):
        RequestSet(name="x", requests=[REQUEST]).with_prompts(5, seed=0)


def test_requests_carry_their_words(mixed: ClassWorkload) -> None:
    drawn = mixed.draw(0).with_prompts(1000, 0)
    worded = replace(drawn, texts={1: "as it was drawn"}).with_words(lambda ids: f"{len(ids)} tokens")
    assert [one.text for one in worded.requests[:2]] == [
        f"{drawn.requests[0].num_prompt_tokens} tokens",
        "as it was drawn",
    ]
    assert worded.fingerprint() == drawn.fingerprint()
