"""Which cells the axes and seeds of an experiment make."""

import pytest

from tetribench.experiment import Axes
from tetribench.study.cells import cells_of

AXES: Axes = {
    "order": {"sjf": {"prefill.order.window": 16}, "8": {"prefill.order.window": 8}},
    "size": {"small": {"n": 1}},
}


def test_every_combination_with_every_seed() -> None:
    cells = cells_of(AXES, [3, 4])
    assert [(cell.labels, cell.seed) for cell in cells] == [
        ({"order": order, "size": "small"}, seed) for order in ("sjf", "8") for seed in (3, 4)
    ]
    assert cells[0].options == {"prefill.order.window": 16, "n": 1, "seed": 3}
    assert str(cells[0]) == "order sjf, size small, seed 3"


def test_no_axes_make_a_cell_for_each_seed() -> None:
    assert [cell.seed for cell in cells_of({}, [0, 1])] == [0, 1]


def test_an_axis_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"axes.order: has no labels"):
        cells_of({"order": {}}, [0])


def test_an_option_is_set_by_one_axis() -> None:
    with pytest.raises(ValueError, match=r"axes.b: sets n, which another axis sets too"):
        cells_of({"a": {"x": {"n": 1}}, "b": {"y": {"n": 2}}}, [0])
