import pytest

from tests.support import request
from tetribench.control.route import LeastQueuedTokens, LeastRequests, Router
from tetribench.control.scheduler import GlobalScheduler, Phase
from tetribench.core.messages import TokenOutput


def scheduler(router: Router) -> GlobalScheduler:
    return GlobalScheduler(router, ["prefill-0", "prefill-1"])


def test_prompt_tokens_count_until_the_first_token_comes_back() -> None:
    made = scheduler(LeastQueuedTokens())
    assert made.route(request(0, prompt=100)) == "prefill-0"
    assert made.route(request(1, prompt=30)) == "prefill-1"
    assert made.route(request(2, prompt=30)) == "prefill-1"
    made.note_output(TokenOutput(0, 7, is_last=False))
    assert made.route(request(3, prompt=1)) == "prefill-0"
    made.note_output(TokenOutput(0, 7, is_last=False))
    assert made.route(request(4, prompt=1)) == "prefill-0"


def test_requests_count_until_their_last_token_comes_back() -> None:
    made = scheduler(LeastRequests())
    assert [made.route(request(id)) for id in range(3)] == ["prefill-0", "prefill-1", "prefill-0"]
    made.note_output(TokenOutput(0, 7, is_last=False))
    assert made.route(request(3)) == "prefill-1"
    for id in (0, 2):
        made.note_output(TokenOutput(id, 7, is_last=True))
    assert made.route(request(4)) == "prefill-0"


def test_the_table_follows_a_request_from_prefill_to_decode_to_its_end() -> None:
    made = scheduler(LeastQueuedTokens())
    made.route(request(0))
    assert (made.table[0].phase, made.table[0].instance) == (Phase.prefill, "prefill-0")
    made.note_output(TokenOutput(0, 7, is_last=False))
    assert made.table[0].phase is Phase.decode
    made.note_output(TokenOutput(0, 7, is_last=True))
    assert made.table == {}


def test_a_response_of_one_token_gives_everything_back() -> None:
    made = scheduler(LeastQueuedTokens())
    made.route(request(0, prompt=100))
    made.note_output(TokenOutput(0, 7, is_last=True))
    assert made.table == {} and made.route(request(1)) == "prefill-0"


def test_a_request_that_is_submitted_twice_is_our_own_error() -> None:
    made = scheduler(LeastQueuedTokens())
    made.route(request(0))
    with pytest.raises(AssertionError, match="submitted twice"):
        made.route(request(0))
