"""Fixtures for all tests."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tetribench import cli

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # triton reads it when it is imported, by whomever


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real traces, where they are; they are not part of the project."""
    folder = Path(os.environ.get("TETRIBENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the real traces: set TETRIBENCH_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _processes_only_alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances in processes want every core: the tests that start them are marked, and run when no other does."""

    async def refuse(*_: object) -> NoReturn:
        raise AssertionError("a test that starts instances in processes needs the mark `alone`")

    if request.node.get_closest_marker("alone") is None:
        monkeypatch.setattr("tetribench.instance.process.start_child", refuse)


@pytest.fixture
def tetribench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The command, in this process; its exit code. Runs go to `tmp_path`; systems are served once in a repeat, and the
    machine that tests run on does not decide whether a run counts.

    Hydra composes everything once more, beforehand, to see whether a configuration sets its mode. None does.
    """
    monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)

    def call(*arguments: str) -> int:
        asks_for_band = any(argument.startswith("aa_band=") for argument in arguments)
        once = [] if asks_for_band else ["aa_band=false"]
        if not any(argument.startswith("validity") for argument in arguments):
            once.append("validity=any_machine")
        monkeypatch.setattr("sys.argv", ["tetribench", *arguments, f"out={tmp_path}", "progress=false", *once])
        try:
            cli.main()
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            return ended.code
        return 0

    return call
