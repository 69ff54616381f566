"""The whole serving stack at work on a made-up load: what iterations take there, and what passes between them.

The grid times an engine in a process that does nothing else. In a run, the control plane and the client take their part
of the cores, the loop schedules and sends messages between iterations, other instances share the machine's memory, and
an instance that was idle finds its caches cold. So iterations are also timed where they will be predicted: colocated
instances, and one prefill instance with decode instances, serve requests of random lengths in a closed loop, at one
concurrency after the other.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import exp, log
from pathlib import Path

import numpy as np

from tetribench.calibrate.batches import RecordedBatch, recorded_batches
from tetribench.calibrate.watch import MachineState, quietest, watched
from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.flip import NoFlip
from tetribench.control.route import LeastQueuedTokens
from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.request import Request
from tetribench.decode.admit import Greedy
from tetribench.decode.scheduler import DecodePolicies
from tetribench.drive.loadgen import Client, ClosedLoop
from tetribench.engine.hf.schema import HFEngine
from tetribench.instance.launch import Launcher
from tetribench.instance.runtime import Process
from tetribench.kv.links import Memory
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import RandomDispatch
from tetribench.prefill.order import FCFS
from tetribench.prefill.predict import NoPrediction
from tetribench.prefill.predict_mode import Parallel
from tetribench.prefill.scheduler import PrefillPolicies
from tetribench.systems.base import System
from tetribench.systems.stack import Stack
from tetribench.systems.tetri import Tetri
from tetribench.systems.vllm_like import VllmLike

CONCURRENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Of the closed loops, one after the other; of all instances together."""
PROMPT_TOKENS = (4, 1024)
OUTPUT_TOKENS = (8, 96)
"""Bounds between which lengths are drawn, evenly on a logarithmic scale."""
MAX_REQUESTS = 400
"""Of one concurrency: far more than its time is enough for."""
STALL_TIMEOUT_S = 120.0


class ClosedForSeconds(ClosedLoop):
    """A closed loop that sends nothing more after `seconds`."""

    def __init__(self, *, concurrency: int, seconds: float) -> None:
        super().__init__(concurrency=concurrency)
        self.seconds = seconds

    async def send(self, requests: Sequence[Request], client: Client) -> None:
        until_s, waiting = client.now_s + self.seconds, deque(requests)
        while waiting and client.now_s < until_s:
            if client.num_in_system >= self.concurrency:
                await client.wait_for_ended()
            else:
                client.send(waiting.popleft(), client.now_s)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One system's run: its iterations by start, which instance each request was routed to and when, and what is known
    of the machine meanwhile."""

    name: str
    batches: list[RecordedBatch]
    routed: dict[int, tuple[str, float]]
    machine: MachineState

    @classmethod
    def of(cls, name: str, events: Sequence[Event], machine: MachineState) -> "Rehearsal":
        routed = {one.requests[0]: (one.details["to"], one.time_s) for one in events if one.kind is EventKind.ROUTED}
        return cls(name, recorded_batches(events), routed, machine)


def rehearse(
    engine: HFEngine,
    *,
    num_instances: int,
    chunk_size: int,
    seconds: float,
    log_folder: Path,
    max_attempts: int,
    known: list[MachineState],
) -> list[Rehearsal]:
    """Serve on `num_instances` processes for about `seconds`, `num_instances` of one kind, then of two kinds.

    Each again, at most `max_attempts` times in all, where the machine was not quiet as it was in `known`, which grows.
    """
    systems, sized = rehearsed_systems(num_instances, chunk_size), engine.sized(num_instances)

    def serve(name: str) -> Rehearsal:
        return Rehearsal.of(name, *serve_for(systems[name], sized, seconds / len(systems), log_folder))

    return [quietest(partial(serve, name), max_attempts, known)[0] for name in systems]


def rehearsed_systems(num_instances: int, chunk_size: int) -> dict[str, System]:
    """By name: `num_instances` colocated ones, and where there are several, one for prefill, in chunks of
    `chunk_size`, and the rest for decode."""
    route = LeastQueuedTokens()
    found: dict[str, System] = {
        "colocated": VllmLike(scheduler=PrefillFirstPolicies(), route=route, num_instances=num_instances)
    }
    if num_instances > 1:
        prefill = PrefillPolicies(
            order=FCFS(),
            chunk=Chunker(chunk_size=chunk_size),
            predict=NoPrediction(),
            predict_mode=Parallel(),
            dispatch=RandomDispatch(),
        )
        decode = DecodePolicies(admit=Greedy())
        found["split"] = Tetri(
            prefill=prefill, decode=decode, route=route, link=Memory(), flip=NoFlip(), num_decode=num_instances - 1
        )
    return found


def serve_for(
    system: System, engine: HFEngine, seconds: float, log_folder: Path, seed: int = 0
) -> tuple[list[Event], MachineState]:
    """Requests drawn with `seed` for about `seconds`: what happened, and what is known of the machine meanwhile."""
    events, requests = EventLog(), _requests(engine, seed)

    async def main(clock: Clock, launcher: Launcher) -> None:
        client = Client(clock=clock, log=events, stall_timeout_s=STALL_TIMEOUT_S)
        stack = Stack(system.plan(engine), launcher, clock, events)
        try:
            await stack.start(client.deliver, client.fail)
            for concurrency in CONCURRENCIES:
                loop = ClosedForSeconds(concurrency=concurrency, seconds=seconds / len(CONCURRENCIES))
                await client.run([next(requests) for _ in range(MAX_REQUESTS)], loop, stack)
        finally:
            await stack.stop()

    with watched() as machine:
        Process().run(main, log_folder)
    return events.events, machine


def _requests(engine: HFEngine, seed: int) -> Iterator[Request]:
    """Without end, by `seed`; none longer than the model or a quarter of an instance's KV memory holds."""
    most = min(engine.model.shape().max_context_tokens, engine.num_blocks() * engine.block_size // 4)
    generator = np.random.default_rng(seed)
    for id in count():
        num_prompt_tokens, num_output_tokens = (
            max(round(exp(generator.uniform(log(low), log(high)))), 1) for low, high in (PROMPT_TOKENS, OUTPUT_TOKENS)
        )
        num_prompt_tokens = min(num_prompt_tokens, most - num_output_tokens)
        yield Request(
            id=id,
            arrival_s=0.0,
            num_prompt_tokens=num_prompt_tokens,
            max_output_tokens=num_output_tokens,
            prompt_ids=(0,) * num_prompt_tokens,
        )
