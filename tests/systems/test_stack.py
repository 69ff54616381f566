import asyncio
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builders import info, request, sarathi_like, tetri, vllm_like
from tests.support.clock import BoundedClock
from tests.support.engine import CheckingFactory
from tetribench.control.route import RoundRobin
from tetribench.core.clock import run_virtual
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.messages import Message, Progress, Ready, Stop, TokenOutput
from tetribench.core.request import Request
from tetribench.drive.loadgen import Client, ClosedLoop, OpenLoop
from tetribench.instance.inline import InlineLauncher
from tetribench.instance.launch import InstanceSpec
from tetribench.kv.links import LinkSpeed
from tetribench.kv.transfer import Granularity
from tetribench.prefill.order import LJF
from tetribench.prefill.predict import NoPrediction, Oracle, Predictor
from tetribench.systems.stack import Stack


def dispatches(bench: Bench) -> list[dict[str, Any]]:
    return [event.details for event in bench.log.events if event.kind is EventKind.DISPATCHED]


def ages_s(bench: Bench) -> list[float]:
    """Of the loads that each dispatch went by."""
    return [details["candidates"][details["to"]][-1] for details in dispatches(bench)]


def alone(bench: Bench) -> dict[EventKind, float]:
    return {event.kind: event.time_s for event in bench.log.events if 0 in event.requests}


def test_instances_are_provisioned_from_start_to_stop_with_their_facts() -> None:
    bench = Bench(tetri(), CheckingFactory(num_blocks=9)).run([request(0)])
    kinds = (EventKind.INSTANCE_STARTED, EventKind.INSTANCE_READY, EventKind.INSTANCE_STOPPED)
    found = [event for event in bench.log.events if event.kind in kinds]
    assert [(event.kind, event.source) for event in found] == [
        *((kind, name) for kind in kinds[:2] for name in ("prefill-0", "decode-0")),
        *((EventKind.INSTANCE_STOPPED, name) for name in ("decode-0", "prefill-0")),
    ]
    assert found[0].details == {"role": "prefill"}
    assert found[3].details["role"] == "decode" and found[3].details["num_blocks"] == 9
    assert found[-1].time_s == bench.clock.now()


def test_a_request_alone_hand_computed() -> None:
    """A prompt of 64 in two chunks of 32 (4.2 ms each), four blocks of 1600 bytes over 1 MB/s + 0.1 ms, two decodes.

    The first push (two blocks, 3.3 ms) starts after the first chunk, the second after the second chunk.
    """
    bench = Bench(tetri(), CheckingFactory()).run([request(0, prompt=64, output=3)])
    edges = alone(bench)
    expected = {
        EventKind.PREFILL_STARTED: 0.0,
        EventKind.DISPATCHED: 0.0042,
        EventKind.RESERVED: 0.0042,
        EventKind.TRANSFER_STARTED: 0.0042,
        EventKind.PREFILL_DONE: 0.0084,
        EventKind.FIRST_TOKEN: 0.0084,
        EventKind.TRANSFER_DONE: 0.0084 + 0.0033,
        EventKind.ADMITTED: 0.0084 + 0.0033,
        EventKind.FINISHED: 0.0084 + 0.0033 + 2 * 0.0012,
    }
    assert {kind: edges[kind] for kind in expected} == pytest.approx(expected)
    assert dispatches(bench)[0]["to"] == "decode-0" and ages_s(bench) == pytest.approx([0.0042])


def test_request_level_transfer_starts_after_the_last_chunk() -> None:
    bench = Bench(tetri(granularity=Granularity.request), CheckingFactory()).run([request(0, prompt=64, output=3)])
    edges = alone(bench)
    assert edges[EventKind.TRANSFER_STARTED] == edges[EventKind.PREFILL_DONE] == pytest.approx(0.0084)
    assert edges[EventKind.TRANSFER_DONE] == pytest.approx(0.0084 + 0.0065)


@pytest.mark.parametrize(
    ("granularity", "exposed_s"),
    [(Granularity.request, 0.0049), (Granularity.chunk, 0.0017), (Granularity.layer, 0.0005)],
)
def test_what_of_the_transfer_is_exposed_is_the_last_piece_of_its_granularity(
    granularity: Granularity, exposed_s: float
) -> None:
    """Six blocks of 1600 bytes in three chunks over 2 MB/s + 0.1 ms: 6 blocks, 2, or a layer (of 4) of 2 are left."""
    system = tetri(granularity=granularity, link=LinkSpeed(bandwidth_bytes_per_s=2e6, latency_s=1e-4))
    bench = Bench(system, CheckingFactory(num_layers=4)).run([request(0, prompt=96, output=3)])
    edges = alone(bench)
    assert edges[EventKind.TRANSFER_DONE] - edges[EventKind.PREFILL_DONE] == pytest.approx(exposed_s)
    sent = [event.details["num_bytes"] for event in bench.log.events if event.kind is EventKind.TRANSFER]
    assert sum(sent) == 6 * 1600


