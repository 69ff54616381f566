"""vLLM as the paper compared against it: replicas that prefill and decode, prompts first, behind a router."""

from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.route import Router
from tetribench.engine.base import EngineFactory
from tetribench.instance.launch import InstanceSpec, Role
from tetribench.kv.links import Memory
from tetribench.systems.base import Plan

LOAD_PERIOD_S = 1.0
"""Nobody decides on a colocated instance's load reports; they are kept rare."""


class VllmLike:
    """`num_instances` colocated instances; two by default, the hardware of one prefill and one decode instance."""

    def __init__(self, *, scheduler: PrefillFirstPolicies, route: Router, num_instances: int = 2) -> None:
        if num_instances < 1:
            raise ValueError(f"system.vllm_like.num_instances={num_instances}: must be at least 1")
        self.scheduler = scheduler
        self.route = route
        self.num_instances = num_instances

    def plan(self, engine: EngineFactory) -> Plan:
        names = [f"colocated-{index}" for index in range(self.num_instances)]
        instances = [
            InstanceSpec(
                name=name,
                index=index,
                role=Role.colocated,
                scheduler=self.scheduler,
                engine=engine,
                link=Memory(),
                report_period_s=LOAD_PERIOD_S,
            )
            for index, name in enumerate(names)
        ]
        return Plan(instances=instances, router=self.route, entries=names, decodes=[], broadcast_period_s=LOAD_PERIOD_S)
