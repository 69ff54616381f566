"""Recorded decisions at another pace: at its own pace a run is itself, and nothing but what is replaced changes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tests.systems.test_any_workload import memories, workloads
from tetribench.calibrate.batches import RecordedBatch, recorded_batches
from tetribench.core.events import Event, EventKind
from tetribench.core.request import Request
from tetribench.fidelity.replay import Pace, Record, replay
from tetribench.metrics.timeline import iteration_table, request_table, token_times
from tetribench.systems.base import System

SYSTEMS: dict[str, Callable[[], System]] = {
    "tetri": lambda: tetri(num_decode=2),
    "vllm_like": lambda: vllm_like(num_instances=2),
    "sarathi_like": lambda: sarathi_like(num_instances=2),
}
profile = settings(max_examples=40, deadline=None)


def recorded(system: System, requests: list[Request], factory: CheckingFactory) -> Record:
    events = Bench(system, factory).run(requests).log.events
    return Record.of(events, recorded_batches(events))


@pytest.mark.parametrize("name", SYSTEMS)
@profile
@given(workloads(), memories())
def test_a_run_at_its_own_pace_is_itself(name: str, requests: list[Request], factory: CheckingFactory) -> None:
    record = recorded(SYSTEMS[name](), requests, factory)
    pace = record.pace()
    assert min(pace.waits_s) >= -1e-9
    again = replay(record, pace)
    edges = ["prefill_started_s", "prefill_done_s", "first_token_s", "finished_s", "transfer_done_s"]
    for table in (request_table, iteration_table):
        before, after = table(record.events), table(again)
        columns = edges if table is request_table else ["started_s", "ended_s"]
        assert (before[columns] - after[columns]).abs().max().fillna(0.0).max() < 1e-6
    tokens = token_times(again)
    for id, times_s in token_times(record.events).items():
        assert tokens[id] == pytest.approx(times_s)


@pytest.mark.parametrize("name", SYSTEMS)
@profile
@given(workloads(), memories())
def test_slower_iterations_make_nothing_earlier(name: str, requests: list[Request], factory: CheckingFactory) -> None:
    record = recorded(SYSTEMS[name](), requests, factory)
    pace = record.pace()
    slower = replay(record, replace(pace, seconds=[1.5 * seconds for seconds in pace.seconds]))
    before, after = request_table(record.events), request_table(slower)
    assert (after["finished_s"] - before["finished_s"]).min() > 0


def batch(
    instance: str, started_s: float, ended_s: float, *, prompt: int | None = None, decode: int = 0
) -> RecordedBatch:
    """The whole prompt of `prompt`, or a decode of request 0."""
    chunks = ((prompt, 0, 10),) if prompt is not None else ()
    decodes = ((0, 10),) if decode else ()
    return RecordedBatch(
        instance=instance, started_s=started_s, ended_s=ended_s, chunks=chunks, decodes=decodes,
        yields=(0 if prompt is None else prompt,), num_padding_tokens=0, num_swapped_bytes=0,
    )  # fmt: skip


def test_waits_handovers_and_deliveries_by_hand() -> None:
    """Prefill from 1 to 2, there at the decode instance at 2.5, decoded from 2.75 to 3, at the client 0.25 later."""
    life = [
        (0.5, EventKind.ARRIVED, {"num_prompt_tokens": 10, "max_output_tokens": 2}), (0.5, EventKind.ROUTED, {}),
        (1.0, EventKind.PREFILL_STARTED, {}), (2.0, EventKind.PREFILL_DONE, {}), (2.25, EventKind.FIRST_TOKEN, {}),
        (2.5, EventKind.ADMITTED, {}), (3.25, EventKind.TOKEN, {}), (3.25, EventKind.FINISHED, {}),
    ]  # fmt: skip
    batches = [batch("p", 1.0, 2.0, prompt=0), batch("d", 2.75, 3.0, decode=1)]
    events = [Event(time_s, kind, "x", (0,), details) for time_s, kind, details in life]
    events += [
        Event(one.ended_s, EventKind.ITERATION, one.instance, (0,), {"started_s": one.started_s}) for one in batches
    ]
    record = Record.of(events, batches)
    pace = record.pace()
    assert (list(pace.waits_s), dict(pace.handover_s)) == ([0.5, 0.25], {0: 0.5})
    assert pace.delivery_s == {0: [0.25, 0.25]}
    other = Pace([2.0, 0.5], [0.0, 0.0], {0: 1.0}, {0: [0.0, 0.0]}, inbox_s=0.25)
    moved = {(event.kind, event.time_s) for event in replay(record, other)}
    assert moved == {
        (EventKind.ARRIVED, 0.5), (EventKind.ROUTED, 0.5), (EventKind.PREFILL_STARTED, 0.75),
        (EventKind.ITERATION, 2.75), (EventKind.PREFILL_DONE, 2.75), (EventKind.FIRST_TOKEN, 2.75),
        (EventKind.ADMITTED, 3.75), (EventKind.ITERATION, 4.25), (EventKind.TOKEN, 4.25), (EventKind.FINISHED, 4.25),
    }  # fmt: skip


def test_what_a_decode_reads_is_counted() -> None:
    record = recorded(vllm_like(num_instances=1), [request(0, 10, 3)], CheckingFactory())
    assert [(one.chunks, one.decodes, one.yields) for one in record.batches] == [
        (((0, 0, 10),), (), (0,)), ((), ((0, 11),), (0,)), ((), ((0, 12),), (0,)),
    ]  # fmt: skip
    prompt, decode = record.batches[0].batch(), record.batches[1].batch()
    assert (prompt.num_prefill_tokens, prompt.prefill[0].start) == (10, 0)
    assert [one.num_tokens for one in decode.decode] == [11]


def test_a_record_that_does_not_say_what_was_computed_is_refused() -> None:
    details = {"started_s": 0.0, "num_prefill_tokens": 0, "num_decode_tokens": 1, "num_swapped_bytes": 0}
    with pytest.raises(ValueError, match="d0: an iteration does not say what it computed"):
        recorded_batches([Event(1.0, EventKind.ITERATION, "d0", (), details)])
