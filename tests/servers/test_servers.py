"""Servers of others, played by a small one in this process: what comes back, and how what goes wrong is told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.servers.fake import FakeServer
from tests.support.builders import request
from tetribench.control.route import LeastRequests
from tetribench.core.clock import WallClock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.drive.loadgen import Client, ClosedLoop
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.model import Model
from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.metrics.timeline import token_times
from tetribench.servers.api import Api
from tetribench.servers.fleet import OnDeath
from tetribench.servers.http import Http
from tetribench.systems.served import served_plan
from tetribench.systems.stack import Stack

pytestmark = pytest.mark.alone

ENGINE = HFEngine(model=Model(name="tiny"))


class Fakes:
    """A fleet of fake servers, in the order of the instances."""

    def __init__(self, *servers: FakeServer) -> None:
        self.servers = servers

    def build(self, log_folder: Path) -> "Fakes":
        return self

    async def start(self, specs: list[InstanceSpec], http: Http, on_death: OnDeath) -> dict[str, str]:
        self.on_death = on_death
        return {spec.name: server.address for spec, server in zip(specs, self.servers, strict=True)}

    def facts(self, spec: InstanceSpec) -> dict[str, Any]:
        return {"num_devices": 1}

    def kill(self, name: str) -> None:
        raise AssertionError("nobody is killed here")

    async def stop(self) -> None:
        """Each ends with its test."""


class Run:
    def __init__(self) -> None:
        self.log = EventLog()
        self.outputs: dict[int, list[int]] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.log.events if event.kind is kind]

    def reasons(self) -> dict[int, str]:
        return {event.requests[0]: event.details["reason"] for event in self.of(EventKind.FAILED)}


def served(
    servers: list[FakeServer],
    requests: list[Request],
    roles: dict[Role, int] | None = None,
    api: Api | None = None,
    num_warm_up: int = 0,
    num_at_start: int = 0,
) -> Run:
    run = Run()

    async def main() -> None:
        clock, fleet = WallClock(), Fakes(*servers)
        plan = served_plan(
            roles or {Role.colocated: len(servers)}, ENGINE, LeastRequests(), fleet, api or Api(), num_warm_up
        )
        assert plan.launch is not None
        stack = Stack(plan, plan.launch.build(clock, Path(), num_at_start), clock, run.log)
        client = Client(clock=clock, log=run.log, stall_timeout_s=20.0)
        contexts = [server.serving() for server in servers]
        for context in contexts:
            await context.__aenter__()
        try:
            run.facts = await stack.start(client.deliver, client.fail)
            await client.run(requests, ClosedLoop(concurrency=4), stack)
        finally:
            await stack.stop()
            run.outputs = client.outputs
            for context in contexts:
                await context.__aexit__(None, None, None)

    asyncio.run(asyncio.wait_for(main(), 30.0))
    return run


def prompt(id: int, first: int = 5, num_output: int = 6, **others: Any) -> Request:
    return request(id, 3, num_output, prompt_ids=(first, 6, 7), **others)


def test_those_that_take_requests_have_connections_before_any_comes() -> None:
    servers = [FakeServer(), FakeServer()]
    roles = {Role.prefill: 1, Role.decode: 1}
    run = served(servers, [prompt(id) for id in range(4)], roles, num_at_start=6)
    assert len(run.of(EventKind.FINISHED)) == 4
    assert servers[0].most_waiting == 6 and servers[1].most_waiting <= 4


def test_the_first_requests_have_no_more_connections_than_they_need() -> None:
    servers = [FakeServer(), FakeServer(), FakeServer()]
    served(servers, [prompt(0)], num_at_start=10)
    assert [server.most_waiting for server in servers] == [4, 4, 4]


def test_tokens_come_back_and_the_router_spreads_requests() -> None:
    servers = [FakeServer(), FakeServer()]
    run = served(servers, [prompt(id) for id in range(8)])
    assert run.outputs == {id: list(range(100, 106)) for id in range(8)} and not run.reasons()
    assert all(len(server.bodies) >= 2 for server in servers)
    assert len(run.of(EventKind.ROUTED)) == len(run.of(EventKind.FINISHED)) == 8
    assert servers[0].bodies[0] == {
        "model": "model", "prompt": [5, 6, 7], "max_tokens": 6, "stream": True, "temperature": 0.0,
        "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    assert not run.of(EventKind.PREFILL_STARTED) and not run.of(EventKind.ITERATION)


def test_tokens_of_one_chunk_have_one_time() -> None:
    run = served([FakeServer(tokens_per_chunk=3)], [prompt(0, num_output=8)])
    assert run.outputs == {0: list(range(100, 108))}
    (times,) = (found.tolist() for found in token_times(run.log.events).values())
    assert len(times) == 8
    assert all(max(part) - min(part) < 0.01 for part in (times[:3], times[3:6], times[6:]))


def test_without_token_ids_chunks_are_counted() -> None:
    run = served([FakeServer(has_token_ids=False)], [prompt(0)])
    assert run.outputs == {0: [0] * 6} and len(run.of(EventKind.FINISHED)) == 1


FAULTS = {
    "429": "HTTP 429: .*no.* room",
    "500": "HTTP 500: ",
    "too few": r"5 tokens of 6 \(finish_reason length\)",
    "dies": "connection lost: |the stream ended before it was done",
    "silent": "nothing came for 0.3 s",
    "error": "the server broke off: out of luck",
    "nonsense": "what came is no completion: ",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_says_why_and_the_others_go_on(fault: str) -> None:
    requests = [prompt(0), prompt(1, first=13), prompt(2)]
    run = served([FakeServer(fault)], requests, api=Api(timeout_s=0.3))
    assert run.reasons().keys() == {1}
    with pytest.raises(ValueError, match=FAULTS[fault]):
        raise ValueError(run.reasons()[1])
    assert {event.requests[0] for event in run.of(EventKind.FINISHED)} == {0, 2}


def test_more_tokens_than_were_asked_for_are_a_failure() -> None:
    """If they come with the last one; else they come too late, and are found where the server's count is compared."""
    run = served([FakeServer("too many", tokens_per_chunk=4)], [prompt(0, first=13), prompt(1)])
    assert run.reasons() == {0: "more than the 6 tokens that were asked for"} and run.outputs[1][-1] == 105


