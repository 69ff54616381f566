"""`task=collect_lengths`: the target model answers prompts, and how long its answers are is written down."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.route import RoundRobin
from tetribench.core.clock import Clock
from tetribench.core.events import EventLog
from tetribench.core.messages import Ended, TokenOutput, TokenRun
from tetribench.core.request import Request
from tetribench.drive.progress import progress
from tetribench.experiment import Composed, Prepared, Setup, prepare
from tetribench.instance.launch import Launcher
from tetribench.systems.stack import Stack
from tetribench.systems.vllm_like import VllmLike
from tetribench.training.lengths import Length, append, read_lengths


class CollectLengths:
    """Let the model answer the workload's prompts to its natural stop, and write each answer's length to `out`.

    One colocated instance serves them, up to `batch_size` at a time. Each line is written when its answer ends; the
    same command continues where an interrupted one stopped.
    """

    def __init__(self, *, out: str, batch_size: int = 16) -> None:
        if batch_size < 1:
            raise ValueError(f"task.batch_size={batch_size}: must be at least 1")
        self.out = Path(out)
        self.batch_size = batch_size

    def execute(self, composed: Composed, console: Console) -> None:
        built = composed.setup()
        if built.runtime.is_virtual:
            raise ValueError("runtime=sim: only a real model has response lengths; choose runtime=inline or process")
        policies = PrefillFirstPolicies(max_num_seqs=self.batch_size)
        system = VllmLike(scheduler=policies, route=RoundRobin(), num_instances=1)
        prepared = prepare(replace(built, systems={"collect_lengths": system}, natural_stop=True))
        if not prepared.requests.texts:
            raise ValueError("task=collect_lengths needs real prompts, as +workload=text has them")
        waiting = self._not_done(built, prepared)
        num_done = len(prepared.requests.requests) - len(waiting)
        console.print(f"{self.out}: {num_done} of {len(prepared.requests.requests)} prompts are there already")
        if waiting:
            self._serve(built, prepared, system, waiting, console)
        console.print(f"{self.out}: {len(read_lengths(self.out))} response lengths")

    def _not_done(self, setup: Setup, prepared: Prepared) -> list[Request]:
        """The requests without a line yet. Raises ValueError where the file is of another model or limit."""
        if not self.out.exists():
            self.out.touch()
        done = read_lengths(self.out)
        lines = self.out.read_bytes()
        if not lines.endswith(b"\n"):  # half a line: a write was cut off
            self.out.write_bytes(lines[: lines.rfind(b"\n") + 1])
        requests = prepared.requests
        mine = (setup.model.name, max(request.max_output_tokens for request in requests.requests))
        others = {(length.model, length.max_output_tokens) for length in done} - {mine}
        if others:
            raise ValueError(
                f"task.out={self.out}: holds lengths of {sorted(others)} (model, workload.max_output_tokens), "
                f"these would be of {mine}; choose another file"
            )
        prompts = {length.prompt for length in done}
        return [request for request in requests.requests if requests.texts[request.id] not in prompts]

    def _serve(
        self, setup: Setup, prepared: Prepared, system: VllmLike, requests: list[Request], console: Console
    ) -> None:
        with (
            TemporaryDirectory() as logs,
            progress(console, "collect_lengths", len(requests)) as on_progress,
        ):
            writer = _Writer(self.out, setup.model.name, prepared, requests, on_progress)

            async def main(clock: Clock, launcher: Launcher) -> None:
                stack = Stack(system.plan(prepared.engine), launcher, clock, EventLog())
                try:
                    await stack.start(writer.deliver, writer.fail)
                    for request in requests:
                        stack.submit(request)
                    await writer.all_done()
                finally:
                    await stack.stop()

            setup.runtime.run(main, Path(logs))


class _Writer:
    """Counts each response's tokens; its line is written when it has ended."""

    def __init__(
        self, out: Path, model: str, prepared: Prepared, requests: list[Request], on_progress: Callable[[int, int], Any]
    ) -> None:
        self._out = out
        self._model = model
        self._prepared = prepared
        self._open = {request.id: request for request in requests}
        self._num_tokens = dict.fromkeys(self._open, 0)
        self._num_requests = len(requests)
        self._on_progress = on_progress
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def deliver(self, outputs: Sequence[TokenOutput], runs: Sequence[TokenRun], ends: Sequence[Ended]) -> None:
        assert not runs and not ends, "lengths are collected in real time, on instances of our own"
        ended = []
        for output in outputs:
            self._num_tokens[output.request_id] += 1
            if output.is_last:
                ended.append(self._length(self._open.pop(output.request_id)))
        append(self._out, ended)
        self._on_progress(self._num_requests - len(self._open), sum(self._num_tokens.values()))
        if not self._open:
            self._ended.set()

    def _length(self, request: Request) -> Length:
        num_tokens = self._num_tokens[request.id]
        requests = self._prepared.requests
        return Length(
            prompt=requests.texts[request.id],
            source=requests.sources.get(request.id, requests.name),
            model=self._model,
            num_prompt_tokens=request.num_prompt_tokens,
            num_output_tokens=num_tokens,
            max_output_tokens=request.max_output_tokens,
            was_capped=num_tokens == request.max_output_tokens,
        )

    def fail(self, error: Exception) -> None:
        self._error = error
        self._ended.set()

    async def all_done(self) -> None:
        await self._ended.wait()
        if self._error is not None:
            raise self._error
