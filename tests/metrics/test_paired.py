"""Intervals that cover, tests that find what is there and nothing else, bands, corrections, outcomes."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import exp, isnan, log, nan
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetribench.metrics.blocks import _percentiles, block_deviations
from tetribench.metrics.compare import HEADLINES, OVERALL, SystemResult, measure
from tetribench.metrics.paired import (
    Compared,
    Outcome,
    Ratio,
    Served,
    _by_repeat,
    _mean,
    _ratio,
    compare,
    serving_values,
    widest,
)
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo

JCT = next(headline for headline in HEADLINES if headline.name == "mean_jct_s")
TTFT = next(headline for headline in HEADLINES if headline.name == "mean_ttft_s")
P95 = next(headline for headline in HEADLINES if headline.name == "p95_jct_s")
MAKESPAN = next(headline for headline in HEADLINES if headline.name == "makespan_s")


@cache
def nothing() -> SystemResult:
    return measure("", [], Slo())


def result(system: str, jct_s: "Sequence[float] | npt.NDArray[Any]", **resources: float) -> SystemResult:
    """Requests that arrive one after the other; every other latency is that of the JCT."""
    empty = replace(nothing(), system=system)
    table = pd.DataFrame({"arrived_s": np.arange(len(jct_s), dtype=float)} | {
        column: np.array(jct_s, float) for column in ("ttft_s", "tpot_s", "jct_s")
    })  # fmt: skip
    summary: dict[str, Any] = {**empty.summary, "metrics": {OVERALL: {}}}
    for column in ("ttft_s", "tpot_s", "jct_s"):
        found = {
            "mean": float(np.mean(jct_s)),
            "median": float(np.median(jct_s)),
            "p95": float(np.percentile(jct_s, 95)),
        }
        summary["metrics"][OVERALL][column] = found
    usual = {"makespan_s": 10.0, "output_throughput_tokens_per_s": 5.0, "resource_time_s": 8.0, "device_seconds": 20.0}
    summary["resources"] = {**empty.summary["resources"], **usual, **resources}
    return replace(empty, requests=table, summary=summary)


def repeats(ratios: Sequence[float], *, twice: float | None = None, num_requests: int = 20) -> list[Served]:
    """Of each repeat `new`, slower by the ratio, and `base`; both once more, slower by `twice`, if that is given."""
    found = []
    for repeat, ratio in enumerate(ratios):
        draw = np.random.default_rng(repeat).lognormal(0, 0.5, num_requests)
        own, other = result("new", ratio * draw, makespan_s=10 * ratio), result("base", draw)
        found += [Served(repeat, 0, own), Served(repeat, 1, other)]
        if twice is not None:
            found += [
                Served(repeat, 2, result("base", twice * draw)),
                Served(repeat, 3, result("new", twice * ratio * draw)),
            ]
    return found


def row(served: Sequence[Served], name: str = "mean_jct_s", **rule: Any) -> Compared:
    (found,) = [one for one in compare(served, "base", Rule(**rule), seed=1) if one.headline.name == name]
    return found


def ratio_of(served: Sequence[Served], name: str = "mean_jct_s", **rule: Any) -> Ratio:
    return row(served, name, **rule).ratios["new"]


def test_a_ratio_is_the_geometric_mean_over_repeats() -> None:
    found = ratio_of(repeats([1.2, 1.3, 1.25]))
    assert found.value == pytest.approx((1.2 * 1.3 * 1.25) ** (1 / 3))
    assert found.low < 1.2 and found.high > 1.3 and found.outcome is Outcome.WORSE


def test_servings_of_a_repeat_are_averaged_and_their_difference_makes_the_band() -> None:
    """Every second serving is 2 % slower: of a mean over two servings and five repeats a tenth of that variance."""
    found = row(repeats([1.3] * 5, twice=1.02))
    assert found.values == pytest.approx({"new": 1.3 * found.values["base"], "base": found.values["base"]})
    spread = log(1.02) / 10**0.5
    assert found.ratios["new"].band == pytest.approx(exp(2.262 * spread * (2 / 2) ** 0.5) - 1, rel=0.15)
    assert found.ratios["new"].outcome is Outcome.WORSE


def test_values_of_servings_are_enough_to_do_the_ratios_again() -> None:
    """The mean over repeats of the logarithms of the ratios of their servings' means, as anybody would."""
    served = [*repeats([1.2, 1.3, 1.1], twice=1.02), Served(7, 0, result("new", [9.0]))]
    found = serving_values(served, "base")
    assert [one[:3] for one in found] == [(one.repeat, one.slot, one.result.system) for one in served[:-1]]
    for each in compare(served, "base", Rule(), seed=1):
        logs = []
        for repeat in range(3):
            own, other = (
                np.mean([one.values[each.headline.name] for one in found if one[0] == repeat and one.system == system])
                for system in ("new", "base")
            )
            logs.append(log(own / other) if own > 0 and other > 0 else nan)
        if "new" in each.ratios:
            assert log(each.ratios["new"].value) == pytest.approx(np.mean(logs), nan_ok=True)


