"""Measuring for real, on a model that is smaller than the smallest."""

import json
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from tetribench.calibrate.copies import copy_bytes_per_s, host_bytes_per_s
from tetribench.calibrate.knee import chunk_sizes
from tetribench.calibrate.rehearsal import rehearse
from tetribench.calibrate.steps import Step
from tetribench.calibrate.task import Calibrate
from tetribench.calibrate.timer import time_steps
from tetribench.core.clock import WallClock
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.local_profile import LocalProfile
from tetribench.engine.model import Model
from tetribench.experiment import Composed
from tetribench.instance.launch import InstanceFailed


def tiny() -> HFEngine:
    model = Model(name="tiny", num_layers=1, hidden_size=32, ffn_size=64, num_heads=2, num_kv_heads=2, vocab_size=64)
    return HFEngine(model=model, device=Device.cpu, kv_memory_gib=0.02)


@pytest.mark.alone
def test_engines_in_processes_of_their_own_are_timed(tmp_path: Path) -> None:
    steps = [Step(((0, 16),)), Step(((0, 512),)), Step((), (40,) * 4), Step(((0, 32),), (20,))]
    timings, measured = time_steps(tiny().sized(2), steps, num_busy=2, seconds=0.2, log_folder=tmp_path)
    assert len(timings) == len(steps)
    assert all(0.0 < one.low_s <= one.seconds <= one.high_s for one in timings)
    assert timings[1].seconds > timings[0].seconds
    assert measured.facts["num_parameters"] > 0 and measured.copy_bytes_per_s > 1e6
    assert {path.name for path in tmp_path.iterdir()} == {"measure-0.log", "measure-1.log"}


@pytest.mark.alone
def test_a_measuring_process_that_ends_is_said(tmp_path: Path) -> None:
    too_long = Step((), (2000,) * 64)
    with pytest.raises(InstanceFailed, match="a measuring process ended with code 1; see "):
        time_steps(tiny().sized(1), [too_long] * 2, num_busy=1, seconds=0.1, log_folder=tmp_path)
    assert "Error" in (tmp_path / "measure-0.log").read_text()


@pytest.mark.alone
def test_copies_are_timed_even_in_a_small_memory() -> None:
    engine = tiny().sized(1).build(WallClock(), None)
    assert copy_bytes_per_s(engine, WallClock()) > 1e6
    assert host_bytes_per_s(engine, WallClock()) > 1e6
    engine.close()


@pytest.mark.alone
def test_a_machine_is_calibrated_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tetribench.calibrate.rehearsal.CONCURRENCIES", (1, 4))
    out = tmp_path / "local"
    task = Calibrate(
        engine=tiny(), out=str(out), num_busy=1, seconds=1.0, max_prefill_tokens=256, max_sequences=8, attempts=1,
        max_chunk_tokens=512,
    )  # fmt: skip
    console = Console(width=200, record=True)
    task.execute(cast(Composed, None), console)  # calibrating needs no workload
    said = console.export_text()
    assert "engine: " in said and "colocated: " in said and "left out: disturbed by others" in said
    profile = LocalProfile(path=str(out / "profile.json"))
    assert profile.per_iteration_s > 0.0 and profile.model_name == "tiny"
    kept = json.loads((out / "profile.json").read_text())
    assert kept["machine"].keys() == {"grid", "colocated"} and profile.machines == kept["machine"]
    assert kept["environment"]["machine"]["cores"] >= 1 and kept["num_busy"] == 1
    assert {step["num_samples"] >= 3 for step in kept["steps"]} == {True}
    chunk = kept["chunk"]
    assert [one["num_tokens"] for one in chunk["sweep"]] == chunk_sizes(512)
    assert profile.chunk_size == chunk["chunk_size"] and f"ChunkSize {profile.chunk_size}" in said
    assert max(one["tokens_per_s"] for one in chunk["sweep"]) == pytest.approx(chunk["best_tokens_per_s"])
    assert profile.fitted["prefill_tokens"] == 256  # the sweep goes further; nothing is fitted on it
    drawn = {f"{name}.{kind}" for name in ("residuals", "chunk_size") for kind in ("png", "svg")}
    assert {"residuals.csv", "profile.json", "logs", *drawn} == {one.name for one in out.iterdir()}


@pytest.mark.alone
def test_both_kinds_of_system_are_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is the same every time; how much of it is served depends on the machine."""
    monkeypatch.setattr("tetribench.calibrate.rehearsal.CONCURRENCIES", (1, 6))
    colocated, split = rehearse(
        tiny().sized(2), num_instances=2, chunk_size=256, seconds=2.0, log_folder=tmp_path, max_attempts=1, known=[]
    )
    assert {batch.instance for batch in colocated.batches} == {"colocated-0", "colocated-1"}
    assert {batch.instance for batch in split.batches} == {"prefill-0", "decode-0"}
    for one in (colocated, split):
        assert max(len(batch.decodes) for batch in one.batches) > 1
        assert {name for name, _ in one.routed.values()} <= {batch.instance for batch in one.batches}
        assert one.machine.probe_p90_s >= one.machine.probe_median_s > 0.0
    assert max(sum(size for *_, size in batch.chunks) for batch in split.batches) <= 256
    both = colocated.routed.keys() & split.routed.keys()
    prompts = [{id: size for batch in one.batches for id, start, size in batch.chunks} for one in (colocated, split)]
    assert all(prompts[1][id] <= prompts[0][id] for id in both)  # whole, and the last chunk of each


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_busy": 0}, r"^task.num_busy=0: must be at least 1$"),
        ({"attempts": 0}, r"^task.attempts=0: must be at least 1$"),
        ({"max_chunk_tokens": 63}, r"^task.max_chunk_tokens=63: must be at least 64, or there is no curve$"),
        ({"seconds": 0.0}, r"^task.seconds=0.0: must be positive$"),
        ({"max_prefill_tokens": 64}, r"^task.max_prefill_tokens=64, task.max_sequences=64: must be at least 128 and 4"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibrate(engine=tiny(), **changes)  # type: ignore[arg-type]
