import asyncio
from collections.abc import Callable, Coroutine
from collections.abc import Sequence as SequenceOf
from typing import Any

import pytest

from tests.support.builders import info, load, request
from tests.support.clock import BoundedClock
from tetribench.core.clock import run_virtual
from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import (
    Arrived,
    Closed,
    Drain,
    Drained,
    LoadReport,
    Lost,
    Message,
    Peers,
    Progress,
    Released,
    Reserve,
    Stop,
    Submit,
    TokenOutput,
)
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.base import Batch, EngineInfo, KVPool, OnLayer, Part, PrefillChunk, forever
from tetribench.instance.loop import InstanceLoop
from tetribench.instance.scheduler import Outbox
from tetribench.kv.links import LinkFailed
from tetribench.kv.transfer import Moved, Push


class Scripted:
    """A scheduler, an engine, a link and a post in one: hands out `batches` and writes down every call."""

    def __init__(
        self,
        batches: SequenceOf[Batch | None] = (),
        trouble: str = "",
        to_predict: SequenceOf[Request] = (),
        is_parallel: bool = True,
        report_period_s: float = 30.0,
    ) -> None:
        self.clock = BoundedClock(limit_s=100.0)
        self.outbox = Outbox("one")
        self.info: EngineInfo = info()
        self.pool: KVPool | None = None
        self.num_used_blocks = 11
        self.lacks_memory = False
        self.num_told_layers = 0
        self.calls: list[tuple[Any, ...]] = []
        self.sent: list[tuple[str, Message]] = []
        self.roles: list[Role] = []
        self.is_drained = False
        self.fails_once = False
        self.errors: list[str | None] = []
        self._batches = list(batches)
        self.to_predict = list(to_predict)
        self.description = "scripted"
        self.is_parallel = is_parallel
        self._trouble = trouble
        self.loop = InstanceLoop(
            name="one",
            role=Role.decode,
            scheduler_for=self._scheduler_for,
            engine=self,
            predictor=self,
            link=self,
            post=self,
            clock=self.clock,
            report_period_s=report_period_s,
        )

    def _scheduler_for(self, role: Role) -> "Scripted":
        self.roles.append(role)
        return self

    def _note(self, call: str, *arguments: Any) -> None:
        self.calls.append((call, self.clock.now(), *arguments))
        if self._trouble == call:
            raise RuntimeError(f"trouble in {call}")

    def receive(self, message: Message, now_s: float) -> None:
        self._note("receive", message)
        self.outbox.send("two", Released("one", 0))

    def next_prediction(self) -> list[Request]:
        return [self.to_predict.pop(0)] if self.to_predict else []

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        self._note("predict", requests[0].id)
        await self.clock.sleep(0.25)
        return {one.id: LengthRange(0, 1) for one in requests}

    def predicted(self, ranges: dict[int, LengthRange], started_s: float, now_s: float) -> None:
        self._note("predicted", started_s, *ranges)

    def next_batch(self, now_s: float) -> Batch | None:
        self._note("next_batch")
        return self._batches.pop(0) if self._batches else None

    def foresee(self, batch: Batch, num_steady: Callable[[], int]) -> None:
        """Only time will tell."""

    async def watch(self) -> None:
        if self._trouble == "watch":
            await self.clock.sleep(0.5)
            self._note("watch")
        await forever()

    @property
    def may_have_batch(self) -> bool:
        return True

    def num_steady_iterations(self) -> int:
        raise AssertionError("nobody runs ahead")

    def advance(self, num_iterations: int) -> list[int]:
        raise AssertionError("nobody runs ahead")

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        self._note("run")
        started_s = self.clock.now()
        if on_layer is not None:
            for layer in range(self.num_told_layers):
                await self.clock.sleep(1.0 / self.info.num_layers)
                on_layer(layer)
        await self.clock.sleep_until(started_s + 1.0)
        return {0: 5}

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        self._note("complete", tokens)
        self.outbox.outputs.append(TokenOutput(0, 1, 0, 5, is_last=False))

    def moved(self, moved: Moved) -> None:
        self._note("moved", moved.push.request_id, moved.started_s, moved.ended_s, moved.num_bytes)
        self.errors.append(moved.error)

    def load(self, now_s: float) -> InstanceLoad:
        self._note("load")
        return load(time_s=now_s)

    def check(self) -> None:
        self._note("check")

    async def open(self) -> None:
        """There is nothing to reach."""

    def handle(self) -> bytes:
        return b""

    def disconnect(self, name: str) -> None:
        self._note("disconnect", name)

    def connect(self, handles: dict[str, bytes]) -> None:
        self._note("connect", handles)

    async def move(
        self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int], part: Part | None = None
    ) -> int:
        self._note("move", to, *(part or ()))
        if self.fails_once:
            self.fails_once = False
            raise LinkFailed(f"{to} is gone")
        await self.clock.sleep(2.0)
        return 100 * len(source_ids)

    def send(self, to: str, message: Message) -> None:
        self.sent.append((to, message))

    def forget(self, name: str) -> None:
        self._note("forget", name)

    def close(self) -> None:
        """Nothing is held."""

    def serve(self, meanwhile: Coroutine[Any, Any, None]) -> "Scripted":
        """Run the loop, and beside it `meanwhile`, after which it is told to stop."""

        async def main() -> None:
            running = asyncio.create_task(self.loop.run())
            await meanwhile
            self.loop.receive(Stop())
            await running
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run_virtual(self.clock, main())
        return self

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in kinds]