def test_all_tokens_are_a_response_however_the_stream_ends() -> None:
    run = served([FakeServer("no end")], [prompt(0, first=13)])
    assert run.outputs == {0: list(range(100, 106))} and not run.reasons()


def test_a_stop_without_a_token_ends_a_response_that_may_stop() -> None:
    class Stopping(FakeServer):
        async def _complete(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
            await super()._complete(writer, body | {"max_tokens": body["max_tokens"] - 2})

    run = served([Stopping("stops")], [prompt(0, first=13, natural_stop=True), prompt(1, first=13)])
    assert [event.details for event in run.of(EventKind.FINISHED)] == [{"num_output_tokens": 4}]
    assert run.reasons() == {1: "4 tokens of 6 (finish_reason stop)"}


def test_what_a_server_says_of_itself_is_recorded() -> None:
    run = served([FakeServer()], [prompt(0), prompt(1)], num_warm_up=2)
    facts = run.facts["colocated-0"]
    assert (facts["num_blocks"], facts["block_size"], facts["is_opaque"]) == (100, 16, True)
    (counted,) = run.of(EventKind.COUNTED)
    assert (counted.details["num_prompt_tokens"], counted.details["num_output_tokens"]) == (6, 12)


def test_a_failed_warm_up_fails_the_start() -> None:
    class Full(FakeServer):
        async def _complete(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
            self._answer(writer, 503, "full")

    with pytest.raises(InstanceFailed, match="colocated-0: a request to warm it up has failed: HTTP 503: full"):
        served([Full()], [prompt(0)], num_warm_up=1)


def test_a_server_that_is_not_there_fails_each_request() -> None:
    class Gone(FakeServer):
        async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

    run = served([Gone()], [prompt(0), prompt(1)])
    assert run.reasons().keys() == {0, 1} and "connection lost" in run.reasons()[0]


def test_prefill_and_decode_apart() -> None:
    servers = [FakeServer(), FakeServer(), FakeServer()]
    run = served(servers, [prompt(id) for id in range(6)], roles={Role.prefill: 1, Role.decode: 2}, num_warm_up=1)
    assert run.outputs == {id: list(range(100, 106)) for id in range(6)}
    prefill, *decodes = servers
    counted = [event.details for event in run.of(EventKind.COUNTED)]
    assert sum(one["num_prompt_tokens"] for one in counted) == 6 * 3, "each prompt once, where it was computed"
    assert sum(one["num_output_tokens"] for one in counted) == 6 * 6, "without the one that prefill must yield"
    assert {(body["max_tokens"], body["stream"]) for body in prefill.bodies} == {(1, False)}
    assert all(body["kv_transfer_params"]["do_remote_decode"] for body in prefill.bodies)
    assert all(body["kv_transfer_params"] == {"remote_port": 7} for one in decodes for body in one.bodies)
    assert [len(one.bodies) for one in decodes] != [7, 0] and sum(len(one.bodies) for one in decodes) == 7


def test_kv_that_is_not_handed_over_is_a_failure() -> None:
    run = served(
        [FakeServer("keeps its KV"), FakeServer()], [prompt(0, first=13)], roles={Role.prefill: 1, Role.decode: 1}
    )
    assert run.reasons() == {0: "prefill-0 prefilled it and did not say where its KV is"}


def test_the_key_is_sent_and_not_shown() -> None:
    server, api = FakeServer(), Api(key="secret")
    served([server], [prompt(0)], api=api)
    assert server.headers[0]["authorization"] == "Bearer secret" and "secret" not in repr(api)
