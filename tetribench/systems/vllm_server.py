"""vLLM itself: colocated servers behind a router, as many as our baseline has instances."""

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.systems.served import check_positive
from tetribench.systems.vllm import VllmSystem

OPTION = "system.vllm_server"


class VllmServer(VllmSystem):
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
        sizes = {"max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
        given = {name: size for name, size in sizes.items() if size is not None}
        check_positive(OPTION, num_instances=num_instances, **given)
        chunking = [] if chunked_prefill else ["--no-enable-chunked-prefill"]
        limits = [text for name, size in given.items() for text in (f"--{name.replace('_', '-')}", str(size))]
        super().__init__(
            OPTION,
            {Role.colocated: num_instances},
            route=route,
            python=python,
            options=[*chunking, *limits, *(options or [])],
            num_warm_up=num_warm_up,
            start_timeout_s=start_timeout_s,
            timeout_s=timeout_s,
        )
