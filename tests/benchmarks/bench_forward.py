"""How much of an instance's time its model takes: the rest is scheduling, batches, sampling, events and messages.

An instance in a process of its own, as in a run, decodes 64 sequences; a round is a run. Of each iteration of 64
decodes the whole is the time from the end of the one before to its own, and the model's share what its forward pass
takes.
"""

import json
from itertools import pairwise
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.offline.cases import Work
from tests.benchmarks.offline.own import composed, requests_of
from tests.benchmarks.offline.watched import watched
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.drive.session import serve

ROW = "forward share of an iteration, opt_tiny, batch 64"
NUM_ROUNDS = 5
BATCH, CONTEXT, NUM_OUTPUT_TOKENS, BUDGET = 64, 128, 65, 2048


def shares(events: list[Event], forwards: list[list[float]]) -> list[float]:
    """Of each iteration of nothing but `BATCH` decodes that follows such a one; all times on the run's clock."""
    iterations = sorted((event for event in events if event.kind is EventKind.ITERATION), key=lambda one: one.time_s)
    found = []
    for before, own in pairwise(iterations):
        if all(one.details["num_decode_tokens"] == BATCH and "chunks" not in one.details for one in (before, own)):
            whole_s = own.time_s - before.time_s
            found.append(sum(end - start for start, end in forwards if before.time_s < end <= own.time_s) / whole_s)
    return found


def test_forward_share(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    setup = composed("opt_tiny", BUDGET, "process")
    requests = requests_of(Work(BATCH, CONTEXT, NUM_OUTPUT_TOKENS))
    rounds: list[float] = []

    def one_round() -> None:
        path = tmp_path / f"forwards-{len(rounds)}.json"
        plan, log = setup.systems["sarathi_like"].plan(watched(setup.engine.sized(1), path)), EventLog()
        serve(plan, requests, setup.drive, setup.runtime, log, tmp_path / "logs", stall_timeout_s=60.0)
        found = shares(log.events, json.loads(path.read_text()))
        rounds.append(sum(found) / len(found))

    benchmark.pedantic(one_round, rounds=NUM_ROUNDS)  # type: ignore[no-untyped-call]
    benchmark.extra_info["marks"] = [{"row": ROW, "rounds": rounds}]