def batch() -> Batch:
    prompt = Sequence(request(0, prompt=10), LengthRange(0, 200))
    decoding = Sequence(request(1), LengthRange(0, 200))
    return Batch(prefill=[PrefillChunk(prompt, 0, 7)], decode=[decoding])


def push(id: int, num_blocks: int = 1) -> Push:
    return Push(id, id, "decode-0", list(range(num_blocks)), list(range(num_blocks)), is_last=True)


def test_ask_run_hand_back_and_tell() -> None:
    made = Scripted([batch(), batch()])
    made.serve(made.clock.sleep(5.0))
    assert [call[:2] for call in made.of("next_batch", "run", "complete")] == [
        ("next_batch", 0.0), ("run", 0.0), ("complete", 1.0),
        ("next_batch", 1.0), ("run", 1.0), ("complete", 2.0),
        ("next_batch", 2.0),
    ]  # fmt: skip
    told = [message for _, message in made.sent if isinstance(message, Progress)]
    assert [len(progress.outputs) for progress in told] == [1, 1]
    (event,) = told[1].events
    assert (event.kind, event.time_s, event.source) == (EventKind.ITERATION, 2.0, "one")
    assert event.details == {
        "started_s": 1.0, "num_prefill_tokens": 7, "num_decode_tokens": 1, "num_used_blocks": 11,
        "num_swapped_bytes": 0, "chunks": [[0, 7]], "num_padding_tokens": 0,
    }  # fmt: skip
    assert event.requests == (0, 1)


def test_an_idle_loop_asks_again_when_it_gets_a_message_and_not_before() -> None:
    made = Scripted([None])

    async def meanwhile() -> None:
        await made.clock.sleep(3.0)
        made.loop.receive(Submit(request(4)))
        assert made.sent[-1] == ("two", Released("one", 0))
        await made.clock.sleep(4.0)

    made.serve(meanwhile())
    assert [call[1] for call in made.of("next_batch")] == [0.0, 3.0]
    assert made.of("receive") == [("receive", 3.0, Submit(request(4)))]


def memory_waits(made: Scripted) -> list[tuple[float, float]]:
    told = [event for _, message in made.sent if isinstance(message, Progress) for event in message.events]
    return [(event.details["started_s"], event.time_s) for event in told if event.kind is EventKind.MEMORY_WAIT]


def test_it_records_for_how_long_it_had_nothing_to_run_for_want_of_memory() -> None:
    made = Scripted([batch(), None, None, batch()])
    made.lacks_memory = True

    async def meanwhile() -> None:
        for _ in range(2):
            await made.clock.sleep(3.0)
            made.loop.receive(Submit(request(4)))  # which at 3.0 finds no memory either, and at 6.0 does
        await made.clock.sleep(0.5)
        made.lacks_memory = False
        await made.clock.sleep(3.0)

    made.serve(meanwhile())
    assert memory_waits(made) == [(1.0, 6.0)], "neither while it runs, nor in two parts"


def test_a_wait_for_memory_ends_with_who_waited_or_with_the_run() -> None:
    made = Scripted()
    made.lacks_memory = True

    async def meanwhile() -> None:
        await made.clock.sleep(2.0)
        made.lacks_memory = False
        made.loop.receive(Released("two", 0))
        await made.clock.sleep(2.0)
        made.lacks_memory = True
        made.loop.receive(Submit(request(4)))
        await made.clock.sleep(1.0)

    made.serve(meanwhile())
    assert memory_waits(made) == [(0.0, 2.0), (4.0, 5.0)]


