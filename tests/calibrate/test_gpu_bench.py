"""The bench: a budget for each part, and parts that fail, are cut or left out without taking others with them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tetribench.calibrate.gpu_bench import DEFAULT_MODEL, WORKLOADS, GpuBench
from tetribench.calibrate.parts import Outcome, Part, State, limit_of, run_part
from tetribench.config import conf_folder, register
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.engine.sharing import Sharing
from tetribench.experiment import Composed

TINY = Model(name="tiny", num_layers=1, hidden_size=32, ffn_size=64, num_heads=2, num_kv_heads=2, vocab_size=64)


def bench(tmp_path: Path, **changes: Any) -> GpuBench:
    engine = HFEngine(model=TINY, device=Device.cpu, kv_memory_gib=0.02)
    return GpuBench(engine=engine, out=str(tmp_path), name="mine", **changes)


class Typed:
    """A command line that says this."""

    def __init__(self, *overrides: str) -> None:
        self._overrides = list(overrides)

    def overrides(self) -> list[str]:
        return self._overrides


@given(st.lists(st.floats(0.1, 100.0), min_size=1), st.floats(0.0, 1e4), st.data())
def test_parts_never_take_more_than_there_is(weights: list[float], budget_s: float, data: st.DataObject) -> None:
    parts, left_s = [Part(name="p", arguments=(), weight=weight) for weight in weights], budget_s
    for index in range(len(parts)):
        limit_s = limit_of(parts[index:], left_s)
        assert 0.0 <= limit_s <= left_s * (1 + 1e-9) + 1e-9
        left_s -= limit_s * data.draw(st.floats(0.0, 1.0))
    assert left_s >= -1e-6


def test_what_a_part_saves_the_others_get() -> None:
    parts = [Part(name="p", arguments=(), weight=weight) for weight in (1.0, 3.0)]
    assert limit_of(parts, 100.0) == 25.0 and limit_of(parts[1:], 99.0) == 99.0
    assert limit_of(parts, -5.0) == 0.0


def test_a_part_that_fails_says_how(tmp_path: Path) -> None:
    part = Part(name="p", arguments=("+workload=none_such",), weight=1.0)
    outcome = run_part(part, 120.0, tmp_path / "p.log")
    assert outcome.state is State.failed and outcome.reason.startswith("exit code 2")
    assert "none_such" in outcome.reason


@pytest.mark.alone
def test_a_part_that_takes_too_long_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tetribench.calibrate.parts.GRACE_S", 0.5)
    forever = ("task=marks", "task.seconds=1000", "model=opt_tiny", "device=cpu", f"task.out={tmp_path}")
    outcome = run_part(Part(name="p", arguments=forever, weight=1.0), 1.0, tmp_path / "p.log")
    assert outcome.state is State.cut and outcome.reason == "its 1 s were over"


def test_a_part_without_what_it_needs_is_left_out(tmp_path: Path) -> None:
    part = Part(name="p", arguments=(), weight=1.0, needs=tmp_path / "profile.json")
    outcome = run_part(part, 10.0, tmp_path / "p.log")
    assert outcome.state is State.left_out and "needs profile.json" in outcome.reason
    assert not (tmp_path / "p.log").exists()


def test_a_part_takes_what_it_prefers_where_it_is_there(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    part = Part(name="p", arguments=("--help",), weight=1.0, prefers=profile, preferred=("+workload=none_such",))
    without = run_part(part, 120.0, tmp_path / "p.log")
    assert (without.state, without.reason) == (State.done, "without profile.json, which an earlier part did not write")
    profile.touch()
    with_it = run_part(replace(part, arguments=()), 120.0, tmp_path / "p.log")
    assert with_it.state is State.failed and "none_such" in with_it.reason


def test_every_part_goes_on_when_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([State.failed, *[State.done] * 50])

    def pretend(part: Part, limit_s: float, log: Path) -> Outcome:
        return Outcome(part.name, next(states), 1.0, limit_s, "why")

    monkeypatch.setattr("tetribench.calibrate.gpu_bench.run_part", pretend)
    console = Console(width=200, record=True)
    made = bench(tmp_path)
    made.execute(cast(Composed, Typed("task=gpu_bench")), console)
    kept = json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert [part["state"] for part in kept["parts"]] == ["failed", *["done"] * 11]
    assert [part["name"] for part in kept["parts"]] == [part.name for part in made.parts([])]
    assert kept["throughput_against_vllm"]["remark"].startswith("not run: task.vllm_python")
    assert "marks" in console.export_text() and kept["parts"][0]["reason"] == "why"


def test_every_part_is_a_command_that_composes(tmp_path: Path) -> None:
    """With the user's options, which the real engine of the fidelity experiment has in another place."""
    register()
    typed = ["task=gpu_bench", "task.name=mine", "device=cpu", "engine.graph_sequences=0", "model=opt_1b3"]
    parts = bench(tmp_path, vllm_python="python3").parts(typed)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = {part.name: compose("config", [*part.arguments, *part.preferred]) for part in parts}
    assert [part.name for part in parts][-2:] == ["fidelity", "vllm"]
    assert {config.model.name for config in composed.values()} == {"opt_1b3"}
    real = {name: config.task.engine if name == "fidelity" else config.engine for name, config in composed.items()}
    assert {(engine.device.value, engine.graph_sequences) for engine in real.values()} == {("cpu", 0)}
    assert all(str(tmp_path / "mine") in " ".join(part.arguments) for part in parts)


def test_where_there_is_one_gpu_each_system_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setattr(HFEngine, "num_gpus", 1)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = {part.name: compose("config", list(part.arguments)) for part in bench(tmp_path).parts([])}
    assert composed["profile"].task.num_busy == 1
    for name in (*WORKLOADS, "fidelity"):
        systems = composed[name].system
        assert systems.tetri.sharing is Sharing.time_slicing
        assert systems.vllm_like.num_instances == systems.sarathi_like.num_instances == 1


def test_the_model_is_that_of_the_command_line_without_one(tmp_path: Path) -> None:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        assert compose("config", ["+workload=lpld"]).model.name == DEFAULT_MODEL
    assert all(f"model={DEFAULT_MODEL}" in part.arguments for part in bench(tmp_path).parts(["device=cpu"]))


def test_throughput_is_held_against_vllm(tmp_path: Path) -> None:
    made, folder = bench(tmp_path, vllm_python="python3"), tmp_path / "mine" / "vllm" / "run"
    assert made._against_vllm().remark == "not run to its end; see the part vllm"
    folder.mkdir(parents=True)
    values = {"vllm_like": 95.0, "vllm_server": 100.0}
    row = {"metric": "output_throughput_tokens_per_s", "values": values}
    (folder / "metrics.json").write_text(json.dumps({"comparison": [{"metric": "mean_jct_s"}, row]}))
    assert made._against_vllm().is_met is True
    values["vllm_like"] = 89.0
    (folder / "metrics.json").write_text(json.dumps({"comparison": [row]}))
    assert made._against_vllm().is_met is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_s": 0.0}, r"^task.budget_s=0.0: must be positive$"),
        ({"seconds": -1.0}, r"^task.seconds=-1.0: must be positive$"),
        ({"num_requests": 0}, r"^task.num_requests=0: must be positive$"),
        ({"vllm_python": "/no/such"}, r"^task.vllm_python=/no/such: there is no such program"),
    ],
)
def test_what_cannot_be_benched_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench(tmp_path, **changes)
