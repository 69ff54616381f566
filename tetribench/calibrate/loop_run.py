"""The real instance loop at work: what its iterations take there, and what passes between one and the next.

The grid times an engine in a process that does nothing else. In a run, the control plane and the client take their part
of the machine, the loop schedules and sends messages between iterations, and that costs more the more sequences there
are. So some iterations are timed where they will be predicted: waves of requests, the same on each of some colocated
instances, which decode side by side until all of a wave end. The prompts of a wave differ in length, as those of a
workload do: an engine that gathers contexts of different lengths pads them, and that takes time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from scipy.optimize import nnls

from tetribench.calibrate.others import OtherPrograms
from tetribench.calibrate.steps import Step
from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.route import RoundRobin
from tetribench.core.clock import Clock
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.messages import TokenOutput, TokenRun
from tetribench.core.request import Request
from tetribench.engine.base import EngineFactory
from tetribench.instance.launch import Launcher
from tetribench.instance.runtime import Process
from tetribench.systems.stack import Stack
from tetribench.systems.vllm_like import VllmLike

BATCHES = (1, 2, 4, 8, 16, 24)
PROMPT_TOKENS = (32, 128, 384)
NUM_OUTPUT_TOKENS = 24
SHORTEST, LONGEST = 0.4, 2.5
"""Prompts of a wave beside the one in the middle; the lengths between them are a geometric row."""
NUM_REPEATS = 4
TRIMMED = 0.1
"""Of the times of a kind of iteration, this share at either end does not count towards the mean."""


@dataclass(slots=True)
class Wave:
    """Requests that are served together, as many on each instance, and what happened to them."""

    num_sequences: int
    num_prompt_tokens: int
    requests: list[Request]
    events: list[Event]
    others_share: float = 0.0
    """Of one core, what other programs took meanwhile."""


@dataclass(frozen=True, slots=True)
class LoopTimes:
    """Steps as the loop ran them with their mean seconds, the seconds between iterations, and those of a message.

    `others_share` is the part of one core that other programs took while that was measured, in the median wave.
    """

    steps: list[tuple[Step, float]]
    per_iteration_s: float
    per_sequence_s: float
    others_share: float
    message_s: float = 0.0


def run_loop(engine: EngineFactory, *, num_instances: int, log_folder: Path) -> LoopTimes:
    """Serve all waves, one after the other, on `num_instances` processes.

    Of the repeats of a wave that one counts which other programs disturbed least.
    """
    log = EventLog()
    system = VllmLike(scheduler=PrefillFirstPolicies(), route=RoundRobin(), num_instances=num_instances)
    served = list(waves(num_instances))

    async def main(clock: Clock, launcher: Launcher) -> None:
        client = _Client()
        stack = Stack(system.plan(engine.sized(num_instances)), launcher, clock, log)
        try:
            await stack.start(client.deliver, client.fail)
            for wave in served:
                others, started_s, num_events = OtherPrograms(), clock.now(), len(log.events)
                client.expect(wave.requests)
                for request in wave.requests:
                    stack.submit(request)
                await client.all_done()
                wave.others_share = others.since_s() / (clock.now() - started_s)
                wave.events = log.events[num_events:]
        finally:
            await stack.stop()

    Process().run(main, log_folder)
    return loop_times(least_disturbed(served), engine.block_size)


def waves(num_instances: int) -> Iterator[Wave]:
    """For every size of a batch and of a prompt, as many requests as fill that batch on every instance."""
    num_requests = 0
    for _ in range(NUM_REPEATS):
        for num_sequences in BATCHES:
            for num_prompt_tokens in PROMPT_TOKENS:
                lengths = [
                    size for size in prompt_lengths(num_sequences, num_prompt_tokens) for _ in range(num_instances)
                ]
                requests = [_request(num_requests + number, size) for number, size in enumerate(lengths)]
                num_requests += len(requests)
                yield Wave(num_sequences, num_prompt_tokens, requests, [])


def prompt_lengths(num: int, middle: int) -> list[int]:
    """So many lengths around one in the middle, the longest first."""
    if num == 1:
        return [middle]
    ratio = (SHORTEST / LONGEST) ** (1 / (num - 1))
    return [max(round(middle * LONGEST * ratio**number), 1) for number in range(num)]


def _request(id: int, num_prompt_tokens: int) -> Request:
    return Request(
        id=id,
        arrival_s=0.0,
        num_prompt_tokens=num_prompt_tokens,
        max_output_tokens=NUM_OUTPUT_TOKENS,
        prompt_ids=(0,) * num_prompt_tokens,
    )


def least_disturbed(served: Sequence[Wave]) -> list[Wave]:
    """One wave of each kind."""
    best: dict[tuple[int, int], Wave] = {}
    for wave in served:
        kind = wave.num_sequences, wave.num_prompt_tokens
        if kind not in best or wave.others_share < best[kind].others_share:
            best[kind] = wave
    return list(best.values())


class _Client:
    """Waits for the last token of every request of a wave."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def expect(self, requests: Sequence[Request]) -> None:
        self._open = {request.id for request in requests}
        self._ended.clear()

    def deliver(self, outputs: Sequence[TokenOutput], runs: Sequence[TokenRun]) -> None:
        assert not runs, "in real time no iterations are foreseen"
        self._open -= {output.request_id for output in outputs if output.is_last}
        if not self._open:
            self._ended.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._ended.set()

    async def all_done(self) -> None:
        await self._ended.wait()
        if self._error is not None:
            raise self._error


