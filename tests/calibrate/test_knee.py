"""ChunkSize: where prefill's throughput stops growing."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.calibrate.figure import draw_sweep
from tetribench.calibrate.knee import ENOUGH, SMALLEST_CHUNK, Knee, chunk_sizes, find_knee
from tetribench.calibrate.section3 import figure_2a
from tetribench.calibrate.timer import Timing
from tetribench.report.style import drawing, save


def test_the_papers_figure_has_the_papers_chunk_size() -> None:
    knee = find_knee({int(point.x): point.measured_s for point in figure_2a()})
    assert knee.chunk_size == 512 and knee.is_inside


def test_a_curve_that_falls_again_is_judged_by_its_best() -> None:
    assert find_knee({100: 1.0, 200: 1.25, 400: 2.0, 800: 8.0}) == Knee(400, 200.0, 200.0, is_inside=True)
    assert find_knee({100: 1.0, 200: 1.25, 400: 2.4, 800: 8.0}) == Knee(200, 160.0, 400 / 2.4, is_inside=True)


def test_a_curve_that_still_grows_has_its_knee_at_the_end() -> None:
    assert find_knee({16: 1.0, 32: 1.0, 64: 1.0}) == Knee(64, 64.0, 64.0, is_inside=False)


@given(st.dictionaries(st.integers(1, 10_000), st.floats(1e-6, 1e3), min_size=1))
def test_the_knee_is_the_first_that_is_fast_enough(seconds: dict[int, float]) -> None:
    knee, rates = find_knee(seconds), {size: size / one for size, one in seconds.items()}
    assert knee.best_tokens_per_s == max(rates.values())
    assert rates[knee.chunk_size] == knee.tokens_per_s >= ENOUGH * knee.best_tokens_per_s
    assert all(rate < ENOUGH * knee.best_tokens_per_s for size, rate in rates.items() if size < knee.chunk_size)
    assert knee.is_inside == (knee.chunk_size < max(rates))


@given(st.integers(SMALLEST_CHUNK, 20_000))
def test_the_sweep_is_dense_and_ends_where_it_must(max_tokens: int) -> None:
    sizes = chunk_sizes(max_tokens)
    assert sizes[0] == SMALLEST_CHUNK and sizes[-1] == max_tokens and sizes == sorted(set(sizes))
    assert all(after <= 1.5 * before for before, after in pairwise(sizes))


def test_the_sweep_of_the_default() -> None:
    assert chunk_sizes(256) == [16, 24, 32, 48, 64, 96, 128, 192, 256]


def test_the_sweep_is_drawn(tmp_path: Path) -> None:
    sweep = {
        size: Timing(0.01 + size / 1e4, 0.01 + size / 1.1e4, 0.01 + size / 0.9e4, 9, 0) for size in chunk_sizes(512)
    }
    knee = find_knee({size: one.seconds for size, one in sweep.items()})
    with drawing():
        figure = draw_sweep(sweep, knee, "title", "subtitle")
        assert [text.get_text() for text in figure.legends[0].texts] == [
            "measured", "95% of the best", f"ChunkSize {knee.chunk_size}",
        ]  # fmt: skip
        save(figure, tmp_path, "chunk_size")
    assert (tmp_path / "chunk_size.png").stat().st_size > 0


@pytest.mark.parametrize("max_tokens", [16, 17, 24])
def test_the_smallest_sweeps(max_tokens: int) -> None:
    assert chunk_sizes(max_tokens) == sorted({16, max_tokens})
