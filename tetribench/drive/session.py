"""One system, fresh, from start-up to stop, under one load."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tetribench.core.clock import Clock
from tetribench.core.events import EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import Client, Loop
from tetribench.instance.launch import Launcher
from tetribench.instance.runtime import Runtime
from tetribench.systems.base import Plan
from tetribench.systems.stack import Stack


def serve(
    plan: Plan,
    requests: SequenceOf[Request],
    loop: Loop,
    runtime: Runtime,
    log: EventLog,
    log_folder: Path,
    *,
    stall_timeout_s: float,
    on_ready: Callable[[dict[str, dict[str, Any]]], None] = lambda facts: None,
    on_progress: Callable[[int, int], None] = lambda num_ended, num_tokens: None,
    beside: Callable[[Clock], AbstractContextManager[None]] = lambda clock: nullcontext(),
) -> dict[int, list[int]]:
    """Token ids by request.

    `on_ready` is told the facts of each instance, `on_progress` the requests ended and the tokens so far; what
    processes print goes to `log_folder`. What `beside` makes of the run's clock is entered before anything starts, and
    left when all has stopped.
    """
    outputs: dict[int, list[int]] = {}

    async def main(clock: Clock, launcher: Launcher) -> None:
        own = launcher
        if plan.launch is not None:
            own = plan.launch.build(clock, log_folder, loop.num_at_start(requests))
        stack = Stack(plan, own, clock, log)
        client = Client(clock=clock, log=log, stall_timeout_s=stall_timeout_s, on_progress=on_progress)
        with beside(clock):
            try:
                on_ready(await stack.start(client.deliver, client.fail))
                await client.run(requests, loop, stack)
            finally:
                await stack.stop()
                outputs.update(client.outputs)

    runtime.run(main, log_folder)
    return outputs
