import pytest

from tests.support.builders import request
from tetribench.control.route import LeastQueuedTokens, LeastRequests, Router
from tetribench.control.scheduler import GlobalScheduler, Phase
from tetribench.core.messages import Ended, Submit, TokenOutput, TokenRun
from tetribench.core.request import Request


def scheduler(router: Router) -> GlobalScheduler:
    made = GlobalScheduler(router)
    for name in ("prefill-0", "prefill-1"):
        assert made.add_entry(name) == []
    return made


def submit(made: GlobalScheduler, one: Request) -> str:
    """Where it goes."""
    ((to, message),) = made.submit(one)
    assert message == Submit(one)
    return to


def output(id: int, index: int = 0, *, attempt: int = 1, is_last: bool = False) -> TokenOutput:
    return TokenOutput(id, attempt, index, 70 + index, is_last)


def test_prompt_tokens_count_until_the_first_token_comes_back() -> None:
    made = scheduler(LeastQueuedTokens())
    assert submit(made, request(0, prompt=100)) == "prefill-0"
    assert submit(made, request(1, prompt=30)) == "prefill-1"
    assert submit(made, request(2, prompt=30)) == "prefill-1"
    made.take([output(0)])
    assert submit(made, request(3, prompt=1)) == "prefill-0"
    made.take([output(0, 1)])
    assert submit(made, request(4, prompt=1)) == "prefill-0"


def test_requests_count_until_their_last_token_comes_back() -> None:
    made = scheduler(LeastRequests())
    assert [submit(made, request(id)) for id in range(3)] == ["prefill-0", "prefill-1", "prefill-0"]
    made.take([output(0)])
    assert submit(made, request(3)) == "prefill-1"
    made.take([output(0, 1, is_last=True), output(2, is_last=True)])
    assert submit(made, request(4)) == "prefill-0"


def test_the_table_follows_a_request_from_prefill_to_decode_to_its_end() -> None:
    made = scheduler(LeastQueuedTokens())
    submit(made, request(0))
    row = made.table[0]
    assert (row.phase, row.entry, row.holder) == (Phase.prefill, "prefill-0", "prefill-0")
    made.take([output(0)])
    assert row.phase is Phase.decode
    made.handed_over(0, "decode-0")
    assert (row.entry, row.holder) == ("prefill-0", "decode-0")
    made.take([output(0, 1, is_last=True)])
    assert made.table == {}


def test_the_table_has_the_sla_class_and_nothing_decides_by_it() -> None:
    made, plain = scheduler(LeastQueuedTokens()), scheduler(LeastQueuedTokens())
    classes = ["batch", "interactive", "batch", "default"]
    places = [submit(made, request(id, prompt=10 + id, sla_class=name)) for id, name in enumerate(classes)]
    assert places == [submit(plain, request(id, prompt=10 + id)) for id in range(len(classes))]
    assert [row.request.sla_class for row in made.table.values()] == classes


def test_a_response_of_one_token_gives_everything_back() -> None:
    made = scheduler(LeastQueuedTokens())
    submit(made, request(0, prompt=100))
    made.take([output(0, is_last=True)])
    assert made.table == {} and submit(made, request(1)) == "prefill-0"


def test_a_request_that_is_submitted_twice_is_our_own_error() -> None:
    made = scheduler(LeastQueuedTokens())
    submit(made, request(0))
    with pytest.raises(AssertionError, match="submitted twice"):
        made.submit(request(0))


def test_a_token_that_overtakes_those_before_it_waits_for_them() -> None:
    made = scheduler(LeastRequests())
    submit(made, request(0))
    assert made.take([output(0, 2, is_last=True), output(0, 1)]) == []
    assert made.take([output(0, 0)]) == [output(0, 0), output(0, 1), output(0, 2, is_last=True)]
    assert made.table == {}


def test_requests_that_come_while_no_instance_takes_any_wait_and_go_in_the_order_of_arrival() -> None:
    made = GlobalScheduler(LeastRequests())
    assert made.submit(request(5)) == made.submit(request(3)) == []
    assert made.held_by("prefill-0") == []
    assert made.add_entry("prefill-0") == [("prefill-0", Submit(request(5))), ("prefill-0", Submit(request(3)))]
    assert made.held_by("prefill-0") == [5, 3] and made.add_entry("prefill-1") == []


