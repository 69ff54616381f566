"""The whole experiment, small, on real processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from tests.profiles import write_profile
from tetribench.calibrate.watch import MachineState
from tetribench.engine.local_profile import LocalProfile
from tetribench.fidelity.recording import Key, Recording
from tetribench.fidelity.study import Redo

pytestmark = pytest.mark.alone

Command = Callable[..., int]

SMALL = (
    *("+experiment=fidelity", "hardware=cpu_core"),
    *("task.servings=1", "task.rehearsal_s=0"),
    *("workload.num_requests=10", "workload.request_rate=20", "workload.length_scale=0.1"),
)
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
    for facts in (tmp_path / "recordings").glob("vllm_like-1-0.*"):
        facts.rename(tmp_path / facts.name)
    capsys.readouterr()
    assert call(tetribench, tmp_path, EMULATED, "task.seeds=[0,1]") == 0
    assert capsys.readouterr().out.count("recorded at") == 3
    for facts in tmp_path.glob("vllm_like-1-0.*"):
        facts.rename(tmp_path / "recordings" / facts.name)
    assert call(tetribench, tmp_path, EMULATED, "task.seeds=[0,1]") == 0
    assert (tmp_path / "out" / "fidelity_rows.csv").read_bytes() == rows


def test_a_disturbed_run_is_repeated_and_the_quietest_kept(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 0 is measured in the order of the systems, seed 1 in the other."""
    others = iter([0.5, 0.3, 0.0, 0.0, 0.5, 0.0, 0.0])

    @contextmanager
    def watched() -> Iterator[MachineState]:
        yield MachineState(next(others), 0.1, 0.1)

    monkeypatch.setattr("tetribench.fidelity.study.watched", watched)
    arguments = (EMULATED, "runtime@task.runtime=inline", "task.seeds=[0,1]", "task.attempts=2")

    def runs() -> list[tuple[float, int, str]]:
        found = pd.read_csv(tmp_path / "out" / "fidelity_runs.csv")
        return list(zip(found["other_cores"], found["num_attempts"], found["quiet"], strict=True))

    assert call(tetribench, tmp_path, *arguments) == 0
    said = capsys.readouterr().out
    assert "tetri, seed 0, serving 0: not quiet in 2 attempts; the quietest is kept" in said
    assert "1 of 4 runs (the quietest of 6 attempts)" in " ".join(said.split())
    assert runs() == [(0.3, 2, "no"), (0.0, 1, "yes"), (0.0, 2, "yes"), (0.0, 1, "yes")]
    assert call(tetribench, tmp_path, *arguments, "task.redo=disturbed") == 0
    assert runs()[0] == (0.0, 3, "yes") and next(others, None) is None


