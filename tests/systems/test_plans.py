from copy import copy
from typing import Any

import pytest

from tests.support.builders import sarathi_like, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.route import LeastRequests
from tetribench.core.roles import Role
from tetribench.engine.sharing import Sharing
from tetribench.systems.replicas import Replicas
from tetribench.systems.vllm_like import VllmLike


def test_tetri_has_prefill_and_decode_instances() -> None:
    factory, system = (
        CheckingFactory(),
        tetri(num_prefill=2, num_decode=3, report_period_s=0.5, broadcast_period_s=0.25),
    )
    plan = system.plan(factory)
    names = ["prefill-0", "prefill-1", "decode-0", "decode-1", "decode-2"]
    assert [(spec.name, spec.index) for spec in plan.instances] == list(zip(names, range(5), strict=True))
    assert [spec.role for spec in plan.instances] == [Role.prefill] * 2 + [Role.decode] * 3
    assert [spec.schedulers[spec.role] for spec in plan.instances] == [system.prefill] * 2 + [system.decode] * 3
    assert {spec.link for spec in plan.instances} == {system.link} and plan.broadcast_period_s == 0.25
    assert {spec.report_period_s for spec in plan.instances} == {0.5}
    assert all(spec.engine is factory for spec in plan.instances) and isinstance(plan.router, type(system.route))


@pytest.mark.parametrize("system", [vllm_like(2), sarathi_like(2)])
def test_colocated_systems_have_replicas_that_requests_go_to(system: Replicas) -> None:
    plan = system.plan(CheckingFactory())
    assert [spec.name for spec in plan.instances] == ["colocated-0", "colocated-1"]
    assert {spec.role for spec in plan.instances} == {Role.colocated} == plan.schedulers.keys()
    assert [spec.index for spec in plan.instances] == [0, 1]


def test_by_default_both_have_the_same_hardware_and_the_papers_period() -> None:
    replicas = VllmLike(scheduler=PrefillFirstPolicies(), route=LeastRequests())
    assert len(replicas.plan(CheckingFactory()).instances) == len(tetri().plan(CheckingFactory()).instances) == 2
    assert tetri().plan(CheckingFactory()).broadcast_period_s == 0.1


@pytest.mark.parametrize("option", ["num_prefill", "num_decode", "report_period_s", "broadcast_period_s"])
def test_a_system_of_nothing_is_refused(option: str) -> None:
    changes: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=rf"system\.tetri\.{option}=0: must be "):
        tetri(**changes)


def test_a_replica_at_least() -> None:
    with pytest.raises(ValueError, match=r"num_instances=0: must be at least 1"):
        vllm_like(0)


def test_by_default_every_instance_has_a_device() -> None:
    plan = tetri(num_prefill=2, num_decode=1).plan(CheckingFactory())
    assert [spec.device for spec in plan.instances] == [0, 1, 2] and plan.num_devices == 3


def test_a_prefill_and_a_decode_instance_may_share_one_and_its_memory() -> None:
    plan = tetri(num_prefill=2, num_decode=2, sharing=Sharing.time_slicing).plan(CheckingFactory(num_blocks=100))
    assert {spec.name: spec.device for spec in plan.instances} == {
        "prefill-0": 0,
        "prefill-1": 1,
        "decode-0": 0,
        "decode-1": 1,
    }
    assert (plan.num_devices, plan.num_sharing, plan.engine.num_blocks()) == (2, 2, 50)


def test_an_instance_that_comes_has_a_device_of_its_own() -> None:
    plan = tetri(num_decode=2, churn=["1 kill decode-0", "2 add decode"]).plan(CheckingFactory())
    assert (plan.num_devices, plan.most_devices, plan.num_sharing) == (3, 4, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_decode": 2}, r"system\.tetri\.sharing=time_slicing: .*num_prefill=1 and num_decode=2 must be equal"),
        ({"churn": ["1 add decode"]}, r"system\.tetri\.churn: with sharing=time_slicing .*must be empty"),
    ],
)
def test_devices_that_cannot_be_shared_so(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tetri(sharing=Sharing.time_slicing, **changes)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"system\.tetri\.prefill_share={share}: must be above 0 and below 1"):
        tetri(sharing=Sharing.green_contexts, prefill_share=share)


def test_a_share_without_a_division_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prefill_share=0.5: .*sharing=mps; must be null, or sharing=green_contexts"):
        tetri(sharing=Sharing.mps, prefill_share=0.5)


def test_on_a_divided_device_prefill_has_the_first_part() -> None:
    class Divided(CheckingFactory):
        part: int | None = None
        first_share: float | None = None

        def shared(self, num_instances: int, sharing: Sharing, first_share: float = 0.5) -> "Divided":
            own = copy(self)
            own.first_share = first_share
            return own

        def in_part(self, part: int) -> "Divided":
            own = copy(self)
            own.part = part
            return own

    system = tetri(num_prefill=2, num_decode=2, sharing=Sharing.green_contexts, prefill_share=0.75)
    engines = {spec.name: spec.engine for spec in system.plan(Divided()).instances}
    assert all(isinstance(engine, Divided) and engine.first_share == 0.75 for engine in engines.values())
    parts = {name: engine.part for name, engine in engines.items() if isinstance(engine, Divided)}
    assert parts == {"prefill-0": 0, "prefill-1": 0, "decode-0": 1, "decode-1": 1}
    assert {spec.engine.part for spec in tetri().plan(Divided()).instances if isinstance(spec.engine, Divided)} == {
        None
    }
