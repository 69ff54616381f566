"""Our engine, under its own scheduler and client, in one process."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from hydra import compose, initialize_config_dir

from tests.benchmarks.offline.answering import Do, answer
from tests.benchmarks.offline.cases import Course, Work, prompt_ids
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.core.clock import WallClock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import Client, OpenLoop
from tetribench.experiment import Setup
from tetribench.instance.inline import InlineLauncher
from tetribench.systems.stack import Stack


def composed(model: str, budget: int, runtime: str, graph_chunk_tokens: int = 0) -> Setup:
    """One colocated instance that computes prompts in chunks, in iterations of at most `budget` tokens."""
    register()
    overrides = [
        "+workload=lpld",
        f"runtime={runtime}",
        f"model={model}",
        "systems=[sarathi_like]",
        "system.sarathi_like.num_instances=1",
        f"system.sarathi_like.scheduler.max_num_batched_tokens={budget}",
        "engine.kv_memory_gib=1",
        f"engine.graph_chunk_tokens={graph_chunk_tokens}",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return Composition(compose("config", overrides), "").setup()


def requests_of(work: Work) -> list[Request]:
    return [
        Request(
            id=id,
            arrival_s=0.0,
            num_prompt_tokens=work.num_prompt_tokens,
            prompt_ids=tuple(prompt_ids(id, work.num_prompt_tokens)),
            max_output_tokens=work.num_output_tokens,
        )
        for id in range(work.batch)
    ]


def course_of(events: list[Event]) -> Course:
    """Tokens have come when the client has them."""
    tokens_s: defaultdict[int, list[float]] = defaultdict(list)
    for event in events:
        if event.kind in (EventKind.FIRST_TOKEN, EventKind.TOKEN):
            for request_id in event.requests:
                tokens_s[request_id].append(event.time_s)
    given_s = min(event.time_s for event in events if event.kind is EventKind.SENT)
    ends_s = [event.time_s for event in events if event.kind is EventKind.ITERATION]
    return Course(given_s, ends_s, list(tokens_s.values()))


@contextmanager
def start(model: str, budget: int, graph_chunk_tokens: int) -> Iterator[Do]:
    """The stack stays up; each work has a client of its own."""
    setup, clock, log = composed(model, budget, "inline", graph_chunk_tokens), WallClock(), EventLog()
    plan = setup.systems["sarathi_like"].plan(setup.engine.sized(1))
    stack = Stack(plan, InlineLauncher(clock), clock, log)

    def new_client() -> Client:
        return Client(clock=clock, log=log, stall_timeout_s=setup.stall_timeout_s)

    client = new_client()
    with asyncio.Runner() as runner:
        runner.run(stack.start(lambda *delivered: client.deliver(*delivered), lambda error: client.fail(error)))

        def do(work: Work) -> Course:
            nonlocal client
            client = new_client()
            log.events.clear()
            runner.run(client.run(requests_of(work), OpenLoop(), stack))
            return course_of(log.events)

        yield do
        runner.run(stack.stop())


if __name__ == "__main__":
    answer(start(sys.argv[1], *map(int, sys.argv[2:])))
