"""The whole experiment, small, on real processes."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tetribench.fidelity.machine import MachineState
from tetribench.fidelity.recording import Recording
from tetribench.fidelity.study import Redo

Command = Callable[..., int]

SMALL = ("+experiment=fidelity", "workload.num_requests=10", "workload.request_rate=20", "workload.length_scale=0.1")
EMULATED = "engine@task.engine=cost_model"
"""Real processes and messages, but iterations that only sleep."""
NAMES = {"fidelity", "fidelity_rows", "fidelity_errors", "fidelity_stages", "fidelity_ratios", "fidelity_runs"}


def call(tetribench: Command, folder: Path, *arguments: str) -> int:
    return tetribench(*SMALL, f"task.out={folder / 'out'}", f"task.recordings={folder / 'recordings'}", *arguments)


def test_processes_of_an_emulated_engine_and_resuming(
    tetribench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tetribench, tmp_path, EMULATED, "task.seeds=[0,1]") == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == NAMES
    runs = pd.read_csv(tmp_path / "out" / "fidelity_runs.csv")
    assert list(zip(runs["seed"], runs["system"], strict=True)) == [
        (seed, system) for seed in (0, 1) for system in ("tetri", "vllm_like")
    ]
    rows = (tmp_path / "out" / "fidelity_rows.csv").read_bytes()
    for facts in (tmp_path / "recordings").glob("vllm_like-1.*"):
        facts.rename(tmp_path / facts.name)
    capsys.readouterr()
    assert call(tetribench, tmp_path, EMULATED, "task.seeds=[0,1]") == 0
    assert capsys.readouterr().out.count("recorded at") == 3
    for facts in tmp_path.glob("vllm_like-1.*"):
        facts.rename(tmp_path / "recordings" / facts.name)
    assert call(tetribench, tmp_path, EMULATED, "task.seeds=[0,1]") == 0
    assert (tmp_path / "out" / "fidelity_rows.csv").read_bytes() == rows


def test_disturbed_runs_can_be_measured_again() -> None:
    made = {others: Recording("tetri", 0, [], MachineState(0.1, 0.1, others), "today") for others in (0.0, 0.5)}
    asked = {redo: [others for others, one in made.items() if redo.asks_for(one)] for redo in Redo}
    assert asked == {Redo.nothing: [], Redo.disturbed: [0.5], Redo.everything: [0.0, 0.5]}


def test_the_real_engine(tetribench: Command, tmp_path: Path) -> None:
    assert call(tetribench, tmp_path, "runtime@task.runtime=inline", "task.seeds=[0,1]") == 0
    errors = pd.read_csv(tmp_path / "out" / "fidelity_errors.csv")
    means = errors[(errors["class"] == "overall") & (errors["statistic"] == "mean")]
    assert {"ttft_s", "jct_s", "prefill_s", "decode_s"} <= set(means["metric"])
    assert (means["measured_s"] > 0).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.seeds=[0]", "task.seeds=[0]: an interval needs at least 2 different seeds"),
        ("runtime@task.runtime=sim", "runtime and task.runtime: the first must be sim, the second inline or process"),
        ("task.engine.kv_memory_gib=0.25", "hardware.kv_memory_gib: virtual time has"),
    ],
)
def test_bad_input_is_one_line(
    option: str, message: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(tetribench, tmp_path, EMULATED, option) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
