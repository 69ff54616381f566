"""The launcher of instances that are servers of others: requests go out over HTTP, tokens come back as messages.

A chunk that carries several tokens gives each of them the moment at which it came.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import Broken, Ended, Message, Progress, Ready, Submit, TokenOutput
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.core.units import ceil_div
from tetribench.instance.launch import InstanceFailed, InstanceSpec, Launcher
from tetribench.instance.post import CONTROL
from tetribench.servers.api import Api
from tetribench.servers.counts import Counts, parse_cache, parse_config, parse_counts
from tetribench.servers.fleet import Fleet
from tetribench.servers.http import Http
from tetribench.servers.refused import Refused
from tetribench.servers.tokens import Tokens

COMPLETIONS = "/v1/completions"

WARM_UP_TOKENS = 8
"""Of each response of the warm-up."""

WARM_UP_PROMPTS = (4, 64, 256)
"""Tokens of its prompts, in turn: what a server does lazily is often done once for each size."""

HAND_OVER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""Asks a prefill server of vLLM to keep the KV for a decode server; its answer says where it is."""


class FleetFactory(Protocol):
    def build(self, log_folder: Path) -> Fleet:
        """The servers of one serving; what they print goes to `log_folder`."""


class Served:
    """Makes launchers of servers that are spoken to by `api`; `num_warm_up` requests go to each before it is ready."""

    def __init__(self, fleet: FleetFactory, api: Api, num_warm_up: int) -> None:
        self.fleet = fleet
        self.api = api
        self.num_warm_up = num_warm_up

    def build(self, clock: Clock, log_folder: Path, num_at_start: int) -> Launcher:
        return ServerLauncher(self.fleet.build(log_folder), self.api, clock, self.num_warm_up, num_at_start)


