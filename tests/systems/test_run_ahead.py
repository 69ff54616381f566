"""Virtual time that charges unchanging decodes in one step is, to the last bit, that which charges every iteration."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.clock import BoundedClock
from tests.systems.test_any_churn import churns, flips
from tests.systems.test_any_workload import MAX_TOKENS, loops, mixing, profile, tetris, workloads
from tetribench.control.monitor import ClusterMonitor
from tetribench.core.clock import run_virtual
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.decode.admit import Greedy, ReserveDynamic
from tetribench.drive.loadgen import Client, Loop, OpenLoop
from tetribench.engine.cost_engine import CostModelEngine, CostModelFactory
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import Model
from tetribench.engine.sharing import Sharing
from tetribench.instance.inline import InlineLauncher
from tetribench.metrics.attribution import SHARES
from tetribench.metrics.compare import measure
from tetribench.metrics.log import encode_event
from tetribench.metrics.slo import Slo
from tetribench.systems.base import System
from tetribench.systems.stack import Stack

pytestmark = pytest.mark.no_cover

MODEL = Model(name="small", num_layers=2, hidden_size=4, ffn_size=8, num_heads=2, num_kv_heads=1, vocab_size=10)
BYTES_PER_TOKEN = MODEL.shape().kv_bytes_per_token(2)
PREDICTOR = Model(name="predictor", num_layers=4, hidden_size=32, ffn_size=128, num_heads=2, num_kv_heads=2).shape()
"""A prediction takes tens of iterations of the small model. One of OPT-125M would take tens of thousands, and nearly
all that such a run does is to report loads meanwhile."""


@dataclass(frozen=True)
class Machine:
    """`is_even`: every iteration takes a multiple of 2 ** -12 s, so that many things happen at the same moment."""

    num_blocks: int = 1000
    block_size: int = 16
    host_blocks: int = 20
    slowdown: float | None = None
    beside_slowdown: float | None = None
    wake_s: float = 0.0
    batching_s: float = 0.0
    is_even: bool = False

    def factory(self) -> CostModelFactory:
        hardware = Hardware(
            name="small",
            source="",
            memory_bytes=1e9,
            overhead_s=2**-10,
            bytes_per_s=2.0**80 if self.is_even else 3.1e6,
            flops_per_s=2.0**80 if self.is_even else 1.7e8,
            per_sequence_s=2**-12,
            copy_bytes_per_s=1e6,
            host_bytes_per_s=1e5,
            co_run_slowdown=self.slowdown,
            beside_slowdown=self.beside_slowdown,
            wake_s=self.wake_s,
            batching_s=self.batching_s,
        )
        block_bytes = self.block_size * BYTES_PER_TOKEN
        return CostModelFactory(
            model=MODEL,
            hardware=hardware,
            block_size=self.block_size,
            kv_memory_gib=(self.num_blocks + 0.5) * block_bytes / 2**30,
            host_memory_gib=(self.host_blocks + 0.5) * block_bytes / 2**30,
        )


@dataclass
class Recorded:
    """All that a run leaves behind."""

    events: list[Event] = field(default_factory=list)
    loads: list[tuple[str, InstanceLoad]] = field(default_factory=list)
    outputs: dict[int, list[int]] = field(default_factory=dict)
    error: str = ""

    def num(self, kind: EventKind) -> int:
        return sum(event.kind is kind for event in self.events)


def serve(
    system: System, machine: Machine, requests: list[Request], loop: Loop, *, ahead: bool, stall_timeout_s: float = 1e3
) -> Recorded:
    clock, found = BoundedClock(), Recorded()
    log = EventLog(found.events.extend)
    client = Client(clock=clock, log=log, stall_timeout_s=stall_timeout_s)
    launcher = InlineLauncher(clock)
    report = ClusterMonitor.report

    def reported(monitor: ClusterMonitor, instance: str, load: InstanceLoad) -> None:
        found.loads.append((instance, load))
        report(monitor, instance, load)

    async def main() -> None:
        stack = Stack(system.plan(machine.factory()), launcher, clock, log)
        try:
            await stack.start(client.deliver, client.fail)
            await client.run(requests, loop, stack)
        finally:
            await stack.stop()
        launcher.check()

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(ClusterMonitor, "report", reported))
        patches.enter_context(mock.patch("tetribench.engine.cost_engine.OPT_125M", PREDICTOR))
        if not ahead:
            patches.enter_context(mock.patch.object(CostModelEngine, "foresee", lambda *_: None))
        try:
            run_virtual(clock, main())
        except (RuntimeError, TimeoutError) as error:
            found.error = str(error)
    found.outputs = client.outputs
    return found


def assert_same(
    make: Callable[[], System], machine: Machine, requests: list[Request], loop: Loop, **how: Any
) -> Recorded:
    """Nothing that can be told of the run depends on whether it ran ahead."""
    step, ahead = (serve(make(), machine, requests, loop, ahead=ahead, **how) for ahead in (False, True))
    assert ahead.error == step.error and ahead.outputs == step.outputs and ahead.loads == step.loads
    one, other = (measure("system", found.events, Slo()) for found in (step, ahead))
    assert other.token_times.keys() == one.token_times.keys()
    assert all(np.array_equal(other.token_times[id], times) for id, times in one.token_times.items())
    for name in ("requests", "itl_s", "instances", "iterations", "transfers", "changes", "ledger"):
        table, expected = getattr(other, name), getattr(one, name)
        if name == "requests":  # many small shares of iterations add up to that of a run but for their rounding
            assert np.allclose(table[[*SHARES]], expected[[*SHARES]], rtol=1e-9, atol=1e-12)
            table, expected = table.drop(columns=[*SHARES]), expected.drop(columns=[*SHARES])
        assert table.equals(expected), f"{name}:\n{table}\n{expected}"
    for name, expected in one.summary.pop("cost").items():
        cost = other.summary["cost"].pop(name)
        assert cost.keys() == expected.keys()
        assert all(cost[key] == (value and pytest.approx(value, rel=1e-9)) for key, value in expected.items())
    assert other.summary.pop("cost") == {}
    assert other.summary == one.summary
    assert step.num(EventKind.ITERATIONS) == step.num(EventKind.TOKENS) == 0
    return ahead


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    block_size = draw(st.sampled_from([1, 3, 4, 16]))
    return Machine(
        num_blocks=-(-MAX_TOKENS // block_size) + draw(st.sampled_from([0, 1, 4, 20, 3000])),
        block_size=block_size,
        host_blocks=draw(st.sampled_from([1, 5, 300])),
        slowdown=draw(st.sampled_from([None, 1.5])),
        beside_slowdown=draw(st.sampled_from([None, None, 1.25])),  # with it, only an instance alone runs ahead
        wake_s=draw(st.sampled_from([0.0, 2**-10])),
        batching_s=draw(st.sampled_from([0.0, 2**-11])),
        is_even=draw(st.booleans()),
    )


periods = st.fixed_dictionaries(
    {"report_period_s": st.sampled_from([2**-5, 0.1]), "broadcast_period_s": st.sampled_from([2**-4, 0.1])}
)
"""Often within a run that goes ahead; over a slow link 128 reports a second would be all that most time goes to."""


@profile
@given(workloads(), machines(), tetris(), periods, loops)
def test_tetri(
    requests: list[Request], machine: Machine, changes: dict[str, Any], often: dict[str, float], loop: Loop
) -> None:
    found = assert_same(lambda: tetri(**changes | often), machine, requests, loop)
    assert not found.error


@profile
@given(workloads(), machines(), tetris(), periods, loops, flips, st.integers(1, 3), st.integers(1, 3), st.data())
def test_tetri_with_instances_that_die_leave_come_and_flip(
    requests: list[Request],
    machine: Machine,
    changes: dict[str, Any],
    often: dict[str, float],
    loop: Loop,
    flip: Any,
    num_prefill: int,
    num_decode: int,
    data: st.DataObject,
) -> None:
    num_decode += num_prefill == num_decode == 1
    churn = data.draw(churns(num_prefill, num_decode))
    changes |= often | {"num_prefill": num_prefill, "num_decode": num_decode, "flip": flip, "churn": churn}
    assert_same(lambda: tetri(**changes), machine, requests, loop)


seats = st.fixed_dictionaries(
    {
        "max_num_seqs": st.integers(1, 30),
        "max_num_batched_tokens": st.integers(1, 200),
        "watermark": st.sampled_from([0.0, 0.01, 0.3]),
    }
)


@profile
@given(workloads(), machines(), st.integers(1, 3), seats, loops)
def test_vllm_like(
    requests: list[Request], machine: Machine, num_instances: int, scheduler: dict[str, Any], loop: Loop
) -> None:
    found = assert_same(lambda: vllm_like(num_instances, **scheduler), machine, requests, loop)
    assert not found.error


@profile
@given(workloads(), machines(), st.integers(1, 3), mixing, loops)
def test_sarathi_like(
    requests: list[Request], machine: Machine, num_instances: int, scheduler: dict[str, Any], loop: Loop
) -> None:
    found = assert_same(lambda: sarathi_like(num_instances, **scheduler), machine, requests, loop)
    assert not found.error


@profile
@given(workloads(), machines(), tetris(), periods, loops, st.integers(1, 2))
def test_tetri_with_instances_that_share_devices(
    requests: list[Request],
    machine: Machine,
    changes: dict[str, Any],
    often: dict[str, float],
    loop: Loop,
    num_devices: int,
) -> None:
    machine = replace(machine, num_blocks=2 * machine.num_blocks)  # each of the two has half of it
    changes |= often | {"num_prefill": num_devices, "num_decode": num_devices, "sharing": Sharing.time_slicing}
    found = assert_same(lambda: tetri(**changes), machine, requests, loop)
    assert not found.error


def test_events_grow_with_requests_and_not_with_tokens() -> None:
    for num_output_tokens in (60, 600):
        requests = [request(id, 20, num_output_tokens, id * 30.0) for id in range(4)]
        found = assert_same(lambda: tetri(admit=ReserveDynamic()), Machine(), requests, OpenLoop())
        assert found.num(EventKind.TOKENS) == 4 * -(-num_output_tokens // 64)


def test_a_kill_in_the_middle_of_a_run_costs_no_token_that_had_come() -> None:
    requests = [request(id, 20, 60) for id in range(3)]
    found = assert_same(
        lambda: tetri(num_decode=2, admit=Greedy(), churn=["0.06 kill decode-0"]), Machine(), requests, OpenLoop()
    )
    assert found.num(EventKind.INSTANCE_LOST) == 1 and found.num(EventKind.RETRIED) > 0


def test_the_loss_of_the_last_instance_is_as_it_was() -> None:
    requests = [request(id, 20, 60) for id in range(3)]
    found = assert_same(lambda: vllm_like(2), Machine(), requests, OpenLoop())
    assert not found.error
    with mock.patch.object(InlineLauncher, "check"):
        failed = assert_same(lambda: tetri(churn=["0.06 kill decode-0"]), Machine(), requests, OpenLoop())
    assert "killed" in failed.error and failed.num(EventKind.FAILED) == 3


@pytest.mark.parametrize("stall_timeout_s", [0.01, 0.04])
def test_a_run_is_no_stall(stall_timeout_s: float) -> None:
    requests = [request(0, 20, 100)]
    found = assert_same(lambda: tetri(), Machine(), requests, OpenLoop(), stall_timeout_s=stall_timeout_s)
    assert not found.error


def test_a_run_that_ran_ahead_is_the_same_to_the_byte_every_time() -> None:
    requests = [request(id, 20 + id, 40, id * 0.01) for id in range(20)]
    logs = [
        b"".join(
            encode_event(event)
            for event in serve(tetri(num_decode=2), Machine(), requests, OpenLoop(), ahead=True).events
        )
        for _ in range(2)
    ]
    assert logs[0] == logs[1]