def test_pushes_go_one_after_the_other_beside_the_computation_and_wake_the_loop() -> None:
    made = Scripted([batch(), batch(), None, None])
    made.outbox.pushes += [push(0, num_blocks=3), push(1)]
    made.serve(made.clock.sleep(9.0))
    assert made.of("move") == [("move", 0.0, "decode-0"), ("move", 2.0, "decode-0")]
    assert made.of("moved") == [("moved", 2.0, 0, 0.0, 2.0, 300), ("moved", 4.0, 1, 2.0, 4.0, 100)]
    assert [call[1] for call in made.of("next_batch")] == [0.0, 1.0, 2.0, 4.0]
    told = [event for _, message in made.sent if isinstance(message, Progress) for event in message.events]
    transfers = [event for event in told if event.kind is EventKind.TRANSFER]
    assert [(event.time_s, event.requests) for event in transfers] == [(2.0, (0,)), (4.0, (1,))]
    assert transfers[0].details == {"started_s": 0.0, "num_bytes": 300, "to": "decode-0"}


@pytest.mark.parametrize("num_told", [4, 2, 0])
def test_a_layer_goes_when_the_engine_tells_of_it_and_at_the_latest_at_its_end(num_told: int) -> None:
    by_layer = batch()
    by_layer.by_layer = True
    made = Scripted([by_layer])
    made.info, made.num_told_layers = info(num_layers=4), num_told
    made.outbox.pushes += [Push(0, 0, "decode-0", [3], [5], is_last=layer == 3, layer=layer) for layer in (0, 3)]
    made.serve(made.clock.sleep(9.0))
    starts_s = {4: [0.25, 2.25], 2: [0.25, 2.25], 0: [1.0, 3.0]}[num_told]
    assert made.of("move") == [("move", starts_s[0], "decode-0", 0, 400), ("move", starts_s[1], "decode-0", 1200, 400)]
    assert [call[2] for call in made.of("moved")] == [0, 0]


def test_the_load_is_reported_every_period() -> None:
    made = Scripted()
    made.serve(made.clock.sleep(65.0))
    assert made.sent == [("control", LoadReport("one", load(time_s=time_s))) for time_s in (0.0, 30.0, 60.0)]


def test_peers_are_the_links_to_know() -> None:
    made = Scripted()

    async def meanwhile() -> None:
        made.loop.receive(Peers({"decode-0": b"x"}))

    assert made.serve(meanwhile()).of("connect", "receive") == [("connect", 0.0, {"decode-0": b"x"})]


def test_stop_lets_the_iteration_in_flight_end() -> None:
    made = Scripted([batch(), batch()])
    made.serve(made.clock.sleep(0.5))
    assert [call[:2] for call in made.of("run", "complete")] == [("run", 0.0), ("complete", 1.0)]
    assert made.clock.now() == 1.0


@pytest.mark.parametrize("part", ["next_batch", "run", "complete", "move", "moved", "load", "watch"])
def test_an_error_in_any_part_ends_the_loop_and_is_raised(part: str) -> None:
    made = Scripted([batch()], trouble=part)
    made.outbox.pushes.append(push(0))
    with pytest.raises(RuntimeError, match=f"trouble in {part}"):
        made.serve(made.clock.sleep(50.0))
    assert made.clock.now() <= 50.0


def order(one: Scripted) -> list[tuple[str, float]]:
    return [(call, at) for call, at, *_ in one.of("run", "complete", "predict", "predicted")]


def test_predictions_and_iterations_take_turns() -> None:
    made = Scripted([batch(), batch()], to_predict=[request(0), request(1)], is_parallel=False)
    made.serve(made.clock.sleep(5.0))
    assert order(made) == [
        ("predict", 0.0), ("predicted", 0.25), ("run", 0.25), ("complete", 1.25),
        ("predict", 1.25), ("predicted", 1.5), ("run", 1.5), ("complete", 2.5),
    ]  # fmt: skip


def test_predictions_run_beside_iterations_and_wake_the_loop() -> None:
    made = Scripted([None, batch(), None], to_predict=[request(0), request(1)])
    made.serve(made.clock.sleep(5.0))
    assert order(made) == [
        ("predict", 0.0), ("predicted", 0.25), ("predict", 0.25), ("run", 0.25), ("predicted", 0.5), ("complete", 1.25)
    ]  # fmt: skip
    assert made.of("predicted") == [("predicted", 0.25, 0.0, 0), ("predicted", 0.5, 0.25, 1)]


