"""vLLM itself: colocated servers behind a router, as many as our baseline has instances."""

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.servers.api import Api
from tetribench.servers.vllm import VllmServers
from tetribench.systems.base import Plan
from tetribench.systems.served import check_http, check_positive, interpreter, real_engine, sampling_of, served_plan

OPTION = "system.vllm_server"


class VllmServer:
    """`num_instances` servers of vLLM, started and stopped with the run; two by default, as `vllm_like` has.

    `python` is an interpreter that has vLLM (`make peers`). Sizes that are null are vLLM's own defaults; KV memory,
    dtype and weights are those of `engine`. `options` are more of `vllm serve`. `num_warm_up` requests go to each
    server first; a request fails after `timeout_s` in which nothing comes.
    """

    def __init__(
        self,
        *,
        route: Router,
        python: str = ".venv-vllm/bin/python",
        num_instances: int = 2,
        chunked_prefill: bool = True,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        options: list[str] | None = None,
        num_warm_up: int = 3,
        start_timeout_s: float = 600.0,
        timeout_s: float = 120.0,
    ) -> None:
        check_positive(OPTION, num_instances=num_instances, start_timeout_s=start_timeout_s, timeout_s=timeout_s)
        sizes = {"max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
        given = {name: size for name, size in sizes.items() if size is not None}
        check_positive(OPTION, **given)
        if num_warm_up < 0:
            raise ValueError(f"{OPTION}.num_warm_up={num_warm_up}: must be at least 0")
        self.route = route
        self.python = python
        self.num_instances = {Role.colocated: num_instances}
        self.options = [] if chunked_prefill else ["--no-enable-chunked-prefill"]
        for name, size in given.items():
            self.options += [f"--{name.replace('_', '-')}", str(size)]
        self.options += options or []
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
