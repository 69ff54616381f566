"""Measuring for real, on a model that is smaller than the smallest."""

import json
import os
import subprocess
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from tetribench.calibrate.copies import copy_bytes_per_s, host_bytes_per_s
from tetribench.calibrate.loop_run import NUM_OUTPUT_TOKENS, Wave, least_disturbed, loop_times, prompt_lengths, waves
from tetribench.calibrate.others import OtherPrograms
from tetribench.calibrate.steps import Step
from tetribench.calibrate.task import Calibrate
from tetribench.calibrate.timer import time_steps
from tetribench.core.clock import WallClock
from tetribench.core.events import Event, EventKind
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.local_profile import LocalProfile
from tetribench.engine.model import Model
from tetribench.experiment import Composed
from tetribench.instance.launch import InstanceFailed

FACTS = {"num_swapped_bytes": 0, "num_used_blocks": 9}


def tiny() -> HFEngine:
    model = Model(name="tiny", num_layers=1, hidden_size=32, ffn_size=64, num_heads=2, num_kv_heads=2, vocab_size=64)
    return HFEngine(model=model, device=Device.cpu, kv_memory_gib=0.02)


def test_engines_in_processes_of_their_own_are_timed(tmp_path: Path) -> None:
    steps = [Step(((0, 16),)), Step(((0, 512),)), Step((), (40,) * 4), Step(((0, 32),), (20,))]
    timings, measured = time_steps(tiny().sized(2), steps, num_busy=2, seconds=0.2, log_folder=tmp_path)
    assert len(timings) == len(steps)
    assert all(0.0 < one.low_s <= one.seconds <= one.high_s for one in timings)
    assert timings[1].seconds > timings[0].seconds
    assert measured.facts["num_parameters"] > 0 and measured.copy_bytes_per_s > 1e6
    assert {path.name for path in tmp_path.iterdir()} == {"measure-0.log", "measure-1.log"}


def test_a_measuring_process_that_ends_is_said(tmp_path: Path) -> None:
    too_long = Step((), (2000,) * 64)
    with pytest.raises(InstanceFailed, match="a measuring process ended with code 1; see "):
        time_steps(tiny().sized(1), [too_long] * 2, num_busy=1, seconds=0.1, log_folder=tmp_path)
    assert "Error" in (tmp_path / "measure-0.log").read_text()


def test_copies_are_timed_even_in_a_small_memory() -> None:
    engine = tiny().sized(1).build(WallClock(), None)
    assert copy_bytes_per_s(engine, WallClock()) > 1e6
    assert host_bytes_per_s(engine, WallClock()) > 1e6
    engine.close()


