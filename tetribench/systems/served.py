"""What systems that are servers of others have in common."""

from pathlib import Path
from typing import Any

from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.predictor import NothingToPredict
from tetribench.kv.links import Memory
from tetribench.servers.api import Api
from tetribench.servers.launcher import FleetFactory, Served
from tetribench.systems.base import Plan

LOAD_PERIOD_S = 1.0
"""Servers report no loads."""


def real_engine(option: str, engine: EngineFactory) -> HFEngine:
    """Raises ValueError for anything that is not a real model on one device: servers are not told of more."""
    if not isinstance(engine, HFEngine):
        raise ValueError(f"{option}: a server of others computes in real time; must be with engine=hf, not runtime=sim")
    if engine.tensor_parallel > 1:
        raise ValueError(
            f"engine.tensor_parallel={engine.tensor_parallel}: {option} does not pass it on to its servers; must be 1"
        )
    return engine


def check_positive(option: str, **values: float) -> None:
    """Raises ValueError for the first that is not."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{option}.{name}={value}: must be positive")


def check_warm_up(option: str, num_warm_up: int) -> None:
    """Raises ValueError for a number of requests that there cannot be."""
    if num_warm_up < 0:
        raise ValueError(f"{option}.num_warm_up={num_warm_up}: must be at least 0")


def sampling_of(engine: HFEngine) -> dict[str, Any]:
    """As our engine draws its tokens; `seed` makes draws repeatable, not equal to ours."""
    if engine.temperature == 0:
        return {"temperature": 0.0}
    found = {"temperature": engine.temperature, "top_p": engine.top_p, "seed": engine.seed}
    return found if engine.top_k is None else found | {"top_k": engine.top_k}


def interpreter(option: str, python: str) -> Path:
    """Raises ValueError where there is none. Not resolved: an environment's interpreter is a link out of it."""
    path = Path(python).absolute()
    if not path.is_file():
        raise ValueError(f"{option}.python={python}: there is no such interpreter; `make peers` makes one with vLLM")
    return path


def served_plan(
    num_instances: dict[Role, int],
    engine: EngineFactory,
    route: Router,
    fleet: FleetFactory,
    api: Api,
    num_warm_up: int,
) -> Plan:
    """`engine` says what is served and how much KV memory each server has."""
    return Plan(
        num_instances=num_instances,
        schedulers={},
        engine=engine,
        predictor=NothingToPredict(),
        link=Memory(),
        router=route,
        report_period_s=LOAD_PERIOD_S,
        broadcast_period_s=LOAD_PERIOD_S,
        launch=Served(fleet, api, num_warm_up),
    )
