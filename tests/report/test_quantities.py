"""Numbers as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.report.quantities import DASH, ratio_text, scale_for, scale_for_all, three_digits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.00"),
        (0.012345, "0.0123"),
        (12.345, "12.3"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (-2.5, "-2.50"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


@given(st.floats(1e-9, 1e12))
def test_text_is_within_half_of_the_third_digit(value: float) -> None:
    shown = float(three_digits(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=0.0051)


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ([0.0123], "s", "12.3 ms"),
        ([0.0000123], "s", "12.3 µs"),
        ([1.5], "s", "1.50 s"),
        ([2_500_000_000.0], "bytes", "2.50 GB"),
        ([0.5], "share", "50.0%"),
        ([0.0], "share", "0%"),
        ([0.0], "s", "0 s"),
        ([12.0], "requests", "12 requests"),
        ([45.6], "tokens/s", "45.6 tokens/s"),
    ],
)
def test_the_unit_fits_the_value(values: list[float], unit: str, text: str) -> None:
    assert scale_for(values, unit).text_with_unit(values[0]) == text


def test_the_largest_value_chooses_the_unit_for_all() -> None:
    scale = scale_for([0.004, None, 2.0, math.nan], "s")
    assert (scale.text(0.004), scale.text(2.0), scale.unit) == ("0.00400", "2.00", "s")


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_undefined_is_a_dash(value: float | None) -> None:
    assert scale_for([value], "s").text_with_unit(value) == DASH
    assert ratio_text(value) == DASH


def test_the_smallest_value_chooses_where_all_matter() -> None:
    assert scale_for_all([0.05, None, 5.0, 0.0], "s").unit == "ms"
    assert scale_for_all([0.0005, 500.0], "s").unit == "s"
    assert scale_for_all([], "s").unit == "s"
