"""The real vLLM, where its environment is: its tokens are those of `model.generate` on our weights."""

from pathlib import Path
from typing import Any

import pytest

from tests.peers import NO_VLLM, VLLM_PYTHON
from tests.support.builders import request
from tetribench.control.route import LeastRequests
from tetribench.core.events import EventKind, EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import ClosedLoop
from tetribench.drive.session import serve
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.instance.runtime import Inline
from tetribench.systems.base import System
from tetribench.systems.vllm_pd import VllmPD
from tetribench.systems.vllm_server import VllmServer

ENGINE = HFEngine(model=Model(name="tiny"), device=Device.cpu)
LENGTHS = (3, 40, 300, 33, 128, 5)

pytestmark = pytest.mark.skipif(not VLLM_PYTHON.is_file(), reason=NO_VLLM)


def prompt(id: int) -> Request:
    ids = tuple((37 * id + 11 * position) % 2000 + 5 for position in range(LENGTHS[id]))
    return request(id, len(ids), 12, prompt_ids=ids)


def generated(requests: list[Request]) -> dict[int, list[int]]:
    import torch

    from tetribench.engine.hf.models import load_model

    model: Any = load_model(ENGINE.model, torch.device("cpu"), torch.float32, ENGINE.seed)
    model.set_attn_implementation("eager")
    found = {}
    for one in requests:
        prompt_ids = torch.tensor([one.prompt_ids])
        ids = model.generate(prompt_ids, max_new_tokens=12, min_new_tokens=12, do_sample=False)
        found[one.id] = ids[0, one.num_prompt_tokens :].tolist()
    return found


@pytest.mark.parametrize(
    "system",
    [
        VllmServer(route=LeastRequests(), python=str(VLLM_PYTHON)),
        VllmPD(route=LeastRequests(), python=str(VLLM_PYTHON)),
    ],
    ids=lambda system: type(system).__name__,
)
def test_tokens_are_those_of_generate(system: System, tmp_path: Path) -> None:
    requests, log = [prompt(id) for id in range(len(LENGTHS))], EventLog()
    facts: dict[str, dict[str, Any]] = {}
    outputs = serve(
        system.plan(ENGINE.sized(2)),
        requests,
        ClosedLoop(concurrency=4),
        Inline(),
        log,
        tmp_path,
        stall_timeout_s=300.0,
        on_ready=facts.update,
    )
    assert outputs == generated(requests)
    assert not [event for event in log.events if event.kind is EventKind.FAILED]
    for each in facts.values():
        assert each["num_blocks"] * each["block_size"] == ENGINE.sized(2).num_blocks() * ENGINE.block_size
        assert each["dtype"] == "float32" and not each["prefix_caching"] and each["versions"]["vllm"]
    counted = [event.details["num_output_tokens"] for event in log.events if event.kind is EventKind.COUNTED]
    assert len(counted) == 2 and sum(counted) == 12 * len(requests)
