"""The load generator by itself: 1,000 requests a second, open loop, streamed back, from one core.

Lateness is from when a request was due to when it was sent. A null instance on the other cores answers each with 8
tokens, 10 ms apart.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from pytest_benchmark.fixture import BenchmarkFixture

from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import OpenLoop
from tetribench.drive.null_server import NullEngineFactory, NullServer
from tetribench.drive.session import serve
from tetribench.instance.runtime import Process

LATENESS, LOST = "load generator, 1,000 requests/s, p99 lateness", "load generator, 1,000 requests/s, lost"
NUM_ROUNDS = 5
NUM_REQUESTS = 8000
PER_S = 1000.0
NUM_OUTPUT_TOKENS = 8


@pytest.fixture
def cores() -> Iterator[tuple[set[int], set[int]]]:
    """That of the load generator, and the others."""
    first, *others = sorted(before := os.sched_getaffinity(0))
    if not others:
        pytest.skip("needs two cores: one for the load generator, one for what answers it")
    yield {first}, set(others)
    pin(before)


def pin(cores: set[int]) -> None:
    """All threads of this process, and those that they start."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def poisson(seed: int) -> list[Request]:
    arrivals_s = default_rng(seed).exponential(1.0 / PER_S, NUM_REQUESTS).cumsum()
    return [
        Request(id=id, arrival_s=float(arrival_s), num_prompt_tokens=128, max_output_tokens=NUM_OUTPUT_TOKENS)
        for id, arrival_s in enumerate(arrivals_s)
    ]


def lateness_s(events: list[Event]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of each request that was sent."""
    times: dict[EventKind, dict[int, float]] = {EventKind.ARRIVED: {}, EventKind.SENT: {}}
    for event in events:
        if event.kind in times:
            times[event.kind][event.requests[0]] = event.time_s
    sent = times[EventKind.SENT]
    return np.array([time_s - times[EventKind.ARRIVED][request] for request, time_s in sent.items()])


def test_lateness(cores: tuple[set[int], set[int]], benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    own, others = cores
    p99_ms: list[float] = []
    lost: list[int] = []

    def one_round() -> None:
        log, requests = EventLog(), poisson(seed=len(p99_ms))
        plan = NullServer(num_instances=1).plan(NullEngineFactory())
        pin(others)  # where the instance starts and stays
        serve(
            *(plan, requests, OpenLoop(), Process(), log, tmp_path),
            stall_timeout_s=60.0,
            on_ready=lambda _: pin(own),
        )
        p99_ms.append(1e3 * float(np.percentile(lateness_s(log.events), 99)))
        ended = [event for event in log.events if event.kind is EventKind.FINISHED]
        whole = sum(event.details["num_output_tokens"] == NUM_OUTPUT_TOKENS for event in ended)
        lost.append(NUM_REQUESTS - whole)

    benchmark.pedantic(one_round, rounds=NUM_ROUNDS)  # type: ignore[no-untyped-call]
    benchmark.extra_info["marks"] = [
        {"row": LATENESS, "rounds": p99_ms, "unit": "ms"},
        {"row": LOST, "rounds": lost, "unit": "requests"},
    ]
