import pytest

from tetribench.control.route import LeastQueuedTokens, LeastRequests, Outstanding, RoundRobin, Router

STATE = {"c": Outstanding(1, 500), "b": Outstanding(3, 100), "a": Outstanding(2, 300)}


@pytest.mark.parametrize(("router", "expected"), [(LeastQueuedTokens(), "b"), (LeastRequests(), "c")])
def test_what_load_is(router: Router, expected: str) -> None:
    assert router.choose(STATE, 0) == expected


@pytest.mark.parametrize("router", [LeastQueuedTokens(), LeastRequests()])
def test_ties_go_by_the_other_measure_and_then_by_name(router: Router) -> None:
    tokens = {"b": Outstanding(1, 5), "a": Outstanding(2, 5)}
    requests = {"b": Outstanding(2, 4), "a": Outstanding(2, 5)}
    assert router.choose(tokens, 0) == router.choose(requests, 0) == "b"
    assert router.choose({"b": Outstanding(2, 5), "a": Outstanding(2, 5)}, 0) == "a"


def test_round_robin_takes_each_in_turn_by_name() -> None:
    router = RoundRobin()
    assert [router.choose(STATE, number) for number in range(7)] == list("abcabca")