def test_nothing_more_goes_to_an_instance_that_was_taken_out() -> None:
    made = scheduler(LeastRequests())
    submit(made, request(0))
    made.remove_entry("prefill-0")
    assert [submit(made, request(id)) for id in (1, 2)] == ["prefill-1"] * 2
    made.take([output(0, is_last=True)])
    assert made.held_by("prefill-0") == []


def test_a_restarted_request_begins_with_what_was_delivered() -> None:
    made = scheduler(LeastRequests())
    submit(made, request(0))
    made.take([output(0, 0), output(0, 1), output(0, 3)])
    ((_, message),) = made.restart(0)
    assert message == Submit(request(0), 2, [70, 71]) and message.num_tokens == 12


def test_no_token_is_delivered_twice_after_a_restart() -> None:
    """Tokens of the given-up attempt are dropped, whether they came before their turn or come late."""
    made = scheduler(LeastRequests())
    submit(made, request(0))
    assert made.take([output(0, 0), output(0, 2)]) == [output(0, 0)]
    made.restart(0)
    assert made.take([output(0, 1), output(0, 2)]) == []
    again = [output(0, 1, attempt=2), output(0, 2, attempt=2, is_last=True)]
    assert made.take(again) == again and made.take(again) == []


def test_a_restart_counts_all_that_is_prefilled_again_and_no_longer_where_it_was() -> None:
    made = scheduler(LeastQueuedTokens())
    assert submit(made, request(0, prompt=10)) == "prefill-0"
    made.take([output(0, index) for index in range(5)])
    made.remove_entry("prefill-0")
    assert made.restart(0)[0][0] == "prefill-1"
    made.add_entry("prefill-0")
    assert submit(made, request(1, prompt=14)) == "prefill-0"
    assert submit(made, request(2, prompt=1)) == "prefill-0", "14 tokens wait there, and 10 + 5 on the other"
    made.take([output(0, 5, attempt=2, is_last=True)])
    assert submit(made, request(3)) == "prefill-1"


def test_a_request_that_restarts_while_no_instance_takes_any_waits() -> None:
    made = scheduler(LeastRequests())
    submit(made, request(0))
    for name in ("prefill-0", "prefill-1"):
        made.remove_entry(name)
    assert made.restart(0) == [] and (made.table[0].entry, made.table[0].holder) == (None, None)
    assert made.add_entry("decode-0") == [("decode-0", Submit(request(0), 2))]


def test_the_end_of_a_handover_of_a_request_that_has_ended_is_late_news() -> None:
    made = scheduler(LeastRequests())
    submit(made, request(0))
    made.take([output(0, is_last=True)])
    made.handed_over(0, "decode-0")
    assert made.table == {}


def test_a_run_of_tokens_counts_like_its_tokens() -> None:
    made = scheduler(LeastRequests())
    for id in range(3):
        submit(made, request(id))
        made.take([output(id)])
    run = TokenRun([TokenOutput(id, 1, 2, 0, is_last=id == 2) for id in range(3)], [0.5, 0.75])
    assert made.take_run(run) == run
    assert [made.table[id].output_ids for id in (0, 1)] == [[70, 0, 0]] * 2 and 2 not in made.table
    made.restart(1)
    late = TokenRun([TokenOutput(id, 1, 3, 0, is_last=True) for id in range(3)], [1.0])
    assert made.take_run(late) == TokenRun(late.lasts[:1], [1.0])
    assert list(made.table) == [1] and made.table[1].output_ids == [70, 0, 0]


def test_a_response_that_ends_without_a_token_counts_no_more() -> None:
    made = scheduler(LeastRequests())
    assert submit(made, request(0, prompt=100)) == "prefill-0"
    assert made.end(Ended("prefill-0", 0, 1, "HTTP 500")) and made.table == {}
    assert not made.end(Ended("prefill-0", 0, 1, "HTTP 500"))
    assert submit(made, request(1, prompt=1)) == "prefill-0"
    made.restart(1)
    assert not made.end(Ended("prefill-0", 1, 1, "of an attempt that was given up")) and 1 in made.table
