"""Throughput per device against interactivity: where points stand, and which of them are efficient."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.report.digest import digest
from tetribench.report.figure_pareto import AXES, efficient, pareto, pareto_curves, serving_points
from tetribench.report.runs import Run, load_run
from tetribench.report.side_by_side import pareto_frame
from tetribench.report.style import INK, drawing, system_looks

LOOKS = system_looks(["vllm_like", "tetri"], "vllm_like")

MakeRun = Callable[..., Path]


def frame(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["system", *AXES])


def test_every_serving_is_a_point(make_run: MakeRun) -> None:
    run = load_run(make_run(num_repeats=3))
    points = serving_points(run)
    assert points["system"].value_counts().to_dict() == {"vllm_like": 3, "tetri": 3}
    for point, one in zip(points.to_dict("records"), run.served, strict=True):
        requests, summary = one.result.requests, one.result.summary
        assert point["interactivity"] == pytest.approx(1 / requests["tpot_s"].median())
        num_tokens = requests["num_output_tokens"].sum()
        assert point["throughput"] == pytest.approx(num_tokens / summary["resources"]["device_seconds"])


def test_servings_are_small_marks_around_their_mean() -> None:
    points = frame(("tetri", 10.0, 5.0), ("tetri", 14.0, 7.0), ("vllm_like", 8.0, 9.0))
    with drawing():
        figure = pareto(points, LOOKS, "")
    assert figure is not None
    (axes,) = figure.axes
    places = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert [[10.0, 5.0], [14.0, 7.0]] in places and [[12.0, 6.0]] in places
    bars = [np.asarray(bar.get_paths()[0].vertices) for bar in axes.collections]
    spread = sorted(tuple(np.ptp(bar, axis=0)) for bar in bars)
    assert spread == [(0.0, 0.0), (0.0, 0.0), (0.0, 2.0), (4.0, 0.0)]
    assert "better" in [text.get_text() for text in axes.texts]
    for direction, column in zip("xy", AXES, strict=True):
        low, high = getattr(axes, f"get_{direction}lim")()
        assert low < points[column].min() and points[column].max() < high


def test_many_systems_have_numbers(many: Run) -> None:
    with drawing():
        figure = pareto(serving_points(many), system_looks(many.systems, many.baseline), "")
    assert figure is not None
    assert {"1", "8"} <= {text.get_text() for text in figure.axes[0].texts}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == f"1  {many.baseline}" and len(names) == 8


def test_without_a_point_there_is_no_figure(make_run: MakeRun) -> None:
    run = load_run(make_run())
    for one in run.served:
        one.result.summary["metrics"]["overall"]["tpot_s"]["median"] = None
    with drawing():
        assert pareto(serving_points(run), LOOKS, "") is None
        assert pareto_curves(pareto_frame([digest(run)]), LOOKS, "") is None


def test_a_curve_joins_the_runs_of_a_system_and_efficient_points_stand_out(make_run: MakeRun) -> None:
    runs = [digest(load_run(make_run(name, seed=seed))) for seed, name in enumerate("abc")]
    points = pareto_frame(runs)
    assert points.groupby("system")["run"].apply(list).to_dict() == {"vllm_like": [1, 2, 3], "tetri": [1, 2, 3]}
    with drawing():
        figure = pareto_curves(points, LOOKS, "")
    assert figure is not None
    (axes,) = figure.axes
    best = points[efficient(points[AXES].to_numpy())]
    large = [line for line in axes.lines if line.get_markeredgecolor() == INK]
    assert sum(len(np.asarray(line.get_xydata())) for line in large) == len(best) > 0
    assert {text.get_text() for text in axes.texts} >= {"1", "2", "3", "better"}


def test_a_run_that_is_better_in_both_is_the_only_efficient_one(make_run: MakeRun) -> None:
    run = load_run(make_run())
    points = pareto_frame([digest(run), digest(run)])
    points.loc[0, AXES] = [1e6, 1e6]
    assert efficient(points[AXES].to_numpy()).tolist() == [True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=20))
def test_what_is_not_efficient_is_dominated_by_what_is(drawn: list[tuple[int, int]]) -> None:
    points = np.array(drawn, float)
    best = efficient(points)
    assert best.any()
    for point, is_best in zip(points, best, strict=True):
        dominates = [(other >= point).all() and (other > point).any() for other in points[best]]
        assert any(dominates) != is_best
