"""Numbers by hand. Blocks have 10 tokens; a sequence `[low, high)` has produced `produced` of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import sequence
from tetribench.core.sequence import Estimate, Sequence
from tetribench.decode.admit import (
    ANY_NUMBER,
    Admission,
    Greedy,
    KVView,
    ReserveDynamic,
    ReserveStatic,
    predicted_total,
    remaining,
)


def memory(num_free_tokens: int) -> KVView:
    return KVView(block_size=10, num_free_tokens=num_free_tokens)


@pytest.mark.parametrize(("num_tokens", "expected"), [(1, 10), (10, 10), (11, 20)])
def test_memory_is_whole_blocks(num_tokens: int, expected: int) -> None:
    assert memory(0).rounded(num_tokens) == expected


@pytest.mark.parametrize(
    ("estimate", "produced", "expected"),
    [
        (Estimate.low, 0, 200),
        (Estimate.low, 200, 200),
        (Estimate.low, 201, 400),  # outlived: the next bucket's lower end
        (Estimate.low, 400, 400),
        (Estimate.low, 401, 600),
        (Estimate.mean, 300, 300),
        (Estimate.mean, 301, 500),
        (Estimate.high, 399, 399),
        (Estimate.high, 400, 599),
    ],
)
def test_a_prediction_that_was_outlived_moves_on_a_bucket(estimate: Estimate, produced: int, expected: int) -> None:
    one = sequence(prompt=50, low=200, high=400, produced=produced)
    assert predicted_total(one, estimate) == 50 + expected


@pytest.mark.parametrize(
    ("low", "produced", "expected"),
    [(200, 0, 200), (200, 199, 1), (200, 200, 1), (200, 201, 199), (0, 0, 1), (0, 1, 199)],
)
def test_what_remains_is_at_least_one_token(low: int, produced: int, expected: int) -> None:
    assert remaining(sequence(low=low, high=low + 200, produced=produced), Estimate.low) == expected


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 400), st.sampled_from(Estimate), st.integers(1, 100))
def test_a_prediction_never_falls_behind_the_truth(
    low: int, width: int, produced: int, estimate: Estimate, prompt: int
) -> None:
    one = sequence(prompt=prompt, low=low, high=low + width, produced=produced)
    total = predicted_total(one, estimate)
    assert total >= one.num_tokens and remaining(one, estimate) == max(total - one.num_tokens, 1)
    assert total < one.num_tokens + low + width


def test_greedy_admits_whatever_fits_now() -> None:
    assert Greedy().admits(sequence(prompt=10, low=10**6, high=10**6 + 1), [sequence()], memory(0))


@pytest.mark.parametrize(("estimate", "least_free"), [(Estimate.low, 220), (Estimate.mean, 320), (Estimate.high, 420)])
def test_reserve_static_wants_the_whole_predicted_memory_free_now(estimate: Estimate, least_free: int) -> None:
    """A prompt of 15 and a response from [200, 400): 215, 315 or 414 tokens, in blocks of 10."""
    policy, candidate = ReserveStatic(estimate=estimate), sequence(prompt=15, low=200, high=400)
    assert policy.admits(candidate, [sequence()], memory(least_free))
    assert not policy.admits(candidate, [sequence()], memory(least_free - 10))


def test_reserve_static_believes_the_lower_end_by_default_so_that_bucket_zero_looks_free() -> None:
    assert ReserveStatic().admits(sequence(prompt=20), [sequence()], memory(20))


def test_reserve_static_asks_a_recomputed_sequence_for_all_that_it_has() -> None:
    """Preempted after 30 tokens of a response from bucket 0: taken to be in the next one, 20 + 200 tokens."""
    candidate = sequence(prompt=20, produced=30)
    assert ReserveStatic().admits(candidate, [sequence()], memory(220))
    assert not ReserveStatic().admits(candidate, [sequence()], memory(210))


def first_to_end() -> Sequence:
    """Holds 15 blocks with 150 tokens (prompt 20, 130 produced), 70 to go to 200."""
    return sequence(1, prompt=20, low=200, high=400, produced=130, num_blocks=15)


def other() -> Sequence:
    """Holds 8 blocks with 75 tokens, 400 to go."""
    return sequence(2, prompt=75, low=400, high=600, num_blocks=8)


def test_reserve_dynamic_looks_at_the_moment_when_the_first_member_ends() -> None:
    """In 70 steps the members take 150+70-150=70 and 75+70=145 -> 150-80=70 more, a candidate of 100 tokens 170."""
    policy, members = ReserveDynamic(), [other(), first_to_end()]
    candidate = sequence(prompt=100, low=400, high=600)
    assert policy.admits(candidate, members, memory(310))
    assert not policy.admits(candidate, members, memory(300))


def test_reserve_dynamic_counts_a_candidate_only_to_its_own_end() -> None:
    """It is expected to end after 40 steps: 100 + 40 tokens and not 100 + 70."""
    policy, members = ReserveDynamic(), [other(), first_to_end()]
    candidate = sequence(prompt=100, low=40, high=80)
    assert policy.admits(candidate, members, memory(280))
    assert not policy.admits(candidate, members, memory(270))


@pytest.mark.parametrize(
    ("estimate", "least_free"),
    # the first member has 70, 170 or 269 steps to go; the growths are those steps rounded up to blocks, thrice
    [(Estimate.low, 70 + 70 + 170), (Estimate.mean, 170 + 170 + 270), (Estimate.high, 270 + 270 + 370)],
)
def test_reserve_dynamic_by_the_point_of_the_range(estimate: Estimate, least_free: int) -> None:
    policy, members = ReserveDynamic(estimate=estimate), [other(), first_to_end()]
    candidate = sequence(prompt=100, low=400, high=600)
    assert policy.admits(candidate, members, memory(least_free))
    assert not policy.admits(candidate, members, memory(least_free - 10))


def test_reserve_dynamic_looks_one_step_ahead_when_a_member_has_reached_its_prediction() -> None:
    """A member of 40 tokens on full blocks may end now; it and the candidate of 10 need a block more each."""
    member = sequence(prompt=40, num_blocks=4)
    assert remaining(member, Estimate.low) == 1
    candidate = sequence(1, prompt=10, low=200, high=400)
    assert ReserveDynamic().admits(candidate, [member], memory(10 + 20))
    assert not ReserveDynamic().admits(candidate, [member], memory(10 + 10))


def test_reserve_dynamic_takes_an_outliving_member_to_be_in_the_next_bucket() -> None:
    """Bucket 0, 150 produced: 50 to go to 200, so both grow by 50 tokens."""
    member = sequence(prompt=10, produced=150, num_blocks=16)
    candidate = sequence(1, prompt=10, low=200, high=400)
    assert ReserveDynamic().admits(candidate, [member], memory(50 + 60))
    assert not ReserveDynamic().admits(candidate, [member], memory(50 + 50))


def test_dynamic_admits_where_static_waits_and_the_other_way_round() -> None:
    long_candidate, members = sequence(prompt=100, low=400, high=600), [other(), first_to_end()]
    assert ReserveDynamic().admits(long_candidate, members, memory(310))
    assert not ReserveStatic().admits(long_candidate, members, memory(310))
    short_candidate = sequence(prompt=100)
    assert ReserveStatic().admits(short_candidate, members, memory(100))
    assert not ReserveDynamic().admits(short_candidate, members, memory(100))


@pytest.mark.parametrize(("estimate", "least_free"), [(Estimate.low, 420), (Estimate.mean, 320), (Estimate.high, 420)])
def test_reserve_static_takes_an_outliving_candidate_to_be_in_a_later_bucket(
    estimate: Estimate, least_free: int
) -> None:
    """Bucket 0, 250 produced: it is taken to end at 400, at 100 + 200 or at 199 + 200, after a prompt of 20."""
    policy, candidate = ReserveStatic(estimate=estimate), sequence(prompt=20, produced=250)
    assert policy.admits(candidate, [sequence(1)], memory(least_free))
    assert not policy.admits(candidate, [sequence(1)], memory(least_free - 10))


@pytest.mark.parametrize(
    ("estimate", "least_free"), [(Estimate.low, 150 + 160), (Estimate.mean, 50 + 60), (Estimate.high, 150 + 160)]
)
def test_reserve_dynamic_takes_an_outliving_member_to_be_in_a_later_bucket(estimate: Estimate, least_free: int) -> None:
    """The same ends are 150, 50 or 149 steps away for a member on 26 full blocks; a candidate of 10 grows as long."""
    member, candidate = sequence(prompt=10, produced=250, num_blocks=26), sequence(1, prompt=10, low=400, high=600)
    policy = ReserveDynamic(estimate=estimate)
    assert policy.admits(candidate, [member], memory(least_free))
    assert not policy.admits(candidate, [member], memory(least_free - 10))


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 50), st.integers(1, 50), st.integers(0, 200)), min_size=1),
    st.sampled_from(Estimate),
    st.integers(0, 3000),
)
def test_reserve_dynamic_is_its_definition(
    rows: list[tuple[int, int, int, int]], estimate: Estimate, num_free_tokens: int
) -> None:
    """Memory at the moment the first member ends, added up plainly; the policy itself is written to be quick."""
    candidate, *members = (
        sequence(id, prompt, low=low, high=low + width, produced=produced, num_blocks=(prompt + produced) // 10 + 1)
        for id, (prompt, low, width, produced) in enumerate([(7, 20, 30, 0), *rows])
    )
    candidate.block_ids = []
    kv = memory(num_free_tokens)
    horizon = min(remaining(member, estimate) for member in members)
    growth = sum(kv.rounded(member.num_tokens + horizon) - 10 * len(member.block_ids) for member in members)
    growth += kv.rounded(candidate.num_tokens + min(horizon, remaining(candidate, estimate)))
    assert ReserveDynamic(estimate=estimate).admits(candidate, members, kv) is (growth <= num_free_tokens)


sizes = st.tuples(st.integers(1, 60), st.integers(0, 5), st.integers(1, 25), st.integers(0, 60))


def held(size: tuple[int, int, int, int], id: int) -> Sequence:
    """With blocks for all of its tokens, and one not yet computed."""
    prompt, bucket, width, produced = size
    one = sequence(id, prompt, low=bucket * width, high=(bucket + 1) * width, produced=produced + 1)
    one.block_ids = [0] * -(-one.num_tokens // 10)
    return one


@given(
    st.sampled_from([Greedy, ReserveStatic, ReserveDynamic]),
    st.sampled_from(Estimate),
    sizes,
    st.lists(sizes, min_size=1, max_size=6),
    st.lists(sizes, max_size=4),
    st.integers(0, 40),
)
def test_who_is_refused_stays_refused_for_as_long_as_is_said(
    policy: Any, estimate: Estimate, asking: Any, run: Any, wait: Any, num_free: int
) -> None:
    admit: Admission = policy() if policy is Greedy else policy(estimate=estimate)
    candidate, running = held(asking, 99), [held(size, id) for id, size in enumerate(run)]
    candidate.block_ids = []
    receiving = [held(size, 50 + id) for id, size in enumerate(wait)]
    num_refusals = admit.num_refusals(candidate, running, receiving, memory(10 * num_free))
    assert num_refusals >= 1
    if admit.admits(candidate, [*running, *receiving], memory(10 * num_free)):
        assert num_refusals == 1
    for _ in range(min(num_refusals - 1, 200)):
        for one in running:
            one.output_ids.append(0)
            num_lacking = -(-one.num_tokens // 10) - len(one.block_ids)
            one.block_ids += [0] * num_lacking
            num_free -= num_lacking
        if num_free < 0:
            break
        assert not admit.admits(candidate, [*running, *receiving], memory(10 * num_free))


def test_refusals_last_while_the_horizon_comes_closer() -> None:
    """The member ends in 50 tokens; what the candidate needs until then falls by a block after 5 of them."""
    member, candidate = sequence(0, 100, low=50, high=100), sequence(1, 5, low=200, high=400)
    assert ReserveDynamic().num_refusals(candidate, [member], [], memory(0)) == 5
    assert ReserveStatic().num_refusals(candidate, [member], [], memory(0)) == ANY_NUMBER
