"""Cells against cells: paired by seed, whatever the order of the rows."""

from math import nan

import pandas as pd
import pytest

from tetribench.paper.pairs import axes_of, cell, change_text, percent, ratio, summarise
from tetribench.report.quantities import DASH

ROWS = pd.DataFrame(
    [
        ("a", 0, 10.0, 100.0),
        ("a", 1, 20.0, 100.0),
        ("b", 1, 10.0, 50.0),
        ("b", 0, 5.0, 50.0),
    ],
    columns=["system", "seed", "jct_s", "resource_time_s"],
)
A, B = {"system": "a"}, {"system": "b"}


def test_the_axes_stand_before_the_seed() -> None:
    assert axes_of(ROWS) == ["system"]


def test_a_cell_is_by_seed_and_one_that_is_not_there_is_refused() -> None:
    assert cell(ROWS, B)["jct_s"].tolist() == [5.0, 10.0]
    for labels, message in (({"system": "c"}, "system=c: no such cell"), ({"size": "2"}, "size=2: no such cell")):
        with pytest.raises(ValueError, match=message):
            cell(ROWS, labels)


def test_a_ratio_is_paired_by_seed() -> None:
    assert ratio(cell(ROWS, B), cell(ROWS, A), "jct_s") == pytest.approx((0.5, 0.5, 0.5))


def test_both_readings_of_perf_per_dollar() -> None:
    both = cell(ROWS, B), cell(ROWS, A)
    assert ratio(*both, "perf_per_dollar_paper").value == pytest.approx((1 + 0.5) / 0.5)
    assert ratio(*both, "perf_per_dollar_usual").value == pytest.approx(2.0 / 0.5)


def test_a_summary_has_means_and_ratios_with_bounds() -> None:
    table = summarise(ROWS, ["jct_s", "perf_per_dollar_usual"], A)
    by_cell = table.set_index(["system", "metric"]).to_dict("index")
    mine = by_cell["b", "jct_s"]
    assert (mine["mean"], mine["ratio"], mine["ratio_low"], mine["ratio_high"]) == pytest.approx((7.5, 0.5, 0.5, 0.5))
    assert by_cell["b", "perf_per_dollar_usual"]["mean"] == pytest.approx(4.0)
    base = by_cell["a", "jct_s"]
    assert base["low"] < 15 < base["high"]


def test_a_change_in_words() -> None:
    assert change_text({"ratio": 0.561, "ratio_low": 0.5, "ratio_high": 1.001}) == "-44% [-50%, +0.1%]"
    assert percent(nan) == DASH
    assert [percent(change) for change in (-0.0001, -0.002, 0.0094, 0.0098)] == ["+0%", "-0.2%", "+0.9%", "+1%"]
