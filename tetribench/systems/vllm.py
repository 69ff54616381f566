"""What the two systems of vLLM's servers have in common: they are started and stopped with the run."""

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.servers.api import Api
from tetribench.servers.vllm import VllmServers
from tetribench.systems.base import Plan
from tetribench.systems.served import (
    check_positive,
    check_warm_up,
    interpreter,
    real_engine,
    sampling_of,
    served_plan,
)


class VllmSystem:
    """Servers by their roles; `option` is where the system stands in the configuration."""

    def __init__(
        self,
        option: str,
        num_instances: dict[Role, int],
        *,
        route: Router,
        python: str,
        options: list[str],
        num_warm_up: int,
        start_timeout_s: float,
        timeout_s: float,
    ) -> None:
        check_positive(option, start_timeout_s=start_timeout_s, timeout_s=timeout_s)
        check_warm_up(option, num_warm_up)
        self._option = option
        self.num_instances = num_instances
        self.route = route
        self.python = python
        self.options = options
        self.num_warm_up = num_warm_up
        self.start_timeout_s = start_timeout_s
        self.timeout_s = timeout_s

    def plan(self, engine: EngineFactory) -> Plan:
        engine = real_engine(self._option, engine)
        servers = VllmServers(
            python=interpreter(self._option, self.python),
            engine=engine,
            options=self.options,
            start_timeout_s=self.start_timeout_s,
        )
        api = Api(timeout_s=self.timeout_s, sampling=sampling_of(engine))
        return served_plan(self.num_instances, engine, self.route, servers, api, self.num_warm_up)
