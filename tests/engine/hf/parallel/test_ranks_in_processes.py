"""Whole runs whose instances are workers with a rank each beside them: what happens when one of the ranks is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

NUM_REQUESTS = 12
RUN = [
    "+workload=lpld",
    f"workload.num_requests={NUM_REQUESTS}",
    "engine=hf",
    "device=cpu",
    "model=opt_tiny",
    "engine.tensor_parallel=2",
    "engine.kv_memory_gib=0.1",
    "runtime=process",
    "aa_band=false",
    "progress=false",
    "validity=any_machine",
    "name=run",
]
RANK = b"tetribench.engine.hf.parallel.follower"
WORKER = b"tetribench.instance.worker"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """Starts a run; what is left of it is killed in the end."""
    commands: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tetribench.cli", *RUN, *arguments, f"out={tmp_path}"]
        commands.append(subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()
        command.wait()


def events(folder: Path) -> list[dict[str, Any]]:
    """Of the run so far, without a line that is being written."""
    logs = list(folder.glob("run/repeats/0/*/events.jsonl"))
    lines = [line for log in logs for line in log.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_until(happened: Callable[[], object], command: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if happened():
            return
        assert command.poll() is None, command.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("not within a minute")


def children(parent: int, module: bytes) -> list[int]:
    """Process ids, in the order of starting."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(state[1]) == parent and module in command:
            found.append(int(entry.name))
    return sorted(found)


def ranks_of(command: "subprocess.Popen[str]") -> dict[str, int]:
    """The second rank of each instance, by the instance's name."""
    found = {}
    for worker in children(command.pid, WORKER):
        (rank,) = children(worker, RANK)
        found[Path(f"/proc/{worker}/fd/1").readlink().stem] = rank
    return found


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def decoding(folder: Path) -> bool:
    return [event["kind"] for event in events(folder)].count("first_token") >= 3


def test_a_run_that_cannot_do_without_the_instance_fails_and_says_why(started: Start, tmp_path: Path) -> None:
    command = started("systems=[tetri]")
    wait_until(lambda: decoding(tmp_path), command)
    ranks = ranks_of(command)
    assert set(ranks) == {"prefill-0", "decode-0"}
    os.kill(ranks["decode-0"], signal.SIGKILL)
    _, stderr = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "decode-0: RankLost: rank 1 of engine.tensor_parallel=2 ended with code -9" in stderr
    assert all(map(is_gone, ranks.values()))
    ends = [event for event in events(tmp_path) if event["kind"] in ("finished", "failed")]
    arrived = [event for event in events(tmp_path) if event["kind"] == "arrived"]
    assert len(ends) == len(arrived) and any(event["kind"] == "failed" for event in ends)


def test_a_run_with_another_instance_serves_its_requests_there(started: Start, tmp_path: Path) -> None:
    command = started("systems=[vllm_like]")
    wait_until(lambda: decoding(tmp_path), command)
    ranks = ranks_of(command)
    assert set(ranks) == {"colocated-0", "colocated-1"}
    os.kill(ranks["colocated-1"], signal.SIGKILL)
    _, stderr = command.communicate(timeout=120)
    assert command.returncode == 0, stderr
    assert all(map(is_gone, ranks.values()))
    (lost,) = [event for event in events(tmp_path) if event["kind"] == "instance_lost"]
    assert lost["source"] == "colocated-1"
    assert lost["details"]["reason"].startswith("RankLost: rank 1 of engine.tensor_parallel=2 ended with code -9")
    retried = {event["requests"][0] for event in events(tmp_path) if event["kind"] == "retried"}
    finished = {event["requests"][0] for event in events(tmp_path) if event["kind"] == "finished"}
    assert retried and finished == set(range(NUM_REQUESTS))


def test_no_rank_outlives_a_killed_launcher(started: Start, tmp_path: Path) -> None:
    command = started("systems=[vllm_like]", "system.vllm_like.num_instances=1")
    wait_until(lambda: decoding(tmp_path), command)
    (rank,) = ranks_of(command).values()
    command.kill()
    command.wait()
    for _ in range(200):
        if is_gone(rank):
            return
        time.sleep(0.05)
    raise AssertionError("a rank lives on without its launcher")