def test_servings_come_in_rounds_and_both_orders(tetribench: Command, tmp_path: Path) -> None:
    inline = (EMULATED, "runtime@task.runtime=inline", "task.seeds=[0,1]", "task.servings=2")
    assert call(tetribench, tmp_path, *inline) == 0
    made = sorted((tmp_path / "recordings").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert [path.stem for path in made] == [
        *("tetri-0-0", "vllm_like-0-0", "vllm_like-1-0", "tetri-1-0"),
        *("vllm_like-0-1", "tetri-0-1", "tetri-1-1", "vllm_like-1-1"),
    ]
    errors = pd.read_csv(tmp_path / "out" / "fidelity_errors.csv")
    assert (errors["num_seeds"] <= 2).all() and errors["real_median"].notna().any()


def test_disturbed_runs_can_be_measured_again() -> None:
    made = {others: Recording(Key(0, "tetri", 0), [], MachineState(others, 0.1, 0.1), "today") for others in (0.0, 0.5)}
    asked = {redo: [others for others, one in made.items() if redo.asks_for(one, [])] for redo in Redo}
    assert asked == {Redo.nothing: [], Redo.disturbed: [0.5], Redo.everything: [0.0, 0.5]}


def test_the_real_engine(tetribench: Command, tmp_path: Path) -> None:
    assert call(tetribench, tmp_path, "runtime@task.runtime=inline", "task.seeds=[0,1]") == 0
    errors = pd.read_csv(tmp_path / "out" / "fidelity_errors.csv")
    means = errors[(errors["class"] == "overall") & (errors["statistic"] == "mean")]
    assert {"ttft_s", "jct_s", "prefill_s", "decode_s"} <= set(means["metric"])
    assert (means["measured_s"] > 0).all()


SLOW = {
    "name": "local cpu", "source": "made up", "memory_bytes": 4e9, "kv_memory_gib": 0.5, "bytes_per_s": 6e9,
    "bytes_per_value": 4, "overhead_s": 0.2, "kv_bytes_per_s": 6e8, "flops_per_s": 8e9, "attention_flops_per_s": 8e9,
    "per_prompt_s": 0.01, "per_sequence_s": 0.003, "batching_s": 0.05, "saturation_tokens": 20.0,
    "copy_bytes_per_s": 1e9, "host_bytes_per_s": 1e9,
}  # fmt: skip
"""By far slower than any machine."""


def virtual_jct_s(out: Path) -> "pd.Series[float]":
    """Mean JCT of the two systems."""
    errors = pd.read_csv(out / "fidelity_errors.csv")
    is_mean = (errors["class"] == "overall") & (errors["statistic"] == "mean") & (errors["metric"] == "jct_s")
    found: pd.Series[float] = errors[is_mean]["virtual_s"]
    assert len(found) == 2
    return found


def test_the_profile_is_fitted_again_on_rehearsals_between_the_runs(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tetribench.calibrate.rehearsal.CONCURRENCIES", (1, 4))
    slow = write_profile(tmp_path / "slow.json", SLOW)
    arguments = (
        *("hardware=local", f"hardware.path={slow}", "task.rehearsal_s=6", "task.seeds=[0,1]"),
        "runtime@task.runtime=inline",
    )
    assert call(tetribench, tmp_path, *arguments) == 0
    assert "hardware fitted again on 2 rehearsals between the runs" in " ".join(capsys.readouterr().out.split())
    profile = LocalProfile(path=str(tmp_path / "recordings" / "profile.json"))
    assert profile.overhead_s < 0.05
    assert profile.machines.keys() == {"colocated, round 0", "split, round 0"}
    virtual_s = virtual_jct_s(tmp_path / "out")
    rows = (tmp_path / "out" / "fidelity_rows.csv").read_bytes()
    assert call(tetribench, tmp_path, *arguments) == 0
    assert "rehearsing" not in capsys.readouterr().out
    assert (tmp_path / "out" / "fidelity_rows.csv").read_bytes() == rows
    assert call(tetribench, tmp_path, *arguments, "task.rehearsal_s=0") == 0
    assert (virtual_jct_s(tmp_path / "out") > virtual_s).all()  # the profile as it was


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.attempts=0", "task.attempts=0: must be at least 1"),
        ("task.servings=0", "task.servings=0: must be at least 1"),
        ("task.rehearsal_s=-1", "task.rehearsal_s=-1: must not be negative"),
        ("task.rehearsal_s=40", "task.rehearsal_s=40: rehearsals are of task.engine=hf, and hardware=local"),
        ("task.seeds=[0]", "task.seeds=[0]: an interval needs at least 2 different seeds"),
        ("runtime@task.runtime=sim", "runtime and task.runtime: the first must be sim, the second inline or process"),
        ("hardware=local", "hardware.path=reports/local/profile.json: there is no such file; write one with"),
        ("task.engine.kv_memory_gib=0.25", "hardware.kv_memory_gib: virtual time has"),
    ],
)
def test_bad_input_is_one_line(
    option: str,
    message: str,
    tetribench: Command,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(tetribench, tmp_path, EMULATED, option) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
