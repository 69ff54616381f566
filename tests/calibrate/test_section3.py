from statistics import median
from typing import Any

import pytest

from tests.engine.test_cost_model import option, paper_model
from tetribench.calibrate import section3
from tetribench.calibrate.fit import Residual, residuals


def constants() -> dict[str, Any]:
    return option("hardware/v100_tp2")


def errors(found: list[Residual], group: str | None = None) -> list[float]:
    return [abs(one.error) for one in found if group in (None, one.point.group)]


def test_the_model_is_the_projects() -> None:
    assert paper_model().shape() == section3.OPT_13B


def test_every_published_point_is_there_once() -> None:
    """Figure 3: 7, 2 and 7, one of them seen from both sides; figure 4: 7, 2, 6 and 6; figure 5: 5 times 7."""
    points = section3.points()
    assert {group: sum(one.group == group for one in points) for group in ("2a", "2b", "3", "4", "5")} == {
        "2a": 8,
        "2b": 9,
        "3": 15,
        "4": 21,
        "5": 35,
    }


def test_half_of_the_errors_are_below_eight_percent() -> None:
    found = residuals(section3.points(), constants())
    assert median(errors(found)) < 0.05
    assert max(errors(found)) < 0.25
    for group in ("2a", "2b", "3", "4", "5"):
        assert median(errors(found, group)) < 0.08, f"figure {group}"


def test_prefill_is_flat_from_512_tokens() -> None:
    """Figure 2a: a whole prompt of 1,024 tokens is not cheaper by the token than a chunk of 512."""
    speeds = {one.point.x: one.point.x / one.predicted_s for one in residuals(section3.figure_2a(), constants())}
    assert speeds[1024] / speeds[512] == pytest.approx(1.0, abs=0.03)
    assert speeds[256] / speeds[512] < 0.85


@pytest.mark.parametrize(
    ("series", "num", "chunks", "contexts"),
    [
        ("light prefill, N heavy", 3, (18, 512, 512, 512), ()),
        ("heavy prefill, N light", 1, (512, 18), ()),
        ("light decode, N heavy prefills", 1, (512,), (48,)),
        ("heavy prefill, N light decodes", 3, (512,), (48, 48, 48)),
    ],
)
def test_what_an_iteration_of_figures_3_and_4_holds(
    series: str, num: int, chunks: tuple[int, ...], contexts: tuple[int, ...]
) -> None:
    found = [*section3.figure_3(), *section3.figure_4()]
    (point,) = [one for one in found if one.series == series and one.x == num]
    assert point.step.chunks == tuple((0, size) for size in chunks)
    assert point.step.contexts == contexts


def test_a_mix_of_figure_5_has_whole_sequences() -> None:
    heavy = {(one.series, one.x): one.step.contexts.count(section3.HEAVY_CONTEXT) for one in section3.figure_5()}
    assert [heavy["light:heavy 7:1", num] for num in (2, 4, 8, 128)] == [0, 1, 1, 16]
    assert [heavy["light:heavy 1:7", num] for num in (2, 4, 8, 128)] == [2, 4, 7, 112]