def loop_times(served: Sequence[Wave], block_size: int) -> LoopTimes:
    """Means by the kind of iteration: the decodes of a wave all run, and its prompt where that runs alone."""
    steps: list[tuple[Step, float]] = []
    gaps: defaultdict[int, list[float]] = defaultdict(list)
    for wave in served:
        decodes, alone = [], []
        for iterations in _by_instance(wave.events):
            full = [one for one in iterations if one.details["num_decode_tokens"] == wave.num_sequences]
            decodes += [_seconds(one) for one in full]
            gaps[wave.num_sequences] += [after.details["started_s"] - one.time_s for one, after in pairwise(full)]
            prefills = [one for one in iterations if one.details["num_prefill_tokens"]]
            if wave.num_sequences == 1:
                alone += [_seconds(one) for one in prefills]
        contexts = tuple(
            size + NUM_OUTPUT_TOKENS // 2 for size in prompt_lengths(wave.num_sequences, wave.num_prompt_tokens)
        )
        steps.append((Step((), contexts), _trimmed_mean(decodes)))
        if alone:
            steps.append((Step(((0, wave.num_prompt_tokens),)), _trimmed_mean(alone)))
    others_share = median(wave.others_share for wave in served)
    between = _line({num: _trimmed_mean(found) for num, found in gaps.items()})
    return LoopTimes(steps, *between, others_share, median(_messages_s(served)))


def _messages_s(served: Sequence[Wave]) -> Iterator[float]:
    """From the routing of a request until its idle instance takes it up: the first one that each gets in a wave."""
    for wave in served:
        routed = {event.requests[0]: event.time_s for event in wave.events if event.kind is EventKind.ROUTED}
        first: dict[str, Event] = {}
        for event in wave.events:
            if event.kind is EventKind.PREFILL_STARTED:
                first.setdefault(event.source, event)
        for event in first.values():
            yield event.time_s - routed[event.requests[0]]


def _by_instance(events: Sequence[Event]) -> Iterator[list[Event]]:
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.kind is EventKind.ITERATION:
            found[event.source].append(event)
    for iterations in found.values():
        yield sorted(iterations, key=lambda event: event.time_s)


def _seconds(iteration: Event) -> float:
    seconds: float = iteration.time_s - iteration.details["started_s"]
    return seconds


def _trimmed_mean(times: Sequence[float]) -> float:
    """The mean, as it is the sum of iterations that a request waits for, without the few that something held up."""
    num_cut = int(TRIMMED * len(times))
    return mean(sorted(times)[num_cut : len(times) - num_cut])


def _line(gaps: dict[int, float]) -> tuple[float, float]:
    """The gap of an iteration by its sequences: a constant and a slope, neither below zero."""
    (constant, slope), _ = nnls([[1.0, num] for num in gaps], list(gaps.values()))
    return float(constant), float(slope)
