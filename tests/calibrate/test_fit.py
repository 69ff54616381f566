from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.test_cost_model import option, paper_model
from tetribench.calibrate.fit import Free, fit, residuals
from tetribench.calibrate.steps import Point, Step
from tetribench.calibrate.tables import summary, write_residuals
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware

SHAPE = paper_model().shape()

KNOWN: dict[str, Any] = {
    "name": "made up", "source": "", "memory_bytes": 1e11, "bytes_per_s": 2e12, "copy_bytes_per_s": 1e10,
    "host_bytes_per_s": 1e10, "all_reduce_bytes_per_s": 1e11,
}  # fmt: skip

TRUE = {
    "overhead_s": 0.004, "kv_bytes_per_s": 8e11, "flops_per_s": 1.5e14, "per_sequence_s": 3e-4, "per_prompt_s": 2e-3,
    "all_reduce_s": 2e-5,
}  # fmt: skip

FREE = {
    "overhead_s": Free(0.01, 1e-4, 0.1), "kv_bytes_per_s": Free(1e12, 1e11, 1e13),
    "flops_per_s": Free(1e14, 1e13, 1e16), "per_sequence_s": Free(1e-4, 0.0, 0.1), "per_prompt_s": Free(1e-4, 0.0, 0.1),
    "all_reduce_s": Free(1e-4, 0.0, 0.1),
}  # fmt: skip

STEPS = [
    *[Step(((0, size),)) for size in (64, 512, 2048)],
    Step(((0, 18),) * 40),
    *[Step((), (context,) * num) for num in (1, 16, 128) for context in (50, 800)],
    Step(((256, 512),), (100,) * 20),
]


def made_up_points(noise: float = 0.0, **changes: float) -> list[Point]:
    """On one device and on two, from constants that are known; every other point off by `noise`."""
    points = []
    for num_devices in (1, 2):
        cost = CostModel(SHAPE, Hardware(**{**KNOWN, **TRUE, **changes, "num_devices": num_devices}))
        for index, step in enumerate(STEPS):
            seconds = cost.seconds(step.batch()) * (1 + noise * (-1) ** index)
            points.append(
                Point(
                    group="g", series="s", x=index, model=SHAPE, step=step, measured_s=seconds, num_devices=num_devices
                )
            )
    return points


def test_constants_are_found_again() -> None:
    found = fit(made_up_points(), KNOWN, FREE)
    assert {name: found[name] for name in TRUE} == pytest.approx(TRUE, rel=0.01)
    assert {name: found[name] for name in KNOWN} == KNOWN
    assert max(abs(one.error) for one in residuals(made_up_points(), found)) < 1e-3


def test_a_fit_is_deterministic() -> None:
    assert fit(made_up_points(0.05), KNOWN, FREE) == fit(made_up_points(0.05), KNOWN, FREE)


def test_points_beside_the_fit_do_not_move_it() -> None:
    beside = Point(group="beside", series="s", x=0, model=SHAPE, step=STEPS[0], measured_s=99.0, is_fitted=False)
    found = fit([*made_up_points(), beside], KNOWN, FREE)
    assert found == fit(made_up_points(), KNOWN, FREE)
    assert residuals([beside], found)[0].error < -0.9


def test_steps_that_were_timed_together_count_together() -> None:
    cost = CostModel(SHAPE, Hardware(**{**KNOWN, **TRUE}))
    first, second = (cost.seconds(step.batch()) for step in STEPS[:2])
    others = ((STEPS[1], 10),)
    point = Point(group="g", series="s", x=0, model=SHAPE, step=STEPS[0], others=others, measured_s=1.0)
    assert residuals([point], {**KNOWN, **TRUE})[0].predicted_s == pytest.approx(first + 10 * second)


def test_a_cost_that_is_not_there_is_nothing() -> None:
    assert fit(made_up_points(per_prompt_s=0.0), KNOWN, FREE)["per_prompt_s"] == 0.0


def test_too_few_steps_settle_nothing() -> None:
    with pytest.raises(ValueError, match="2 measured steps cannot settle 6 constants"):
        fit(made_up_points()[:2], KNOWN, FREE)


def test_residuals_are_written_and_summed_up(tmp_path: Any) -> None:
    found = residuals(made_up_points(0.1), {**KNOWN, **TRUE})
    write_residuals(found, tmp_path / "new" / "residuals.csv")
    lines = (tmp_path / "new" / "residuals.csv").read_text().splitlines()
    assert lines[0] == "group,series,x,measured_ms,predicted_ms,error,fitted"
    assert lines[1].startswith("g,s,0,") and lines[1].endswith(",-0.091,yes")
    assert len(lines) == 1 + len(found)
    assert summary(found) == ["g: 22 points, median error 9.1%, largest 11.1%"]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 200)), max_size=5),
    st.lists(st.integers(2, 300), max_size=5),
    st.sampled_from([1, 8, 16]),
)
def test_the_batch_of_a_step_has_its_sizes_and_blocks_of_its_own(
    chunks: list[tuple[int, int]], contexts: list[int], block_size: int
) -> None:
    step = Step(tuple(chunks), tuple(contexts))
    batch = step.batch(block_size)
    assert [(chunk.start, chunk.num_tokens) for chunk in batch.prefill] == chunks
    assert all(chunk.yields_token for chunk in batch.prefill)
    assert [sequence.num_tokens for sequence in batch.decode] == contexts
    sequences = [chunk.sequence for chunk in batch.prefill] + batch.decode
    blocks = [block for sequence in sequences for block in sequence.block_ids]
    assert sorted(blocks) == list(range(step.num_blocks(block_size)))
    assert all(len(one.block_ids) * block_size >= one.num_tokens for one in sequences)
    assert len({one.request.id for one in sequences}) == len(sequences)


def test_profiles_know_what_they_were_fitted_on() -> None:
    for name in ("v100_tp2", "a100_80g", "h100", "h200"):
        hardware = Hardware(**option(f"hardware/{name}"))
        assert set(hardware.fitted) == {"prefill_tokens", "sequences", "context_tokens"}
