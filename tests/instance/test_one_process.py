"""Instances that share a device from within one process: they serve as others do, and end together.

On the CPU there are no green contexts: two engine threads of one process take turns on a core.
"""

import asyncio
import os
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.hf.driver import MODELS, generate, tiny_engine
from tests.engine.test_cost_model import round_numbers, small
from tests.instance.breaking import Breaking
from tests.support.builders import request, tetri
from tests.support.factories import BesideCores
from tests.support.lives import assert_served
from tetribench.core.clock import WallClock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.messages import Broken, Message
from tetribench.core.request import Request
from tetribench.drive.loadgen import Client, OpenLoop
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.hf.models import load_model
from tetribench.engine.sharing import Sharing
from tetribench.instance.launch import InstanceFailed
from tetribench.instance.process import ProcessLauncher
from tetribench.systems.base import Plan
from tetribench.systems.stack import Stack

pytestmark = pytest.mark.alone

FAST = round_numbers(overhead_s=0.02, bytes_per_s=1e12, flops_per_s=1e12)
SLOW = CostModelFactory(model=small(), hardware=FAST)
"""An iteration takes 20 ms; there is nothing to load."""


def in_one_process(engine: EngineFactory, num_devices: int = 1) -> Plan:
    """Without the contexts, for which there must be a GPU."""
    plan = tetri(num_prefill=num_devices, num_decode=num_devices, sharing=Sharing.time_slicing).plan(engine)
    return replace(plan, sharing=Sharing.green_contexts)


class Served:
    """`requests` served by instances of `plan`, which have all ended; `meanwhile` is called 0.3 s after the start."""

    def __init__(
        self,
        plan: Plan,
        requests: SequenceOf[Request],
        folder: Path,
        meanwhile: Callable[[ProcessLauncher], None] = lambda launcher: None,
    ) -> None:
        self.log = EventLog()
        self.codes: dict[str, int | None] = {}
        asyncio.run(asyncio.wait_for(self._serve(plan, requests, folder, meanwhile), 60.0))

    async def _serve(
        self,
        plan: Plan,
        requests: SequenceOf[Request],
        folder: Path,
        meanwhile: Callable[[ProcessLauncher], None],
    ) -> None:
        clock = WallClock()
        client = Client(clock=clock, log=self.log, stall_timeout_s=20.0)
        launcher = ProcessLauncher(clock=clock, log_folder=folder, stop_timeout_s=30.0)
        stack = Stack(plan, launcher, clock, self.log)
        try:
            self.facts = await stack.start(client.deliver, client.fail)
            asyncio.get_running_loop().call_later(0.3, meanwhile, launcher)
            await client.run(requests, OpenLoop(), stack)
        finally:
            await stack.stop()
            self.outputs = client.outputs
            self.codes = {name: process.returncode for name, process in launcher._processes.items()}
            self.num_processes = len(set(launcher._processes.values()))

    def lost(self) -> dict[str, str]:
        """The reason by instance."""
        found: list[Event] = [event for event in self.log.events if event.kind is EventKind.INSTANCE_LOST]
        return {event.source: event.details["reason"] for event in found}


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("num_devices", [1, 2])
def test_two_engines_of_one_process_answer_as_the_model_does(name: str, num_devices: int, tmp_path: Path) -> None:
    prompts = [[(7 * id + 3 * position) % 512 for position in range(5 + 20 * id)] for id in range(6)]
    requests = [replace(request(id, len(prompt), 6), prompt_ids=tuple(prompt)) for id, prompt in enumerate(prompts)]
    served = Served(in_one_process(tiny_engine(MODELS[name]), num_devices), requests, tmp_path)
    loaded = load_model(MODELS[name], torch.device("cpu"), torch.float32, seed=0)
    loaded.set_attn_implementation("sdpa")
    assert served.outputs == {id: generate(loaded, prompt, 6) for id, prompt in enumerate(prompts)}
    assert served.num_processes == num_devices and set(served.codes.values()) == {0}
    logs = {path.name for path in tmp_path.glob("*.log")}
    assert logs == {f"prefill-{number}+decode-{number}.log" for number in range(num_devices)}
    assert {facts["sharing"] for facts in served.facts.values()} == {"green contexts, memory bandwidth shared"}
    assert {facts["num_sharing"] for facts in served.facts.values()} == {2}


def test_a_process_that_dies_takes_both_of_its_instances_along_and_others_serve(tmp_path: Path) -> None:
    requests = [request(id, 4, 40) for id in range(4)]
    served = Served(in_one_process(SLOW, 2), requests, tmp_path, lambda launcher: launcher.kill("decode-0"))
    assert set(served.lost()) == {"prefill-0", "decode-0"}
    assert all("process ended with code -9" in reason for reason in served.lost().values())
    assert served.codes == {"prefill-0": -9, "decode-0": -9, "prefill-1": 0, "decode-1": 0}
    assert_served(served.log.events, requests)


def test_an_instance_that_cannot_be_built_ends_the_start_with_its_own_reason(tmp_path: Path) -> None:
    plan = in_one_process(Breaking(model=small(), hardware=FAST))

    async def main() -> None:
        launcher = ProcessLauncher(clock=WallClock(), log_folder=tmp_path)
        try:
            with pytest.raises(InstanceFailed, match=r"^decode-0: engine.kv_memory_gib: nothing is left"):
                await launcher.start(plan.instances, lambda message: None)
        finally:
            await launcher.stop()
        assert launcher._processes["prefill-0"].returncode is not None

    asyncio.run(main())


def test_an_instance_that_breaks_ends_its_process_and_both_are_told(tmp_path: Path) -> None:
    factory = Breaking(model=small(), hardware=FAST)
    factory.when = "third"
    received: list[Message] = []
    plan = in_one_process(factory)
    requests = [request(0, 4, 40)]

    async def main() -> dict[str, int | None]:
        clock, log = WallClock(), EventLog()
        client = Client(clock=clock, log=log, stall_timeout_s=20.0)
        launcher = ProcessLauncher(clock=clock, log_folder=tmp_path)
        stack = Stack(plan, launcher, clock, log)
        try:
            await stack.start(client.deliver, client.fail)
            tell, launcher._on_message = launcher._on_message, received.append

            def also(message: Message) -> None:
                received.append(message)
                tell(message)

            launcher._on_message = also
            with pytest.raises(Exception, match="the device is gone"):
                await client.run(requests, OpenLoop(), stack)
            while sum(isinstance(message, Broken) for message in received) < 2:
                await asyncio.sleep(0.01)
        finally:
            await stack.stop()
        return {name: process.returncode for name, process in launcher._processes.items()}

    assert asyncio.run(asyncio.wait_for(main(), 60.0)) == {"prefill-0": 1, "decode-0": 1}
    reasons = {message.instance: message.reason for message in received if isinstance(message, Broken)}
    assert reasons["decode-0"].startswith("RuntimeError: the device is gone")
    assert reasons["prefill-0"].startswith("process ended with code 1")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_process_beside_a_gpu_has_the_cores_of_both_instances(tmp_path: Path) -> None:
    factory = BesideCores(model=small(), hardware=FAST)

    async def main() -> list[set[int]]:
        launcher = ProcessLauncher(clock=WallClock(), log_folder=tmp_path)
        try:
            await launcher.start(in_one_process(factory).instances, lambda message: None)
            return [os.sched_getaffinity(process.pid) for process in launcher._processes.values()]
        finally:
            await launcher.stop()

    first, second = asyncio.run(main())
    num_each = len(os.sched_getaffinity(0)) // 2
    assert first == second and len(first) == 2 * num_each
