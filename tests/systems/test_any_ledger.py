"""The ledger of whole systems in virtual time; `measure` itself asserts that it balances."""

from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tests.systems.test_any_churn import churns, flips
from tests.systems.test_any_workload import loops, memories, profile, tetris, workloads
from tests.systems.test_prediction import Slow
from tetribench.core.clock import Clock
from tetribench.core.request import Request
from tetribench.decode.preempt import Preemption
from tetribench.drive.loadgen import Loop
from tetribench.engine.base import Engine, LengthPredictor
from tetribench.kv.links import LinkSpeed
from tetribench.metrics.compare import SystemResult, measure
from tetribench.metrics.slo import Slo
from tetribench.prefill.predictor import PrefillPredictor
from tetribench.systems.base import System

pytestmark = pytest.mark.no_cover

REQUESTS = [request(id, 20 + 3 * id, 40, 0.01 * id) for id in range(20)]


def small() -> CheckingFactory:
    return CheckingFactory(num_blocks=40, block_size=4)


def measured(system: System, factory: CheckingFactory, requests: list[Request] | None = None) -> SystemResult:
    return measure("system", Bench(system, factory).run(requests or REQUESTS).log.events, Slo())


def total(result: SystemResult, account: str, role: str = "") -> float:
    ledger = result.ledger
    return float(ledger.loc[ledger["role"].str.startswith(role), f"{account}_s"].sum())


def seconds(result: SystemResult, instance: str, account: str) -> float:
    found: dict[str, float] = result.summary["ledger"]["instances"][instance]
    return found[f"{account}_s"]


def slow_predictor(is_parallel: bool) -> Any:
    def build(self: PrefillPredictor, engine: Engine, clock: Clock, spare_core: int | None) -> LengthPredictor:
        return Slow(clock, 0.01, is_parallel)

    return mock.patch.object(PrefillPredictor, "build", build)


@pytest.mark.parametrize("make", [vllm_like, sarathi_like])
def test_colocated_instances_compute_or_have_no_work(make: Any) -> None:
    result = measured(make(2, max_num_seqs=8), small())
    assert set(result.ledger.columns[result.ledger.ne(0).any()]) == {
        *("role", "num_devices", "provisioned_s", "prefill_s", "decode_s", "work_s")
    }
    assert result.summary["ledger"]["unattributed_s"] == 0.0


def test_a_full_decode_instance_leaves_the_prefill_instance_without_memory() -> None:
    result = measured(tetri(preemption=Preemption.swap), small())
    assert total(result, "memory", "prefill") > 0.1 > total(result, "memory", "decode")


def test_with_plenty_of_memory_nobody_waits_for_it() -> None:
    assert total(measured(tetri(), CheckingFactory()), "memory") == 0.0


def test_a_slow_link_keeps_both_of_its_ends() -> None:
    slow = measured(tetri(link=LinkSpeed(bandwidth_bytes_per_s=1e5, latency_s=1e-4)), CheckingFactory())
    fast = measured(tetri(), CheckingFactory())
    for role in ("prefill", "decode"):
        assert total(slow, "transfer", role) > 2 * total(fast, "transfer", role) > 0


def test_a_predictor_counts_where_it_runs_alone() -> None:
    with slow_predictor(is_parallel=False):
        alone = measured(tetri(), CheckingFactory())
    with slow_predictor(is_parallel=True):
        beside = measured(tetri(), CheckingFactory())
    assert total(alone, "predictor", "prefill") == pytest.approx(20 * 0.01)
    assert 0 < total(beside, "predictor", "prefill") < 20 * 0.01
    assert total(alone, "predictor", "decode") == 0.0


def test_an_instance_that_cannot_hand_over_while_it_drains_flips() -> None:
    result = measured(tetri(num_prefill=2, num_decode=2, churn=["0.15 flip prefill-1"]), small())
    assert result.summary["resources"]["num_flips"] == 1
    assert seconds(result, "prefill-1", "flip") > 0 == seconds(result, "prefill-0", "flip")


def test_losses_and_departures_have_their_accounts() -> None:
    churn = ["0.103 kill prefill-0", "0.2 add decode", "0.22 remove decode-1"]
    slow = LinkSpeed(bandwidth_bytes_per_s=1e5, latency_s=1e-4)
    result = measured(tetri(num_prefill=2, num_decode=2, churn=churn, link=slow), CheckingFactory())
    assert 0 < seconds(result, "prefill-0", "lost") < 0.103
    assert seconds(result, "decode-1", "shut_down") > 0


def test_a_lost_instance_is_provisioned_until_it_is_lost() -> None:
    result = measured(tetri(num_decode=2, churn=["0.1 kill decode-1"]), CheckingFactory())
    assert seconds(result, "decode-1", "provisioned") == pytest.approx(0.1)


@profile
@given(workloads(), memories(), tetris(), loops, flips, st.integers(1, 3), st.integers(1, 3), st.booleans(), st.data())
def test_whatever_happens_the_ledger_balances(
    requests: list[Request],
    factory: CheckingFactory,
    changes: dict[str, Any],
    loop: Loop,
    flip: Any,
    num_prefill: int,
    num_decode: int,
    is_parallel: bool,
    data: st.DataObject,
) -> None:
    num_decode += num_prefill == num_decode == 1
    churn = data.draw(churns(num_prefill, num_decode))
    changes |= {"num_prefill": num_prefill, "num_decode": num_decode, "flip": flip, "churn": churn}
    bench = Bench(tetri(**changes), factory)
    with slow_predictor(is_parallel):
        bench.run_only(requests, loop)
    result = measure("system", bench.log.events, Slo())
    assert (result.ledger.drop(columns="role") >= 0).all().all()
    assert result.requests["busy_device_s"].sum() > 0