class ServerLauncher:
    """Instances are opaque: what they do between a request and its tokens is not told.

    Where some are decode instances a request is prefilled by the one that it was routed to, and then decoded by the
    decode instance with the fewest. A request that a server refuses, loses or cuts short has failed; it does not begin
    again elsewhere, as it would not behind a load balancer.
    """

    def __init__(self, fleet: Fleet, api: Api, clock: Clock, num_warm_up: int, num_at_start: int) -> None:
        self._fleet = fleet
        self._api = api
        self._clock = clock
        self._num_warm_up = num_warm_up
        self._num_at_start = num_at_start
        self._http: Http | None = None
        self._urls: dict[str, str] = {}
        self._roles: dict[str, Role] = {}
        self._outputs: defaultdict[str, list[TokenOutput]] = defaultdict(list)
        """By the instance that a request was sent to, tokens that have come and are not yet told of."""
        self._decoding: Counter[str] = Counter()
        self._before: dict[str, Counts] = {}
        self._num_thrown_away: Counter[str] = Counter()
        """By prefill server its tokens since then: it must yield one, and the decode server yields it again."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_message: Callable[[Message], None] = lambda message: None
        self._is_stopping = False

    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        self._on_message = on_message
        self._http = Http(self._api, self._tell_outputs)
        self._roles = {spec.name: spec.role for spec in specs}
        self._urls = await self._fleet.start(specs, self._http, self._lose)
        entries = [name for name, role in self._roles.items() if role.takes_requests]
        await asyncio.gather(*(self._warm_up(name) for name in entries))
        ready = {spec.name: Ready(spec.name, await self._facts(spec), b"") for spec in specs}
        self._num_thrown_away.clear()
        for name in self._urls:
            counts = await self._counts(name)
            if counts is not None:
                self._before[name] = counts
        for name in entries:
            await self._http.open(self._urls[name], ceil_div(self._num_at_start, len(entries)))
        return ready

    async def join(self, spec: InstanceSpec) -> Ready:
        raise InstanceFailed(f"{spec.name}: no server is started while others serve")

    def _lose(self, name: str, reason: str) -> None:
        """Without one of both kinds, servers that work apart cannot go on: none of them becomes another."""
        if not self._is_stopping:
            is_alone = self._roles[name] is not Role.colocated
            self._on_message(Broken(CONTROL, f"{name}: {reason}") if is_alone else Broken(name, reason))

    async def _warm_up(self, entry: str) -> None:
        for number in range(self._num_warm_up):
            prompt = tuple(range(4, 4 + WARM_UP_PROMPTS[number % len(WARM_UP_PROMPTS)]))
            request = Request(
                id=number,
                arrival_s=0.0,
                num_prompt_tokens=len(prompt),
                max_output_tokens=WARM_UP_TOKENS,
                prompt_ids=prompt,
            )
            try:
                await self._begin(entry, Tokens(Submit(request), []))
            except Refused as refused:
                raise InstanceFailed(f"{entry}: a request to warm it up has failed: {refused}") from None

    async def _facts(self, spec: InstanceSpec) -> dict[str, Any]:
        """What the server says of itself, and what else is known. `predictor` is there as of every instance."""
        facts: dict[str, Any] = {"is_opaque": True, "predictor": "nothing to predict", **self._fleet.facts(spec)}
        metrics = await self._document(spec.name, "/metrics")
        if metrics:
            facts |= parse_cache(metrics.decode(errors="replace"))
        config = await self._document(spec.name, "/server_info?config_format=json")
        if config:
            facts |= parse_config(config)
        return facts

    async def _document(self, name: str, path: str) -> bytes:
        """Empty where the server does not have it."""
        assert self._http is not None
        try:
            return await self._http.get(self._urls[name] + path)
        except Refused:
            return b""

    async def _counts(self, name: str) -> Counts | None:
        return parse_counts((await self._document(name, "/metrics")).decode(errors="replace"))

    def send(self, to: str, message: Message) -> None:
        """Requests; what else control sends is about instances of our own."""
        if isinstance(message, Submit) and not self._is_stopping:
            tokens = Tokens(message, self._outputs[to])
            task = asyncio.create_task(self._serve(to, tokens, self._begin(to, tokens)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: str, tokens: Tokens, response: Awaitable[object]) -> None:
        """One request to its end, which is told even if its last token has told it already."""
        reason: str | None = None
        try:
            await response
            tokens.check_end()
        except Refused as refused:
            reason = str(refused)
        except Exception as error:
            self._on_message(Broken(CONTROL, f"{name}: {type(error).__name__}: {error}"))
            return
        self._on_message(Ended(name, tokens.request.id, tokens.attempt, reason))

    def _begin(self, name: str, tokens: Tokens) -> Awaitable[object]:
        """Send a request; what is returned is done when its response is, and raises Refused."""
        assert self._http is not None
        body, label = self._api.body(tokens.submitted), f"request-{tokens.request.id}-{tokens.attempt}"
        decodes = [other for other, role in self._roles.items() if role is Role.decode]
        if decodes:
            return self._hand_over(name, decodes, body, label, tokens)
        return self._http.stream(self._urls[name] + COMPLETIONS, body, label, tokens.take)

    async def _hand_over(self, name: str, decodes: list[str], body: dict[str, Any], label: str, tokens: Tokens) -> None:
        assert self._http is not None
        first = body | {"max_tokens": 1, "stream": False, "kv_transfer_params": HAND_OVER}
        answer = await self._http.post(self._urls[name] + COMPLETIONS, first, label)
        self._num_thrown_away[name] += 1
        handed = answer.get("kv_transfer_params")
        if not handed:
            raise Refused(f"{name} prefilled it and did not say where its KV is")
        decode = min(decodes, key=lambda other: (self._decoding[other], other))
        self._decoding[decode] += 1
        try:
            second = body | {"kv_transfer_params": handed}
            await self._http.stream(self._urls[decode] + COMPLETIONS, second, label, tokens.take)
        finally:
            self._decoding[decode] -= 1

    def _tell_outputs(self) -> None:
        """What has come at one time is one message for each instance."""
        for name, outputs in self._outputs.items():
            if outputs:
                self._on_message(Progress(name, outputs.copy()))
                outputs.clear()

    def catch_up(self) -> None:
        """In real time nothing is held back."""

    def kill(self, name: str) -> None:
        self._fleet.kill(name)

    async def leave(self, name: str) -> None:
        raise AssertionError("no server is told to drain")

    async def stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, before in self._before.items():
            counts = await self._counts(name)
            if counts is not None:
                said = counts.since(before)
                said["num_output_tokens"] -= self._num_thrown_away[name]
                if self._roles[name] is Role.decode:
                    said["num_prompt_tokens"] = 0  # those that it counts were computed where they came from
                event = Event(self._clock.now(), EventKind.COUNTED, name, (), said)
                self._on_message(Progress(name, events=[event]))
        await self._fleet.stop()
        if self._http is not None:
            await self._http.close()
