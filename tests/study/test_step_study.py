"""Figures 2 to 5 from the command line: of the cost model, or of an engine that is timed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Timing

Command = Callable[..., int]

REAL = ("runtime=process", "model=opt_tiny", "device=cpu")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every iteration takes 0.1 s; what the timer was asked for."""
    calls = []

    def time_steps(engine: Any, steps: Sequence[Step], **options: Any) -> tuple[list[Timing], None]:
        calls.append(options)
        return [Timing(0.1, 0.1, 0.1, 3, 0) for _ in steps], None

    monkeypatch.setattr("tetribench.study.timing.time_steps", time_steps)
    return calls


def test_of_the_papers_model_and_hardware_seconds_compare(
    tetribench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tetribench("+experiment=fig03") == 0
    table = pd.read_csv(tmp_path / "fig03.csv")
    assert (table["is_relative"] == 0).all()
    assert table["engine"].iloc[0] == "opt_13b on v100_tp2, the cost model's iterations"
    assert "on which the cost model was fitted" in " ".join(capsys.readouterr().out.split())


def test_of_other_hardware_they_do_not(tetribench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tetribench("+experiment=fig03", "hardware=cpu_core") == 0
    assert (pd.read_csv(tmp_path / "fig03.csv")["is_relative"] == 1).all()
    assert "as multiples of their series' first" in " ".join(capsys.readouterr().out.split())


def test_a_real_engine_is_timed(tetribench: Command, tmp_path: Path, timed: list[dict[str, Any]]) -> None:
    assert tetribench("+experiment=fig04", *REAL, "task.seconds=2") == 0
    table = pd.read_csv(tmp_path / "fig04.csv")
    assert (table["ours"] == 100).all() and (table["is_relative"] == 1).all()
    assert [(call["num_busy"], call["seconds"]) for call in timed] == [(1, 2.0)]


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("task.seconds=0",), "task.seconds=0.0: must be positive"),
        (("task.figure.figure=6",), "task.figure.figure=6: must be one of 2, 3, 4, 5"),
        ((*REAL, "engine.kv_memory_gib=0.05"), "blocks of KV, and the largest iteration of fig05 needs"),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...], message: str, tetribench: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench("+experiment=fig05", *options) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