def test_a_machine_is_calibrated_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tetribench.calibrate.loop_run.NUM_REPEATS", 1)
    monkeypatch.setattr("tetribench.calibrate.loop_run.BATCHES", (1, 4))
    out = tmp_path / "local"
    task = Calibrate(engine=tiny(), out=str(out), num_busy=1, seconds=0.5, max_prefill_tokens=256, max_sequences=8)
    console = Console(width=200, record=True)
    task.execute(cast(Composed, None), console)  # calibrating needs no workload
    said = console.export_text()
    assert "engine: " in said and "loop: " in said and "left out: disturbed by others" in said
    profile = LocalProfile(path=str(out / "profile.json"))
    assert profile.per_iteration_s > 0.0 and profile.model_name == "tiny"
    kept = json.loads((out / "profile.json").read_text())
    assert kept["environment"]["machine"]["cores"] >= 1 and kept["num_busy"] == 1
    assert {step["num_samples"] >= 3 for step in kept["steps"]} == {True}
    assert {"residuals.csv", "residuals.png", "residuals.svg", "profile.json", "logs"} == {
        one.name for one in out.iterdir()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_busy": 0}, r"^task.num_busy=0: must be at least 1$"),
        ({"seconds": 0.0}, r"^task.seconds=0.0: must be positive$"),
        ({"max_prefill_tokens": 64}, r"^task.max_prefill_tokens=64, task.max_sequences=64: must be at least 128 and 4"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibrate(engine=tiny(), **changes)  # type: ignore[arg-type]


def iteration(started_s: float, ended_s: float, prefill: int, decode: int, source: str = "colocated-0") -> Event:
    details = {"started_s": started_s, "num_prefill_tokens": prefill, "num_decode_tokens": decode, **FACTS}
    return Event(ended_s, EventKind.ITERATION, source, (), details)


def event(time_s: float, kind: EventKind, request_id: int) -> Event:
    return Event(time_s, kind, "colocated-0", (request_id,), {})


def test_iterations_of_a_wave_are_read_by_kind() -> None:
    """A prompt of 32 in 8 ms, decodes of 2 ms with 1 ms between them; then two sequences, 3 ms and 1.5 ms.

    A message takes 0.25 ms; the second request of a wave on one instance waits for the first and says nothing of it.
    """
    alone = [iteration(0.0, 0.008, 32, 0)] + [iteration(0.010 + 0.003 * i, 0.012 + 0.003 * i, 0, 1) for i in range(20)]
    both = [iteration(1.0, 1.2, 64, 0)] + [iteration(2 + 0.0045 * i, 2.003 + 0.0045 * i, 0, 2) for i in range(20)]
    tail = [iteration(3.0, 3.5, 0, 1)]
    alone += [event(5.0, EventKind.ROUTED, 0), event(5.00025, EventKind.PREFILL_STARTED, 0)]
    both += [event(6.0, EventKind.ROUTED, 1), event(6.0, EventKind.ROUTED, 2)]
    both += [event(6.00025, EventKind.PREFILL_STARTED, 1), event(6.1, EventKind.PREFILL_STARTED, 2)]
    found = loop_times([Wave(1, 32, [], alone, 0.1), Wave(2, 32, [], both + tail, 0.3)], block_size=16)
    context = 32 + NUM_OUTPUT_TOKENS // 2
    contexts = tuple(size + NUM_OUTPUT_TOKENS // 2 for size in prompt_lengths(2, 32))
    assert dict(found.steps) == {
        Step((), (context,)): pytest.approx(0.002),
        Step(((0, 32),)): pytest.approx(0.008),
        Step((), contexts): pytest.approx(0.003),
    }
    assert found.per_iteration_s == pytest.approx(0.0005) and found.per_sequence_s == pytest.approx(0.0005)
    assert found.message_s == pytest.approx(0.00025)
    assert found.others_share == pytest.approx(0.2)


def test_waves_fill_every_instance_alike_and_the_least_disturbed_counts() -> None:
    found = list(waves(3))
    assert all(len(wave.requests) == 3 * wave.num_sequences for wave in found)
    ids = [request.id for wave in found for request in wave.requests]
    assert ids == list(range(len(ids)))
    for index, wave in enumerate(found):
        wave.others_share = abs(index - 20) / 100
    best = least_disturbed(found)
    assert len(best) == len({(wave.num_sequences, wave.num_prompt_tokens) for wave in found})
    assert found[20] in best


def test_other_programs_are_those_that_are_not_ours(tmp_path: Path) -> None:
    """Ours has 300 ticks, its child 40 and that one's child 5; a stranger 1,000; a process that is gone, no file."""
    cores = sorted(os.sched_getaffinity(0))
    ticks_per_s = os.sysconf("SC_CLK_TCK")

    def write(stranger: int, own: int) -> None:
        per_core = [own + 45 + stranger, *[0] * (len(cores) - 1)]
        lines = [f"cpu{core} {busy} 0 0 777 88 0 0 0 0 0" for core, busy in zip(cores, per_core, strict=True)]
        (tmp_path / "stat").write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "intr 5"]))
        for pid, parent, ticks in [(os.getpid(), 1, own), (900001, os.getpid(), 40), (900002, 900001, 5), (1, 0, 1000)]:
            (tmp_path / str(pid)).mkdir(exist_ok=True)
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} {'0 ' * 9}{ticks} 0 0 0 20")
        (tmp_path / "900003").mkdir(exist_ok=True)

    write(stranger=1000, own=300)
    others = OtherPrograms(tmp_path)
    write(stranger=1000, own=500)
    assert others.since_s() == 0.0
    write(stranger=1100, own=600)
    assert others.since_s() == pytest.approx(100 / ticks_per_s)


def test_other_programs_are_seen_on_this_machine() -> None:
    others = OtherPrograms()
    subprocess.run(["python3", "-c", "sum(range(10**6))"], check=True)
    assert others.since_s() >= 0.0