def test_one_repeat_says_nothing() -> None:
    found = ratio_of(repeats([1.5]))
    assert found.value == pytest.approx(1.5) and isnan(found.low) and isnan(found.p)
    assert found.outcome is Outcome.UNKNOWN and not found.is_inside_band
    assert widest([row(repeats([1.5]))], Rule()) is None


def test_what_is_equal_to_the_bit_is_equivalent() -> None:
    found = ratio_of(repeats([1.0] * 3, num_requests=1), "makespan_s")
    assert (found.value, found.low, found.high, found.p) == (1.0, 1.0, 1.0, 1.0)
    assert found.outcome is Outcome.EQUIVALENT


def test_a_change_without_any_spread_is_certain() -> None:
    found = ratio_of(repeats([1.5] * 3), "makespan_s", metric="makespan_s")
    assert found.p < 1e-12 and found.outcome is Outcome.WORSE


def test_better_is_up_or_down_by_the_metric() -> None:
    assert ratio_of(repeats([0.5, 0.52, 0.51])).outcome is Outcome.BETTER
    served = [
        one._replace(result=result(one.result.system, [1.0], output_throughput_tokens_per_s=5.0 + (one.slot == 0) * 5))
        for one in repeats([1.0] * 3)
    ]
    assert ratio_of(served, "output_throughput_tokens_per_s").outcome is Outcome.BETTER


def test_a_margin_decides_what_is_equivalent() -> None:
    served = repeats([1.01, 0.99, 1.0, 1.005, 0.995])
    assert ratio_of(served).outcome is Outcome.EQUIVALENT
    assert ratio_of(served, margin=0.004).outcome is Outcome.UNDECIDED


def test_inside_the_band_nothing_is_decided() -> None:
    """The same change, once with servings of one system that are alike and once with such that differ more."""
    assert ratio_of(repeats([1.08, 1.081, 1.079, 1.08], twice=1.001)).outcome is Outcome.WORSE
    found = ratio_of(repeats([1.08, 1.081, 1.079, 1.08], twice=1.3))
    assert found.is_inside_band and found.outcome is Outcome.UNDECIDED


def test_many_tests_are_corrected_and_the_verdicts_is_not() -> None:
    """Ten other metrics: the smallest p is multiplied by ten, and no later one is below it."""
    served = repeats([1.1, 1.2, 1.05, 1.15, 1.25])
    alone = ratio_of(served, "mean_ttft_s", metric="mean_ttft_s").p
    corrected = ratio_of(served, "mean_ttft_s").p
    assert alone < corrected <= 1.0
    found = compare(served, "base", Rule(), seed=1)
    others = sorted(one.ratios["new"].p for one in found if one.headline.has_ratio and one.headline is not JCT)
    assert all(p <= 1.0 for p in others)