def test_layers_that_were_computed_before_the_target_made_room_go_at_once() -> None:
    """Two chunks of 4.2 ms: the grant comes with the second one running, of which each layer goes when it ends."""
    bench = Bench(tetri(granularity=Granularity.layer), CheckingFactory(num_layers=4))
    bench.run([request(0, prompt=64, output=3)])
    transfers = [event for event in bench.log.events if event.kind is EventKind.TRANSFER]
    assert [event.details["num_bytes"] for event in transfers] == [3200, 800, 800, 800, 800]
    edges = alone(bench)
    last_s = max(0.0042 + 0.0033 + 4 * 0.0009, edges[EventKind.PREFILL_DONE] + 0.0009)
    assert edges[EventKind.TRANSFER_DONE] == pytest.approx(last_s)


def test_the_closed_loop_fills_the_system_and_no_more() -> None:
    bench = Bench(tetri(), CheckingFactory()).run([request(id) for id in range(30)], ClosedLoop(concurrency=5))
    num_open, seen = 0, []
    for event in bench.log.events:
        num_open += {EventKind.SENT: 1, EventKind.FINISHED: -1}.get(event.kind, 0)
        seen.append(num_open)
    assert max(seen) == 5


def test_round_robin_goes_round() -> None:
    bench = Bench(tetri(num_prefill=3, route=RoundRobin()), CheckingFactory()).run([request(id) for id in range(6)])
    routed = [event.details["to"] for event in bench.log.events if event.kind is EventKind.ROUTED]
    assert routed == ["prefill-0", "prefill-1", "prefill-2"] * 2


def test_least_queued_tokens_balances_prompt_tokens() -> None:
    requests = [request(id, prompt) for id, prompt in enumerate([100, 10, 10, 70, 20])]
    bench = Bench(tetri(num_prefill=2), CheckingFactory()).run(requests)
    routed = [event.details["to"] for event in bench.log.events if event.kind is EventKind.ROUTED]
    assert [int(name[-1]) for name in routed] == [0, 1, 1, 1, 1]


def test_prompts_are_prefilled_in_the_policys_order() -> None:
    requests = [request(id, prompt) for id, prompt in enumerate([5, 50, 20, 90])]
    bench = Bench(tetri(order=LJF(window=3)), CheckingFactory()).run(requests)
    started = [event.requests[0] for event in bench.log.events if event.kind is EventKind.PREFILL_STARTED]
    assert started == [1, 2, 0, 3]


def test_dispatchers_decide_on_loads_at_most_as_old_as_both_periods() -> None:
    requests = [request(id, 20, 20, id / 64) for id in range(100)]
    system = tetri(num_prefill=2, num_decode=2, report_period_s=0.25, broadcast_period_s=0.2)
    ages = ages_s(Bench(system, CheckingFactory()).run(requests))
    assert len(ages) == 100 and max(ages) <= 0.25 + 0.2
    assert min(ages) >= 0.0 and max(ages) > 0.25 and len(set(ages)) > 20


def test_what_a_dispatcher_knows_comes_from_the_broadcast() -> None:
    """Longer periods mean older loads; the decision itself is on record."""
    requests = [request(id, 20, 20, id / 64) for id in range(50)]

    def oldest(period_s: float) -> float:
        system = tetri(num_decode=2, report_period_s=period_s, broadcast_period_s=period_s)
        return max(ages_s(Bench(system, CheckingFactory()).run(requests)))

    assert oldest(0.01) <= 0.02 < 0.5 <= oldest(0.5) <= 1.0


@pytest.mark.parametrize("predict", [Oracle(), NoPrediction()])
@pytest.mark.parametrize("num_prefill", [1, 3])
def test_overloaded_decode_instances_share_the_overload(predict: Predictor, num_prefill: int) -> None:
    """Alpha is empty for most requests; sending all of those to one instance would make the hot spot itself."""
    requests = [request(id, 10, 150) for id in range(120)]
    system = tetri(num_prefill=num_prefill, num_decode=3, predict=predict)
    to = [details["to"] for details in dispatches(Bench(system, CheckingFactory(num_blocks=60)).run(requests))]
    assert len(to) == 120 and all(30 <= to.count(f"decode-{index}") <= 50 for index in range(3))


def test_a_slow_link_holds_kv_back_on_the_prefill_side_without_losing_any() -> None:
    system = tetri(link=LinkSpeed(bandwidth_bytes_per_s=1e5), num_decode=2)
    bench = Bench(system, CheckingFactory(num_blocks=10)).run([request(id, 40, 3) for id in range(20)])
    spans = sorted(
        (event.details["started_s"], event.time_s) for event in bench.log.events if event.kind is EventKind.TRANSFER
    )
    assert len(spans) >= 20 and all(before[1] <= after[0] for before, after in pairwise(spans))


