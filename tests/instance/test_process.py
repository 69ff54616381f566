"""Instances in processes of their own: they come up, serve, and are gone afterwards, however the run ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import OPTConfig, PreTrainedTokenizerFast

from tests.support.builders import tetri
from tests.support.factories import BesideCores
from tests.systems.test_run_ahead import Machine
from tetribench.core.clock import WallClock
from tetribench.engine.sharing import Sharing
from tetribench.instance.child import cores_of
from tetribench.instance.process import ProcessLauncher
from tetribench.systems.base import Plan

pytestmark = pytest.mark.alone

SLOW = [
    "+workload=lphd",
    "systems=[tetri]",
    "engine=cost_model",
    "hardware.overhead_s=0.05",
    "progress=false",
    "validity=any_machine",
]
"""Decodes for many seconds on processes that start quickly, because they need no model."""


Workers = Callable[[], set[int]]


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Process ids of all instances that descend from this test, which they are known by in their environment."""
    monkeypatch.setenv("TETRIBENCH_TEST_FOLDER", str(tmp_path))

    def found() -> set[int]:
        ids = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                except OSError:
                    continue
                if b"tetribench.instance.worker" in command and bytes(tmp_path) in environment:
                    ids.add(int(entry.name))
        return ids

    return found


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command in its own session; what is left of it is killed in the end.

    A shell has its background jobs ignore SIGINT, and what they start inherits that: not these.
    """
    commands: list[subprocess.Popen[str]] = []
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*arguments: str) -> "subprocess.Popen[str]":
        options = [f"out={tmp_path}", "name=run", "aa_band=false"]
        command = [sys.executable, "-m", "tetribench.cli", *arguments, *options]
        commands.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return commands[-1]

    yield start
    signal.signal(signal.SIGINT, heard)
    for process in commands:
        process.kill()
        process.wait()


def first_log(run: Path) -> Path:
    """Of the system that happens to be served first."""
    return next(run.glob("repeats/0/0-*/events.jsonl"))


def wait_for_tokens(folder: Path) -> None:
    """Until the first system has delivered something."""
    for _ in range(600):
        if any("first_token" in events.read_text() for events in folder.glob("repeats/0/*/events.jsonl")):
            return
        time.sleep(0.05)
    raise AssertionError("no token within 30 s")


def status(folder: Path) -> dict[str, str]:
    content: dict[str, str] = json.loads((folder / "status.json").read_text())
    return content


def test_a_killed_instance_fails_the_run_with_its_name(
    started: Callable[..., "subprocess.Popen[str]"], workers: Workers, tmp_path: Path
) -> None:
    command = started(*SLOW)
    wait_for_tokens(tmp_path / "run")
    victim = max(workers())
    os.kill(victim, signal.SIGKILL)
    _, stderr = command.communicate(timeout=20)
    assert command.returncode == 1
    assert "-0: process ended with code -9" in stderr
    assert "Traceback" not in stderr
    assert not workers()
    assert status(tmp_path / "run")["state"] == "failed"
    events = (first_log(tmp_path / "run")).read_text()
    assert events.count('"failed"') + events.count('"finished"') == events.count('"arrived"')


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_and_keeps_the_events(
    sent: signal.Signals, started: Callable[..., "subprocess.Popen[str]"], workers: Workers, tmp_path: Path
) -> None:
    command = started(*SLOW)
    wait_for_tokens(tmp_path / "run")
    command.send_signal(sent)
    _, stderr = command.communicate(timeout=20)
    assert command.returncode == 130
    assert stderr.count("\n") == 1
    assert not workers()
    assert status(tmp_path / "run")["state"] == "interrupted"
    assert "interrupted" in (first_log(tmp_path / "run")).read_text()
    again = [sys.executable, "-m", "tetribench.cli", "task=report", f"task.runs=[{tmp_path / 'run'}]"]
    subprocess.run(again, check=True, capture_output=True)
    assert "INTERRUPTED" in (tmp_path / "run" / "report.html").read_text().upper()


def test_workers_do_not_outlive_a_killed_launcher(
    started: Callable[..., "subprocess.Popen[str]"], workers: Workers, tmp_path: Path
) -> None:
    command = started(*SLOW)
    wait_for_tokens(tmp_path / "run")
    command.kill()
    command.wait()
    for _ in range(100):
        if not workers():
            return
        time.sleep(0.05)
    raise AssertionError("workers live on without their launcher")


def test_an_instance_that_does_not_come_up_in_time_fails_the_run(
    started: Callable[..., "subprocess.Popen[str]"], workers: Workers
) -> None:
    command = started(*SLOW, "runtime.start_timeout_s=0.01")
    _, stderr = command.communicate(timeout=20)
    assert command.returncode == 1
    assert "not ready after" in stderr
    assert "Traceback" not in stderr
    assert not workers()


def test_a_worker_that_cannot_build_its_engine_says_why(
    started: Callable[..., "subprocess.Popen[str]"], workers: Workers, tmp_path: Path
) -> None:
    """Weights that turn out to be missing when the instance loads them, which nothing before it does."""
    folder = tmp_path / "model"
    shape = OPTConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, ffn_dim=32, vocab_size=300)
    shape.save_pretrained(folder)
    letters = Tokenizer(BPE({chr(33 + index): index for index in range(90)}, []))
    PreTrainedTokenizerFast(tokenizer_object=letters).save_pretrained(folder)  # type: ignore[no-untyped-call]
    command = started(
        "+workload=lphd",
        "systems=[tetri]",
        "progress=false",
        "validity=any_machine",
        f"model.path={folder}",
        "device=cpu",
    )
    _, stderr = command.communicate(timeout=60)
    assert command.returncode == 1
    assert stderr.startswith("tetribench: ")
    assert "prefill-0.log" in stderr or "decode-0.log" in stderr
    assert not workers()


def test_cores_are_shared_out_without_overlap() -> None:
    assert [cores_of(index, 2, [4, 5, 6, 7, 8]) for index in range(2)] == [[4, 5], [6, 7]]
    assert [cores_of(index, 3, [0, 1]) for index in range(3)] == [[0], [1], [0]]


def cores_by_name(plan: Plan, workers: Workers, folder: Path) -> dict[str, set[int]]:
    """Those that each instance of `plan` is pinned to."""

    async def main() -> dict[str, set[int]]:
        launcher = ProcessLauncher(clock=WallClock(), log_folder=folder)
        try:
            await launcher.start(plan.instances, lambda message: None)
            ids = workers()
            return {Path(f"/proc/{id}/fd/1").readlink().stem: os.sched_getaffinity(id) for id in ids}  # by log
        finally:
            await launcher.stop()

    return asyncio.run(main())


def test_instances_on_one_device_are_pinned_to_one_core(workers: Workers, tmp_path: Path) -> None:
    plan = tetri(num_prefill=2, num_decode=2, sharing=Sharing.time_slicing).plan(Machine().factory())
    cores = cores_by_name(plan, workers, tmp_path)
    assert set(cores) == {"prefill-0", "prefill-1", "decode-0", "decode-1"}
    assert all(len(own) == 1 for own in cores.values())
    assert cores["prefill-0"] == cores["decode-0"] and cores["prefill-1"] == cores["decode-1"]
    if len(os.sched_getaffinity(0)) > 1:
        assert cores["prefill-0"] != cores["prefill-1"]


def test_instances_on_one_gpu_have_cores_of_their_own(workers: Workers, tmp_path: Path) -> None:
    factory = Machine().factory()
    plan = tetri(sharing=Sharing.time_slicing).plan(BesideCores(model=factory.model, hardware=factory.hardware))
    cores = cores_by_name(plan, workers, tmp_path)
    if len(os.sched_getaffinity(0)) > 1:
        assert not cores["prefill-0"] & cores["decode-0"]
