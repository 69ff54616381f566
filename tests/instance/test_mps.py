"""The daemon of MPS: started before the instances of a run, and gone with them, whatever it does."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import tetri
from tests.systems.test_run_ahead import Machine
from tetribench.core.clock import WallClock
from tetribench.engine.sharing import MPS_CONTROL, Sharing
from tetribench.instance.launch import InstanceFailed
from tetribench.instance.mps import MpsDaemon
from tetribench.instance.process import ProcessLauncher

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for NVIDIA's on the PATH."""
    path = tmp_path / "bin" / MPS_CONTROL
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "mps_control.py"} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def daemons(folder: Path) -> list[int]:
    """Process ids of those that listen below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"mps_control.py\0-f" in command and f"CUDA_MPS_LOG_DIRECTORY={folder}".encode() in environment:
                found.append(int(entry.name))
    return found


def with_daemon(folder: Path, use: Callable[[MpsDaemon], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        daemon = MpsDaemon(folder / "pipes", folder / "logs")
        try:
            await daemon.start(20.0)
            await use(daemon)
        finally:
            await daemon.stop(1.0)

    asyncio.run(main())


def serve(folder: Path) -> tuple[int, int]:
    """Daemons that run while the instances do, and their logs."""

    async def main() -> tuple[int, int]:
        launcher = ProcessLauncher(clock=WallClock(), log_folder=folder)
        plan = tetri(sharing=Sharing.time_slicing).plan(Machine().factory())
        try:
            await launcher.start(replace(plan, sharing=Sharing.mps).instances, lambda message: None)
            return len(daemons(folder)), len(list(folder.glob("mps/daemon.log")))
        finally:
            await launcher.stop()

    return asyncio.run(main())


def test_it_runs_as_long_as_the_instances(tmp_path: Path) -> None:
    assert serve(tmp_path) == (1, 1)
    assert not daemons(tmp_path)


def test_instances_that_it_does_not_reach_are_no_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_FAULT", "no_clients")
    with pytest.raises(InstanceFailed, match=r"^system.tetri.sharing=mps: of 2 instances 0 are clients of MPS"):
        serve(tmp_path)
    assert not daemons(tmp_path)


def test_one_that_ends_at_once_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_FAULT", "ends")
    with pytest.raises(InstanceFailed, match=r"(?s)^nvidia-cuda-mps-control: ended with code 1.*no such device"):
        serve(tmp_path)


def test_one_that_does_not_quit_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_FAULT", "stays")

    async def use(daemon: MpsDaemon) -> None:
        assert len(daemons(tmp_path)) == 1

    with_daemon(tmp_path, use)
    assert not daemons(tmp_path)


def test_devices_are_chosen_for_the_daemon_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    daemon = MpsDaemon(tmp_path / "pipes", tmp_path / "logs")
    assert "CUDA_VISIBLE_DEVICES" not in daemon.client_environment
    assert daemon.client_environment["CUDA_MPS_PIPE_DIRECTORY"] == str(tmp_path / "pipes")


def test_what_was_not_started_is_stopped_all_the_same(tmp_path: Path) -> None:
    asyncio.run(MpsDaemon(tmp_path / "pipes", tmp_path / "logs").stop(1.0))
