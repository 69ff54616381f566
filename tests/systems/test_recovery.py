"""Whole systems whose instances die, leave, come and flip at a chosen moment."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builders import info, request, tetri, vllm_like
from tests.support.clock import BoundedClock
from tests.support.engine import CheckingFactory
from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.flip import Idle, LowLoad, NoFlip, QueueRatio
from tetribench.control.route import LeastRequests
from tetribench.core.clock import run_virtual
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.messages import Ready
from tetribench.instance.inline import InlineLauncher
from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.kv.links import LinkSpeed
from tetribench.systems.stack import Stack
from tetribench.systems.vllm_like import VllmLike

REQUESTS = [request(id, 40, 60) for id in range(12)]
"""Decoding takes some 0.1 s and more."""


def of(bench: Bench, *kinds: EventKind) -> list[Event]:
    return [event for event in bench.log.events if event.kind in kinds]


def named(bench: Bench, *kinds: EventKind) -> list[tuple[EventKind, str]]:
    return [(event.kind, event.source) for event in of(bench, *kinds)]


def test_a_killed_decode_instance_costs_no_request_and_no_token_is_delivered_twice() -> None:
    """`Bench.run` checks each token of each response."""
    bench = Bench(tetri(num_decode=2, churn=["0.06 kill decode-0"]), CheckingFactory()).run(REQUESTS)
    (lost,) = of(bench, EventKind.INSTANCE_LOST)
    assert (lost.time_s, lost.source, lost.details["reason"]) == (0.06, "decode-0", "killed")
    restarted = [event for event in of(bench, EventKind.RETRIED) if event.details["how"] == "restart"]
    assert len(restarted) == lost.details["num_restarted"] > 0
    again = {event.requests[0] for event in restarted}
    before = {id for id, (first_s, *_) in bench.times(EventKind.FIRST_TOKEN).items() if first_s < 0.06}
    assert again & before, "some had tokens already"


def test_what_was_delivered_is_computed_again_like_a_prompt() -> None:
    events = Bench(tetri(num_decode=2, churn=["0.05 kill decode-0"]), CheckingFactory()).run(REQUESTS).log.events
    prefilled = sum(event.details["num_prefill_tokens"] for event in events if event.kind is EventKind.ITERATION)
    assert prefilled > sum(one.num_prompt_tokens for one in REQUESTS)
    assert prefilled < 2 * sum(one.num_tokens for one in REQUESTS)


def test_a_killed_prefill_instance_costs_no_request() -> None:
    system = tetri(num_prefill=2, churn=["0.01 kill prefill-1"])
    bench = Bench(system, CheckingFactory()).run(REQUESTS)
    assert of(bench, EventKind.INSTANCE_LOST)[0].details["num_restarted"] > 0
    assert max(event.time_s for event in bench.log.events if event.source == "prefill-1") <= bench.clock.now()


def test_kv_under_way_to_a_killed_instance_is_sent_again_from_where_it_lies() -> None:
    system = tetri(num_decode=2, link=LinkSpeed(bandwidth_bytes_per_s=1e5), churn=["0.05 kill decode-0"])
    bench = Bench(system, CheckingFactory()).run(REQUESTS)
    assert "resend" in {event.details["how"] for event in of(bench, EventKind.RETRIED)}


def test_a_killed_instance_is_provisioned_until_then() -> None:
    bench = Bench(tetri(num_decode=2, churn=["0.06 kill decode-1"]), CheckingFactory()).run(REQUESTS)
    stopped = {event.source: event.time_s for event in of(bench, EventKind.INSTANCE_STOPPED)}
    assert stopped == {"decode-1": 0.06, "prefill-0": bench.clock.now(), "decode-0": bench.clock.now()}


def test_the_loss_that_ends_a_run_is_on_record() -> None:
    bench = Bench(tetri(churn=["0.06 kill decode-0"]), CheckingFactory())
    with pytest.raises(InstanceFailed, match=r"^decode-0: killed$"):
        bench.run_only(REQUESTS)
    assert named(bench, EventKind.INSTANCE_LOST) == [(EventKind.INSTANCE_LOST, "decode-0")]
    ended = {**bench.times(EventKind.FINISHED), **bench.times(EventKind.FAILED)}
    assert ended.keys() == {one.id for one in REQUESTS} and bench.swallowed == []


def test_a_role_that_has_lost_its_last_instance_gets_another_and_everyone_is_served() -> None:
    bench = Bench(tetri(num_prefill=2, churn=["0.06 kill decode-0"]), CheckingFactory()).run(REQUESTS)
    (flipped,) = of(bench, EventKind.FLIPPED)
    assert (flipped.details["role"], flipped.details["to"]) == ("prefill", "decode")


def test_requests_that_come_while_no_instance_takes_any_wait_for_the_next_one() -> None:
    """The only prefill instance dies; decode-1 has to finish its own requests before it is one."""
    late = [request(100, 40, 5, 0.07), request(101, 40, 5, 0.08)]
    bench = Bench(tetri(num_decode=2, churn=["0.06 kill prefill-0"]), CheckingFactory()).run([*REQUESTS, *late])
    (flipped,) = of(bench, EventKind.FLIPPED)
    routed = bench.times(EventKind.ROUTED)
    assert [routed[one.id] for one in late] == [[flipped.time_s]] * 2 and flipped.time_s > 0.08


def test_an_instance_that_leaves_finishes_what_it_has() -> None:
    bench = Bench(tetri(num_decode=2, churn=["0.06 remove decode-0"]), CheckingFactory()).run(REQUESTS)
    assert of(bench, EventKind.RETRIED, EventKind.INSTANCE_LOST) == []
    (flipped,) = of(bench, EventKind.FLIPPED)
    stopped = {event.source: event.time_s for event in of(bench, EventKind.INSTANCE_STOPPED)}
    assert stopped["decode-0"] == flipped.time_s < stopped["decode-1"]
    assert max(event.time_s for event in of(bench, EventKind.ITERATION) if event.source == "decode-0") <= flipped.time_s


def test_an_instance_that_is_killed_while_it_leaves_is_lost() -> None:
    system = tetri(num_decode=2, churn=["0.06 remove decode-0", "0.065 kill decode-0"])
    bench = Bench(system, CheckingFactory()).run(REQUESTS)
    assert of(bench, EventKind.FLIPPED) == [] and of(bench, EventKind.INSTANCE_LOST)


def test_an_instance_that_comes_takes_its_share() -> None:
    late = [request(100 + id, 40, 60, 0.1) for id in range(10)]
    bench = Bench(tetri(churn=["0.05 add decode"]), CheckingFactory()).run([*REQUESTS, *late])
    started = {event.source: event.time_s for event in of(bench, EventKind.INSTANCE_STARTED)}
    assert started == {"prefill-0": 0.0, "decode-0": 0.0, "decode-1": 0.05}
    assert "decode-1" in {event.details["to"] for event in of(bench, EventKind.DISPATCHED)}


def test_an_instance_that_comes_may_go_again_by_name() -> None:
    churn = ["0.02 add decode", "0.06 kill decode-0", "0.03 add decode", "0.08 flip decode-2"]
    bench = Bench(tetri(churn=churn), CheckingFactory()).run(REQUESTS)
    assert [name for _, name in named(bench, EventKind.INSTANCE_STARTED)][2:] == ["decode-1", "decode-2"]
    assert named(bench, EventKind.FLIP_STARTED) == [(EventKind.FLIP_STARTED, "decode-2")]


def test_a_flip_back_and_forth() -> None:
    late = [request(100 + id, 40, 10, 0.5) for id in range(5)]
    churn = ["0.05 flip prefill-1", "0.3 flip prefill-1"]
    bench = Bench(tetri(num_prefill=2, churn=churn), CheckingFactory()).run([*REQUESTS, *late])
    flipped = of(bench, EventKind.FLIPPED)
    assert [event.details["to"] for event in flipped] == ["decode", "prefill"]
    assert all(one.time_s <= other.details["started_s"] for one, other in pairwise(flipped))
    assert "prefill-1" in {event.details["to"] for event in of(bench, EventKind.ROUTED) if event.time_s > 0.4}


def test_what_cannot_be_done_is_refused_on_record_and_nothing_else_happens() -> None:
    bench = Bench(tetri(churn=["0.05 flip decode-0", "0.06 remove prefill-0"]), CheckingFactory()).run(REQUESTS)
    assert named(bench, EventKind.FLIP_REFUSED) == [
        (EventKind.FLIP_REFUSED, "decode-0"),
        (EventKind.FLIP_REFUSED, "prefill-0"),
    ]
    assert of(bench, EventKind.FLIP_STARTED) == []


@pytest.mark.parametrize("step", ["0.03 kill colocated-1", "0.03 remove colocated-1", "0.03 add colocated"])
def test_colocated_instances_die_leave_and_come_too(step: str) -> None:
    system = VllmLike(scheduler=PrefillFirstPolicies(), route=LeastRequests(), churn=[step])
    bench = Bench(system, CheckingFactory()).run([*REQUESTS, request(100, 40, 5, 0.05)])
    assert len(of(bench, EventKind.INSTANCE_STOPPED)) == (3 if "add" in step else 2)
    assert bool(of(bench, EventKind.RETRIED)) is ("kill" in step)


@pytest.mark.parametrize("flip", [Idle(hold_s=0.05), LowLoad(share=0.1, hold_s=0.05), QueueRatio(hold_s=0.05)])
def test_a_policy_flips_where_the_work_is_and_says_how_old_the_load_was(flip: Any) -> None:
    """Prompts of one chunk and long responses on decode memory for a few."""
    requests = [request(id, 10, 100) for id in range(60)]
    system = tetri(num_prefill=3, flip=flip, report_period_s=0.02, broadcast_period_s=0.03)
    bench = Bench(system, CheckingFactory(num_blocks=40)).run(requests)
    started = of(bench, EventKind.FLIP_STARTED)
    assert started and started[0].details["role"] == "prefill"
    assert all(0.0 <= event.details["load_age_s"] <= 0.02 + 0.03 for event in started)


def test_without_a_policy_nobody_flips() -> None:
    bench = Bench(tetri(num_prefill=3, flip=NoFlip()), CheckingFactory(num_blocks=40)).run(REQUESTS)
    assert of(bench, EventKind.FLIP_STARTED) == []


def test_one_that_is_lost_in_the_moment_of_its_leaving_is_no_error() -> None:
    """It has said that it is empty; it dies before it is told to end."""
    errors: list[str] = []

    async def main() -> None:
        clock = BoundedClock(limit_s=100.0)
        launcher = InlineLauncher(clock)
        stack = Stack(tetri(num_decode=2).plan(CheckingFactory()), launcher, clock, EventLog())
        await stack.start(lambda outputs, runs, ended: None, lambda error: errors.append(str(error)))
        stack._control.leave("decode-0", clock.now())
        stack._carry_out()
        while "decode-0" in stack._control.monitor.members:
            await asyncio.sleep(0)
        launcher.kill("decode-0")
        await asyncio.sleep(0)
        await stack.stop()

    run_virtual(BoundedClock(), main())
    assert errors == []


def test_an_added_instance_that_does_not_come_up_fails_the_run_with_its_reason() -> None:
    class Refusing(InlineLauncher):
        async def join(self, spec: InstanceSpec) -> Ready:
            raise InstanceFailed(f"{spec.name}: no memory")

    bench = Bench(tetri(churn=["0.01 add decode"]), CheckingFactory())
    bench.launcher = Refusing(bench.clock)
    with pytest.raises(InstanceFailed, match=r"^decode-1: no memory$"):
        bench.run_only(REQUESTS)


def test_churn_and_flips_that_can_never_be_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"^system\.tetri\.churn: kill decode-1: must be one of prefill-0, decode-0$"):
        tetri(churn=["1 kill decode-1"])
    with pytest.raises(ValueError, match=r"^control\.flip: .* nobody may flip"):
        tetri(flip=Idle())
    assert tetri(flip=Idle(), churn=["1 add decode"]).churn
    with pytest.raises(ValueError, match=r"^churn: add decode: must be one of colocated$"):
        VllmLike(scheduler=PrefillFirstPolicies(), route=LeastRequests(), churn=["1 add decode"])
    assert info() and vllm_like().churn == []
