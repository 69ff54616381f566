"""What every child process has, seen from outside."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tetribench.core.clock import run_real
from tetribench.instance.child import NICENESS, start_child

pytestmark = pytest.mark.alone

MOST = 19
"""The niceness of whoever may wait longest."""


def test_a_child_and_what_it_starts_wait_for_us(tmp_path: Path) -> None:
    """Niceness, and the weight of their session where the system weighs those."""
    family = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(0, flush=True); input()'])"
    log = tmp_path / "log"

    async def main() -> None:
        child = await start_child([sys.executable, "-c", family], log)
        try:
            while not log.read_text():
                await asyncio.sleep(0.01)
            (grandchild,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            for process in (child.pid, int(grandchild)):
                ours = os.getpriority(os.PRIO_PROCESS, 0)
                assert os.getpriority(os.PRIO_PROCESS, process) == min(ours + NICENESS, MOST)
                session = Path(f"/proc/{process}/autogroup")
                assert not session.exists() or session.read_text().split()[-1] == str(NICENESS)
        finally:
            assert child.stdin is not None
            child.stdin.close()
            await child.wait()

    run_real(asyncio.wait_for(main(), 20.0))


@pytest.mark.parametrize(("error", "num_tries"), [(BlockingIOError, 3), (PermissionError, 1)])
def test_a_session_is_weighed_as_soon_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], num_tries: int
) -> None:
    tries: list[str] = []

    def refuse(path: Path, text: str) -> int:
        tries.append(text)
        if len(tries) < 3:
            raise error
        return len(text)

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr("tetribench.instance.child.SESSION_PERIOD_S", 0.001)

    async def main() -> None:
        child = await start_child([sys.executable, "-c", "input()"], tmp_path / "log")
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()

    run_real(asyncio.wait_for(main(), 20.0))
    assert tries == [str(NICENESS)] * num_tries


def test_whoever_is_interrupted_meanwhile_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[int] = []

    def interrupt(kind: int, process: int, niceness: int) -> None:
        children.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "setpriority", interrupt)

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            await start_child([sys.executable, "-c", "input()"], tmp_path / "log")
        while Path(f"/proc/{children[0]}").exists():
            await asyncio.sleep(0.01)

    run_real(asyncio.wait_for(main(), 20.0))


def test_one_that_has_ended_at_once_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "setpriority", gone)

    async def main() -> int:
        return await (await start_child([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")).wait()

    assert run_real(main()) == 3
