"""Any OpenAI-compatible server that runs already."""

import os

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.servers.api import MODEL, Api
from tetribench.servers.fleet import Elsewhere
from tetribench.systems.base import Plan
from tetribench.systems.served import check_positive, check_warm_up, real_engine, sampling_of, served_plan

OPTION = "system.openai_server"


class OpenAIServer:
    """The completions endpoint under `base_url`, which serves `model` on `num_devices` devices (nobody can read that).

    `api_key_env` names the environment variable that holds the key. `ignore_eos` and `return_token_ids` are for servers
    that know them, such as vLLM. A request fails after `timeout_s` in which nothing comes.
    """

    def __init__(
        self,
        *,
        route: Router,
        base_url: str = "http://127.0.0.1:8000/v1",
        model: str = MODEL,
        api_key_env: str | None = None,
        num_devices: int = 1,
        ignore_eos: bool = True,
        return_token_ids: bool = True,
        connect_timeout_s: float = 10.0,
        timeout_s: float = 120.0,
        num_warm_up: int = 3,
    ) -> None:
        if not base_url.startswith(("http://", "https://")) or not base_url.rstrip("/").endswith("/v1"):
            raise ValueError(f"{OPTION}.base_url={base_url}: must be http://HOST/v1 or https://HOST/v1")
        check_positive(OPTION, num_devices=num_devices, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s)
        check_warm_up(OPTION, num_warm_up)
        self.route = route
        self.address = base_url.rstrip("/").removesuffix("/v1")
        self.model = model
        self.api_key_env = api_key_env
        self.num_devices = num_devices
        self.ignore_eos = ignore_eos
        self.return_token_ids = return_token_ids
        self.connect_timeout_s = connect_timeout_s
        self.timeout_s = timeout_s
        self.num_warm_up = num_warm_up

    def plan(self, engine: EngineFactory) -> Plan:
        engine = real_engine(OPTION, engine)
        if self.api_key_env is not None and self.api_key_env not in os.environ:
            raise ValueError(f"{OPTION}.api_key_env={self.api_key_env}: there is no such environment variable")
        api = Api(
            model=self.model,
            key=None if self.api_key_env is None else os.environ[self.api_key_env],
            ignore_eos=self.ignore_eos,
            return_token_ids=self.return_token_ids,
            connect_timeout_s=self.connect_timeout_s,
            timeout_s=self.timeout_s,
            sampling=sampling_of(engine),
        )
        fleet = Elsewhere(self.address, self.num_devices)
        return served_plan({Role.colocated: 1}, engine, self.route, fleet, api, self.num_warm_up)
