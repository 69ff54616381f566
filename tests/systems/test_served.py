"""Servers of others as the user configures them: what they are made of, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import CheckingFactory
from tetribench.control.route import LeastRequests
from tetribench.core.roles import Role
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.model import Model
from tetribench.systems import served
from tetribench.systems.openai_server import OpenAIServer
from tetribench.systems.vllm_pd import VllmPD
from tetribench.systems.vllm_server import VllmServer

ENGINE = HFEngine(model=Model(name="tiny"))
Kind = type[OpenAIServer] | type[VllmServer] | type[VllmPD]


@pytest.fixture
def python(tmp_path: Path) -> str:
    (tmp_path / "python").touch()
    return str(tmp_path / "python")


def test_vllm_has_as_many_instances_as_its_like(python: str) -> None:
    plan = VllmServer(route=LeastRequests(), python=python).plan(ENGINE)
    assert [spec.name for spec in plan.instances] == ["colocated-0", "colocated-1"] and plan.num_devices == 2
    assert plan.launch is not None


def test_apart_it_has_one_of_each_role(python: str) -> None:
    plan = VllmPD(route=LeastRequests(), python=python).plan(ENGINE)
    assert {spec.name: spec.role for spec in plan.instances} == {"prefill-0": Role.prefill, "decode-0": Role.decode}


@pytest.mark.parametrize("kind", [OpenAIServer, VllmServer, VllmPD])
def test_a_cost_model_is_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"must be with engine=hf, not runtime=sim$"):
        kind(route=LeastRequests()).plan(CheckingFactory())


@pytest.mark.parametrize("kind", [OpenAIServer, VllmServer, VllmPD])
def test_an_engine_of_several_ranks_is_refused(kind: Kind) -> None:
    engine = HFEngine(model=Model(name="tiny"), tensor_parallel=2)
    with pytest.raises(ValueError, match=r"^engine.tensor_parallel=2: system\.\w+ does not pass it on to its servers"):
        kind(route=LeastRequests()).plan(engine)


@pytest.mark.parametrize("kind", [VllmServer, VllmPD])
def test_without_an_interpreter_it_says_how_to_get_one(kind: type[VllmServer] | type[VllmPD]) -> None:
    with pytest.raises(ValueError, match=r"\.python=nowhere/python: there is no such interpreter; `make peers`"):
        kind(route=LeastRequests(), python="nowhere/python").plan(ENGINE)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (VllmServer, "num_instances", 0),
        (VllmServer, "max_num_seqs", 0),
        (VllmServer, "start_timeout_s", 0.0),
        (VllmServer, "num_warm_up", -1),
        (VllmPD, "num_prefill", 0),
        (VllmPD, "num_decode", 0),
        (VllmPD, "num_warm_up", -1),
        (OpenAIServer, "timeout_s", 0.0),
        (OpenAIServer, "num_warm_up", -1),
        (OpenAIServer, "base_url", "localhost:8000"),
        (OpenAIServer, "base_url", "http://localhost:8000"),
    ],
)
def test_what_cannot_be_is_refused(kind: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"\.{option}={value}: must be "):
        kind(route=LeastRequests(), **{option: value})


def test_a_key_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    system = OpenAIServer(route=LeastRequests(), api_key_env="NO_SUCH_KEY")
    with pytest.raises(ValueError, match=r"api_key_env=NO_SUCH_KEY: there is no such environment variable"):
        system.plan(ENGINE)
    monkeypatch.setenv("NO_SUCH_KEY", "secret")
    assert system.plan(ENGINE).launch is not None


def test_options_of_vllm_are_its_own() -> None:
    system = VllmServer(route=LeastRequests(), chunked_prefill=False, max_num_seqs=16, options=["--seed", "1"])
    assert system.options == ["--no-enable-chunked-prefill", "--max-num-seqs", "16", "--seed", "1"]


def test_draws_are_asked_for_as_our_engine_makes_them() -> None:
    assert served.sampling_of(ENGINE) == {"temperature": 0.0}
    drawing = HFEngine(model=Model(name="tiny"), temperature=0.7, top_k=5, seed=3)
    assert served.sampling_of(drawing) == {"temperature": 0.7, "top_p": 1.0, "seed": 3, "top_k": 5}