def test_the_report_is_the_same_twice() -> None:
    served = repeats([1.1, 1.2, 1.05])
    assert compare(served, "base", Rule(), seed=3) == compare(served, "base", Rule(), seed=3)


def test_a_repeat_without_one_of_the_systems_is_left_out() -> None:
    served = [*repeats([1.2, 1.2]), Served(2, 0, result("new", [9.0]))]
    assert ratio_of(served).value == pytest.approx(1.2)


def test_undefined_values_have_no_ratio() -> None:
    served = repeats([1.2, 1.3], num_requests=3)
    for one in served:
        one.result.summary["metrics"][OVERALL]["jct_s"]["p95"] = None
    found = ratio_of(served, "p95_jct_s")
    assert isnan(found.value) and found.outcome is Outcome.UNKNOWN and not found.is_inside_band


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "speed"}, r"^verdict.metric=speed: must be one of mean_ttft_s, "),
        ({"margin": 0.0}, r"^verdict.margin=0.0: must be above 0 and below 1$"),
    ],
)
def test_rules_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**options)


def test_intervals_cover() -> None:
    """Five repeats whose true ratio is 1.1, with 4 % between repeats and requests that differ within them."""
    num_trials, num_covered, draw = 300, 0, np.random.default_rng(0)
    for _ in range(num_trials):
        served = []
        for repeat in range(5):
            lengths = draw.lognormal(0, 0.7, 30)
            own = lengths * 1.1 * draw.lognormal(0, 0.04) * draw.lognormal(0, 0.05, 30)
            served += [Served(repeat, 0, result("new", own)), Served(repeat, 1, result("base", lengths))]
        by_repeat = _by_repeat(served, ["new", "base"])
        mean = _mean(by_repeat, JCT, "new", "base", seed=1)
        found = _ratio(mean, mean.p, nan, JCT, Rule())
        num_covered += found.low <= 1.1 <= found.high
    assert num_covered / num_trials >= 0.93


def test_blocks_are_drawn_for_both_systems_alike() -> None:
    """Twice the same requests: whatever blocks are drawn, the ratio stays what it is."""
    draw = np.random.default_rng(0).lognormal(0, 1, 100)
    for headline in (JCT, P95):
        found = block_deviations(headline, [result("new", 3 * draw)], [result("base", draw)], np.random.default_rng(1))
        assert found == pytest.approx(np.zeros(200), abs=1e-9)
    shuffled = np.random.default_rng(5).permutation(draw)
    for headline in (JCT, P95):
        found = block_deviations(headline, [result("new", shuffled)], [result("base", draw)], np.random.default_rng(1))
        assert found.std() > 0.01
    assert block_deviations(MAKESPAN, [result("new", draw)], [result("base", draw)], np.random.default_rng(1)) == [0.0]


def test_requests_that_did_not_finish_are_in_no_block() -> None:
    lost = np.array([np.nan, 1.0, 2.0, 4.0])
    found = block_deviations(JCT, [result("new", lost)], [result("base", [1.0] * 4)], np.random.default_rng(1))
    assert np.isfinite(found).all()
    nothing = [np.nan] * 4
    assert block_deviations(JCT, [result("new", nothing)], [result("base", nothing)], np.random.default_rng(1)) == [0.0]
    assert np.isnan(_percentiles(np.array([1.0]), np.zeros((2, 1)), 95)).all()


@settings(max_examples=50)
@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=30), st.integers(1, 99))
def test_a_weighted_percentile_is_one_of_the_values(values: list[float], percent: int) -> None:
    ascending = np.sort(values)
    (found,) = _percentiles(ascending, np.ones((1, len(values))), percent)
    assert found in ascending and (ascending <= found).mean() >= percent / 100 - 1e-9


def test_the_widest_interval_is_the_verdicts() -> None:
    rows = compare(repeats([1.1, 1.2, 1.3]), "base", Rule(), seed=0)
    found = next(one.ratios["new"] for one in rows if one.headline is JCT)
    assert widest(rows, Rule()) == pytest.approx(found.high - found.low)
