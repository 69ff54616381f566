"""vLLM's own disaggregation: prefill servers and decode servers, KV over NIXL."""

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.systems.served import check_positive
from tetribench.systems.vllm import VllmSystem

OPTION = "system.vllm_pd"


class VllmPD(VllmSystem):
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
        check_positive(OPTION, num_prefill=num_prefill, num_decode=num_decode)
        super().__init__(
            OPTION,
            {Role.prefill: num_prefill, Role.decode: num_decode},
            route=route,
            python=python,
            options=options or [],
            num_warm_up=num_warm_up,
            start_timeout_s=start_timeout_s,
            timeout_s=timeout_s,
        )
