"""Runs that are planned, done again, and not done again."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tetribench.engine.hf.schema as schema
from tetribench.core.units import GIB
from tetribench.engine.sharing import MPS_CONTROL
from tetribench.passport import find_done, passport
from tetribench.rerun import _outside

Command = Callable[..., int]

RUN = ("+workload=lpld", "runtime=sim", "workload.num_requests=6", "repeats=2")


def test_a_run_of_virtual_time_is_repeated_to_the_byte(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = ("engine.step_noise=0.1", "system.tetri.churn=['0.5 add decode']")
    assert tetribench(*RUN, *noisy, "name=before") == 0
    assert tetribench("task=rerun", f"task.run={tmp_path / 'before'}", "name=after") == 0
    assert "identical to the byte" in capfd.readouterr().out
    log = next((tmp_path / "before").glob("repeats/1/*/events.jsonl"))
    log.write_bytes(log.read_bytes() + log.read_bytes().splitlines(keepends=True)[-1])
    assert tetribench("task=rerun", f"task.run={tmp_path / 'before'}", "name=once_more") == 1
    place = log.relative_to(tmp_path / "before")
    assert f"not identical to the byte: {place}" in capfd.readouterr().err.replace("\n", "")


def test_ratios_that_left_their_interval_are_named() -> None:
    def document(ratio: float, low: float | None) -> dict[str, Any]:
        test = {"low": low, "high": None if low is None else low + 0.2}
        return {"comparison": [{"title": "Mean JCT", "tests": {"tetri": test}, "ratios": {"tetri": ratio}}]}

    assert _outside(document(1.1, 1.0), document(1.15, 1.0)) == []
    assert _outside(document(1.1, 1.0), document(1.3, 1.2)) == ["Mean JCT of tetri is 1.3, and was in [1, 1.2]"]
    assert _outside(document(1.1, None), document(1.3, None)) is None


def test_what_is_no_run_cannot_be_repeated(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench("task=rerun", f"task.run={tmp_path}") == 2
    assert "not a run folder" in capfd.readouterr().err


def test_a_plan_counts_servings_and_starts_nothing(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("+workload=lpld", "workload.num_requests=6", "repeats=5", "system.tetri.num_decode=2")
    assert tetribench("task=plan", *options, "aa_band=true") == 0
    said = capfd.readouterr().out
    rows = {
        line.split()[0]: line.split()[1:4] for line in said.splitlines() if line.strip().startswith(("tetri", "vllm"))
    }
    assert rows == {"tetri": ["3", "3", "10"], "vllm_like": ["2", "2", "10"]}
    assert "20 servings, about " in said and "Nothing was started." in said
    assert list(tmp_path.iterdir()) == []
    assert tetribench("task=plan", *options, "workload.num_requests=0") == 2


def test_servers_of_others_are_planned_and_not_predicted(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "python").touch()
    options = ("+workload=lpld", "workload.num_requests=6", f"system.vllm_server.python={tmp_path / 'python'}")
    assert tetribench("task=plan", *options, "systems=[vllm_like,vllm_server]") == 0
    said = capfd.readouterr().out
    (row,) = [line for line in said.splitlines() if line.strip().startswith("vllm_server")]
    assert row.split()[1:3] == ["2", "2"] and "not predicted" in row


def test_systems_on_one_gpu_are_planned(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two instances are refused there, unless they share it."""
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: SimpleNamespace(total_memory=10 * GIB))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / MPS_CONTROL).touch(mode=0o755)
    options = ("+workload=lpld", "workload.num_requests=6", "engine.attention=sdpa")
    assert tetribench("task=plan", *options) == 2
    refused = capfd.readouterr().err
    assert refused.count("\n") == 1 and "instances on 2 GPUs, and this machine has 1" in refused
    sharing = ("system.vllm_like.num_instances=1", "system.tetri.sharing=mps")
    assert tetribench("task=plan", *options, *sharing) == 0
    said = capfd.readouterr().out
    (row,) = [line for line in said.splitlines() if line.strip().startswith("tetri")]
    assert row.split()[1:3] == ["2", "1"] and "not predicted" in row


@pytest.mark.parametrize("runtime", ["process", "inline"])
def test_a_divided_gpu_is_planned_where_instances_are_in_one_process(
    runtime: str, tetribench: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setattr(schema, "is_installed", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    properties = SimpleNamespace(total_memory=10 * GIB, multi_processor_count=132)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    options = ["+workload=lpld", "workload.num_requests=6", "engine.attention=sdpa", f"runtime={runtime}"]
    options += ["system.vllm_like.num_instances=1", "system.tetri.sharing=green_contexts"]
    assert tetribench("task=plan", *options) == 0
    said = capfd.readouterr().out
    (row,) = [line for line in said.splitlines() if line.strip().startswith("tetri")]
    assert row.split()[1:3] == ["2", "1"] and "not predicted" in row
    assert tetribench("task=plan", *options, "system.tetri.prefill_share=0.97") == 2
    assert "must be at least 0.061 and below 0.97" in capfd.readouterr().err


def test_servers_of_others_are_refused_in_virtual_time(tetribench: Command, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("openai_server", "vllm_server", "vllm_pd"):
        assert tetribench("+workload=lpld", "runtime=sim", f"systems=[tetri,{name}]") == 2
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert f"system.{name}: " in line and "runtime=sim" in line


def test_what_is_done_is_not_done_again(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tetribench.passport.commit", lambda: {"commit": "abc", "dirty": False})
    for _ in range(2):
        assert tetribench(*RUN, "resume=true") == 0
    assert "is this run, done already" in capfd.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1
    assert tetribench(*RUN, "resume=true", "seed=1") == 0
    (first, second) = sorted(tmp_path.iterdir())
    (first / "status.json").write_text(json.dumps({"state": "interrupted", "reason": None}))
    assert tetribench(*RUN, "resume=true") == 0
    assert len(list(tmp_path.iterdir())) == 3 and second.exists()


def test_a_passport_is_of_what_has_an_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tetribench.passport.commit", lambda: {"commit": "abc", "dirty": True})
    one = passport({"seed": 0, "out": "a", "name": "x"}, "f")
    assert one == passport({"seed": 0, "out": "b", "name": None}, "f")
    assert one != passport({"seed": 1, "out": "a", "name": "x"}, "f") and one != passport({"seed": 0}, "g")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"passport": one}))
    (folder / "status.json").write_text(json.dumps({"state": "complete"}))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text("{")
    assert find_done(tmp_path, one) is None, "uncommitted changes are never the same"
    clean = one | {"dirty": False}
    (folder / "run.json").write_text(json.dumps({"passport": clean}))
    assert find_done(tmp_path, clean) == folder
