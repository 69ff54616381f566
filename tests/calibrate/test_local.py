"""What `task=calibrate` makes of what it measured; the measuring itself is in test_measure.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.profiles import write_profile
from tetribench.calibrate.batches import RecordedBatch
from tetribench.calibrate.figure import draw_residuals
from tetribench.calibrate.grid import grid
from tetribench.calibrate.local import fit_local, series_of, size_of
from tetribench.calibrate.rehearsal import Rehearsal
from tetribench.calibrate.rehearsed import points_of
from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Measured, Sample, Timing, predict_steps
from tetribench.calibrate.watch import MachineState
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware
from tetribench.engine.local_profile import PROFILE_FORMAT, LocalProfile
from tetribench.engine.model import Model
from tetribench.report.style import drawing, save

MODEL = Model(name="opt_tiny")

TRUE: dict[str, Any] = {
    "name": "a core", "source": "", "memory_bytes": 4e9, "bytes_per_s": 1e10, "copy_bytes_per_s": 1e10,
    "host_bytes_per_s": 1e10, "bytes_per_value": 4, "overhead_s": 2e-3, "kv_bytes_per_s": 7e9, "flops_per_s": 1e11,
    "attention_flops_per_s": 5e10, "per_sequence_s": 4e-5, "batching_s": 5e-4,
}  # fmt: skip

FACTS = {"device": "cpu", "dtype": "float32", "num_blocks": 4096, "block_bytes": 131072}


def small_grid() -> list[Step]:
    return grid(max_prefill_tokens=512, max_sequences=32, max_context_tokens=1000, num_blocks=4096, block_size=16)


def times_of(constants: dict[str, Any], steps: list[Step]) -> list[Timing]:
    return predict_steps(CostModel(MODEL.shape(), Hardware(**constants)), steps)


def rehearsed(constants: dict[str, Any], *, gap_s: float = 2e-4, message_s: float = 3e-4) -> list[Rehearsal]:
    """Two instances that prefill, then decode, now both at once and now the first alone; some iterations come after a
    pause."""
    cost, generator = CostModel(MODEL.shape(), Hardware(**constants)), np.random.default_rng(0)
    batches, routed, now_s = [], {}, 0.0
    for block in range(120):
        num, context, size = (1, 2, 3, 5, 8, 13)[block % 6], (40, 150, 600)[block % 3], (16, 70, 300, 900)[block % 4]
        id, are_both = 1000 * block, generator.random() < 0.5
        for step in range(4):
            chunks = ((id, 0, size),) if step == 0 else ()
            decodes = () if chunks else tuple((other, context) for other in range(num))
            seconds = cost.seconds((Step(((0, size),)) if chunks else Step((), (context,) * num)).batch())
            if (step == 0 and are_both) or generator.random() < 0.25:  # the second has not worked in the last block
                now_s, seconds = now_s + 1.0, seconds + constants["wake_s"]
            if step == 0:
                routed[id] = ("colocated-0", now_s - message_s)
            ended_s = now_s + seconds * (constants["beside_slowdown"] if are_both else 1.0)
            for name in ("colocated-0", "colocated-1")[: 1 + are_both]:
                batches.append(
                    RecordedBatch(
                        instance=name,
                        started_s=now_s,
                        ended_s=ended_s,
                        chunks=chunks,
                        decodes=decodes,
                        yields=(),
                        num_padding_tokens=0,
                        num_swapped_bytes=0,
                    )
                )
            now_s = ended_s + gap_s
    return [Rehearsal("colocated", batches, routed, MachineState())]


IN_RUNS = TRUE | {"per_sequence_s": 1e-4, "wake_s": 1e-3, "beside_slowdown": 1.2}


def test_a_machine_is_found_again() -> None:
    """In runs a sequence costs 60 us more than by itself, an idle engine 1 ms, another instance a fifth."""
    steps, measured = small_grid(), Measured([], FACTS, 1e10, 9e9)
    found = fit_local(MODEL, steps, times_of(TRUE, steps), measured, rehearsed(IN_RUNS))
    assert found.engine["kv_bytes_per_s"] == pytest.approx(7e9, rel=0.02)
    for name, rel in {"beside_slowdown": 0.02, "wake_s": 0.2, "batching_s": 0.2, "per_sequence_s": 0.1}.items():
        assert found.constants[name] == pytest.approx(IN_RUNS[name], rel=rel), name
    assert found.constants["per_iteration_s"] == pytest.approx(2e-4)
    assert found.constants["message_s"] == pytest.approx(3e-4)
    assert found.constants["kv_memory_gib"] == 0.5
    assert found.constants["host_bytes_per_s"] == 9e9
    assert max(found.errors("engine")) < 0.02 and max(found.errors("colocated")) < 0.02
    assert Hardware(**found.constants).fitted == {"prefill_tokens": 512, "sequences": 32, "context_tokens": 512}


def test_one_instance_says_nothing_of_others_beside_it() -> None:
    (both,) = rehearsed(IN_RUNS)
    alone = Rehearsal(
        "colocated", [one for one in both.batches if one.instance == "colocated-0"], both.routed, MachineState()
    )
    steps = small_grid()
    found = fit_local(MODEL, steps, times_of(TRUE, steps), Measured([], FACTS, 1e10, 9e9), [alone])
    assert "beside_slowdown" not in found.constants


def test_what_was_held_up_does_not_count() -> None:
    (rehearsal,) = rehearsed(IN_RUNS)
    late = [
        replace(one, ended_s=one.ended_s + 1.0) if index % 40 == 7 else one
        for index, one in enumerate(rehearsal.batches)
    ]
    points = list(points_of(Rehearsal("colocated", late, {}, MachineState()), MODEL.shape()))
    assert points and max(point.measured_s / point.num_timed for point in points) < 0.5


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
    found = fit_local(MODEL, steps, times_of(TRUE, steps), Measured([], FACTS, 1e10, 9e9), rehearsed(IN_RUNS))
    with drawing():
        first, _ = save(draw_residuals(found.residuals, "title", "subtitle"), tmp_path, "one")
        second, _ = save(draw_residuals(found.residuals, "title", "subtitle"), tmp_path, "two")
    assert first.read_bytes() == second.read_bytes()


def test_the_profile_is_read_as_hardware(tmp_path: Path) -> None:
    hardware = LocalProfile(path=write_profile(tmp_path / "profile.json", TRUE))
    assert isinstance(hardware, Hardware)
    assert (hardware.name, hardware.kv_bytes_per_s, hardware.model_name) == ("a core", 7e9, "opt_tiny")


def test_no_profile_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^hardware.path=.*: there is no such file; .*tetribench task=calibrate$"):
        LocalProfile(path=str(tmp_path / "none.json"))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 0}', f'{{"format": {PROFILE_FORMAT}, "constants": {{}}}}'])
def test_a_profile_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a profile of this version"):
        LocalProfile(path=str(path))
