from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from tests.engine.test_cost_model import paper
from tetribench.calibrate.timer import Timing, predict_steps
from tetribench.paper import fig02_saturation, fig03_prefill_prefill, fig04_prefill_decode, fig05_decode_decode
from tetribench.report.style import drawing, save

FIGURES = [fig02_saturation, fig03_prefill_prefill, fig04_prefill_decode, fig05_decode_decode]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("relative", [False, True])
def test_every_figure_is_drawn_with_all_of_its_series(figure: ModuleType, relative: bool, tmp_path: Path) -> None:
    table = figure.table(partial(predict_steps, paper()))
    drawn = {(panel.figure, series) for panel in figure.PANELS for series in panel.series}
    assert drawn == set(zip(table["figure"], table["series"], strict=True))
    with drawing():
        svg, png = save(figure.draw(table, "in a test", relative=relative), tmp_path, "figure")
        again, _ = save(figure.draw(table, "in a test", relative=relative), tmp_path, "again")
    assert png.stat().st_size > 10_000
    assert svg.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("figure", FIGURES)
def test_ours_is_beside_the_papers(figure: ModuleType) -> None:
    table = figure.table(partial(predict_steps, paper()))
    assert table["error"].abs().median() < 0.08
    assert (table.groupby(["figure", "series"])["ours_relative"].first() == 1.0).all()


def test_values_are_in_the_units_of_the_figure() -> None:
    """Every step takes 0.1 s, and between 0.05 and 0.2."""

    def timer(steps: object) -> list[Timing]:
        assert isinstance(steps, list)
        return [Timing(0.1, 0.05, 0.2, 3, 0)] * len(steps)

    speed = row(fig02_saturation.table(timer), "2a", "prefill", 512)
    assert values(speed) == pytest.approx([3565, 5120, 2560, 10240])
    latency = row(fig03_prefill_prefill.table(timer), "3", "heavy prefill, N light", 7)
    assert values(latency) == pytest.approx([175, 100, 50, 200])
    step = row(fig05_decode_decode.table(timer), "5 latency", "all heavy", 16)
    assert values(step) == pytest.approx([1e3 * 16 / 432, 100, 50, 200])


def values(row: "pd.Series[float]") -> list[float]:
    return [row[column] for column in ("paper", "ours", "low", "high")]


def row(table: pd.DataFrame, figure: str, series: str, x: float) -> "pd.Series[float]":
    (found,) = [one for _, one in table.iterrows() if (one["figure"], one["series"], one["x"]) == (figure, series, x)]
    return found
