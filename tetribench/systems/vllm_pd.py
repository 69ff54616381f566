"""vLLM's own disaggregation: prefill servers and decode servers, KV over NIXL."""

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.servers.api import Api
from tetribench.servers.vllm import VllmServers
from tetribench.systems.base import Plan
from tetribench.systems.served import check_http, check_positive, interpreter, real_engine, sampling_of, served_plan

OPTION = "system.vllm_pd"


class VllmPD:
    """`num_prefill` and `num_decode` servers of vLLM, started and stopped with the run; the client is the proxy.

    It asks a prefill server for one token, which is dropped, and hands its answer to the decode server with the fewest
    requests, whose tokens count. On two cores this is a check of function, not of speed: each server has several
    processes that poll. Options as of `system.vllm_server`.
    """

    def __init__(
        self,
        *,
        route: Router,
        python: str = ".venv-vllm/bin/python",
        num_prefill: int = 1,
        num_decode: int = 1,
        options: list[str] | None = None,
        num_warm_up: int = 3,
        start_timeout_s: float = 600.0,
        timeout_s: float = 120.0,
    ) -> None:
        counts = {"num_prefill": num_prefill, "num_decode": num_decode}
        check_positive(OPTION, **counts, start_timeout_s=start_timeout_s, timeout_s=timeout_s)
        if num_warm_up < 0:
            raise ValueError(f"{OPTION}.num_warm_up={num_warm_up}: must be at least 0")
        self.route = route
        self.python = python
        self.num_instances = {Role.prefill: num_prefill, Role.decode: num_decode}
        self.options = options or []
        self.num_warm_up = num_warm_up
        self.start_timeout_s = start_timeout_s
        self.timeout_s = timeout_s

    def plan(self, engine: EngineFactory) -> Plan:
        engine = real_engine(OPTION, engine)
        check_http(OPTION)
        servers = VllmServers(
            python=interpreter(OPTION, self.python),
            engine=engine,
            options=self.options,
            start_timeout_s=self.start_timeout_s,
        )
        api = Api(timeout_s=self.timeout_s, sampling=sampling_of(engine))
        return served_plan(self.num_instances, engine, self.route, servers, api, self.num_warm_up)
