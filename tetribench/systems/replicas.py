"""What the colocated systems are made of: equal instances that prefill and decode, behind a router."""

from tetribench.control.churn import parse_churn
from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.engine.predictor import NothingToPredict
from tetribench.instance.scheduler import SchedulerFactory
from tetribench.kv.links import Memory
from tetribench.systems.base import Plan

LOAD_PERIOD_S = 1.0
"""Nobody decides on a colocated instance's load reports; they are kept rare."""


class Replicas:
    """`num_instances` colocated instances; two by default, the hardware of one prefill and one decode instance.

    `churn` says what happens to them from outside, such as `2.5 kill colocated-0`.
    """

    def __init__(
        self,
        *,
        scheduler: SchedulerFactory,
        route: Router,
        num_instances: int = 2,
        churn: list[str] | None = None,
    ) -> None:
        if num_instances < 1:
            raise ValueError(f"num_instances={num_instances}: must be at least 1")
        self.scheduler = scheduler
        self.route = route
        self.num_instances = {Role.colocated: num_instances}
        self.churn = parse_churn("churn", churn or [], self.num_instances)

    def plan(self, engine: EngineFactory) -> Plan:
        return Plan(
            num_instances=self.num_instances,
            schedulers={Role.colocated: self.scheduler},
            engine=engine,
            predictor=NothingToPredict(),
            link=Memory(),
            router=self.route,
            report_period_s=LOAD_PERIOD_S,
            broadcast_period_s=LOAD_PERIOD_S,
            churn=self.churn,
        )
