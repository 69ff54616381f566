"""Swapping in whole systems whose memory is tiny, in both clocks; `Bench.run` checks tokens and every KV slot."""

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, tetri
from tests.support.engine import CheckingFactory
from tetribench.core.clock import WallClock
from tetribench.core.events import Event, EventKind
from tetribench.decode.preempt import Preemption

REQUESTS = [request(id, 20 + 3 * id, 40, 0.001 * id) for id in range(12)]


def served(preemption: Preemption, host_blocks: int = 50, clock: WallClock | None = None) -> list[Event]:
    factory = CheckingFactory(num_blocks=30, block_size=4, host_blocks=host_blocks)
    return Bench(tetri(preemption=preemption), factory, clock=clock).run(REQUESTS).log.events


def preempted(events: list[Event]) -> list[str]:
    return [event.details["how"] for event in events if event.kind is EventKind.PREEMPTED]


def num_swapped_bytes(events: list[Event]) -> int:
    return sum(event.details["num_swapped_bytes"] for event in events if event.kind is EventKind.ITERATION)


def num_decode_prefills(events: list[Event]) -> int:
    """Tokens that decode instances computed a second time."""
    iterations = [event for event in events if event.kind is EventKind.ITERATION and event.source == "decode-0"]
    return sum(event.details["num_prefill_tokens"] for event in iterations)


@pytest.mark.parametrize("is_real_time", [False, pytest.param(True, marks=pytest.mark.alone)])
def test_everything_that_goes_out_comes_back_and_nothing_is_recomputed(is_real_time: bool) -> None:
    events = served(Preemption.swap, clock=WallClock() if is_real_time else None)
    assert set(preempted(events)) == {"swap"} and num_decode_prefills(events) == 0
    out_bytes = sum(event.details["num_bytes"] for event in events if event.kind is EventKind.PREEMPTED)
    assert num_swapped_bytes(events) == 2 * out_bytes > 0


@pytest.mark.parametrize("is_real_time", [False, pytest.param(True, marks=pytest.mark.alone)])
def test_recomputation_copies_nothing(is_real_time: bool) -> None:
    events = served(Preemption.recompute, clock=WallClock() if is_real_time else None)
    assert set(preempted(events)) == {"recompute"} and num_swapped_bytes(events) == 0
    num_lost = sum(event.details["num_tokens"] for event in events if event.kind is EventKind.PREEMPTED)
    assert num_decode_prefills(events) == num_lost


@pytest.mark.parametrize("is_real_time", [False, pytest.param(True, marks=pytest.mark.alone)])
def test_with_little_host_memory_both_happen(is_real_time: bool) -> None:
    events = served(Preemption.swap, host_blocks=12, clock=WallClock() if is_real_time else None)
    assert set(preempted(events)) == {"swap", "recompute"} and num_decode_prefills(events) > 0


def test_a_system_that_swaps_takes_host_memory_for_every_instance_because_any_may_come_to_decode() -> None:
    factory = CheckingFactory()
    for spec in tetri(preemption=Preemption.swap, num_prefill=2).plan(factory).instances:
        assert isinstance(spec.engine, CheckingFactory) and spec.engine.num_host_blocks == 50
    assert all(spec.engine is factory for spec in tetri().plan(factory).instances)
