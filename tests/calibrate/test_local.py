"""What `task=calibrate` makes of what it measured; the measuring itself is in test_measure.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tetribench.calibrate.figure import draw_residuals
from tetribench.calibrate.grid import grid
from tetribench.calibrate.local import fit_local, series_of, size_of
from tetribench.calibrate.loop_run import LoopTimes
from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Measured, Sample, Timing, predict_steps
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware
from tetribench.engine.local_profile import PROFILE_FORMAT, LocalProfile
from tetribench.engine.model import Model
from tetribench.report.style import drawing, save

MODEL = Model(name="opt_tiny")

TRUE: dict[str, Any] = {
    "name": "a core", "source": "", "memory_bytes": 4e9, "bytes_per_s": 1e10, "copy_bytes_per_s": 1e10,
    "host_bytes_per_s": 1e10, "bytes_per_value": 4, "overhead_s": 2e-3, "kv_bytes_per_s": 7e9, "flops_per_s": 1e11,
    "attention_flops_per_s": 5e10, "per_sequence_s": 4e-5,
}  # fmt: skip

FACTS = {"device": "cpu", "dtype": "float32", "num_blocks": 4096, "block_bytes": 131072}


def small_grid() -> list[Step]:
    return grid(max_prefill_tokens=512, max_sequences=32, max_context_tokens=1000, num_blocks=4096, block_size=16)


def times_of(constants: dict[str, Any], steps: list[Step]) -> list[Timing]:
    return predict_steps(CostModel(MODEL.shape(), Hardware(**constants)), steps)


def in_loop() -> LoopTimes:
    """A loop in which each sequence costs 60 us more than by itself, and 200 us + 10 us a sequence lie between."""
    steps = [Step((), (context,) * num) for num in (1, 4, 16) for context in (50, 200)] + [Step(((0, 128),))]
    timings = times_of(TRUE | {"per_sequence_s": 1e-4}, steps)
    return LoopTimes([(step, one.seconds) for step, one in zip(steps, timings, strict=True)], 2e-4, 1e-5, 0.02)


def test_a_machine_is_found_again() -> None:
    steps, measured = small_grid(), Measured([], FACTS, 1e10, 9e9)
    found = fit_local(MODEL, steps, times_of(TRUE, steps), measured, in_loop())
    assert found.engine["kv_bytes_per_s"] == pytest.approx(7e9, rel=0.02)
    assert found.constants["per_sequence_s"] == pytest.approx(1e-4 + 1e-5, rel=0.05)
    assert found.constants["per_iteration_s"] == 2e-4
    assert found.constants["kv_memory_gib"] == 0.5
    assert found.constants["host_bytes_per_s"] == 9e9
    assert max(found.errors("engine")) < 0.02 and max(found.errors("loop")) < 0.02
    assert Hardware(**found.constants).fitted == {"prefill_tokens": 512, "sequences": 32, "context_tokens": 512}


def test_a_grid_stays_within_its_bounds() -> None:
    for num_blocks in (8, 100, 4096):
        steps = grid(
            max_prefill_tokens=128, max_sequences=8, max_context_tokens=300, num_blocks=num_blocks, block_size=16
        )
        assert steps
        for step in steps:
            assert step.num_blocks(16) <= num_blocks and len(step.contexts) <= 8
            assert sum(size for _, size in step.chunks) <= 128
            assert max([start + size for start, size in step.chunks] + list(step.contexts)) <= 300


def test_every_step_of_the_grid_has_its_place_in_the_residuals() -> None:
    steps = small_grid()
    assert len(set(steps)) == len(steps) == len({(series_of(step), size_of(step)) for step in steps})


def test_disturbed_samples_are_left_out() -> None:
    timing = Timing.of([Sample(2.0, 0.5), Sample(1.0, 1.0), Sample(1.1, 0.99), Sample(1.2, 0.96), Sample(9.0, 0.2)])
    assert (timing.seconds, timing.num_samples, timing.num_disturbed) == (1.1, 3, 2)
    assert timing.low_s <= timing.seconds <= timing.high_s
    few = Timing.of([Sample(2.0, 0.5), Sample(1.0, 1.0), Sample(3.0, 0.6), Sample(9.0, 0.2)])
    assert (few.seconds, few.num_samples) == (2.0, 3)
    assert Timing.of([Sample(2.0, 0.5)]) == Timing(2.0, 2.0, 2.0, 1, 0)


def test_the_residual_plot_is_the_same_twice(tmp_path: Path) -> None:
    steps = small_grid()
    found = fit_local(MODEL, steps, times_of(TRUE, steps), Measured([], FACTS, 1e10, 9e9), in_loop())
    with drawing():
        first, _ = save(draw_residuals(found.residuals, "title", "subtitle"), tmp_path, "one")
        second, _ = save(draw_residuals(found.residuals, "title", "subtitle"), tmp_path, "two")
    assert first.read_bytes() == second.read_bytes()


def test_the_profile_is_read_as_hardware(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"format": PROFILE_FORMAT, "model": "opt_tiny", "constants": TRUE}))
    profile = LocalProfile(path=str(path))
    assert isinstance(profile, Hardware)
    assert (profile.name, profile.kv_bytes_per_s, profile.model_name) == ("a core", 7e9, "opt_tiny")


def test_no_profile_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^hardware.path=.*: there is no such file; .*tetribench task=calibrate$"):
        LocalProfile(path=str(tmp_path / "none.json"))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 0}'])
def test_a_profile_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a profile of this version"):
        LocalProfile(path=str(path))
