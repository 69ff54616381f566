"""All servings of a system as one: what is pooled, what is summed, what is averaged; and what never is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetribench.core.events import Event
from tetribench.metrics.compare import OVERALL, SystemResult, measure
from tetribench.metrics.latency import summarise
from tetribench.metrics.paired import Served
from tetribench.metrics.pooled import pool
from tetribench.metrics.price import Price
from tetribench.metrics.slo import Slo

PRICE = Price(price_per_device_hour=3.6)


@pytest.fixture
def result(disaggregated: list[Event]) -> SystemResult:
    return measure("tetri", disaggregated, Slo(ttft_s=0.5), PRICE)


def servings(*results: SystemResult, repeats: Sequence[int] = ()) -> list[Served]:
    return [Served(repeat, slot, one) for slot, (repeat, one) in enumerate(zip(repeats, results, strict=True))]


def with_jct(result: SystemResult, jct_s: Sequence[float]) -> SystemResult:
    """As many requests of one class as there are values."""
    rows = result.requests.iloc[[0] * len(jct_s)].reset_index(drop=True)
    return replace(result, requests=rows.assign(jct_s=list(jct_s), label="LPLD"))


def with_summary(result: SystemResult, **parts: Any) -> SystemResult:
    return replace(result, summary={**result.summary, **parts})


def test_one_serving_is_what_it_is(result: SystemResult) -> None:
    pooled, own = pool(servings(result, repeats=[0]), PRICE), result.summary
    assert pooled["num_servings"] == 1
    for name in ("accounting", "slo", "ledger", "decisions"):
        assert pooled[name] == own[name], name
    for label, metrics in own["metrics"].items():
        for column, known in metrics.items():
            found = pooled["metrics"][label][column]
            assert {name: found[name] for name in known} == known
            assert (found["low"], found["high"]) == (None, None)
            assert found["lowest_mean"] == found["highest_mean"] == pytest.approx(known["mean"])
    for name, value in own["resources"].items():
        assert set(pooled["resources"][name].values()) == {value}
    for label, costs in own["cost"].items():
        assert pooled["cost"][label] == pytest.approx(costs)
    assert list(pooled["metrics"]) == list(own["metrics"])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=30), min_size=1, max_size=6))
def test_percentiles_are_those_of_all_samples(jct_s: list[list[float]]) -> None:
    """Never a mean of percentiles: a serving with few requests counts for few."""
    whole = measure("tetri", [], Slo())
    table = pd.DataFrame({name: pd.Series(dtype="float64") for name in whole.requests.columns})
    tables = [table.reindex(range(len(own))).assign(jct_s=own, label="") for own in jct_s]
    found = pool([Served(number, 0, replace(whole, requests=own)) for number, own in enumerate(tables)], Price())
    jct = found["metrics"][OVERALL]["jct_s"]
    known = summarise([value for own in jct_s for value in own])
    assert {name: jct[name] for name in known} == pytest.approx(known)
    assert jct["lowest_mean"] <= jct["mean"] * (1 + 1e-9) and jct["mean"] <= jct["highest_mean"] * (1 + 1e-9)


def test_servings_of_one_repeat_count_as_one(result: SystemResult) -> None:
    """Four times the same numbers in two repeats: as sure as two, and not as four."""
    low, high = with_jct(result, [1.0, 3.0]), with_jct(result, [5.0, 7.0])
    twice = pool(servings(low, high, high, low, repeats=[0, 1, 1, 0]), PRICE)["metrics"][OVERALL]["jct_s"]
    once = pool(servings(low, high, repeats=[0, 1]), PRICE)["metrics"][OVERALL]["jct_s"]
    assert (twice["low"], twice["high"]) == pytest.approx((once["low"], once["high"]))
    assert once["high"] - once["mean"] == pytest.approx(12.706 * 2.0, rel=1e-4), "t(0.975, 1) standard errors"
    assert (once["lowest_mean"], once["highest_mean"]) == (2.0, 6.0)
    one_repeat = pool(servings(low, high, repeats=[0, 0]), PRICE)["metrics"][OVERALL]["jct_s"]
    assert one_repeat["low"] is None and one_repeat["count"] == 4


def test_a_class_that_a_serving_has_not_got_is_that_of_the_others(result: SystemResult) -> None:
    first = replace(result, requests=result.requests.assign(label="LPHD"))
    found = pool(servings(first, result, repeats=[0, 1]), PRICE)["metrics"]
    assert list(found) == [OVERALL, "HPLD", "LPHD", "LPLD"]
    assert [metrics["jct_s"]["count"] for metrics in found.values()] == [4, 1, 2, 1]
    assert found["LPHD"]["jct_s"]["low"] is None and found[OVERALL]["jct_s"]["low"] is not None


def test_seconds_and_counts_are_summed(result: SystemResult) -> None:
    costs = {"busy_device_seconds": 10.0, "device_seconds": 16.0}
    result = with_summary(result, cost={OVERALL: costs})
    found = pool(servings(result, result, result, repeats=[0, 0, 1]), PRICE)
    own = result.summary
    assert found["accounting"] == {name: 3 * number for name, number in own["accounting"].items()}
    for instance, row in own["ledger"]["instances"].items():
        summed = found["ledger"]["instances"][instance]
        assert (summed["role"], summed["num_devices"]) == (row["role"], row["num_devices"])
        for name in set(row) - {"role", "num_devices"}:
            assert summed[name] == pytest.approx(3 * row[name])
    assert found["ledger"]["total"]["provisioned_s"] == pytest.approx(3 * own["ledger"]["total"]["provisioned_s"])
    for name, counts in own["slo"].items():
        assert found["slo"][name]["num_submitted"] == 3 * counts["num_submitted"]
        assert found["slo"][name]["attained_share"] == counts["attained_share"]
    per_request = {"device_seconds_per_request": 8.0, "cost_per_request_usd": 0.008}
    assert found["cost"][OVERALL] == pytest.approx({name: 3 * value for name, value in costs.items()} | per_request)


def test_what_is_of_a_whole_serving_has_a_mean_and_a_range(result: SystemResult) -> None:
    resources = result.summary["resources"]
    other = with_summary(result, resources={**resources, "makespan_s": 3 * resources["makespan_s"], "energy_j": 5.0})
    other.summary["resources"]["busy_mixed_instances_s"] = 4.0
    found = pool(servings(result, other, repeats=[0, 1]), PRICE)["resources"]
    makespan_s = resources["makespan_s"]
    assert found["makespan_s"] == pytest.approx(
        {"mean": 2 * makespan_s, "lowest": makespan_s, "highest": 3 * makespan_s}
    )
    assert set(found["energy_j"].values()) == {None}, "unknown in one of them"
    assert found["busy_mixed_instances_s"] == {"mean": 2.0, "lowest": 0.0, "highest": 4.0}


def test_shares_of_decisions_are_over_decisions(result: SystemResult) -> None:
    decisions = {
        "num_decisions": 1, "single_share": 1.0, "tied_share": 0.0, "busier_share": 1.0, "none_fitting_share": None,
        "mean_age_s": 0.1, "max_age_s": 0.3,
    }  # fmt: skip
    other = decisions | {"num_decisions": 3, "single_share": 0.0, "mean_age_s": 0.5, "max_age_s": 0.9}
    nothing = dict.fromkeys(decisions) | {"num_decisions": 0}
    results = [with_summary(result, decisions=each) for each in (decisions, other, nothing)]
    found = pool(servings(*results, repeats=[0, 1, 2]), PRICE)["decisions"]
    assert found["num_decisions"] == 4 and found["single_share"] == 0.25
    assert found["mean_age_s"] == pytest.approx(0.4) and found["max_age_s"] == 0.9
    assert found["none_fitting_share"] is None
    assert pool(servings(results[2], repeats=[0]), PRICE)["decisions"] == nothing


def test_of_an_opaque_serving_no_cost_is_known(result: SystemResult) -> None:
    costs = {label: dict.fromkeys(own) for label, own in result.summary["cost"].items()}
    found = pool(servings(result, with_summary(result, cost=costs), repeats=[0, 1]), PRICE)["cost"]
    assert set(found[OVERALL].values()) == {None}


def test_the_steady_state_is_of_the_servings_that_have_one(result: SystemResult) -> None:
    result = replace(result, requests=result.requests.assign(arrived_s=[1.0, 2.0], jct_s=[3.0, 7.0]))
    window = {"why_not": None, "from_s": 1.5, "to_s": 2.0, "num_requests": 1}
    rates = {"request_throughput_per_s": 2.0, "output_throughput_tokens_per_s": 30.0}
    steady = with_summary(result, steady_state=window | rates)
    faster = with_summary(result, steady_state=window | rates | {"request_throughput_per_s": 4.0})
    assert result.summary["steady_state"]["why_not"]
    found = pool(servings(steady, result, faster, repeats=[0, 1, 2]), PRICE)["steady_state"]
    assert found["num_servings"] == 2
    assert found["inside"]["mean_jct_s"] == 7.0
    assert found["inside"]["request_throughput_per_s"] == 3.0
    assert found["whole"]["mean_jct_s"] == 5.0
    assert found["whole"]["request_throughput_per_s"] == result.summary["resources"]["request_throughput_per_s"]
    without = pool(servings(result, repeats=[0]), PRICE)["steady_state"]
    assert without["num_servings"] == 0 and set(without["inside"].values()) == {None}