def test_a_message_may_bring_something_to_predict() -> None:
    made = Scripted()

    async def meanwhile() -> None:
        await made.clock.sleep(3.0)
        made.to_predict.append(request(7))
        made.loop.receive(Submit(request(7)))
        await made.clock.sleep(1.0)

    made.serve(meanwhile())
    assert made.of("predict", "predicted") == [("predict", 3.0, 7), ("predicted", 3.25, 3.0, 7)]


def test_a_drained_scheduler_is_checked_and_makes_way_for_that_of_the_new_role() -> None:
    made = Scripted([batch()])

    async def meanwhile() -> None:
        await made.clock.sleep(0.5)
        made.loop.receive(Drain(Role.prefill))
        await made.clock.sleep(2.5)
        assert made.roles == [Role.decode]
        made.is_drained = True
        made.loop.receive(Submit(request(4)))
        await made.clock.sleep(1.0)

    made.serve(meanwhile())
    assert made.roles == [Role.decode, Role.prefill]
    assert [call[1] for call in made.of("check")] == [3.0]
    assert ("control", Drained("one", Role.prefill, 0.5, 3.0)) in made.sent


def test_the_iteration_in_flight_ends_before_a_flip() -> None:
    made = Scripted([batch()])
    made.is_drained = True

    async def meanwhile() -> None:
        await made.clock.sleep(0.5)
        made.loop.receive(Drain(Role.prefill))
        await made.clock.sleep(3.0)

    made.serve(meanwhile())
    assert [call[1] for call in made.of("complete", "check")] == [1.0, 1.0]


def test_an_instance_that_is_to_leave_stays_what_it_is_and_says_once_that_it_is_empty() -> None:
    made = Scripted()
    made.is_drained = True

    async def meanwhile() -> None:
        made.loop.receive(Drain(None))
        await made.clock.sleep(1.0)
        made.loop.receive(Submit(request(4)))
        await made.clock.sleep(1.0)

    made.serve(meanwhile())
    assert made.roles == [Role.decode]
    assert [message for _, message in made.sent if isinstance(message, Drained)] == [Drained("one", None, 0.0, 0.0)]


def test_a_lost_peer_is_forgotten_by_link_and_post_and_told_to_the_scheduler() -> None:
    made = Scripted()

    async def meanwhile() -> None:
        made.loop.receive(Lost("two"))

    assert made.serve(meanwhile()).of("disconnect", "forget", "receive") == [
        ("disconnect", 0.0, "two"),
        ("forget", 0.0, "two"),
        ("receive", 0.0, Lost("two")),
    ]


@pytest.mark.parametrize(
    "of",
    [
        lambda sender: Reserve(sender, 0, request(), 1, [], LengthRange(0, 9)),
        lambda sender: Arrived(sender, 0, 7),
        lambda sender: Released(sender, 0),
        lambda sender: Closed(sender),
    ],
)
def test_what_a_lost_peer_has_sent_is_dropped_when_the_news_has_overtaken_it(of: Callable[[str], Message]) -> None:
    made = Scripted()

    async def meanwhile() -> None:
        for message in (Lost("two"), of("two"), of("three")):
            made.loop.receive(message)

    assert [call[2] for call in made.serve(meanwhile()).of("receive")] == [Lost("two"), of("three")]


def test_a_push_that_fails_is_told_with_the_reason_and_the_next_one_goes() -> None:
    made = Scripted()
    made.outbox.pushes += [push(0), push(1)]
    made.fails_once = True
    made.serve(made.clock.sleep(9.0))
    assert made.of("moved") == [("moved", 0.0, 0, 0.0, 0.0, 0), ("moved", 2.0, 1, 0.0, 2.0, 100)]
    assert made.errors == ["decode-0 is gone", None]


def test_the_share_of_time_in_which_the_engine_runs_is_reported_also_in_mid_iteration() -> None:
    """Iterations of 1 s from 0 to 3 s and reports every 2 s: busy for 2 of 2 seconds, then 1 of 2, then not at all."""
    made = Scripted([batch(), batch(), batch()], report_period_s=2.0)
    made.serve(made.clock.sleep(7.0))
    reports = [message.load for _, message in made.sent if isinstance(message, LoadReport)]
    assert [(one.time_s, one.busy_share) for one in reports] == [(0.0, 0.0), (2.0, 1.0), (4.0, 0.5), (6.0, 0.0)]