def test_iterations_account_for_every_token() -> None:
    requests = [request(id, 30 + id, 5 + id) for id in range(10)]
    for system in (tetri(), vllm_like(), sarathi_like()):
        events = Bench(system, CheckingFactory()).run(requests).log.events
        iterations = [event.details for event in events if event.kind is EventKind.ITERATION]
        assert sum(one["num_prefill_tokens"] for one in iterations) == sum(one.num_prompt_tokens for one in requests)
        assert sum(one["num_decode_tokens"] for one in iterations) == sum(one.max_output_tokens - 1 for one in requests)


def test_stop_in_any_state() -> None:
    async def main(num_starts: int) -> None:
        clock = BoundedClock(limit_s=100.0)
        stack = Stack(tetri().plan(CheckingFactory()), InlineLauncher(clock), clock, EventLog())
        if num_starts:
            await stack.start(lambda outputs, runs, ended: None, lambda error: None)
        await stack.stop()

    for num_starts in (0, 1):
        run_virtual(BoundedClock(), main(num_starts))


def test_a_message_that_is_not_for_the_control_plane_is_our_own_error() -> None:
    async def main() -> list[str]:
        errors: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
        bench = Bench(vllm_like(), CheckingFactory())
        stack = Stack(bench.system.plan(bench.factory), bench.launcher, bench.clock, bench.log)
        await stack.start(bench.client.deliver, lambda error: errors.append(str(error)))
        bench.launcher.send("control", Stop())
        await asyncio.sleep(0)
        await stack.stop()
        return errors

    (error,) = run_virtual(BoundedClock(), main())
    assert "the control plane got Stop()" in error


class ByHand:
    """A launcher whose instances say what the test says, when it says it."""

    def __init__(self) -> None:
        self.tell: Callable[[Message], None] = lambda message: None

    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        self.tell = on_message
        return {spec.name: Ready(spec.name, info().as_dict(), b"") for spec in specs}

    def send(self, to: str, message: Message) -> None:
        """Nobody listens."""

    async def join(self, spec: InstanceSpec) -> Ready:
        return Ready(spec.name, info().as_dict(), b"")

    def catch_up(self) -> None:
        """Nothing is held back."""

    def kill(self, name: str) -> None:
        """Nothing runs."""

    async def leave(self, name: str) -> None:
        """Nothing runs."""

    async def stop(self) -> None:
        """Nothing runs."""


def test_tokens_of_two_instances_reach_the_client_in_their_order_even_if_they_overtake_each_other() -> None:
    """Between processes only one sender's messages keep their order; a busy control plane finds those of two mixed."""
    clock, log, launcher = BoundedClock(limit_s=100.0), EventLog(), ByHand()
    client = Client(clock=clock, log=log, stall_timeout_s=50.0)

    async def main() -> None:
        stack = Stack(tetri().plan(CheckingFactory()), launcher, clock, log)
        await stack.start(client.deliver, client.fail)
        running = asyncio.create_task(client.run([request(0, output=3)], OpenLoop(), stack))
        await clock.sleep(1.0)
        launcher.tell(Progress("decode-0", [TokenOutput(0, 1, 1, token_id=12, is_last=False)]))
        launcher.tell(Progress("decode-0", [TokenOutput(0, 1, 2, token_id=13, is_last=True)]))
        launcher.tell(Progress("prefill-0", [TokenOutput(0, 1, 0, token_id=11, is_last=False)]))
        await running
        await stack.stop()

    run_virtual(clock, main())
    assert client.outputs == {0: [11, 12, 13]}
    assert [event.kind for event in log.events].count(EventKind.FINISHED) == 1


def test_an_error_in_taking_a_message_in_fails_the_run_and_is_not_left_to_asyncio() -> None:
    """A full disk under the event log, or anything else that goes wrong in the control plane."""
    bench = Bench(tetri(), CheckingFactory(), clock=BoundedClock(limit_s=5000.0))

    def full_disk(events: Iterable[Event]) -> None:
        if any(event.kind is EventKind.ITERATION for event in events):
            raise OSError("no space left on device")

    bench.log.sink = full_disk
    with pytest.raises(Exception, match="no space left on device"):
        bench.run_only([request(0)])
    assert bench.swallowed == []


def test_a_prompt_fills_all_memory_of_an_instance() -> None:
    requests: list[Request] = [request(id, 60, 4) for id in range(4)]
    for system in (tetri(), vllm_like(), sarathi_like()):
        Bench(system, CheckingFactory(num_blocks=4)).run(requests)
